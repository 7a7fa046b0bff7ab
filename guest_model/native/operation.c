/* What one step of a task does, and what it costs. */
#include "emulator/native/histogram_inline.h"
#include "guest_model/native/known_zero.h"
#include "guest_model/native/vcpu_state.h"

#define MOST_ASKED 8u /* for operations, at one instant */
#define GATHER_FOLIOS 15u
#define GATHER_FIRST 8u
#define GATHER_BATCH 510u
#define GATHER_MOST (GATHER_FIRST + 19u * GATHER_BATCH)
#define FPR_HUGE_ORDER 9 /* 2 MiB: the order that the costs of huge pages are stated for */

static const struct fpr_touch_cost NO_FAULT = {0};

static void owner_append(struct fpr_vcpus *v, struct fpr_owner *owner, uint64_t pfn, uint32_t order)
{
    struct fpr_page *page = fpr_page(v->allocator, pfn);

    page->next = FPR_NIL;
    page->prev = FPR_LISTED;
    if (owner->head == FPR_NIL)
        owner->head = (uint32_t)pfn;
    else
        fpr_page(v->allocator, owner->tail)->next = (uint32_t)pfn;
    owner->tail = (uint32_t)pfn;
    owner->blocks++;
    owner->pages += (uint64_t)1 << order;
}

/* The guest's own work takes longer while other vCPUs are busy. */
static uint64_t grown(const struct fpr_vcpus *v, uint64_t kernel_ns, uint64_t memory_ns)
{
    const struct fpr_growth *growth = &v->growth[v->running];

    __uint128_t cost = (__uint128_t)kernel_ns * growth->kernel;

    cost = (cost + (__uint128_t)memory_ns * growth->memory) >> FPR_GROWTH_SHIFT;
    return cost < FPR_TIME_LIMIT_NS ? (uint64_t)cost : FPR_TIME_LIMIT_NS;
}

/* Time passes for a task. Every step takes some, so that no stream stands still. */
static void spend(struct fpr_cpu *cpu, struct fpr_task *task, uint64_t guest_ns,
                  struct fpr_touch_cost host)
{
    uint64_t cost = guest_ns + host.ns;

    if (!cost)
        cost = 1;
    if (cost > FPR_TIME_LIMIT_NS)
        cost = FPR_TIME_LIMIT_NS;
    cpu->clock_ns += cost;
    cpu->asleep_ns = host.asleep_ns;
    task->view.busy_ns += cost;
    task->view.fault_ns += host.ns;
}

/* A task writes frames; where others on the host are earlier, it may have to wait for them. */
static int touch(struct fpr_vcpus *v, const struct fpr_cpu *cpu, uint32_t cpu_index, uint64_t pfn,
                 uint64_t frames, struct fpr_touch_cost *cost)
{
    uint32_t flags = FPR_TOUCH_WRITE | (cpu->clock_ns < v->turn_until_ns ? 0 : FPR_TOUCH_AHEAD);

    return v->port.touch(v->port.host, pfn, frames, flags, cpu->clock_ns, cpu_index, cost);
}

/* Huge pages for a fault are taken where they are free, and not reclaimed for; so is what can be
 * done without. */
static uint32_t alloc_flags(const struct fpr_op *op, uint32_t order)
{
    uint32_t flags = op->flags & FPR_OP_DMA32 ? FPR_ALLOC_DMA32 : 0;

    flags |= op->flags & FPR_OP_COLD ? FPR_ALLOC_COLD : 0;
    if (op->flags & FPR_OP_OPTIONAL)
        return flags | FPR_ALLOC_NO_RECLAIM;
    return order && op->flags & FPR_OP_PIECEMEAL ? flags | FPR_ALLOC_NO_RECLAIM : flags;
}

static bool is_huge(uint32_t order)
{
    return order >= FPR_HUGE_ORDER;
}

/* Work of the guest on a block that it got, the host's faults apart. */
static uint64_t alloc_cost(const struct fpr_vcpus *v, uint32_t flags, uint32_t order)
{
    const struct fpr_guest_costs *costs = &v->config.costs;
    uint64_t kernel = is_huge(order) ? costs->alloc_thp_ns : costs->alloc_4k_ns;
    uint64_t memory = 0;

    if (flags & FPR_OP_FAULTED)
        kernel += is_huge(order) ? costs->fault_thp_ns : costs->fault_4k_ns;
    if (flags & FPR_OP_ZEROED)
        memory += costs->zero_4k_ns << order;
    if (flags & FPR_OP_COPIED)
        memory += costs->copy_4k_ns << order;
    return grown(v, kernel, memory);
}

/* The second half of an allocation, when the block is there: it is written. */
static int use_block(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index,
                     struct fpr_task *task, const struct fpr_op *op)
{
    const struct fpr_taken *taken = &task->taken;
    struct fpr_touch_cost host = {0};
    uint32_t order = taken->order;

