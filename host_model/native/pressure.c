#include "host_model/native/pressure.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"
#include "host_model/native/pressure_member.h"

#define RECLAIM_PAGES 32u /* at a time (SWAP_CLUSTER_MAX) */

static bool sensible(const struct fpr_pressure_config *config)
{
    const struct fpr_swap_costs *swap = &config->swap;
    const struct fpr_cost *costs[] = {&swap->in_4k, &swap->in_next_4k, &swap->out_4k};

    for (size_t i = 0; i < sizeof costs / sizeof *costs; i++)
        for (size_t point = 0; point < FPR_COST_POINTS; point++)
            if (costs[i]->ns[point] > FPR_COST_MAX_NS ||
                (point && costs[i]->ns[point] < costs[i]->ns[point - 1]))
                return false;
    return config->min_pages <= config->low_pages && config->low_pages <= config->high_pages &&
           config->high_pages < config->memory_pages &&
           config->memory_pages <= FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT &&
           config->swap_pages <= FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT &&
           config->ahead_pages <= FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT &&
           config->scattered_pages <= config->memory_pages && swap->read_ns <= FPR_COST_MAX_NS &&
           swap->read_next_ns <= FPR_COST_MAX_NS && swap->write_ns <= FPR_COST_MAX_NS &&
           swap->write_next_ns <= FPR_COST_MAX_NS && config->swap_pages < UINT32_MAX &&
           config->vms > 0 && config->vms <= FPR_PRESSURE_MAX_VMS;
}

int fpr_pressure_create(const struct fpr_pressure_config *config, struct fpr_pressure **out)
{
    struct fpr_pressure *pressure;

    *out = NULL;
    if (!sensible(config))
        return FPR_BAD_ARGUMENT;
    pressure = calloc(1, sizeof *pressure);
    if (pressure == NULL)
        return FPR_HOST_MEMORY;
    pressure->config = *config;
    if (fpr_swap_init(&pressure->swap, &config->swap, config->swap_pages) != FPR_OK) {
        fpr_pressure_destroy(pressure);
        return FPR_HOST_MEMORY;
    }
    pressure->free_huge = (config->memory_pages - config->scattered_pages) / FPR_HUGE_PAGES;
    pressure->free_small = config->memory_pages - pressure->free_huge * FPR_HUGE_PAGES;
    fpr_random_seed(&pressure->random_in, config->seed, config->stream);
    fpr_random_seed(&pressure->random_out, config->seed, config->stream + ((uint64_t)1 << 56));
    *out = pressure;
    return FPR_OK;
}

void fpr_pressure_destroy(struct fpr_pressure *pressure)
{
    if (pressure == NULL)
        return;
    fpr_swap_release(&pressure->swap);
    free(pressure);
}

