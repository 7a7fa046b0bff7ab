/* What becomes of pages where the host's memory is limited. */
#include "host_model/native/residency_map.h"

uint32_t fpr_map_resident_pages(const struct fpr_map *map, uint64_t chunk)
{
    uint32_t pages = 0;

    if (fpr_map_resident(map, chunk))
        return FPR_HUGE_PAGES;
    if (map->state[chunk] & FPR_MAP_SOME)
        for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
            pages += (uint32_t)__builtin_popcountll(map->pages[chunk].resident[w]);
    return pages;
}

void fpr_map_swap_out(struct fpr_map *map, uint64_t chunk, const uint64_t *gone, uint64_t now_ns)
{
    uint32_t pages;

    /* The pages that come back are small ones: the table stays. */
    pages = fpr_map_remove(map, chunk, gone, false, now_ns);
    map->state[chunk] |= FPR_MAP_TABLE;
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        map->marks[chunk].swapped[w] |= gone[w];
    map->counters.swap_outs += pages;
    map->counters.swapped_bytes += (uint64_t)pages << FPR_PAGE_SHIFT;
}

uint32_t fpr_map_drop_swapped(struct fpr_map *map, uint64_t chunk, const uint64_t *gone)
{
    struct fpr_map_marks *marks = &map->marks[chunk];
    uint32_t pages = 0;

    if (!(map->state[chunk] & FPR_MAP_TABLE))
        return 0; /* never swapped, and its marks need not be paged in */
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        pages += (uint32_t)__builtin_popcountll(marks->swapped[w] & gone[w]);
        marks->swapped[w] &= ~gone[w];
    }
    map->counters.swap_drops += pages;
    map->counters.swapped_bytes -= (uint64_t)pages << FPR_PAGE_SHIFT;
    return pages;
}

void fpr_map_use(struct fpr_map *map, struct fpr_chunk_range range)
{
    uint64_t mask[FPR_PAGE_WORDS];

    fpr_map_mask(range, mask);
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        map->marks[range.chunk].young[w] |= mask[w];
}
