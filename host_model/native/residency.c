#include "host_model/native/residency.h"

#include <stdlib.h>
#include <string.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"
#include "host_model/native/batch.h"

#define PPM 1000000u
#define FIXED_BITS 16 /* of the factors below */

/* Costs of each sort have random numbers of their own, so that a run and its control, which
 * discards nothing, draw the same ones for the same faults. */
enum draw { DRAW_FAULT_4K, DRAW_REFAULT_4K, DRAW_FAULT_2M, DRAW_REFAULT_2M, DRAW_DISCARD, DRAWS };

struct fpr_residency {
    struct fpr_map map;
    struct fpr_host_costs costs;
    struct fpr_residency_config config;
    struct fpr_random random[DRAWS];
    uint32_t vcpus; /* that ever faulted: the highest, plus 1 */
    uint64_t fault_until_ns[FPR_HOST_MAX_VCPUS];
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
    status = fpr_host_costs_check(costs);
    if (status == FPR_OK)
        status = fpr_map_init(&residency->map, regions, count);
    if (status != FPR_OK) {
        free(residency);
        return status;
    }
    residency->config = *config;
    residency->costs = *costs;
    for (uint32_t i = 0; i < DRAWS; i++)
        fpr_random_seed(&residency->random[i], config->seed, config->stream + ((uint64_t)i << 56));
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

/* vCPUs in a fault at now_ns besides `self`. */
static uint32_t faulting(const struct fpr_residency *residency, uint32_t self, uint64_t now_ns)
{
    uint32_t others = 0;

    for (uint32_t i = 0; i < residency->vcpus; i++)
        others += residency->fault_until_ns[i] > now_ns;
    if (self < residency->vcpus)
        others -= residency->fault_until_ns[self] > now_ns;
    return others;
}

/* What a cost grows by next to `others`, 2^16 being 1. */
static uint64_t factor(uint32_t growth_ppm, uint32_t others)
{
    return ((PPM + (uint64_t)growth_ppm * others) << FIXED_BITS) / PPM;
}

static uint64_t draw(struct fpr_residency *residency, enum draw which, const struct fpr_cost *cost,
                     uint64_t grow_factor)
{
    uint64_t ns = fpr_cost_draw(cost, &residency->random[which]);

    return (uint64_t)((unsigned __int128)ns * grow_factor >> FIXED_BITS);
}

static uint64_t draw_faults(struct fpr_residency *residency, struct fpr_chunk_faults faults,
                            uint32_t others)
{
    const struct fpr_host_costs *costs = &residency->costs;
    struct fpr_histogram *latency = &residency->map.fault_latency;
    uint64_t sum = 0, ns, grown;

    if (faults.huge) {
        grown = factor(costs->fault_2m_growth_ppm, others);
        ns = faults.refaults ? draw(residency, DRAW_REFAULT_2M, &costs->refault_2m, grown)
                             : draw(residency, DRAW_FAULT_2M, &costs->fault_2m, grown);
        fpr_histogram_record_inline(latency, ns);
        return ns;
    }
    grown = factor(costs->fault_4k_growth_ppm, others);
    for (uint32_t i = 0; i < faults.pages; i++) {
        ns = i < faults.refaults ? draw(residency, DRAW_REFAULT_4K, &costs->refault_4k, grown)
                                 : draw(residency, DRAW_FAULT_4K, &costs->fault_4k, grown);
        fpr_histogram_record_inline(latency, ns);
        sum += ns;
    }
    return sum;
}

/* Whether a touch of an absent page of this chunk brings in all of it. */
static bool comes_back_huge(const struct fpr_residency *residency, uint64_t chunk)
{
    return residency->config.thp &&
           !(residency->map.state[chunk] & (FPR_MAP_SOME | FPR_MAP_TABLE)) &&
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
        if (fpr_map_resident(map, range.chunk))
            continue;
        faults = fpr_map_populate(map, range, comes_back_huge(residency, range.chunk), now_ns);
        if (faults.pages == 0)
            continue;
        if (others == UINT32_MAX)
            others = faulting(residency, vcpu, now_ns);
        ns = draw_faults(residency, faults, others);
        fpr_map_count_faults(map, faults, ns);
        *cost_ns += ns;
    }
    if (others != UINT32_MAX) {
        if (vcpu >= residency->vcpus)
            residency->vcpus = vcpu + 1;
        residency->fault_until_ns[vcpu] = now_ns + *cost_ns;
    }
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
        bool huge = range.count == FPR_HUGE_PAGES && comes_back_huge(residency, range.chunk);

