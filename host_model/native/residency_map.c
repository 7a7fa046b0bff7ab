#include "host_model/native/residency_map.h"

#include <string.h>
#include <sys/mman.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"

#define NS_PER_SECOND 1000000000u

_Static_assert(sizeof(struct fpr_map_pages) == 2 * FPR_HUGE_PAGES / 8, "two bits a page");

static void *reserve(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static int check_regions(const struct fpr_memory_region *regions, uint32_t count, uint64_t *end)
{
    *end = 0;
    if (count == 0 || count > FPR_HOST_MAX_REGIONS)
        return FPR_BAD_ARGUMENT;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t gpa = regions[i].gpa, bytes = regions[i].bytes;

        /* Ascending, apart, in whole pages, below the limit: sums cannot overflow. */
        if (gpa < *end || gpa > FPR_HOST_MAX_GPA || bytes == 0 || bytes > FPR_HOST_MAX_GPA - gpa ||
            (gpa | bytes) % FPR_PAGE_BYTES)
            return FPR_BAD_ARGUMENT;
        *end = gpa + bytes;
    }
    return FPR_OK;
}

int fpr_map_init(struct fpr_map *map, const struct fpr_memory_region *regions, uint32_t count)
{
    uint64_t end;
    int status = check_regions(regions, count, &end);

    memset(map, 0, sizeof *map);
    if (status != FPR_OK)
        return status;
    memcpy(map->regions, regions, count * sizeof *regions);
    map->region_count = count;
    map->chunks = (end + FPR_HUGE_BYTES - 1) / FPR_HUGE_BYTES;
    map->state = reserve(map->chunks);
    map->pages = reserve(map->chunks * sizeof *map->pages);
    map->lazy = reserve(map->chunks * sizeof *map->lazy);
    if (map->state == NULL || map->pages == NULL || map->lazy == NULL) {
        fpr_map_release(map);
        return FPR_HOST_MEMORY;
    }
    /* A huge page here would back 32 GiB of guest for one page that is looked at. */
    madvise(map->pages, map->chunks * sizeof *map->pages, MADV_NOHUGEPAGE);
    madvise(map->lazy, map->chunks * sizeof *map->lazy, MADV_NOHUGEPAGE);
    return FPR_OK;
}

void fpr_map_release(struct fpr_map *map)
{
    if (map->state != NULL)
        munmap(map->state, map->chunks);
    if (map->pages != NULL)
        munmap(map->pages, map->chunks * sizeof *map->pages);
    if (map->marks != NULL)
        munmap(map->marks, map->chunks * sizeof *map->marks);
    if (map->lazy != NULL)
        munmap(map->lazy, map->chunks * sizeof *map->lazy);
    map->state = NULL;
    map->pages = NULL;
    map->marks = NULL;
    map->lazy = NULL;
}

int fpr_map_keep_marks(struct fpr_map *map)
{
    map->marks = reserve(map->chunks * sizeof *map->marks);
    if (map->marks == NULL)
        return FPR_HOST_MEMORY;
    madvise(map->marks, map->chunks * sizeof *map->marks, MADV_NOHUGEPAGE);
    return FPR_OK;
}

uint64_t fpr_map_metadata_bytes(const struct fpr_map *map)
{
    return map->chunks * (1 + sizeof *map->pages + sizeof *map->lazy) + sizeof *map;
}

const struct fpr_memory_region *fpr_map_region(const struct fpr_map *map, uint64_t gpa,
                                               uint64_t bytes)
{
    for (uint32_t i = 0; i < map->region_count; i++) {
        const struct fpr_memory_region *region = &map->regions[i];
        uint64_t offset = gpa - region->gpa;

        /* Below the region, offset wraps to a number larger than any region. */
        if (offset < region->bytes && bytes <= region->bytes - offset)
            return region;
    }
    return NULL;
}

bool fpr_map_whole(const struct fpr_map *map, uint64_t chunk)
{
    return fpr_map_region(map, chunk << FPR_HUGE_SHIFT, FPR_HUGE_BYTES) != NULL;
}

void fpr_map_mask(struct fpr_chunk_range range, uint64_t *words)
{
    uint32_t end = range.first + range.count;

    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint32_t low = w * 64, from = range.first > low ? range.first - low : 0;
        uint32_t to = end > low ? end - low : 0;

        words[w] = 0;
        if (from >= 64 || to <= from)
            continue;
        words[w] = ~(uint64_t)0 << from;
        if (to < 64)
            words[w] &= ~(~(uint64_t)0 << to);
    }
}

