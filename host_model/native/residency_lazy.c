#include <string.h>

#include "host_model/native/residency_map.h"

static void change_lazy(struct fpr_map *map, uint64_t chunk, int64_t pages, bool any)
{
    map->lazy_pages += (uint64_t)pages;
    map->counters.lazy_free_bytes = map->lazy_pages << FPR_PAGE_SHIFT;
    if (any)
        map->state[chunk] |= FPR_MAP_LAZY;
    else
        map->state[chunk] &= (uint8_t)~FPR_MAP_LAZY;
}

/* A huge page, of which nothing is lazily freed, becomes 512 small ones. */
static void split(struct fpr_map *map, uint64_t chunk)
{
    memset(map->pages[chunk].resident, 0xff, sizeof map->pages[chunk].resident);
    map->state[chunk] &= (uint8_t)~FPR_MAP_HUGE;
    map->state[chunk] |= FPR_MAP_FULL | FPR_MAP_SOME | FPR_MAP_TABLE;
    map->counters.huge_splits++;
}

uint32_t fpr_map_look_lazy(const struct fpr_map *map, struct fpr_chunk_range range, uint64_t *words)
{
    uint64_t mask[FPR_PAGE_WORDS] = {0};
    uint32_t pages = 0;

    if (map->state[range.chunk] & FPR_MAP_LAZY) {
        fpr_map_mask(range, mask);
        for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
            if (!(map->state[range.chunk] & FPR_MAP_HUGE))
                mask[w] &= map->lazy[range.chunk].pages[w];
            pages += (uint32_t)__builtin_popcountll(mask[w]);
        }
    }
    if (words != NULL)
        memcpy(words, mask, sizeof mask);
    return pages;
}

uint32_t fpr_map_free_lazily(struct fpr_map *map, struct fpr_chunk_range range)
{
    struct fpr_map_lazy *lazy = &map->lazy[range.chunk];
    struct fpr_chunk_mapped found = fpr_map_look(map, range, NULL);
    uint32_t pages = found.pages - fpr_map_look_lazy(map, range, NULL);
    uint64_t present[FPR_PAGE_WORDS];

    if (pages == 0)
        return 0;
    if (found.huge && range.count == FPR_HUGE_PAGES) {
        change_lazy(map, range.chunk, pages, true);
        return pages;
    }
    if (found.huge)
        split(map, range.chunk);
    fpr_map_look(map, range, present);
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        lazy->pages[w] |= present[w];
    change_lazy(map, range.chunk, pages, true);
    return pages;
}

void fpr_map_keep(struct fpr_map *map, struct fpr_chunk_range range)
{
    uint64_t words[FPR_PAGE_WORDS], left = 0;
    uint32_t pages;

    if (!(map->state[range.chunk] & FPR_MAP_LAZY) || range.count == 0)
        return;
    if (map->state[range.chunk] & FPR_MAP_HUGE) {
        pages = FPR_HUGE_PAGES;
    } else {
        pages = fpr_map_look_lazy(map, range, words);
        for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
            left |= map->lazy[range.chunk].pages[w] &= ~words[w];
    }
    map->counters.lazy_kept_bytes += (uint64_t)pages << FPR_PAGE_SHIFT;
    change_lazy(map, range.chunk, -(int64_t)pages, left != 0);
}

uint32_t fpr_map_drop_lazy_in(struct fpr_map *map, uint64_t chunk, const uint64_t *gone,
                              uint64_t now_ns)
{
    struct fpr_chunk_range whole = {chunk, 0, FPR_HUGE_PAGES};
    uint64_t words[FPR_PAGE_WORDS];
    uint32_t pages = 0;

    if (fpr_map_look_lazy(map, whole, words) == 0)
        return 0;
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        if (gone != NULL)
            words[w] &= gone[w];
        pages += (uint32_t)__builtin_popcountll(words[w]);
    }
    fpr_map_remove(map, chunk, words, false, now_ns);
    /* Reclaim splits the entry of a huge page first, and leaves the page table (Linux 6.18): what
     * was there comes back page by page. */
    if (pages != 0)
        map->state[chunk] |= FPR_MAP_TABLE;
    map->counters.lazy_dropped_bytes += (uint64_t)pages << FPR_PAGE_SHIFT;
    return pages;
}

uint64_t fpr_map_drop_lazy(struct fpr_map *map, uint64_t pages, uint64_t now_ns)
{
    uint64_t dropped = 0;

    for (uint64_t i = 0; i < map->chunks && dropped < pages && map->lazy_pages != 0; i++) {
        dropped += fpr_map_drop_lazy_in(map, map->lazy_hand, NULL, now_ns);
        map->lazy_hand = map->lazy_hand + 1 == map->chunks ? 0 : map->lazy_hand + 1;
    }
    return dropped;
}
