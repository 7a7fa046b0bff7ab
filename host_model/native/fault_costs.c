#include "host_model/native/fault_costs.h"

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"

#define PPM 1000000u
#define FIXED_BITS 16 /* of a discard's factor */

int fpr_fault_costs_init(struct fpr_fault_costs *costs, const struct fpr_host_costs *profile,
                         uint64_t seed, uint64_t stream)
{
    int status = fpr_host_costs_check(profile);

    if (status != FPR_OK)
        return status;
    costs->costs = *profile;
    costs->seed = seed;
    costs->period = UINT64_MAX;
    costs->pace_ppm = PPM;
    for (uint32_t i = 0; i < FPR_DRAWS; i++)
        fpr_random_seed(&costs->random[i], seed, stream + ((uint64_t)i << 56));
    return FPR_OK;
}

/* A period's pace depends on the seed and the period alone: a run and its control meet the same
 * machine at the same time. */
static void keep_pace(struct fpr_fault_costs *costs, uint64_t now_ns)
{
    uint64_t period;
    struct fpr_random random;

    if (costs->costs.pace_ns == 0)
        return;
    period = now_ns / costs->costs.pace_ns;
    if (period == costs->period)
        return;
    costs->period = period;
    fpr_random_seed(&random, costs->seed, period);
    costs->pace_ppm = fpr_cost_draw(&costs->costs.pace, &random);
}

uint32_t fpr_faulting(struct fpr_fault_costs *costs, uint32_t self, uint64_t now_ns)
{
    uint32_t others = 0;

    keep_pace(costs, now_ns);

    for (uint32_t i = 0; i < costs->vcpus; i++)
        others += costs->fault_until_ns[i] > now_ns;
    if (self < costs->vcpus)
        others -= costs->fault_until_ns[self] > now_ns;
    return others;
}

void fpr_faults_until(struct fpr_fault_costs *costs, uint32_t vcpu, uint64_t until_ns)
{
    if (vcpu >= costs->vcpus)
        costs->vcpus = vcpu + 1;
    costs->fault_until_ns[vcpu] = until_ns;
}

static uint64_t paced(const struct fpr_fault_costs *costs, uint64_t ns)
{
    return costs->pace_ppm == PPM ? ns : (uint64_t)((unsigned __int128)ns * costs->pace_ppm / PPM);
}

/* Of threads that share CPUs, each has its turn of a slice after those of the others: on average a
 * fault takes as much longer as there are more threads than CPUs. */
static uint64_t wait_for_cpu(struct fpr_fault_costs *costs, uint64_t ns, uint32_t others)
{
    const struct fpr_host_costs *profile = &costs->costs;
    uint64_t threads = (uint64_t)others + 1, waits;

    if (profile->cpus == 0 || threads <= profile->cpus)
        return 0;
    waits = ns / profile->slice_ns;
    waits +=
        fpr_random_below(&costs->random[FPR_DRAW_WAIT], profile->slice_ns) < ns % profile->slice_ns;
    return waits * profile->slice_ns * (threads - profile->cpus) / profile->cpus;
}

/* Of the others, those that execute at the same time: the rest waits for a CPU, and is in nobody's
 * way meanwhile. */
static uint32_t executing(const struct fpr_fault_costs *costs, uint32_t others)
{
    uint64_t cpus = costs->costs.cpus;

    return cpus == 0 || others < cpus ? others : (uint32_t)cpus - 1;
}

/* What one fault costs. */
static uint64_t draw_fault(struct fpr_fault_costs *costs, bool huge, bool refault,
                           struct fpr_others beside)
{
    uint32_t in_faults = huge ? beside.of_host : beside.of_vm;
    uint32_t others = executing(costs, in_faults);
    const struct fpr_host_costs *profile = &costs->costs;
    struct fpr_random *random = costs->random;
    uint64_t ns;

    if (huge)
        ns = refault ? fpr_cost_draw_among(&profile->refault_2m, &profile->refault_2m_steps,
                                           profile->fault_2m_growth_ppm, others,
                                           &random[FPR_DRAW_REFAULT_2M])
                     : fpr_cost_draw_among(&profile->fault_2m, &profile->fault_2m_steps,
                                           profile->fault_2m_growth_ppm, others,
                                           &random[FPR_DRAW_FAULT_2M]);
    else
        ns = refault ? fpr_cost_draw_among(&profile->refault_4k, &profile->refault_4k_steps,
                                           profile->fault_4k_growth_ppm, others,
                                           &random[FPR_DRAW_REFAULT_4K])
                     : fpr_cost_draw_among(&profile->fault_4k, &profile->fault_4k_steps,
                                           profile->fault_4k_growth_ppm, others,
                                           &random[FPR_DRAW_FAULT_4K]);
    return paced(costs, ns) + wait_for_cpu(costs, ns, in_faults);
}

