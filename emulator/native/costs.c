#include "emulator/native/costs.h"

#include <stdbool.h>
#include <stddef.h>

#include "emulator/native/status.h"

#define PPM 1000000u
#define BEND_BITS 24
#define FACTOR_BITS 16
#define TAIL 3 /* the point from which on a distribution may be bent: p99 */

static const uint32_t share[FPR_COST_POINTS] = {0, 500000, 900000, 990000, 999000, PPM};

/* Even within a segment: a + (b - a) * at / width. Constant widths, so that no division is left. */
static uint64_t between(const uint64_t *ns, uint64_t at, uint32_t width)
{
    return ns[0] + (ns[1] - ns[0]) * at / width;
}

/* The same, bent: t^bend in 2^-24. The difference has at most 34 bits. */
static uint64_t between_bent(const struct fpr_cost *cost, uint32_t point, uint64_t at,
                             uint32_t width)
{
    const uint64_t *ns = &cost->ns[point];
    uint64_t t = (at << BEND_BITS) / width, power = (uint64_t)1 << BEND_BITS;

    for (uint32_t bend = cost->bend; bend; bend /= 2) {
        if (bend & 1)
            power = power * t >> BEND_BITS;
        t = t * t >> BEND_BITS;
    }
    return ns[0] + ((ns[1] - ns[0]) * power >> BEND_BITS);
}

/* The value that so many millionths of all do not exceed. */
static uint64_t value_at(const struct fpr_cost *cost, uint32_t at)
{
    if (at < 500000)
        return between(&cost->ns[0], at, 500000);
    if (at < 900000)
        return between(&cost->ns[1], at - 500000, 400000);
    if (at < 990000)
        return between(&cost->ns[2], at - 900000, 90000);
    if (cost->bend > 1)
        return at < 999000 ? between_bent(cost, 3, at - 990000, 9000)
                           : between_bent(cost, 4, at - 999000, 1000);
    if (at < 999000)
        return between(&cost->ns[3], at - 990000, 9000);
    return between(&cost->ns[4], at - 999000, 1000);
}

uint64_t fpr_cost_draw(const struct fpr_cost *cost, struct fpr_random *random)
{
    return value_at(cost, (uint32_t)fpr_random_below(random, PPM));
}

/* What a cost grows by next to `others`, 2^16 being 1. */
static uint64_t grow(uint64_t ns, uint32_t growth_ppm, uint32_t others)
{
    uint64_t factor = ((PPM + (uint64_t)growth_ppm * others) << FACTOR_BITS) / PPM;

    return (uint64_t)((unsigned __int128)ns * factor >> FACTOR_BITS);
}

uint64_t fpr_cost_draw_among(const struct fpr_cost *cost, const struct fpr_cost_steps *steps,
                             uint32_t growth_ppm, uint32_t others, struct fpr_random *random)
{
    uint32_t threads = others + 1, below = 1, above, next = 0;
    const struct fpr_cost *lower = cost;

    if (steps->count == 0)
        return grow(fpr_cost_draw(cost, random), growth_ppm, others);
    for (; next < steps->count && steps->number[next] <= threads; next++) {
        lower = &steps->at[next];
        below = steps->number[next];
    }
    if (next == steps->count) /* growth is stated of what one thread alone takes */
        return (uint64_t)((unsigned __int128)fpr_cost_draw(lower, random) *
                          (PPM + (uint64_t)growth_ppm * others) /
                          (PPM + (uint64_t)growth_ppm * (below - 1)));
    above = steps->number[next];
    if (threads > below && fpr_random_below(random, above - below) < threads - below)
        lower = &steps->at[next];
    return fpr_cost_draw(lower, random);
}

static uint64_t draw_in_call(const struct fpr_cost *cost, const struct fpr_cost_steps *steps,
                             uint32_t number, struct fpr_random *random)
{
    uint32_t at = (uint32_t)fpr_random_below(random, PPM), below = 1, above, next = 0;
    const struct fpr_cost *lower = cost;

    for (; next < steps->count && steps->number[next] <= number; next++) {
        lower = &steps->at[next];
        below = steps->number[next];
    }
    if (number == below)
        return value_at(lower, at);
    above = steps->number[next]; /* the caller asks for no more than the last step */
    return (value_at(lower, at) * (above - number) +
            value_at(&steps->at[next], at) * (number - below)) /
           (above - below);
}

