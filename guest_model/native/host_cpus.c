/* The host's CPUs: which vCPU, and which work of the host, has one. A first-come queue; whoever has
 * had its turn goes to its end while others wait. */
#include "guest_model/native/vm_clock_state.h"

static void append(struct fpr_vm_clock *clock, struct fpr_waiter *waiter, uint64_t now_ns)
{
    struct fpr_waiter *list = &clock->queue;

    waiter->since_ns = now_ns;
    waiter->after = list;
    waiter->before = list->before;
    list->before->after = waiter;
    list->before = waiter;
}

static void take_out(struct fpr_waiter *waiter)
{
    waiter->before->after = waiter->after;
    waiter->after->before = waiter->before;
}

static bool somebody_waits(const struct fpr_vm_clock *clock)
{
    return clock->queue.after != &clock->queue;
}

static void begin_turn(struct fpr_vm_clock *clock, struct fpr_cpu *cpu, uint64_t now_ns)
{
    cpu->host_cpu = FPR_HOST_CPU_HELD;
    cpu->turn_end_ns = now_ns + clock->config.turn_ns;
}

static void begin_work(struct fpr_vm_clock *clock, struct fpr_work *work, uint64_t now_ns)
{
    work->state = FPR_WORK_RUNNING;
    work->finish_ns = now_ns + work->cost_ns;
    if (work->finish_ns < clock->next_finish_ns)
        clock->next_finish_ns = work->finish_ns;
}

/* Whoever runs goes no further than this without asking who is earlier now. */
static void interrupt_current(struct fpr_vm_clock *clock, uint64_t now_ns)
{
    if (clock->current && clock->current->turn_until_ns > now_ns)
        clock->current->turn_until_ns = now_ns;
}

/* A CPU is free from now_ns on: the first in the queue has it. */
static void give_next(struct fpr_vm_clock *clock, uint64_t now_ns)
{
    struct fpr_waiter *first = clock->queue.after;
    struct fpr_cpu *cpu;

    if (first == &clock->queue) {
        clock->idle_cpus++;
        return;
    }
    take_out(first);
    interrupt_current(clock, now_ns);
    if (!first->vcpus) {
        begin_work(clock, &clock->works[first->index], now_ns);
        return;
    }
    cpu = &first->vcpus->cpus[first->index];
    first->vcpus->waiting--;
    begin_turn(clock, cpu, now_ns);
    if (cpu->clock_ns < now_ns)
        cpu->clock_ns = now_ns;
    if (cpu->current != FPR_NIL)
        first->vcpus->tasks[cpu->current].view.steal_ns += now_ns - first->since_ns;
    else
        fpr_leave_host_cpu(cpu, now_ns); /* its task was over before it had its turn */
    fpr_update_key(first->vcpus, first->index);
    fpr_clock_update(clock, first->vcpus->slot);
}

static void enqueue(struct fpr_vcpus *v, uint32_t index, uint64_t now_ns)
{
    struct fpr_cpu *cpu = &v->cpus[index];

    cpu->host_cpu = FPR_HOST_CPU_QUEUED;
    v->waiting++;
    fpr_set_running(v, cpu, 0);
    cpu->waiter.vcpus = v;
    cpu->waiter.index = index;
    append(v->clock, &cpu->waiter, now_ns);
    fpr_update_key(v, index);
}

int fpr_want_host_cpu(struct fpr_vcpus *v, uint32_t index, uint64_t now_ns)
{
    struct fpr_cpu *cpu = &v->cpus[index];
    struct fpr_vm_clock *clock = v->clock;

    if (!clock->config.cpus) {
        cpu->turn_end_ns = FPR_TIME_LIMIT_NS;
        return FPR_OK;
    }
    if (cpu->host_cpu == FPR_HOST_CPU_HELD && now_ns < cpu->turn_end_ns)
        return FPR_OK;
    if (now_ns >= v->turn_until_ns)
        return FPR_LATER;
    if (cpu->host_cpu == FPR_HOST_CPU_HELD) {
        if (!somebody_waits(clock)) {
            begin_turn(clock, cpu, now_ns);
            return FPR_OK;
        }
        give_next(clock, now_ns);
        enqueue(v, index, now_ns);
        return FPR_EMPTY;
    }
    if (cpu->host_cpu == FPR_HOST_CPU_LEAVING) {
        cpu->host_cpu = FPR_HOST_CPU_NONE;
        give_next(clock, now_ns);
        fpr_update_key(v, index);
        return FPR_EMPTY;
    }
    if (!clock->idle_cpus) {
        enqueue(v, index, now_ns);
        return FPR_EMPTY;
    }
    clock->idle_cpus--;
    begin_turn(clock, cpu, now_ns);
    return FPR_OK;
}

void fpr_leave_host_cpu(struct fpr_cpu *cpu, uint64_t from_ns)
{
    if (cpu->host_cpu != FPR_HOST_CPU_HELD)
        return;
    cpu->host_cpu = FPR_HOST_CPU_LEAVING;
    cpu->leave_ns = from_ns;
}

void fpr_drop_host_cpus(struct fpr_vcpus *v, uint64_t now_ns)
{
    for (uint32_t i = 0; i < v->config.cpus; i++) {
        struct fpr_cpu *cpu = &v->cpus[i];
        enum fpr_host_cpu had = cpu->host_cpu;

        cpu->host_cpu = FPR_HOST_CPU_NONE;
        if (had == FPR_HOST_CPU_QUEUED)
            take_out(&cpu->waiter);
        else if (had != FPR_HOST_CPU_NONE)
            give_next(v->clock, now_ns);
    }
}

void fpr_start_work(struct fpr_vm_clock *clock, struct fpr_work *work, uint64_t now_ns)
{
    if (clock->config.cpus && !clock->idle_cpus) {
        work->state = FPR_WORK_QUEUED;
        work->waiter.vcpus = NULL;
        work->waiter.index = (uint32_t)(work - clock->works);
        append(clock, &work->waiter, now_ns);
        return;
    }
    if (clock->config.cpus)
        clock->idle_cpus--;
    begin_work(clock, work, now_ns);
}

void fpr_end_work(struct fpr_vm_clock *clock, struct fpr_work *work, uint64_t now_ns)
{
    enum fpr_work_state had = work->state;

    work->state = FPR_WORK_NONE;
    clock->next_finish_ns = UINT64_MAX;
    for (uint32_t i = 0; i < clock->works_count; i++)
        if (clock->works[i].state == FPR_WORK_RUNNING &&
            clock->works[i].finish_ns < clock->next_finish_ns)
            clock->next_finish_ns = clock->works[i].finish_ns;
    if (had == FPR_WORK_QUEUED)
        take_out(&work->waiter);
    else if (clock->config.cpus)
        give_next(clock, now_ns);
}

void fpr_host_worked(struct fpr_vm_clock *clock, uint64_t cost_ns)
{
    if (clock->config.cpus)
        clock->owed_ns += cost_ns;
}

void fpr_pay_work(struct fpr_vm_clock *clock, uint64_t now_ns)
{
    struct fpr_work *own = &clock->works[clock->works_count - 1];

    if (!clock->owed_ns || own->state != FPR_WORK_NONE)
        return;
    own->slot = FPR_CLOCK_NO_VM;
    own->cost_ns = clock->owed_ns;
    clock->owed_ns = 0;
    fpr_start_work(clock, own, now_ns);
}
