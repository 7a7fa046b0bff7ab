/* Which vCPU, and which task on it, goes next. */
#include "guest_model/native/vm_clock_state.h"

#include <stdlib.h>

#define FPR_MAX_GROWTH_PPM 100000000 /* a hundredfold for each vCPU */

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void fpr_vcpus_destroy(struct fpr_vcpus *v)
{
    if (!v)
        return;
    free(v->cpus);
    free(v->tasks);
    free(v->owners);
    free(v->keys);
    free(v->growth);
    free(v);
}

static int allocate(struct fpr_vcpus *v)
{
    v->leaves = 1;
    while (v->leaves < v->config.cpus)
        v->leaves *= 2;
    v->cpus = calloc(v->config.cpus, sizeof *v->cpus);
    v->tasks = calloc(v->config.tasks, sizeof *v->tasks);
    v->owners = calloc(v->config.owners, sizeof *v->owners);
    v->keys = calloc((size_t)2 * v->leaves, sizeof *v->keys);
    v->growth = calloc((size_t)v->config.cpus + 1, sizeof *v->growth);
    return v->cpus && v->tasks && v->owners && v->keys && v->growth ? FPR_OK : FPR_HOST_MEMORY;
}

static uint64_t growth(uint32_t growth_ppm, uint32_t busy)
{
    uint64_t others = busy ? busy - 1 : 0;

    return ((1000000 + growth_ppm * others) << FPR_GROWTH_SHIFT) / 1000000;
}

int fpr_vcpus_create(const struct fpr_vcpus_config *config, struct fpr_allocator *allocator,
                     const struct fpr_memory_port *port, struct fpr_histogram *alloc_latency,
                     struct fpr_vcpus **out)
{
    struct fpr_vcpus *v;
    int status;

    if (!config->cpus || config->cpus > FPR_MAX_CPUS || config->cpus > allocator->config.cpus ||
        !config->tasks || !config->owners || !config->slice_ns || !port->touch ||
        config->costs.kernel_growth_ppm > FPR_MAX_GROWTH_PPM ||
        config->costs.memory_growth_ppm > FPR_MAX_GROWTH_PPM)
        return FPR_BAD_ARGUMENT;
    v = calloc(1, sizeof *v);
    if (!v)
        return FPR_HOST_MEMORY;
    v->config = *config;
    v->allocator = allocator;
    v->port = *port;
    v->alloc_latency = alloc_latency;
    v->turn_until_ns = UINT64_MAX;
    status = allocate(v);
    if (status) {
        fpr_vcpus_destroy(v);
        return status;
    }
    for (uint32_t i = 0; i < 2 * v->leaves; i++)
        v->keys[i] = FPR_IDLE_KEY;
    for (uint32_t i = 0; i < config->cpus; i++)
        v->cpus[i].current = v->cpus[i].last = FPR_NIL;
    for (uint32_t i = 0; i <= config->cpus; i++)
        v->growth[i] = (struct fpr_growth){growth(config->costs.kernel_growth_ppm, i),
                                           growth(config->costs.memory_growth_ppm, i)};
    for (uint32_t i = 0; i < config->owners; i++)
        v->owners[i].head = v->owners[i].tail = FPR_NIL;
    *out = v;
    return FPR_OK;
}

/* When the vCPU's next operation starts, as a key of the tree. */
static uint64_t key_of(const struct fpr_vcpus *v, uint32_t index)
{
    const struct fpr_cpu *cpu = &v->cpus[index];

    if (cpu->host_cpu == FPR_HOST_CPU_LEAVING)
        return cpu->leave_ns << FPR_CPU_BITS | index;
    if (cpu->current == FPR_NIL || cpu->host_cpu == FPR_HOST_CPU_QUEUED)
        return FPR_IDLE_KEY;
    return max_u64(cpu->clock_ns, v->tasks[cpu->current].wake_ns) << FPR_CPU_BITS | index;
}

