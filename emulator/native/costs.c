#include "emulator/native/costs.h"

#include <stddef.h>

#include "emulator/native/status.h"

#define PPM 1000000u

static const uint32_t share[FPR_COST_POINTS] = {0, 500000, 900000, 990000, 999000, PPM};

/* Even within a segment: a + (b - a) * at / width. Constant widths, so that no division is left. */
static uint64_t between(const uint64_t *ns, uint64_t at, uint32_t width)
{
    return ns[0] + (ns[1] - ns[0]) * at / width;
}

uint64_t fpr_cost_draw(const struct fpr_cost *cost, struct fpr_random *random)
{
    uint32_t at = (uint32_t)fpr_random_below(random, PPM);

    if (at < 500000)
        return between(&cost->ns[0], at, 500000);
    if (at < 900000)
        return between(&cost->ns[1], at - 500000, 400000);
    if (at < 990000)
        return between(&cost->ns[2], at - 900000, 90000);
    if (at < 999000)
        return between(&cost->ns[3], at - 990000, 9000);
    return between(&cost->ns[4], at - 999000, 1000);
}

uint64_t fpr_cost_mean(const struct fpr_cost *cost)
{
    uint64_t sum = 0;

    for (size_t i = 0; i + 1 < FPR_COST_POINTS; i++)
        sum += (cost->ns[i] + cost->ns[i + 1]) / 2 * (share[i + 1] - share[i]);
    return sum / PPM;
}

int fpr_host_costs_check(const struct fpr_host_costs *costs)
{
    const struct fpr_cost *all[] = {
        &costs->fault_4k,         &costs->refault_4k,   &costs->fault_2m,
        &costs->refault_2m,       &costs->discard_call, &costs->discard_flush,
        &costs->discard_huge_2m,  &costs->discard_4k,   &costs->discard_empty_2m,
        &costs->discard_split_2m, &costs->kick,         &costs->interrupt,
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (size_t point = 1; point < FPR_COST_POINTS; point++)
            if (all[i]->ns[point] < all[i]->ns[point - 1])
                return FPR_BAD_ARGUMENT;
        if (all[i]->ns[FPR_COST_POINTS - 1] > FPR_COST_MAX_NS)
            return FPR_BAD_ARGUMENT;
    }
    return FPR_OK;
}