static uint64_t draw_outer(struct fpr_fault_costs *costs, const struct fpr_cost *cost)
{
    return paced(costs, fpr_cost_draw(cost, &costs->random[FPR_DRAW_OUTER]));
}

uint64_t fpr_draw_faults(struct fpr_fault_costs *costs, struct fpr_chunk_faults faults,
                         struct fpr_others others, struct fpr_histogram *latency)
{
    uint64_t sum = 0, ns;

    if (faults.huge) {
        ns = draw_fault(costs, true, faults.refaults != 0, others);
        if (faults.fresh != 0)
            ns += draw_outer(costs, &costs->costs.fault_outer_2m) * faults.fresh / FPR_HUGE_PAGES;
        fpr_histogram_record_inline(latency, ns);
        return ns;
    }
    for (uint32_t i = 0; i < faults.pages; i++) {
        ns = draw_fault(costs, false, i < faults.refaults, others);
        if (i < faults.fresh)
            ns += draw_outer(costs, &costs->costs.fault_outer_4k);
        fpr_histogram_record_inline(latency, ns);
        sum += ns;
    }
    return sum;
}

uint32_t fpr_fresh_pages(const struct fpr_fault_costs *costs, uint64_t *most_pages,
                         uint64_t resident_pages)
{
    uint64_t fresh = resident_pages > *most_pages ? resident_pages - *most_pages : 0;

    if (fresh != 0)
        *most_pages = resident_pages;
    return costs->costs.fault_outer_4k.ns[FPR_COST_POINTS - 1] == 0 ? 0 : (uint32_t)fresh;
}

static uint64_t grow(const struct fpr_fault_costs *costs, uint64_t ns, uint64_t grow_factor)
{
    return paced(costs, (uint64_t)((unsigned __int128)ns * grow_factor >> FIXED_BITS));
}

static uint64_t draw(struct fpr_fault_costs *costs, const struct fpr_cost *cost,
                     uint64_t grow_factor)
{
    return grow(costs, fpr_cost_draw(cost, &costs->random[FPR_DRAW_DISCARD]), grow_factor);
}

uint64_t fpr_discard_factor(const struct fpr_fault_costs *costs, uint32_t others)
{
    return ((PPM + (uint64_t)costs->costs.discard_growth_ppm * others) << FIXED_BITS) / PPM;
}

uint64_t fpr_draw_discard_call(struct fpr_fault_costs *costs, uint64_t grown)
{
    return draw(costs, &costs->costs.discard_call, grown);
}

uint64_t fpr_draw_discard_flush(struct fpr_fault_costs *costs, uint64_t grown)
{
    return draw(costs, &costs->costs.discard_flush, grown);
}

bool fpr_huge_pages_in_sum(const struct fpr_fault_costs *costs, struct fpr_chunk_range range,
                           struct fpr_chunk_mapped found)
{
    return found.huge && range.count == FPR_HUGE_PAGES &&
           costs->costs.discard_huge_2m_steps.count != 0;
}

uint64_t fpr_draw_discard_huge(struct fpr_fault_costs *costs, uint64_t huge_pages, uint64_t grown)
{
    const struct fpr_host_costs *profile = &costs->costs;
    uint64_t ns = fpr_cost_draw_sum(&profile->discard_huge_2m, &profile->discard_huge_2m_steps,
                                    huge_pages, &costs->random[FPR_DRAW_DISCARD]);

    return grow(costs, ns, grown);
}

uint64_t fpr_draw_discard(struct fpr_fault_costs *costs, struct fpr_chunk_range range,
                          struct fpr_chunk_mapped found, uint64_t grown)
{
    const struct fpr_host_costs *profile = &costs->costs;
    uint64_t sum = 0;

    if (found.pages == 0) {
        sum = draw(costs, &profile->discard_empty_2m, grown);
        if (found.table && profile->discard_table_2m.ns[FPR_COST_POINTS - 1] != 0)
            sum += draw(costs, &profile->discard_table_2m, grown);
        return sum * range.count / FPR_HUGE_PAGES;
    }
    if (found.huge && range.count == FPR_HUGE_PAGES)
        return draw(costs, &profile->discard_huge_2m, grown);
    if (found.huge)
        sum = draw(costs, &profile->discard_split_2m, grown);
    return sum + draw(costs, &profile->discard_4k, grown) * found.pages;
}