struct fpr_chunk_mapped fpr_map_look(const struct fpr_map *map, struct fpr_chunk_range range,
                                     uint64_t *words)
{
    uint8_t state = map->state[range.chunk];
    struct fpr_chunk_mapped found = {0, (state & FPR_MAP_HUGE) != 0, (state & FPR_MAP_TABLE) != 0};
    uint64_t mask[FPR_PAGE_WORDS];

    if (words == NULL && fpr_map_resident(map, range.chunk)) {
        found.pages = range.count;
        return found;
    }
    if (!(state & (FPR_MAP_HUGE | FPR_MAP_SOME))) {
        if (words != NULL)
            memset(words, 0, sizeof mask);
        return found;
    }
    fpr_map_mask(range, mask);
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        if (!found.huge)
            mask[w] &= map->pages[range.chunk].resident[w];
        found.pages += (uint32_t)__builtin_popcountll(mask[w]);
    }
    if (words != NULL)
        memcpy(words, mask, sizeof mask);
    return found;
}

static void change(struct fpr_map *map, int64_t pages, uint64_t now_ns)
{
    struct fpr_host_counters *counters = &map->counters;

    map->resident_pages += (uint64_t)pages;
    map->moment += (__int128)pages * now_ns;
    if (map->footprint != NULL)
        fpr_footprint_change(map->footprint, pages, now_ns);
    counters->resident_bytes = map->resident_pages << FPR_PAGE_SHIFT;
    if (counters->resident_bytes > counters->resident_peak_bytes)
        counters->resident_peak_bytes = counters->resident_bytes;
}

static struct fpr_chunk_faults populate_huge(struct fpr_map *map, uint64_t chunk, uint64_t now_ns)
{
    uint8_t *state = &map->state[chunk];
    struct fpr_chunk_faults faults = {
        .pages = FPR_HUGE_PAGES, .refaults = FPR_HUGE_PAGES, .huge = true};

    if (!(*state & FPR_MAP_SEEN_ALL)) {
        faults.refaults = 0;
        for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
            faults.refaults += (uint32_t)__builtin_popcountll(map->pages[chunk].seen[w]);
    }
    *state = FPR_MAP_HUGE | FPR_MAP_SEEN_ALL;
    change(map, FPR_HUGE_PAGES, now_ns);
    return faults;
}

struct fpr_chunk_faults fpr_map_populate(struct fpr_map *map, struct fpr_chunk_range range,
                                         bool huge, uint64_t now_ns)
{
    struct fpr_chunk_faults faults = {0};
    struct fpr_map_pages *pages = &map->pages[range.chunk];
    uint8_t *state = &map->state[range.chunk];
    uint64_t mask[FPR_PAGE_WORDS], all = ~(uint64_t)0, seen_all = ~(uint64_t)0;
    bool was_seen_all = *state & FPR_MAP_SEEN_ALL;

    if (fpr_map_resident(map, range.chunk))
        return faults;
    if (huge)
        return populate_huge(map, range.chunk, now_ns);
    fpr_map_mask(range, mask);
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint64_t missing = mask[w] & ~pages->resident[w];
        uint64_t before = was_seen_all ? ~(uint64_t)0 : pages->seen[w];

        faults.pages += (uint32_t)__builtin_popcountll(missing);
        if (map->marks != NULL && missing != 0) {
            uint64_t swapped = map->marks[range.chunk].swapped[w] & missing;

            map->marks[range.chunk].swapped[w] &= ~swapped;
            faults.swapped += (uint32_t)__builtin_popcountll(swapped);
            faults.refaults -= (uint32_t)__builtin_popcountll(swapped);
        }
        faults.refaults += (uint32_t)__builtin_popcountll(missing & before);
        if (missing != 0) {
            pages->resident[w] |= missing;
            pages->seen[w] = before | missing;
        }
        all &= pages->resident[w];
        seen_all &= before | missing;
    }
    if (faults.pages == 0)
        return faults;
    *state |= FPR_MAP_SOME | FPR_MAP_TABLE | FPR_MAP_SEEN;
    if (all == ~(uint64_t)0)
        *state |= FPR_MAP_FULL;
    if (seen_all == ~(uint64_t)0)
        *state |= FPR_MAP_SEEN_ALL;
    map->counters.swapped_bytes -= (uint64_t)faults.swapped << FPR_PAGE_SHIFT;
    change(map, faults.pages, now_ns);
    return faults;
}

/* Pages of `gone` are about to leave: they are not lazily freed ones any more. */
static void forget_lazy(struct fpr_map *map, uint64_t chunk, const uint64_t *gone)
{
    uint64_t *lazy = map->lazy[chunk].pages, left = 0;

    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint64_t before = map->state[chunk] & FPR_MAP_HUGE ? ~(uint64_t)0 : lazy[w];

        map->lazy_pages -= (uint32_t)__builtin_popcountll(before & gone[w]);
        lazy[w] = before & ~gone[w];
        left |= lazy[w];
    }
    if (left == 0)
        map->state[chunk] &= (uint8_t)~FPR_MAP_LAZY;
    map->counters.lazy_free_bytes = map->lazy_pages << FPR_PAGE_SHIFT;
}