/* Memory of which only what is used is taken; NULL: none. */
static void *reserve(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

int fpr_pressure_join(struct fpr_pressure *pressure, struct fpr_map *map, struct fpr_member *out)
{
    struct fpr_member member = {.pressure = pressure, .map = map};
    int status;

    if (pressure->members == pressure->config.vms)
        return FPR_FULL;
    status = fpr_map_keep_marks(map);
    if (status != FPR_OK)
        return status;
    member.entries = reserve(map->chunks * sizeof *member.entries);
    member.slots = reserve(map->chunks * FPR_HUGE_PAGES * sizeof *member.slots);
    if (member.entries == NULL || member.slots == NULL)
        return FPR_HOST_MEMORY;
    *out = member;
    pressure->member[pressure->members++] = out;
    out->id = (uint64_t)pressure->members << 32;
    return FPR_OK;
}

static void set_free(struct fpr_member *member)
{
    uint64_t all[FPR_PAGE_WORDS];

    memset(all, 0xff, sizeof all);
    for (uint64_t chunk = 0; chunk < member->map->chunks; chunk++) {
        uint32_t dropped, pages;

        if (!(member->map->state[chunk] & (FPR_MAP_HUGE | FPR_MAP_SOME | FPR_MAP_TABLE)))
            continue;
        fpr_pressure_unswap(member, chunk, all);
        dropped = fpr_map_drop_swapped(member->map, chunk, all);
        pages = fpr_map_remove(member->map, chunk, all, true, member->killed_ns);
        fpr_pressure_went(member, chunk, pages, dropped);
    }
}

void fpr_pressure_leave(struct fpr_member *member)
{
    if (member->map == NULL)
        return;
    set_free(member);
    munmap(member->entries, member->map->chunks * sizeof *member->entries);
    munmap(member->slots, member->map->chunks * FPR_HUGE_PAGES * sizeof *member->slots);
    member->map = NULL;
    member->pressure->member[(member->id >> 32) - 1] = NULL; /* its memory goes with its VM */
}

/* The VM that holds most, in memory and in swap, is killed; false where there is none. */
static bool kill_largest(struct fpr_pressure *pressure, uint64_t now_ns)
{
    struct fpr_member *largest = NULL;
    uint64_t most = 0;

    for (uint32_t i = 0; i < pressure->members; i++) {
        struct fpr_member *member = pressure->member[i];
        uint64_t size;

        if (member == NULL || member->killed)
            continue;
        size = member->map->counters.resident_bytes + member->map->counters.swapped_bytes;
        if (size > most) {
            most = size;
            largest = member;
        }
    }
    if (largest == NULL)
        return false;
    largest->killed = true;
    largest->killed_ns = now_ns;
    set_free(largest);
    pressure->counters.kills++;
    return true;
}

void fpr_pressure_catch_up(struct fpr_pressure *pressure, uint64_t now_ns)
{
    while (pressure->awake && pressure->reclaimed_until_ns <= now_ns) {
        struct fpr_touch_cost cost = {0};
        uint64_t taken = fpr_reclaim(pressure, RECLAIM_PAGES, pressure->reclaimed_until_ns, &cost);

        pressure->reclaimed_until_ns += cost.ns;
        pressure->counters.background_ns += cost.ns - cost.asleep_ns;
        pressure->counters.background_pages += taken;
        if (!taken || fpr_pressure_free(pressure) >= pressure->config.high_pages)
            pressure->awake = false;
    }
}

int fpr_pressure_room(struct fpr_member *member, uint64_t pages, uint64_t now_ns,
                      struct fpr_touch_cost *wait)
{
    struct fpr_pressure *pressure = member->pressure;
    const struct fpr_pressure_config *config = &pressure->config;
    const uint64_t before_ns = wait->ns;
    uint64_t taken = 1;

    fpr_pressure_catch_up(pressure, now_ns);
    if (fpr_pressure_free(pressure) < config->low_pages + pages && !pressure->awake) {
        pressure->awake = true;
        if (pressure->reclaimed_until_ns < now_ns)
            pressure->reclaimed_until_ns = now_ns;
    }
    if (fpr_pressure_free(pressure) >= config->min_pages + pages)
        return FPR_OK;
    pressure->counters.direct_reclaims++;
    while (taken && fpr_pressure_free(pressure) < config->min_pages + pages) {
        taken = fpr_reclaim(pressure, RECLAIM_PAGES, now_ns, wait);
        pressure->counters.direct_pages += taken;
    }
    pressure->counters.direct_ns += wait->ns - before_ns;
    member->map->counters.reclaim_ns += wait->ns - before_ns;
    while (fpr_pressure_free(pressure) < pages)
        if (!kill_largest(pressure, now_ns))
            return FPR_FULL;
    return FPR_OK;
}

void fpr_pressure_came(struct fpr_member *member, uint64_t chunk, struct fpr_chunk_faults faults)
{
    struct fpr_pressure *pressure = member->pressure;
    struct fpr_pressure_counters *counters = &pressure->counters;

    if (faults.huge) {
        pressure->free_huge--;
    } else {
        while (pressure->free_small < faults.pages) {
            pressure->free_huge--;
            pressure->free_small += FPR_HUGE_PAGES;
        }
        pressure->free_small -= faults.pages;
    }
    counters->resident_pages += faults.pages;
    if (counters->resident_pages > counters->resident_peak_pages)
        counters->resident_peak_pages = counters->resident_pages;
    counters->swapped_pages -= faults.swapped;
    counters->swap_in_pages += faults.swapped;
    fpr_lru_add(pressure, member->id | chunk);
}

void fpr_pressure_went(struct fpr_member *member, uint64_t chunk, uint32_t pages, uint32_t dropped)
{
    struct fpr_pressure *pressure = member->pressure;

    pressure->counters.resident_pages -= pages;
    pressure->counters.swapped_pages -= dropped;
    pressure->counters.swap_drop_pages += dropped;
    /* Who gives up 2 MiB at once had them in one piece, or nearly so. */
    if (pages == FPR_HUGE_PAGES)
        pressure->free_huge++;
    else
        pressure->free_small += pages;
    if (!(member->map->state[chunk] & (FPR_MAP_HUGE | FPR_MAP_SOME)))
        fpr_lru_remove(pressure, member->id | chunk);
}

uint32_t fpr_pressure_unswap(struct fpr_member *member, uint64_t chunk, const uint64_t *pages)
{
    struct fpr_pressure *pressure = member->pressure;
    uint32_t count = 0;

    if (!(member->map->state[chunk] & FPR_MAP_TABLE))
        return 0; /* never swapped, and its marks need not be paged in */
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint64_t left = member->map->marks[chunk].swapped[w] & pages[w];

        for (; left; left &= left - 1) {
            uint64_t page = chunk * FPR_HUGE_PAGES + w * 64 + (uint64_t)__builtin_ctzll(left);

            pressure->moving[count++] = member->slots[page];
            fpr_swap_give_back(&pressure->swap, member->slots[page]);
        }
    }
    return count;
}