void fpr_update_key(struct fpr_vcpus *v, uint32_t index)
{
    uint64_t key = key_of(v, index);
    uint64_t *keys = v->keys;

    for (uint32_t node = v->leaves + index;; node /= 2) {
        keys[node] = key;
        if (node == 1)
            return;
        key = min_u64(key, keys[node ^ 1]);
    }
}

/* The smallest key of all other vCPUs. */
static uint64_t rival_key(const struct fpr_vcpus *v, uint32_t index)
{
    uint64_t key = FPR_IDLE_KEY;

    for (uint32_t node = v->leaves + index; node > 1; node /= 2)
        key = min_u64(key, v->keys[node ^ 1]);
    return key;
}

void fpr_set_running(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t running)
{
    v->running += running - cpu->running;
    cpu->running = running;
}

/* Choose the task to run: round-robin among those that are runnable, else the first to wake. */
static void choose(struct fpr_vcpus *v, struct fpr_cpu *cpu)
{
    uint32_t first = cpu->last == FPR_NIL ? FPR_NIL : v->tasks[cpu->last].next;
    uint32_t best = FPR_NIL, index = first;

    if (first != FPR_NIL) {
        do {
            const struct fpr_task *task = &v->tasks[index];

            if (task->wake_ns <= cpu->clock_ns) {
                best = index;
                break;
            }
            if (best == FPR_NIL || task->wake_ns < v->tasks[best].wake_ns)
                best = index;
            index = task->next;
        } while (index != first);
    }
    cpu->current = best;
    fpr_set_running(v, cpu,
                    best != FPR_NIL && v->tasks[best].wake_ns <= cpu->clock_ns &&
                        cpu->host_cpu != FPR_HOST_CPU_QUEUED);
    if (!cpu->running)
        fpr_leave_host_cpu(cpu, cpu->clock_ns);
    if (best == FPR_NIL)
        return;
    cpu->last = best;
    cpu->slice_end_ns = UINT64_MAX;
    if (v->tasks[best].next != best)
        cpu->slice_end_ns = max_u64(cpu->clock_ns, v->tasks[best].wake_ns) + v->config.slice_ns;
}

int fpr_vcpus_start(struct fpr_vcpus *v, uint32_t index, uint32_t cpu_index, uint64_t now_ns)
{
    struct fpr_task *task;
    struct fpr_cpu *cpu;

    if (index >= v->config.tasks || cpu_index >= v->config.cpus || now_ns >= FPR_TIME_LIMIT_NS)
        return FPR_BAD_ARGUMENT;
    task = &v->tasks[index];
    cpu = &v->cpus[cpu_index];
    if (task->view.state == FPR_TASK_LIVE)
        return FPR_BAD_ARGUMENT;
    task->view = (struct fpr_task_view){.state = FPR_TASK_LIVE, .cpu = cpu_index};
    task->wake_ns = now_ns;
    task->asked_ns = UINT64_MAX;
    task->ops = NULL;
    task->failed = task->taken.waits = false;
    task->length = task->position = task->done = task->gathered = task->pieces = 0;
    task->cursor = FPR_NIL;
    if (cpu->last == FPR_NIL) {
        task->next = cpu->last = index;
    } else {
        task->next = v->tasks[cpu->last].next;
        v->tasks[cpu->last].next = index;
    }
    if (!cpu->running) {
        cpu->clock_ns = max_u64(cpu->clock_ns, now_ns);
        choose(v, cpu);
    } else if (cpu->slice_end_ns == UINT64_MAX) {
        cpu->slice_end_ns = cpu->clock_ns + v->config.slice_ns;
    }
    fpr_update_key(v, cpu_index);
    return FPR_OK;
}

static void finish(struct fpr_vcpus *v, uint32_t index)
{
    struct fpr_task *task = &v->tasks[index];
    struct fpr_cpu *cpu = &v->cpus[task->view.cpu];
    uint32_t before = index;

    while (v->tasks[before].next != index)
        before = v->tasks[before].next;
    v->tasks[before].next = task->next;
    if (cpu->last == index)
        cpu->last = before == index ? FPR_NIL : before;
    task->view.state = FPR_TASK_DONE;
    task->view.end_ns = max_u64(cpu->clock_ns, task->wake_ns);
    if (cpu->current == index)
        choose(v, cpu);
    fpr_update_key(v, task->view.cpu);
}