uint32_t fpr_map_remove(struct fpr_map *map, uint64_t chunk, const uint64_t *gone, bool drop_table,
                        uint64_t now_ns)
{
    uint8_t *state = &map->state[chunk];
    struct fpr_map_pages *pages = &map->pages[chunk];
    int64_t removed = 0;
    uint64_t left = 0;

    if (!(*state & (FPR_MAP_HUGE | FPR_MAP_SOME))) {
        if (drop_table)
            *state &= (uint8_t)~FPR_MAP_TABLE;
        return 0;
    }
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint64_t before = *state & FPR_MAP_HUGE ? ~(uint64_t)0 : pages->resident[w];

        removed += __builtin_popcountll(before & gone[w]);
        left |= before & ~gone[w];
    }
    if (removed == 0)
        return 0;
    if (*state & FPR_MAP_LAZY)
        forget_lazy(map, chunk, gone);
    if (*state & FPR_MAP_HUGE && left == 0) {
        *state &= (uint8_t)~FPR_MAP_HUGE; /* its resident[] was zero all along */
    } else {
        for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
            uint64_t before = *state & FPR_MAP_HUGE ? ~(uint64_t)0 : pages->resident[w];

            pages->resident[w] = before & ~gone[w];
        }
        *state &= (uint8_t)~(FPR_MAP_HUGE | FPR_MAP_FULL | FPR_MAP_SOME);
        *state |= FPR_MAP_TABLE;
        if (left != 0)
            *state |= FPR_MAP_SOME;
        else if (drop_table)
            *state &= (uint8_t)~FPR_MAP_TABLE;
    }
    change(map, -removed, now_ns);
    return (uint32_t)removed;
}

void fpr_map_count_discard(struct fpr_map *map, uint32_t ranges,
                           const struct fpr_discard_outcome *outcome)
{
    struct fpr_host_counters *counters = &map->counters;

    counters->discard_ranges += ranges;
    counters->discard_calls += outcome->calls;
    counters->discard_ns += outcome->cost_ns;
    counters->discarded_bytes += outcome->freed_bytes;
    counters->lazily_freed_bytes += outcome->lazy_bytes;
    counters->ineffective_bytes += outcome->ineffective_bytes;
    counters->already_free_bytes += outcome->already_free_bytes;
    counters->cannot_free_bytes += outcome->cannot_free_bytes;
    counters->error_bytes += outcome->error_bytes;
    counters->unaligned_bytes += outcome->unaligned_bytes;
    counters->outside_bytes += outcome->outside_bytes;
    counters->asked_bytes += outcome->freed_bytes + outcome->lazy_bytes +
                             outcome->ineffective_bytes + outcome->already_free_bytes +
                             outcome->cannot_free_bytes + outcome->error_bytes +
                             outcome->unaligned_bytes + outcome->outside_bytes;
}

void fpr_map_count_faults(struct fpr_map *map, struct fpr_chunk_faults faults, uint64_t cost_ns)
{
    struct fpr_host_counters *counters = &map->counters;

    counters->swap_ins += faults.swapped;
    counters->fault_bytes += (uint64_t)(faults.pages - faults.swapped) << FPR_PAGE_SHIFT;
    counters->refault_bytes += (uint64_t)faults.refaults << FPR_PAGE_SHIFT;
    counters->fault_ns += cost_ns;
    if (faults.huge) {
        counters->refaults_2m += faults.refaults != 0;
        counters->first_faults_2m += faults.refaults == 0;
    } else {
        counters->refaults_4k += faults.refaults;
        counters->first_faults_4k += faults.pages - faults.refaults - faults.swapped;
    }
}

void fpr_map_counters(const struct fpr_map *map, uint64_t now_ns, struct fpr_host_counters *out)
{
    __int128 page_ns = (__int128)map->resident_pages * now_ns - map->moment;

    *out = map->counters;
    if (page_ns < 0)
        page_ns = 0; /* asked for a time before some change */
    out->footprint_byte_seconds =
        (uint64_t)((unsigned __int128)page_ns * FPR_PAGE_BYTES / NS_PER_SECOND);
}

static void read_chunk(const struct fpr_map *map, struct fpr_chunk_range range, uint8_t *out)
{
    uint64_t words[FPR_PAGE_WORDS];
    struct fpr_chunk_mapped found = fpr_map_look(map, range, words);
    uint8_t there = found.huge ? 2 : 1;

    if (found.pages == 0 || found.pages == range.count) {
        memset(out, found.pages ? there : 0, range.count);
        return;
    }
    for (uint32_t i = 0; i < range.count; i++)
        out[i] = words[(range.first + i) / 64] >> (range.first + i) % 64 & 1 ? there : 0;
}

int fpr_map_read(const struct fpr_map *map, uint64_t pfn, uint64_t count, uint8_t *out)
{
    if (pfn > FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT || count > FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT ||
        fpr_map_region(map, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT) == NULL)
        return FPR_OUTSIDE;
    while (count) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);

        read_chunk(map, range, out);
        pfn += range.count;
        count -= range.count;
        out += range.count;
    }
    return FPR_OK;
}
