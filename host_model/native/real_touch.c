#include <errno.h>
#include <sys/mman.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"
#include "host_model/native/real_memory_private.h"

/* Write to a page and time it, with what the clock itself takes. */
static uint64_t write_page(uint8_t *at)
{
    uint64_t start = fpr_clock_ns();

    *(volatile uint8_t *)at = 1;
    return fpr_clock_ns() - start;
}

/* Have the kernel bring in a huge page of the pool, and time it: a write would kill this process
 * where the pool has none. */
static int touch_hugetlb(struct fpr_real_memory *memory, uint8_t *at, struct fpr_chunk_range range,
                         bool counted, uint64_t now_ns, uint64_t *cost_ns)
{
    uint8_t *chunk = at - (uint64_t)range.first * FPR_PAGE_BYTES;
    uint64_t start = fpr_clock_ns(), ns;
    struct fpr_chunk_faults faults;

    if (madvise(chunk, FPR_HUGE_BYTES, MADV_POPULATE_WRITE) < 0)
        return errno == EFAULT || errno == ENOMEM ? FPR_HOST_MEMORY : FPR_SYSTEM;
    ns = fpr_clock_ns() - start;
    faults = fpr_map_populate(&memory->map, range, true, now_ns);
    if (counted) {
        fpr_histogram_record_inline(&memory->map.fault_latency, ns);
        fpr_map_count_faults(&memory->map, faults, ns);
    }
    *cost_ns += ns;
    return FPR_OK;
}

/* Write to the lazily freed pages of a range that are still there, which keeps them: no fault. One
 * that the kernel drops between the look and the write comes back uncounted. */
static int keep_lazy(struct fpr_real_memory *memory, uint8_t *at, struct fpr_chunk_range range,
                     uint64_t now_ns)
{
    struct fpr_map *map = &memory->map;
    uint64_t lazy[FPR_PAGE_WORDS], gpa = (range.chunk * FPR_HUGE_PAGES + range.first)
                                         << FPR_PAGE_SHIFT;
    int status = fpr_real_settle(memory, gpa, (uint64_t)range.count << FPR_PAGE_SHIFT, now_ns);

    if (status != FPR_OK)
        return status;
    fpr_map_look_lazy(map, range, lazy);
    for (uint32_t i = range.first; i < range.first + range.count; i++, at += FPR_PAGE_BYTES)
        if (lazy[i / 64] >> (i % 64) & 1)
            write_page(at);
    fpr_map_keep(map, range);
    return FPR_OK;
}

/* Whether the fault that just happened brought in all of an aligned 2 MiB. */
static int came_huge(struct fpr_real_memory *memory, const uint8_t *chunk, bool *huge)
{
    uint64_t resident;
    int status = fpr_real_resident_bytes_in(memory, chunk, FPR_HUGE_BYTES, &resident);

    *huge = status == FPR_OK && resident == FPR_HUGE_BYTES;
    return status;
}

static bool may_come_huge(const struct fpr_real_memory *memory, uint64_t chunk)
{
    return memory->config.thp && !(memory->map.state[chunk] & FPR_MAP_SOME) &&
           fpr_map_whole(&memory->map, chunk);
}

/* Touch the absent pages of a range within 2 MiB: each write is timed by itself. */
static int touch_chunk(struct fpr_real_memory *memory, uint8_t *at, struct fpr_chunk_range range,
                       bool counted, uint64_t now_ns, uint64_t *cost_ns)
{
    struct fpr_map *map = &memory->map;
    bool may_be_huge = may_come_huge(memory, range.chunk);
    uint64_t present[FPR_PAGE_WORDS], sum = 0;
    struct fpr_chunk_faults faults;
    bool huge = false;

    fpr_map_look(map, range, present);
    for (uint32_t i = range.first; i < range.first + range.count; i++, at += FPR_PAGE_BYTES) {
        uint64_t ns;

        if (present[i / 64] >> (i % 64) & 1)
            continue;
        ns = write_page(at);
        if (huge)
            continue; /* the first write brought this page in as well */
        sum += ns;
        if (counted)
            fpr_histogram_record_inline(&map->fault_latency, ns);
        if (may_be_huge) {
            int status = came_huge(memory, at - (uint64_t)i * FPR_PAGE_BYTES, &huge);

            if (status != FPR_OK)
                return status;
            may_be_huge = false;
        }
    }
    faults = fpr_map_populate(map, range, huge, now_ns);
    if (counted && faults.pages != 0)
        fpr_map_count_faults(map, faults, sum);
    *cost_ns += sum;
    return FPR_OK;
}

/* Touch a range within 2 MiB of which something may be absent. */
static int touch_range(struct fpr_real_memory *memory, uint8_t *at, struct fpr_chunk_range range,
                       bool counted, uint64_t now_ns, uint64_t *cost_ns)
{
    struct fpr_map *map = &memory->map;
    uint64_t more = range.count - fpr_map_look(map, range, NULL).pages;

    if (may_come_huge(memory, range.chunk) || fpr_real_hugetlb(memory))
        more = FPR_HUGE_PAGES;
    if ((map->resident_pages + more) << FPR_PAGE_SHIFT > memory->config.touch_limit_bytes)
        return FPR_HOST_MEMORY;
    return fpr_real_hugetlb(memory) ? touch_hugetlb(memory, at, range, counted, now_ns, cost_ns)
                                    : touch_chunk(memory, at, range, counted, now_ns, cost_ns);
}

static int touch(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count, bool counted,
                 uint64_t now_ns, uint64_t *cost_ns)
{
    struct fpr_map *map = &memory->map;
    uint64_t limit = FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT;
    struct fpr_real_mapping *mapping;
    int status = FPR_OK;

    *cost_ns = 0;
    if (pfn > limit || count > limit)
        return FPR_OUTSIDE;
    mapping = fpr_real_mapping(memory, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT);
    if (mapping == NULL)
        return FPR_OUTSIDE;
    while (count > 0 && status == FPR_OK) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);
        uint8_t *at = fpr_real_address(memory, mapping, pfn << FPR_PAGE_SHIFT);

        if (map->state[range.chunk] & FPR_MAP_LAZY)
            status = keep_lazy(memory, at, range, now_ns);
        if (status == FPR_OK && !fpr_map_resident(map, range.chunk))
            status = touch_range(memory, at, range, counted, now_ns, cost_ns);
        pfn += range.count;
        count -= range.count;
    }
    return status;
}

int fpr_real_memory_touch(void *host, uint64_t pfn, uint64_t count, uint32_t flags, uint64_t now_ns,
                          uint32_t vcpu, struct fpr_touch_cost *cost)
{
    (void)flags;
    (void)vcpu;
    cost->asleep_ns = 0;
    return touch(host, pfn, count, true, now_ns, &cost->ns);
}

int fpr_real_memory_populate(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count,
                             uint64_t now_ns)
{
    uint64_t cost_ns;

    return touch(memory, pfn, count, false, now_ns, &cost_ns);
}
