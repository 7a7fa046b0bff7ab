#include "host_model/native/residency.h"

#include <stdlib.h>
#include <string.h>

#include "emulator/native/status.h"
#include "host_model/native/page_states.h"
#include "host_model/native/batch.h"
#include "host_model/native/fault_costs.h"
#include "host_model/native/pressure_member.h"

struct fpr_residency {
    struct fpr_map map;
    struct fpr_fault_costs costs;
    struct fpr_residency_config config;
    struct fpr_member member;   /* pressure is NULL where the host's memory is not limited */
    struct fpr_host_load *load; /* NULL: nothing is shared */
    uint64_t most_pages;        /* that were ever resident at once */
};

int fpr_residency_create(const struct fpr_residency_config *config,
                         const struct fpr_memory_region *regions, uint32_t count,
                         const struct fpr_host_costs *costs, struct fpr_residency **out)
{
    struct fpr_residency *residency = calloc(1, sizeof *residency);
    int status;

    *out = NULL;
    if (residency == NULL)
        return FPR_HOST_MEMORY;
    if (config->hugetlb && config->discard_lazily) {
        free(residency);
        return FPR_BAD_ARGUMENT;
    }
    status = fpr_fault_costs_init(&residency->costs, costs, config->seed, config->stream);
    if (status == FPR_OK)
        status = fpr_map_init(&residency->map, regions, count);
    if (status != FPR_OK) {
        free(residency);
        return status;
    }
    residency->config = *config;
    *out = residency;
    return FPR_OK;
}

void fpr_residency_destroy(struct fpr_residency *residency)
{
    if (residency == NULL)
        return;
    fpr_pressure_leave(&residency->member);
    fpr_map_release(&residency->map);
    free(residency);
}

int fpr_residency_join(struct fpr_residency *residency, struct fpr_pressure *pressure)
{
    if (residency->member.pressure != NULL || residency->map.resident_pages != 0 ||
        residency->config.hugetlb) /* such pages are taken out of a host's memory once for all */
        return FPR_BAD_ARGUMENT;
    return fpr_pressure_join(pressure, &residency->map, &residency->member);
}

void fpr_residency_share(struct fpr_residency *residency, struct fpr_host_load *load)
{
    residency->load = load;
}

void fpr_residency_report_to(struct fpr_residency *residency, struct fpr_footprint *footprint)
{
    residency->map.footprint = footprint;
}

uint64_t fpr_residency_killed_ns(const struct fpr_residency *residency)
{
    return residency->member.killed ? residency->member.killed_ns : UINT64_MAX;
}

/* Whether a touch of an absent page of this chunk brings in all of it. */
static bool comes_back_huge(const struct fpr_residency *residency, uint64_t chunk)
{
    uint8_t in_the_way = residency->config.file ? FPR_MAP_SOME : FPR_MAP_SOME | FPR_MAP_TABLE;

    if (residency->config.hugetlb)
        return true;
    return residency->config.thp && !(residency->map.state[chunk] & in_the_way) &&
           fpr_map_whole(&residency->map, chunk);
}

/* Of the pages that just came: those that the host never used, which all of its VMs share. */
static uint32_t fresh_pages(struct fpr_residency *residency)
{
    struct fpr_pressure *pressure = residency->member.pressure;

    if (pressure == NULL)
        return fpr_fresh_pages(&residency->costs, &residency->most_pages,
                               residency->map.resident_pages);
    return fpr_fresh_pages(&residency->costs, &pressure->most_pages,
                           pressure->counters.resident_pages);
}

/* Who else is in a fault: a touch of several chunks counts once. */
static struct fpr_others others_of(struct fpr_residency *residency, uint32_t vcpu, uint64_t now_ns)
{
    struct fpr_others others;

    others.of_vm = fpr_faulting(&residency->costs, vcpu, now_ns);
    others.of_host = others.of_vm;
    if (residency->load != NULL)
        others.of_host = fpr_host_load_faulting(residency->load, now_ns);
    return others;
}

/* What comes in, and is in swap, gives up its slot there. */
static void leave_swap(struct fpr_member *member, struct fpr_chunk_range range, bool huge)
{
    uint64_t pages[FPR_PAGE_WORDS];

    fpr_map_mask(range, pages);
    if (huge)
        memset(pages, 0xff, sizeof pages);
    fpr_pressure_unswap(member, range.chunk, pages);
}

/* Bring in what is missing of a range, and what that costs next to `others`. */
static void bring_in(struct fpr_residency *residency, struct fpr_chunk_range range, bool huge,
                     struct fpr_others others, uint64_t now_ns, struct fpr_touch_cost *cost)
{
    struct fpr_map *map = &residency->map;
    struct fpr_chunk_faults faults, plain;
    uint64_t ns;

