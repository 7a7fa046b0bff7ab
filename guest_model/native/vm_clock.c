/* Which VM of a host goes next. */
#include <stdlib.h>

#include "guest_model/native/vm_clock_state.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int allocate(struct fpr_vm_clock *clock)
{
    clock->leaves = 1;
    while (clock->leaves < clock->config.vms)
        clock->leaves *= 2;
    clock->works_count = clock->config.vms * FPR_WORKS_PER_VM + 1;
    clock->vms = calloc(clock->config.vms, sizeof *clock->vms);
    clock->works = calloc(clock->works_count, sizeof *clock->works);
    clock->winners = calloc((size_t)2 * clock->leaves, sizeof *clock->winners);
    clock->next_ns = calloc(clock->leaves, sizeof *clock->next_ns);
    return clock->vms && clock->works && clock->winners && clock->next_ns ? FPR_OK
                                                                          : FPR_HOST_MEMORY;
}

int fpr_vm_clock_create(const struct fpr_vm_clock_config *config, struct fpr_vm_clock **out)
{
    struct fpr_vm_clock *clock;
    int status;

    *out = NULL;
    if (!config->vms || config->vms > FPR_CLOCK_MAX_VMS || !config->turn_ns ||
        config->turn_ns >= FPR_TIME_LIMIT_NS || config->ahead_ns >= FPR_TIME_LIMIT_NS)
        return FPR_BAD_ARGUMENT;
    clock = calloc(1, sizeof *clock);
    if (!clock)
        return FPR_HOST_MEMORY;
    clock->config = *config;
    status = allocate(clock);
    if (status) {
        fpr_vm_clock_destroy(clock);
        return status;
    }
    for (uint32_t i = 0; i < clock->leaves; i++) {
        clock->next_ns[i] = UINT64_MAX;
        clock->winners[clock->leaves + i] = i;
    }
    for (uint32_t node = clock->leaves - 1; node; node--)
        clock->winners[node] = clock->winners[2 * node];
    clock->next_finish_ns = UINT64_MAX;
    clock->idle_cpus = config->cpus;
    clock->queue.before = clock->queue.after = &clock->queue;
    *out = clock;
    return FPR_OK;
}

void fpr_vm_clock_destroy(struct fpr_vm_clock *clock)
{
    if (!clock)
        return;
    for (uint32_t i = 0; clock->vms && i < clock->config.vms; i++)
        if (clock->vms[i].vcpus)
            clock->vms[i].vcpus->clock = NULL;
    free(clock->vms);
    free(clock->works);
    free(clock->winners);
    free(clock->next_ns);
    free(clock);
}

/* Of two slots, the one that goes first. */
static uint32_t earlier(const struct fpr_vm_clock *clock, uint32_t a, uint32_t b)
{
    uint64_t at = clock->next_ns[a], bt = clock->next_ns[b];

    return at < bt || (at == bt && a < b) ? a : b;
}

static void set_next(struct fpr_vm_clock *clock, uint32_t slot, uint64_t next_ns)
{
    clock->next_ns[slot] = next_ns;
    for (uint32_t node = (clock->leaves + slot) / 2; node; node /= 2)
        clock->winners[node] =
            earlier(clock, clock->winners[2 * node], clock->winners[2 * node + 1]);
}

void fpr_clock_update(struct fpr_vm_clock *clock, uint32_t slot)
{
    const struct fpr_clock_vm *vm = &clock->vms[slot];
    uint64_t next_ns = UINT64_MAX;

    if (vm->vcpus)
        next_ns = min_u64(fpr_vcpus_next_ns(vm->vcpus), vm->horizon_ns);
    if (next_ns != clock->next_ns[slot])
        set_next(clock, slot, next_ns);
}

/* Nobody but this slot does anything before that instant; at it, those in front of the slot. */
static uint64_t turn_of(const struct fpr_vm_clock *clock, uint32_t slot)
{
    uint32_t rival = FPR_CLOCK_NO_VM;
    uint64_t turn_ns = UINT64_MAX;

    for (uint32_t node = clock->leaves + slot; node > 1; node /= 2) {
        uint32_t other = clock->winners[node ^ 1];

        rival = rival == FPR_CLOCK_NO_VM ? other : earlier(clock, rival, other);
    }
    if (rival != FPR_CLOCK_NO_VM && clock->next_ns[rival] != UINT64_MAX)
        turn_ns = clock->next_ns[rival] + (slot < rival);
    return min_u64(turn_ns, clock->next_finish_ns);
}

int fpr_vm_clock_add(struct fpr_vm_clock *clock, struct fpr_vcpus *vcpus, uint32_t *slot)
{
    uint32_t at = 0;

    if (vcpus->clock)
        return FPR_BAD_ARGUMENT;
    while (at < clock->config.vms && clock->vms[at].vcpus)
        at++;
    if (at == clock->config.vms)
        return FPR_FULL;
    clock->vms[at] = (struct fpr_clock_vm){.vcpus = vcpus, .horizon_ns = FPR_TIME_LIMIT_NS};
    vcpus->clock = clock;
    vcpus->slot = at;
    *slot = at;
    fpr_clock_update(clock, at);
    return FPR_OK;
}

static bool is_there(const struct fpr_vm_clock *clock, uint32_t slot)
{
    return slot < clock->config.vms && clock->vms[slot].vcpus;
}

