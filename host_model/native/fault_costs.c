#include "host_model/native/fault_costs.h"

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"

#define PPM 1000000u
#define FIXED_BITS 16 /* of the factors below */

int fpr_fault_costs_init(struct fpr_fault_costs *costs, const struct fpr_host_costs *profile,
                         uint64_t seed, uint64_t stream)
{
    int status = fpr_host_costs_check(profile);

    if (status != FPR_OK)
        return status;
    costs->costs = *profile;
    for (uint32_t i = 0; i < FPR_DRAWS; i++)
        fpr_random_seed(&costs->random[i], seed, stream + ((uint64_t)i << 56));
    return FPR_OK;
}

uint32_t fpr_faulting(const struct fpr_fault_costs *costs, uint32_t self, uint64_t now_ns)
{
    uint32_t others = 0;

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

/* What a cost grows by next to `others`, 2^16 being 1. */
static uint64_t factor(uint32_t growth_ppm, uint32_t others)
{
    return ((PPM + (uint64_t)growth_ppm * others) << FIXED_BITS) / PPM;
}

static uint64_t draw(struct fpr_fault_costs *costs, enum fpr_draw which,
                     const struct fpr_cost *cost, uint64_t grow_factor)
{
    uint64_t ns = fpr_cost_draw(cost, &costs->random[which]);

    return (uint64_t)((unsigned __int128)ns * grow_factor >> FIXED_BITS);
}

uint64_t fpr_draw_faults(struct fpr_fault_costs *costs, struct fpr_chunk_faults faults,
                         uint32_t others, struct fpr_histogram *latency)
{
    const struct fpr_host_costs *profile = &costs->costs;
    uint64_t sum = 0, ns, grown;

    if (faults.huge) {
        grown = factor(profile->fault_2m_growth_ppm, others);
        ns = faults.refaults ? draw(costs, FPR_DRAW_REFAULT_2M, &profile->refault_2m, grown)
                             : draw(costs, FPR_DRAW_FAULT_2M, &profile->fault_2m, grown);
        fpr_histogram_record_inline(latency, ns);
        return ns;
    }
    grown = factor(profile->fault_4k_growth_ppm, others);
    for (uint32_t i = 0; i < faults.pages; i++) {
        ns = i < faults.refaults ? draw(costs, FPR_DRAW_REFAULT_4K, &profile->refault_4k, grown)
                                 : draw(costs, FPR_DRAW_FAULT_4K, &profile->fault_4k, grown);
        fpr_histogram_record_inline(latency, ns);
        sum += ns;
    }
    return sum;
}

uint64_t fpr_discard_factor(const struct fpr_fault_costs *costs, uint32_t others)
{
    return factor(costs->costs.discard_growth_ppm, others);
}

uint64_t fpr_draw_discard_call(struct fpr_fault_costs *costs, uint64_t grown)
{
    return draw(costs, FPR_DRAW_DISCARD, &costs->costs.discard_call, grown);
}

uint64_t fpr_draw_discard_flush(struct fpr_fault_costs *costs, uint64_t grown)
{
    return draw(costs, FPR_DRAW_DISCARD, &costs->costs.discard_flush, grown);
}

uint64_t fpr_draw_discard(struct fpr_fault_costs *costs, struct fpr_chunk_range range,
                          struct fpr_chunk_mapped found, uint64_t grown)
{
    const struct fpr_host_costs *profile = &costs->costs;
    uint64_t sum = 0;

    if (found.pages == 0)
        return draw(costs, FPR_DRAW_DISCARD, &profile->discard_empty_2m, grown) * range.count /
               FPR_HUGE_PAGES;
    if (found.huge && range.count == FPR_HUGE_PAGES)
        return draw(costs, FPR_DRAW_DISCARD, &profile->discard_huge_2m, grown);
    if (found.huge)
        sum = draw(costs, FPR_DRAW_DISCARD, &profile->discard_split_2m, grown);
    return sum + draw(costs, FPR_DRAW_DISCARD, &profile->discard_4k, grown) * found.pages;
}