    if (residency->member.pressure != NULL)
        leave_swap(&residency->member, range, huge);
    plain = faults = fpr_map_populate(map, range, huge, now_ns);
    if (faults.pages == 0)
        return;
    plain.pages -= faults.swapped;
    if (residency->member.pressure != NULL)
        fpr_pressure_came(&residency->member, range.chunk, faults);
    plain.fresh = fresh_pages(residency);
    ns = fpr_draw_faults(&residency->costs, plain, others, &map->fault_latency);
    if (residency->member.pressure != NULL) {
        uint64_t asleep_ns = fpr_pressure_swap_in(&residency->member, faults.swapped,
                                                  now_ns + cost->ns + ns, &map->fault_latency);

        ns += asleep_ns;
        cost->asleep_ns += asleep_ns;
    }
    fpr_map_count_faults(map, faults, ns);
    cost->ns += ns;
}

/* On a host whose memory is limited: use a range, and make room for what is missing of it, which
 * may take pages of the range itself: so it is looked at again. How a touch brings it in goes to
 * *huge; *missing is 0 where nothing is to come. */
static int make_room(struct fpr_residency *residency, struct fpr_chunk_range range, uint64_t now_ns,
                     bool *huge, uint64_t *missing, struct fpr_touch_cost *wait)
{
    struct fpr_member *member = &residency->member;
    uint64_t asked = 0;

    fpr_map_use(&residency->map, range);
    for (;;) {
        bool wanted;
        int status;

        *missing = 0;
        if (member->killed || fpr_map_resident(&residency->map, range.chunk))
            return FPR_OK;
        wanted = comes_back_huge(residency, range.chunk);
        *huge = wanted && member->pressure->free_huge != 0;
        *missing =
            *huge ? FPR_HUGE_PAGES : range.count - fpr_map_look(&residency->map, range, NULL).pages;
        if (*missing <= asked) {
            member->pressure->counters.huge_unavailable += wanted && !*huge;
            return FPR_OK;
        }
        status = fpr_pressure_room(member, *missing, now_ns, wait);
        if (status != FPR_OK)
            return status;
        asked = *missing;
    }
}

static int touch_limited(struct fpr_residency *residency, struct fpr_chunk_range range,
                         uint32_t vcpu, uint64_t now_ns, struct fpr_touch_cost *cost)
{
    const uint64_t before_ns = cost->ns;
    uint64_t missing;
    bool huge;
    int status = make_room(residency, range, now_ns, &huge, &missing, cost);

    residency->map.counters.fault_ns += cost->ns - before_ns;
    if (status == FPR_OK && missing != 0)
        bring_in(residency, range, huge, others_of(residency, vcpu, now_ns), now_ns, cost);
    return status;
}

/* Whether a touch changes what other VMs of the host may notice. */
static bool concerns_others(const struct fpr_residency *residency, uint64_t pfn, uint64_t count)
{
    const struct fpr_pressure *pressure = residency->member.pressure;

    if (residency->load == NULL && pressure == NULL)
        return false;
    if (pressure != NULL && fpr_pressure_may_take(pressure))
        return true;
    while (count > 0) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);

        if (!fpr_map_resident(&residency->map, range.chunk) &&
            fpr_map_look(&residency->map, range, NULL).pages != range.count)
            return true;
        pfn += range.count;
        count -= range.count;
    }
    return false;
}

static bool is_guest_memory(const struct fpr_map *map, uint64_t pfn, uint64_t count)
{
    const uint64_t limit = FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT;

    return pfn <= limit && count <= limit &&
           fpr_map_region(map, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT) != NULL;
}