    if (taken->frames) {
        int status = touch(v, cpu, cpu_index, taken->pfn, taken->frames, &host);

        if (status)
            return status;
    }
    if (v->allocator->config.rules.keeps_unlisted && op->type == FPR_MOVABLE) {
        int status = fpr_listing_add(v, cpu, cpu_index, taken->pfn);

        if (status)
            return status;
    }
    fpr_histogram_record_inline(v->alloc_latency, taken->guest_ns + host.ns);
    task->view.huge_faults += order && op->flags & FPR_OP_FAULTED;
    if (op->flags & FPR_OP_COUNTED)
        task->view.units += (uint64_t)1 << order;
    spend(cpu, task, taken->guest_ns, host);
    task->taken.waits = false;
    if (task->pieces && --task->pieces)
        return FPR_OK;
    task->done++;
    return FPR_OK;
}

static int alloc_step(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index,
                      struct fpr_task *task, const struct fpr_op *op, struct fpr_vcpu_stop *stop)
{
    uint32_t order = task->pieces ? 0 : op->order, flags = op->flags;
    uint64_t pfn, frames = (uint64_t)1 << order;
    int status;

    if (task->taken.waits)
        return use_block(v, cpu, cpu_index, task, op);
    status = fpr_alloc(v->allocator, cpu_index, order, op->type, alloc_flags(op, order), &pfn);
    if (status == FPR_NO_MEMORY) {
        if (order && op->flags & FPR_OP_PIECEMEAL) {
            task->pieces = (uint32_t)1 << order;
            task->view.huge_fallbacks++;
            return FPR_OK;
        }
        spend(cpu, task, alloc_cost(v, op->flags & FPR_OP_FAULTED, 0), NO_FAULT);
        task->failed_done = task->done;
        task->failed_pieces = task->pieces;
        task->position++;
        task->done = task->pieces = 0;
        if (op->flags & FPR_OP_OPTIONAL)
            return FPR_OK;
        task->view.failures++;
        task->failed = true;
        stop->reason = FPR_STOP_FAILED;
        stop->order = order;
        return FPR_OK;
    }
    if (status)
        return status;
    owner_append(v, &v->owners[op->owner], pfn, order);
    if (op->flags & FPR_OP_ZEROED && fpr_known_zero_taken(v->allocator)) {
        flags &= ~FPR_OP_ZEROED;
        frames = 1; /* what asked for it uses a page of it; the rest is used when it is used */
    }
    task->taken = (struct fpr_taken){
        .pfn = pfn,
        .guest_ns = alloc_cost(v, flags, order),
        .frames = op->flags & (FPR_OP_ZEROED | FPR_OP_COPIED) ? (uint32_t)frames : 0,
        .order = order,
        .waits = true,
    };
    return use_block(v, cpu, cpu_index, task, op);
}

/* The next `count` blocks of an owner, or what it has, in the opposite order. */
static void turn_round(struct fpr_vcpus *v, struct fpr_owner *owner, uint64_t count)
{
    uint32_t first = owner->head, last = first, before = FPR_NIL, at = first;

    for (; count && at != FPR_NIL; count--) {
        struct fpr_page *page = fpr_page(v->allocator, at);
        uint32_t next = page->next;

        page->next = before;
        before = last = at;
        at = next;
    }
    fpr_page(v->allocator, first)->next = at;
    owner->head = last;
    if (at == FPR_NIL)
        owner->tail = first;
}

/* How many blocks are gathered before they are freed. */
static uint64_t gather(const struct fpr_task *task, const struct fpr_op *op,
                       const struct fpr_owner *owner)
{
    if (op->flags & FPR_OP_TRUNCATED)
        return GATHER_FOLIOS;
    if (op->flags & FPR_OP_UNMAPPED)
        return task->done % GATHER_MOST ? GATHER_BATCH : GATHER_FIRST;
    if (op->flags & FPR_OP_AT_ONCE)
        return owner->blocks;
    return 1;
}

static int free_step(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index,
                     struct fpr_task *task, const struct fpr_op *op, struct fpr_owner *owner)
{
    const struct fpr_page *page;
    uint32_t pfn;
    const struct fpr_guest_costs *costs = &v->config.costs;
    uint32_t order;
    int status;