uint64_t fpr_pressure_swap_in(struct fpr_member *member, uint32_t pages, uint64_t now_ns,
                              struct fpr_histogram *latency)
{
    struct fpr_pressure *pressure = member->pressure;
    uint64_t at_ns = now_ns;

    for (uint32_t i = 0; i < pages; i++) {
        uint64_t start_ns = at_ns;
        bool next;

        at_ns = fpr_swap_request(&pressure->swap, pressure->moving[i], false, at_ns, &next);
        at_ns +=
            fpr_cost_draw(next ? &pressure->config.swap.in_next_4k : &pressure->config.swap.in_4k,
                          &pressure->random_in);
        fpr_histogram_record_inline(latency, at_ns - start_ns);
    }
    return at_ns - now_ns;
}

const uint64_t *fpr_pressure_kills(const struct fpr_pressure *pressure)
{
    return &pressure->counters.kills;
}

const uint64_t *fpr_pressure_background_ns(const struct fpr_pressure *pressure)
{
    return &pressure->counters.background_ns;
}

void fpr_pressure_counters(const struct fpr_pressure *pressure, struct fpr_pressure_counters *out)
{
    *out = pressure->counters;
    out->free_huge_pages = pressure->free_huge;
}

int fpr_pressure_validate(const struct fpr_pressure *pressure)
{
    const struct fpr_pressure_counters *counters = &pressure->counters;
    uint64_t resident = 0, swapped = 0, listed = 0;

    for (uint32_t i = 0; i < pressure->members; i++) {
        const struct fpr_member *member = pressure->member[i];

        if (member == NULL)
            continue;
        resident += member->map->resident_pages;
        swapped += member->map->counters.swapped_bytes >> FPR_PAGE_SHIFT;
        for (uint64_t chunk = 0; chunk < member->map->chunks; chunk++) {
            bool there = member->map->state[chunk] & (FPR_MAP_HUGE | FPR_MAP_SOME);

            if (member->entries[chunk].listed != there)
                return FPR_INVALID;
            listed += there;
        }
    }
    if (resident != counters->resident_pages || swapped != counters->swapped_pages ||
        listed != pressure->listed || swapped > pressure->config.swap_pages ||
        resident + fpr_pressure_free(pressure) != pressure->config.memory_pages)
        return FPR_INVALID;
    return FPR_OK;
}