int fpr_residency_touch(void *host, uint64_t pfn, uint64_t count, uint32_t flags, uint64_t now_ns,
                        uint32_t vcpu, struct fpr_touch_cost *cost)
{
    struct fpr_residency *residency = host;
    struct fpr_map *map = &residency->map;
    struct fpr_others others = {.of_vm = UINT32_MAX}; /* not counted yet */
    uint64_t awake_until_ns;

    *cost = (struct fpr_touch_cost){0};
    if (!is_guest_memory(map, pfn, count))
        return FPR_OUTSIDE;
    if (vcpu >= FPR_HOST_MAX_VCPUS)
        return FPR_BAD_ARGUMENT;
    if (flags & FPR_TOUCH_AHEAD && concerns_others(residency, pfn, count))
        return FPR_LATER;
    if (residency->member.pressure != NULL && !(flags & FPR_TOUCH_AHEAD))
        fpr_pressure_catch_up(residency->member.pressure, now_ns);
    while (count > 0) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);

        pfn += range.count;
        count -= range.count;
        fpr_map_keep(map, range);
        if (residency->member.pressure != NULL) {
            int status = touch_limited(residency, range, vcpu, now_ns, cost);

            if (status != FPR_OK)
                return status;
            continue;
        }
        if (fpr_map_resident(map, range.chunk))
            continue;
        if (others.of_vm == UINT32_MAX)
            others = others_of(residency, vcpu, now_ns);
        bring_in(residency, range, comes_back_huge(residency, range.chunk), others, now_ns, cost);
    }
    /* Who waits for swap holds no lock, and clears nothing. */
    awake_until_ns = now_ns + cost->ns - cost->asleep_ns;
    if (awake_until_ns == now_ns)
        return FPR_OK;
    fpr_faults_until(&residency->costs, vcpu, awake_until_ns);
    return residency->load == NULL ? FPR_OK : fpr_host_load_fault(residency->load, awake_until_ns);
}

int fpr_residency_populate(struct fpr_residency *residency, uint64_t pfn, uint64_t count,
                           uint64_t now_ns)
{
    struct fpr_map *map = &residency->map;

    if (!is_guest_memory(map, pfn, count))
        return FPR_OUTSIDE;
    while (count > 0) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);
        bool whole = range.count == FPR_HUGE_PAGES || residency->config.hugetlb;
        bool huge = whole && comes_back_huge(residency, range.chunk);

        pfn += range.count;
        count -= range.count;
        if (residency->member.pressure != NULL) {
            struct fpr_touch_cost nobody_waits = {0};
            uint64_t missing;
            int status = make_room(residency, range, now_ns, &huge, &missing, &nobody_waits);

            if (status != FPR_OK)
                return status;
            if (missing != 0) {
                leave_swap(&residency->member, range, huge);
                fpr_pressure_came(&residency->member, range.chunk,
                                  fpr_map_populate(map, range, huge, now_ns));
            }
            continue;
        }
        fpr_map_populate(map, range, huge, now_ns);
    }
    fresh_pages(residency);
    return FPR_OK;
}

/* Take a range away; lazily, it stays until the host is short of memory. */
static void discard_chunk(struct fpr_residency *residency, struct fpr_chunk_range range,
                          uint64_t now_ns)
{
    /* A hole in a file leaves the page tables of those who have it mapped. */
    bool drop_table = residency->config.page_table_reclaim && !residency->config.file &&
                      range.count == FPR_HUGE_PAGES;
    bool limited = residency->member.pressure != NULL;
    struct fpr_map *map = &residency->map;
    uint64_t gone[FPR_PAGE_WORDS];
    uint32_t removed = 0, dropped = 0;

    fpr_map_mask(range, gone);
    if (limited) {
        fpr_pressure_unswap(&residency->member, range.chunk, gone);
        dropped = fpr_map_drop_swapped(map, range.chunk, gone);
    }
    if (!residency->config.discard_lazily)
        removed = fpr_map_remove(map, range.chunk, gone, drop_table, now_ns);
    else if (fpr_map_free_lazily(map, range) != 0 && limited)
        fpr_pressure_lazily(&residency->member, range.chunk, gone);
    if (limited)
        fpr_pressure_went(&residency->member, range.chunk, removed, dropped);
}

static void discard_call(struct fpr_residency *residency, const struct fpr_batch_call *call,
                         uint64_t grown, uint64_t now_ns, struct fpr_discard_outcome *out)
{
    struct fpr_map *map = &residency->map;
    uint64_t page = call->gpa >> FPR_PAGE_SHIFT, left = call->bytes >> FPR_PAGE_SHIFT;
    uint64_t huge_pages = 0;
    bool unmapped = false;

    out->calls++;
    out->cost_ns += fpr_draw_discard_call(&residency->costs, grown);
    if (residency->config.discard_without_effect)
        return;
    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);
        struct fpr_chunk_mapped found = fpr_map_look(map, range, NULL);

        page += range.count;
        left -= range.count;
        unmapped |= found.pages != 0;
        if (!residency->config.discard_lazily)
            map->counters.huge_splits += found.huge && range.count < FPR_HUGE_PAGES;
        if (fpr_huge_pages_in_sum(&residency->costs, range, found))
            huge_pages++;
        else
            out->cost_ns += fpr_draw_discard(&residency->costs, range, found, grown);
        discard_chunk(residency, range, now_ns);
    }
    if (huge_pages != 0)
        out->cost_ns += fpr_draw_discard_huge(&residency->costs, huge_pages, grown);
    if (unmapped)
        out->cost_ns += fpr_draw_discard_flush(&residency->costs, grown);
}

