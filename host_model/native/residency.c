#include "host_model/native/residency.h"

#include <stdlib.h>
#include <string.h>

#include "emulator/native/status.h"
#include "host_model/native/batch.h"
#include "host_model/native/fault_costs.h"

struct fpr_residency {
    struct fpr_map map;
    struct fpr_fault_costs costs;
    struct fpr_residency_config config;
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
    fpr_map_release(&residency->map);
    free(residency);
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

int fpr_residency_touch(void *host, uint64_t pfn, uint64_t count, int write, uint64_t now_ns,
                        uint32_t vcpu, uint64_t *cost_ns)
{
    struct fpr_residency *residency = host;
    struct fpr_map *map = &residency->map;
    uint64_t limit = FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT;
    uint32_t others = UINT32_MAX; /* not counted yet */

    (void)write;
    *cost_ns = 0;
    if (pfn > limit || count > limit ||
        fpr_map_region(map, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT) == NULL)
        return FPR_OUTSIDE;
    if (vcpu >= FPR_HOST_MAX_VCPUS)
        return FPR_BAD_ARGUMENT;
    while (count > 0) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);
        struct fpr_chunk_faults faults;
        uint64_t ns;

        pfn += range.count;
        count -= range.count;
        fpr_map_keep(map, range);
        if (fpr_map_resident(map, range.chunk))
            continue;
        faults = fpr_map_populate(map, range, comes_back_huge(residency, range.chunk), now_ns);
        if (faults.pages == 0)
            continue;
        if (others == UINT32_MAX)
            others = fpr_faulting(&residency->costs, vcpu, now_ns);
        ns = fpr_draw_faults(&residency->costs, faults, others, &map->fault_latency);
        fpr_map_count_faults(map, faults, ns);
        *cost_ns += ns;
    }
    if (others != UINT32_MAX)
        fpr_faults_until(&residency->costs, vcpu, now_ns + *cost_ns);
    return FPR_OK;
}

int fpr_residency_populate(struct fpr_residency *residency, uint64_t pfn, uint64_t count,
                           uint64_t now_ns)
{
    struct fpr_map *map = &residency->map;
    uint64_t limit = FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT;

    if (pfn > limit || count > limit ||
        fpr_map_region(map, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT) == NULL)
        return FPR_OUTSIDE;
    while (count > 0) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);
        bool whole = range.count == FPR_HUGE_PAGES || residency->config.hugetlb;
        bool huge = whole && comes_back_huge(residency, range.chunk);

        fpr_map_populate(map, range, huge, now_ns);
        pfn += range.count;
        count -= range.count;
    }
    return FPR_OK;
}

static void discard_call(struct fpr_residency *residency, const struct fpr_batch_call *call,
                         uint64_t grown, uint64_t now_ns, struct fpr_discard_outcome *out)
{
    struct fpr_map *map = &residency->map;
    uint64_t page = call->gpa >> FPR_PAGE_SHIFT, left = call->bytes >> FPR_PAGE_SHIFT;
    bool unmapped = false;

    out->calls++;
    out->cost_ns += fpr_draw_discard_call(&residency->costs, grown);
    if (residency->config.discard_without_effect)
        return;
    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);
        struct fpr_chunk_mapped found = fpr_map_look(map, range, NULL);
        uint64_t gone[FPR_PAGE_WORDS];

        page += range.count;
        left -= range.count;
        unmapped |= found.pages != 0;
        out->cost_ns += fpr_draw_discard(&residency->costs, range, found, grown);
        if (residency->config.discard_lazily) {
            fpr_map_free_lazily(map, range);
            continue;
        }
        map->counters.huge_splits += found.huge && range.count < FPR_HUGE_PAGES;
        fpr_map_mask(range, gone);
        fpr_map_remove(map, range.chunk, gone,
                       residency->config.page_table_reclaim && range.count == FPR_HUGE_PAGES,
                       now_ns);
    }
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

    memset(out, 0, sizeof *out);
    for (uint32_t first = 0; first < count; first = call.end) {
        call = fpr_batch_next(map, ranges, count, first, page_bytes);
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