    if (!task->done && op->flags & FPR_OP_TRUNCATED) {
        status = fpr_listing_flush(v, cpu, cpu_index);
        if (status)
            return status;
    }
    if (!task->gathered) {
        task->gathered = gather(task, op, owner);
        if (op->count && op->count - task->done < task->gathered)
            task->gathered = op->count - task->done;
        if (v->allocator->config.rules.frees_reversed)
            turn_round(v, owner, task->gathered);
    }
    task->gathered--;
    pfn = owner->head;
    page = fpr_page(v->allocator, pfn);
    order = page->order;
    owner->head = page->next;
    if (owner->head == FPR_NIL)
        owner->tail = FPR_NIL;
    owner->blocks--;
    owner->freed++;
    owner->pages -= (uint64_t)1 << order;
    status = fpr_listing_free(v, cpu, cpu_index, pfn, op->flags & FPR_OP_COLD ? FPR_FREE_COLD : 0);
    if (status)
        return status;
    spend(cpu, task, grown(v, is_huge(order) ? costs->free_thp_ns : costs->free_4k_ns, 0),
          NO_FAULT);
    task->done++;
    return FPR_OK;
}

static int touch_step(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index,
                      struct fpr_task *task)
{
    const struct fpr_page *page = fpr_page(v->allocator, task->cursor);
    uint64_t frames = (uint64_t)1 << page->order;
    struct fpr_touch_cost host;
    int status = touch(v, cpu, cpu_index, task->cursor, frames, &host);

    if (status)
        return status;
    spend(cpu, task, grown(v, 0, v->config.costs.zero_4k_ns * frames), host);
    task->cursor = page->next;
    task->done++;
    return FPR_OK;
}

static bool owner_done(const struct fpr_task *task, const struct fpr_op *op, uint32_t block)
{
    return block == FPR_NIL || (op->count && task->done >= op->count);
}

/* Operations that take no block: executed whole. */
static void plain_step(struct fpr_cpu *cpu, struct fpr_task *task, const struct fpr_op *op)
{
    uint64_t wake = op->count;

    switch (op->kind) {
    case FPR_OP_WAIT:
        wake += cpu->clock_ns;
        /* fall through */
    case FPR_OP_UNTIL:
        task->wake_ns = wake < FPR_TIME_LIMIT_NS ? wake : FPR_TIME_LIMIT_NS;
        if (task->wake_ns > cpu->clock_ns)
            task->view.paused_ns += task->wake_ns - cpu->clock_ns;
        task->view.wake_ns = task->wake_ns;
        break;
    case FPR_OP_WORK:
        spend(cpu, task, op->count, NO_FAULT);
        break;
    default: /* FPR_OP_UNITS; fpr_check_ops has let no other through */
        task->view.units += op->count;
    }
}

int fpr_step(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint32_t task_index,
             struct fpr_vcpu_stop *stop)
{
    struct fpr_task *task = &v->tasks[task_index];
    const struct fpr_op *op;
    struct fpr_owner *owner;

    if (task->position >= task->length) {
        stop->reason = FPR_STOP_REFILL;
        stop->task = task_index;
        task->asked = task->asked_ns == cpu->clock_ns ? task->asked + 1 : 0;
        if (task->asked == MOST_ASKED) { /* a stream of nothing must not stand still */
            spend(cpu, task, 0, NO_FAULT);
            task->asked = 0;
        }
        task->asked_ns = cpu->clock_ns;
        return FPR_OK;
    }
    op = &task->ops[task->position];
    owner = &v->owners[op->owner];
    task->failed &= op->kind == FPR_OP_ALLOC && op->flags & FPR_OP_PART;
    switch (op->kind) {
    case FPR_OP_ALLOC:
        if (task->done < op->count && !task->failed) {
            stop->task = task_index;
            return alloc_step(v, cpu, cpu_index, task, op, stop);
        }
        break;
    case FPR_OP_FREE:
        if (!owner_done(task, op, owner->head))
            return free_step(v, cpu, cpu_index, task, op, owner);
        task->gathered = 0;
        break;
    case FPR_OP_TOUCH:
        if (!task->done) {
            task->cursor = owner->head;
            task->freed = owner->freed;
        }
        if (task->freed == owner->freed && !owner_done(task, op, task->cursor))
            return touch_step(v, cpu, cpu_index, task);
        break;
    default:
        plain_step(cpu, task, op);
    }
    task->position++;
    task->done = 0;
    return FPR_OK;
}

int fpr_check_ops(const struct fpr_vcpus *v, const struct fpr_op *ops, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++) {
        const struct fpr_op *op = &ops[i];

        if (op->kind >= FPR_OP_KINDS || op->owner >= v->config.owners)
            return FPR_BAD_ARGUMENT;
        if (op->flags >= FPR_OP_FLAGS)
            return FPR_BAD_ARGUMENT;
        if (op->kind == FPR_OP_ALLOC &&
            (op->order > v->allocator->config.top_order || op->type > FPR_RECLAIMABLE))
            return FPR_BAD_ARGUMENT;
        if (op->kind == FPR_OP_WORK && op->count >= FPR_TIME_LIMIT_NS)
            return FPR_BAD_ARGUMENT;
    }
    return FPR_OK;
}