/* Resident bytes of a range that no discard has named yet: those freed lazily are as good as gone.
 */
static uint64_t resident_bytes_in(const struct fpr_map *map, uint64_t gpa, uint64_t bytes)
{
    uint64_t page = gpa >> FPR_PAGE_SHIFT, left = bytes >> FPR_PAGE_SHIFT, pages = 0;

    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);

        pages += fpr_map_look(map, range, NULL).pages - fpr_map_look_lazy(map, range, NULL);
        page += range.count;
        left -= range.count;
    }
    return pages << FPR_PAGE_SHIFT;
}

/* The account of range i; the bytes that it frees. */
static uint64_t account(const struct fpr_residency *residency, const uint64_t *ranges, uint32_t i,
                        uint32_t page_bytes, struct fpr_discard_outcome *out)
{
    uint64_t gpa, bytes, resident;

    fpr_batch_trim(&residency->map, ranges, i, page_bytes, out, &gpa, &bytes);
    resident = resident_bytes_in(&residency->map, gpa, bytes);
    out->already_free_bytes += bytes - resident;
    if (residency->config.discard_without_effect)
        out->ineffective_bytes += resident;
    else if (residency->config.discard_lazily)
        out->lazy_bytes += resident;
    else
        out->freed_bytes += resident;
    return residency->config.discard_without_effect || residency->config.discard_lazily ? 0
                                                                                        : resident;
}

int fpr_residency_discard(struct fpr_residency *residency, const uint64_t *ranges, uint32_t count,
                          uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out)
{
    struct fpr_map *map = &residency->map;
    uint32_t page_bytes = residency->config.hugetlb ? FPR_HUGE_BYTES : FPR_PAGE_BYTES;
    uint64_t grown =
        fpr_discard_factor(&residency->costs, fpr_faulting(&residency->costs, UINT32_MAX, now_ns));
    struct fpr_batch_call call;

    if (residency->member.pressure != NULL)
        fpr_pressure_catch_up(residency->member.pressure, now_ns);
    memset(out, 0, sizeof *out);
    for (uint32_t first = 0; first < count; first = call.end) {
        call = fpr_batch_next(map, ranges, count, first, page_bytes, residency->config.calls);
        /* Accounts first, range by range; then the call, as the one piece that it is. */
        for (uint32_t i = call.first; i < call.end; i++) {
            uint64_t gone = account(residency, ranges, i, page_bytes, out);

            if (freed != NULL)
                freed[i] = gone;
        }
        if (call.bytes == 0)
            continue;
        discard_call(residency, &call, grown, now_ns, out);
    }
    fpr_map_count_discard(map, count, out);
    return FPR_OK;
}

int fpr_residency_drop_lazy(struct fpr_residency *residency, uint64_t pages, uint64_t now_ns,
                            uint64_t *dropped)
{
    *dropped = 0;
    if (residency->member.pressure != NULL)
        return FPR_BAD_ARGUMENT; /* the host itself takes them */
    *dropped = fpr_map_drop_lazy(&residency->map, pages, now_ns);
    return FPR_OK;
}

void fpr_residency_counters(const struct fpr_residency *residency, uint64_t now_ns,
                            struct fpr_host_counters *out)
{
    fpr_map_counters(&residency->map, now_ns, out);
}

uint64_t fpr_residency_resident_bytes(const struct fpr_residency *residency)
{
    return residency->map.resident_pages << FPR_PAGE_SHIFT;
}

const struct fpr_histogram *fpr_residency_fault_latency(const struct fpr_residency *residency)
{
    return &residency->map.fault_latency;
}

int fpr_residency_read(const struct fpr_residency *residency, uint64_t pfn, uint64_t count,
                       uint8_t *out)
{
    return fpr_map_read(&residency->map, pfn, count, out);
}

uint64_t fpr_residency_metadata_bytes(const struct fpr_residency *residency)
{
    return fpr_map_metadata_bytes(&residency->map);
}

int fpr_residency_count_states(const struct fpr_residency *residency, const uint64_t *free_bits,
                               const uint64_t *reported, uint64_t words, uint64_t row_pages,
                               uint64_t *counts, uint64_t rows)
{
    return fpr_map_count_states(&residency->map, free_bits, reported, words, row_pages, counts,
                                rows);
}