        fpr_map_populate(map, range, huge, now_ns);
        pfn += range.count;
        count -= range.count;
    }
    return FPR_OK;
}

/* What a call adds for what it finds in one chunk. */
static uint64_t draw_discard(struct fpr_residency *residency, struct fpr_chunk_range range,
                             struct fpr_chunk_mapped found, uint64_t grown)
{
    const struct fpr_host_costs *costs = &residency->costs;
    uint64_t sum = 0;

    if (found.pages == 0)
        return draw(residency, DRAW_DISCARD, &costs->discard_empty_2m, grown) * range.count /
               FPR_HUGE_PAGES;
    if (found.huge && range.count == FPR_HUGE_PAGES)
        return draw(residency, DRAW_DISCARD, &costs->discard_huge_2m, grown);
    if (found.huge) {
        residency->map.counters.huge_splits++;
        sum = draw(residency, DRAW_DISCARD, &costs->discard_split_2m, grown);
    }
    return sum + draw(residency, DRAW_DISCARD, &costs->discard_4k, grown) * found.pages;
}

static void discard_call(struct fpr_residency *residency, const struct fpr_batch_call *call,
                         uint64_t grown, uint64_t now_ns, struct fpr_discard_outcome *out)
{
    struct fpr_map *map = &residency->map;
    uint64_t page = call->gpa >> FPR_PAGE_SHIFT, left = call->bytes >> FPR_PAGE_SHIFT;
    bool unmapped = false;

    out->calls++;
    out->cost_ns += draw(residency, DRAW_DISCARD, &residency->costs.discard_call, grown);
    if (residency->config.discard_without_effect)
        return;
    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);
        struct fpr_chunk_mapped found = fpr_map_look(map, range, NULL);
        uint64_t gone[FPR_PAGE_WORDS];

        page += range.count;
        left -= range.count;
        unmapped |= found.pages != 0;
        out->cost_ns += draw_discard(residency, range, found, grown);
        fpr_map_mask(range, gone);
        fpr_map_remove(map, range.chunk, gone,
                       residency->config.page_table_reclaim && range.count == FPR_HUGE_PAGES,
                       now_ns);
    }
    if (unmapped)
        out->cost_ns += draw(residency, DRAW_DISCARD, &residency->costs.discard_flush, grown);
}

static uint64_t resident_bytes_in(const struct fpr_map *map, uint64_t gpa, uint64_t bytes)
{
    uint64_t page = gpa >> FPR_PAGE_SHIFT, left = bytes >> FPR_PAGE_SHIFT, pages = 0;

    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);

        pages += fpr_map_look(map, range, NULL).pages;
        page += range.count;
        left -= range.count;
    }
    return pages << FPR_PAGE_SHIFT;
}

int fpr_residency_discard(struct fpr_residency *residency, const uint64_t *ranges, uint32_t count,
                          uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out)
{
    struct fpr_map *map = &residency->map;
    uint64_t grown =
        factor(residency->costs.discard_growth_ppm, faulting(residency, UINT32_MAX, now_ns));
    struct fpr_batch_call call;

    memset(out, 0, sizeof *out);
    for (uint32_t first = 0; first < count; first = call.end) {
        call = fpr_batch_next(map, ranges, count, first, FPR_PAGE_BYTES);
        /* Accounts first, range by range; then the call, as the one piece that it is. */
        for (uint32_t i = call.first; i < call.end; i++) {
            uint64_t gpa, bytes, resident;

            fpr_batch_trim(map, ranges, i, FPR_PAGE_BYTES, out, &gpa, &bytes);
            resident = resident_bytes_in(map, gpa, bytes);
            out->already_free_bytes += bytes - resident;
            if (residency->config.discard_without_effect) {
                out->ineffective_bytes += resident;
                resident = 0;
            }
            out->freed_bytes += resident;
            if (freed != NULL)
                freed[i] = resident;
        }
        if (call.bytes == 0)
            continue;
        discard_call(residency, &call, grown, now_ns, out);
    }
    fpr_map_count_discard(map, count, out);
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