int fpr_vcpus_refill(struct fpr_vcpus *v, uint32_t index, const struct fpr_op *ops, uint64_t length)
{
    struct fpr_task *task;
    int status;

    if (index >= v->config.tasks || v->tasks[index].view.state != FPR_TASK_LIVE)
        return FPR_BAD_ARGUMENT;
    status = fpr_check_ops(v, ops, length);
    if (status)
        return status;
    task = &v->tasks[index];
    task->ops = ops;
    task->length = length;
    task->position = task->done = task->gathered = task->pieces = 0;
    task->cursor = FPR_NIL;
    if (!length)
        finish(v, index);
    return FPR_OK;
}

int fpr_vcpus_interrupt(struct fpr_vcpus *v, uint32_t index, uint64_t now_ns,
                        const struct fpr_op *ops, uint64_t length)
{
    struct fpr_task *task;
    struct fpr_cpu *cpu;
    int status;

    if (index >= v->config.tasks || v->tasks[index].view.state != FPR_TASK_LIVE || !length ||
        now_ns >= FPR_TIME_LIMIT_NS)
        return FPR_BAD_ARGUMENT;
    status = fpr_vcpus_refill(v, index, ops, length);
    if (status)
        return status;
    task = &v->tasks[index];
    cpu = &v->cpus[task->view.cpu];
    if (task->wake_ns > now_ns) { /* it does not sleep on */
        task->view.paused_ns -= min_u64(task->wake_ns - now_ns, task->view.paused_ns);
        task->view.wake_ns = task->wake_ns = now_ns;
    }
    if (!cpu->running) {
        cpu->clock_ns = max_u64(cpu->clock_ns, now_ns);
        choose(v, cpu);
        fpr_update_key(v, task->view.cpu);
    }
    return FPR_OK;
}

int fpr_vcpus_retry(struct fpr_vcpus *v, uint32_t index)
{
    struct fpr_task *task;

    if (index >= v->config.tasks || v->tasks[index].view.state != FPR_TASK_LIVE)
        return FPR_BAD_ARGUMENT;
    task = &v->tasks[index];
    if (!task->position || task->done || !task->view.failures)
        return FPR_BAD_ARGUMENT;
    task->position--;
    task->done = task->failed_done;
    task->pieces = task->failed_pieces;
    task->failed = false;
    task->view.failures--;
    return FPR_OK;
}

/* Run one vCPU until its key reaches `limit`, its task changes, or Python is needed. */
static int run_cpu(struct fpr_vcpus *v, uint32_t index, uint64_t limit, struct fpr_vcpu_stop *stop)
{
    struct fpr_cpu *cpu = &v->cpus[index];
    const uint32_t current = cpu->current;
    struct fpr_task *task = &v->tasks[current];
    int status;

    cpu->clock_ns = max_u64(cpu->clock_ns, task->wake_ns);
    fpr_set_running(v, cpu, 1);
    do {
        if (cpu->clock_ns >= cpu->slice_end_ns) {
            choose(v, cpu);
            return FPR_OK;
        }
        status = fpr_step(v, cpu, index, current, stop);
        if (status || stop->reason || v->allocator->notify.raised)
            return status;
        if (task->wake_ns > cpu->clock_ns) {
            choose(v, cpu);
            return FPR_OK;
        }
        if (cpu->asleep_ns && cpu->host_cpu) {
            fpr_leave_host_cpu(cpu, cpu->clock_ns - cpu->asleep_ns);
            return FPR_OK;
        }
    } while ((cpu->clock_ns << FPR_CPU_BITS | index) < limit);
    return FPR_OK;
}