uint64_t fpr_cost_draw_sum(const struct fpr_cost *cost, const struct fpr_cost_steps *steps,
                           uint64_t number, struct fpr_random *random)
{
    uint32_t most = steps->count == 0 ? 1 : steps->number[steps->count - 1];
    uint64_t sum = 0;

    for (; number > most; number -= most)
        sum += draw_in_call(cost, steps, most, random);
    return number == 0 ? sum : sum + draw_in_call(cost, steps, (uint32_t)number, random);
}

uint64_t fpr_cost_mean(const struct fpr_cost *cost)
{
    uint64_t sum = 0;

    for (size_t i = 0; i + 1 < FPR_COST_POINTS; i++) {
        if (i >= TAIL && cost->bend > 1)
            sum += (cost->ns[i] + (cost->ns[i + 1] - cost->ns[i]) / (cost->bend + 1)) *
                   (share[i + 1] - share[i]);
        else
            sum += (cost->ns[i] + cost->ns[i + 1]) / 2 * (share[i + 1] - share[i]);
    }
    return sum / PPM;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

void fpr_cost_bend(struct fpr_cost *cost, uint64_t mean)
{
    struct fpr_cost best = *cost, tried = *cost;

    best.bend = 1;
    /* The mean falls as the bend grows. */
    for (tried.bend = 2; tried.bend <= FPR_COST_MAX_BEND; tried.bend++) {
        if (apart(fpr_cost_mean(&tried), mean) >= apart(fpr_cost_mean(&best), mean))
            break;
        best = tried;
    }
    *cost = best;
}

static bool in_order(const struct fpr_cost *cost)
{
    for (size_t point = 1; point < FPR_COST_POINTS; point++)
        if (cost->ns[point] < cost->ns[point - 1])
            return false;
    return cost->ns[FPR_COST_POINTS - 1] <= FPR_COST_MAX_NS && cost->bend <= FPR_COST_MAX_BEND;
}

static bool steps_in_order(const struct fpr_cost_steps *steps)
{
    if (steps->count > FPR_COST_STEPS)
        return false;
    for (uint32_t i = 0; i < steps->count; i++)
        if (steps->number[i] <= (i == 0 ? 1 : steps->number[i - 1]) ||
            steps->number[i] > FPR_COST_MAX_NUMBER || !in_order(&steps->at[i]))
            return false;
    return true;
}

/* Whether more of them never cost less, at any of the points. */
static bool sums_in_order(const struct fpr_cost *cost, const struct fpr_cost_steps *steps)
{
    for (uint32_t i = 0; i < steps->count; i++, cost = &steps->at[i - 1])
        for (size_t point = 0; point < FPR_COST_POINTS; point++)
            if (steps->at[i].ns[point] < cost->ns[point])
                return false;
    return true;
}

int fpr_host_costs_check(const struct fpr_host_costs *costs)
{
    const struct fpr_cost *all[] = {
        &costs->fault_4k,         &costs->refault_4k,     &costs->fault_2m,
        &costs->refault_2m,       &costs->discard_call,   &costs->discard_flush,
        &costs->discard_huge_2m,  &costs->discard_4k,     &costs->discard_empty_2m,
        &costs->discard_split_2m, &costs->kick,           &costs->interrupt,
        &costs->fault_outer_4k,   &costs->fault_outer_2m, &costs->pace,
        &costs->discard_table_2m,
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!in_order(all[i]))
            return FPR_BAD_ARGUMENT;
    if (costs->cpus != 0 && (costs->slice_ns == 0 || costs->slice_ns > FPR_COST_MAX_NS))
        return FPR_BAD_ARGUMENT;
    if (!steps_in_order(&costs->fault_4k_steps) || !steps_in_order(&costs->refault_4k_steps) ||
        !steps_in_order(&costs->fault_2m_steps) || !steps_in_order(&costs->refault_2m_steps) ||
        !steps_in_order(&costs->discard_huge_2m_steps) ||
        !sums_in_order(&costs->discard_huge_2m, &costs->discard_huge_2m_steps))
        return FPR_BAD_ARGUMENT;
    return FPR_OK;
}