int fpr_vm_clock_remove(struct fpr_vm_clock *clock, uint32_t slot, uint64_t now_ns)
{
    struct fpr_clock_vm *vm;

    if (!is_there(clock, slot))
        return FPR_BAD_ARGUMENT;
    vm = &clock->vms[slot];
    for (uint32_t i = 0; i < FPR_WORKS_PER_VM; i++) {
        struct fpr_work *work = &clock->works[slot * FPR_WORKS_PER_VM + i];

        if (work->state != FPR_WORK_NONE)
            fpr_end_work(clock, work, now_ns);
    }
    fpr_drop_host_cpus(vm->vcpus, now_ns);
    vm->vcpus->waiting = 0;
    vm->vcpus->clock = NULL;
    vm->vcpus->turn_until_ns = UINT64_MAX;
    *vm = (struct fpr_clock_vm){0};
    fpr_clock_update(clock, slot);
    return FPR_OK;
}

int fpr_vm_clock_horizon(struct fpr_vm_clock *clock, uint32_t slot, uint64_t horizon_ns)
{
    if (!is_there(clock, slot) || horizon_ns > FPR_TIME_LIMIT_NS)
        return FPR_BAD_ARGUMENT;
    clock->vms[slot].horizon_ns = horizon_ns;
    fpr_clock_update(clock, slot);
    return FPR_OK;
}

int fpr_vm_clock_work(struct fpr_vm_clock *clock, uint32_t slot, uint64_t now_ns, uint64_t cost_ns,
                      uint32_t *work)
{
    if (!is_there(clock, slot) || cost_ns >= FPR_TIME_LIMIT_NS || now_ns >= FPR_TIME_LIMIT_NS)
        return FPR_BAD_ARGUMENT;
    for (uint32_t i = 0; i < FPR_WORKS_PER_VM; i++) {
        struct fpr_work *free_work = &clock->works[slot * FPR_WORKS_PER_VM + i];

        if (free_work->state != FPR_WORK_NONE)
            continue;
        free_work->slot = slot;
        free_work->cost_ns = cost_ns;
        clock->vms[slot].vcpus->waiting++;
        *work = slot * FPR_WORKS_PER_VM + i;
        fpr_start_work(clock, free_work, now_ns);
        return FPR_OK;
    }
    return FPR_FULL;
}

/* The first work that is done: Python wants to know, unless nobody waits for it. */
static void finish_work(struct fpr_vm_clock *clock, struct fpr_clock_stop *stop)
{
    for (uint32_t i = 0; i < clock->works_count; i++) {
        struct fpr_work *work = &clock->works[i];

        if (work->state != FPR_WORK_RUNNING || work->finish_ns != clock->next_finish_ns)
            continue;
        if (work->slot != FPR_CLOCK_NO_VM) {
            clock->vms[work->slot].vcpus->waiting--;
            stop->vm = work->slot;
            stop->work = i;
            stop->vcpu.reason = FPR_STOP_WORK;
            stop->vcpu.now_ns = work->finish_ns;
        }
        fpr_end_work(clock, work, work->finish_ns);
        return;
    }
}

/* Run the VM that is earliest; it stops at once where it is an event of its own that is. */
static int run_vm(struct fpr_vm_clock *clock, uint32_t slot, uint64_t limit_ns,
                  struct fpr_clock_stop *stop)
{
    struct fpr_clock_vm *vm = &clock->vms[slot];
    uint64_t now_ns = clock->next_ns[slot], end_ns = min_u64(vm->horizon_ns, limit_ns);
    int status;

    stop->vm = slot;
    if (now_ns >= vm->horizon_ns) {
        stop->vcpu.reason = FPR_STOP_HORIZON;
        stop->vcpu.now_ns = vm->horizon_ns;
        return FPR_OK;
    }
    vm->vcpus->turn_until_ns = turn_of(clock, slot);
    /* At least what it does first, where nobody may go ahead. */
    end_ns = min_u64(end_ns, now_ns + clock->config.ahead_ns + 1);
    clock->current = vm->vcpus;
    status = fpr_vcpus_advance(vm->vcpus, end_ns, &stop->vcpu);
    clock->current = NULL;
    fpr_clock_update(clock, slot);
    if (stop->vcpu.reason == FPR_STOP_HORIZON || stop->vcpu.reason == FPR_STOP_IDLE)
        stop->vcpu.reason = 0; /* others may be earlier now */
    return status == FPR_LATER ? FPR_OK : status;
}

/* What the host did meanwhile. */
static void look_round(struct fpr_vm_clock *clock, uint64_t now_ns, struct fpr_clock_stop *stop)
{
    if (clock->config.worked_ns && *clock->config.worked_ns != clock->seen_worked_ns) {
        fpr_host_worked(clock, *clock->config.worked_ns - clock->seen_worked_ns);
        clock->seen_worked_ns = *clock->config.worked_ns;
    }
    fpr_pay_work(clock, now_ns);
    if (clock->config.watched && *clock->config.watched != clock->seen_watched &&
        !stop->vcpu.reason) {
        clock->seen_watched = *clock->config.watched;
        stop->vcpu.reason = FPR_STOP_WATCHED;
        stop->vcpu.now_ns = now_ns;
    }
}

int fpr_vm_clock_run(struct fpr_vm_clock *clock, uint64_t limit_ns, struct fpr_clock_stop *stop)
{
    int status = FPR_OK;

    *stop = (struct fpr_clock_stop){.vm = FPR_CLOCK_NO_VM};
    while (!status && !stop->vcpu.reason) {
        uint32_t slot = clock->winners[1];
        uint64_t now_ns = clock->next_ns[slot];

        if (min_u64(clock->next_finish_ns, now_ns) >= limit_ns) {
            stop->vm = FPR_CLOCK_NO_VM;
            stop->vcpu.reason = FPR_STOP_HORIZON;
            stop->vcpu.now_ns = limit_ns;
        } else if (clock->next_finish_ns <= now_ns) {
            finish_work(clock, stop);
        } else {
            status = run_vm(clock, slot, limit_ns, stop);
            look_round(clock, now_ns, stop);
        }
    }
    return status;
}