int fpr_vcpus_advance(struct fpr_vcpus *v, uint64_t end_ns, struct fpr_vcpu_stop *stop)
{
    struct fpr_notify *notify = &v->allocator->notify;

    *stop = (struct fpr_vcpu_stop){.now_ns = end_ns};
    while (!stop->reason) {
        uint64_t key = v->keys[1];
        uint64_t limit_ns = v->waiting ? min_u64(end_ns, v->turn_until_ns) : end_ns;
        uint64_t limit = min_u64(limit_ns, FPR_TIME_LIMIT_NS) << FPR_CPU_BITS;
        uint32_t index = (uint32_t)key & (FPR_MAX_CPUS - 1);
        int status;

        if (key >= limit) {
            stop->reason = key == FPR_IDLE_KEY ? FPR_STOP_IDLE : FPR_STOP_HORIZON;
            return FPR_OK;
        }
        if (v->clock) {
            status = fpr_want_host_cpu(v, index, key >> FPR_CPU_BITS);
            if (status == FPR_EMPTY)
                continue; /* it waits, and another one is earliest */
            if (status)
                return status;
            limit = min_u64(limit, v->cpus[index].turn_end_ns << FPR_CPU_BITS);
        }
        status = run_cpu(v, index, min_u64(rival_key(v, index), limit), stop);
        fpr_update_key(v, index);
        if (status)
            return status;
        if (!stop->reason && notify->raised)
            stop->reason = FPR_STOP_NOTIFY;
        if (stop->reason) {
            stop->cpu = index;
            stop->now_ns = v->cpus[index].clock_ns;
        }
    }
    return FPR_OK;
}

int fpr_vcpus_run(struct fpr_vcpus *v, uint64_t horizon_ns, struct fpr_vcpu_stop *stop)
{
    return v->clock ? FPR_BAD_ARGUMENT : fpr_vcpus_advance(v, horizon_ns, stop);
}

uint64_t fpr_vcpus_next_ns(const struct fpr_vcpus *v)
{
    return v->keys[1] >> FPR_CPU_BITS;
}

int fpr_vcpus_charge(struct fpr_vcpus *v, uint32_t index, uint64_t now_ns, uint64_t cost_ns)
{
    struct fpr_cpu *cpu;

    if (index >= v->config.cpus || now_ns >= FPR_TIME_LIMIT_NS || cost_ns >= FPR_TIME_LIMIT_NS)
        return FPR_BAD_ARGUMENT;
    cpu = &v->cpus[index];
    cpu->clock_ns = min_u64(max_u64(cpu->clock_ns, now_ns) + cost_ns, FPR_TIME_LIMIT_NS);
    fpr_update_key(v, index);
    if (v->clock)
        fpr_host_worked(v->clock, cost_ns);
    return FPR_OK;
}

int fpr_vcpus_task(const struct fpr_vcpus *v, uint32_t task, struct fpr_task_view *out)
{
    if (task >= v->config.tasks)
        return FPR_BAD_ARGUMENT;
    *out = v->tasks[task].view;
    return FPR_OK;
}

int fpr_vcpus_owner(const struct fpr_vcpus *v, uint32_t owner, struct fpr_owner_view *out)
{
    if (owner >= v->config.owners)
        return FPR_BAD_ARGUMENT;
    *out = (struct fpr_owner_view){.blocks = v->owners[owner].blocks,
                                   .pages = v->owners[owner].pages,
                                   .head = v->owners[owner].head};
    return FPR_OK;
}

int fpr_vcpus_owner_read(const struct fpr_vcpus *v, uint32_t owner, uint64_t *pfns,
                         uint64_t capacity, uint64_t *count)
{
    uint64_t n = 0;

    if (owner >= v->config.owners)
        return FPR_BAD_ARGUMENT;
    for (uint32_t pfn = v->owners[owner].head; pfn != FPR_NIL && n < capacity;
         pfn = fpr_page(v->allocator, pfn)->next)
        pfns[n++] = pfn;
    *count = n;
    return FPR_OK;
}
