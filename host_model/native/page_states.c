#include "host_model/native/page_states.h"

#include <stdbool.h>
#include <string.h>

#include "emulator/native/status.h"
#include "host_model/native/residency_map.h"

_Static_assert(FPR_HUGE_PAGES == 64 * FPR_PAGE_WORDS, "a chunk's pages are whole words of bits");

struct chunk_bits {
    uint64_t inside[FPR_PAGE_WORDS]; /* guest memory */
    uint64_t resident[FPR_PAGE_WORDS], seen[FPR_PAGE_WORDS];
};

static void look(const struct fpr_map *map, struct fpr_chunk_range range, struct chunk_bits *bits)
{
    uint8_t state = map->state[range.chunk];

    fpr_map_mask(range, bits->inside);
    fpr_map_look(map, range, bits->resident);
    if (state & FPR_MAP_SEEN_ALL)
        memset(bits->seen, 0xff, sizeof bits->seen);
    else if (state & FPR_MAP_SEEN)
        memcpy(bits->seen, map->pages[range.chunk].seen, sizeof bits->seen);
    else /* never resident: its words may not even be paged in */
        memset(bits->seen, 0, sizeof bits->seen);
}

static uint64_t ones(uint64_t word)
{
    return (uint64_t)__builtin_popcountll(word);
}

static void count_chunk(const struct chunk_bits *bits, const uint64_t *free_bits,
                        const uint64_t *reported, uint64_t *counts)
{
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint64_t free_pages = free_bits[w] & bits->inside[w], here = bits->resident[w];
        uint64_t used = bits->inside[w] & ~free_bits[w], absent = free_pages & ~here;

        counts[FPR_STATE_USED] += ones(used & here);
        counts[FPR_STATE_USED_ABSENT] += ones(used & ~here);
        counts[FPR_STATE_FREE_HELD] += ones(free_pages & here & ~reported[w]);
        counts[FPR_STATE_REPORTED_HELD] += ones(free_pages & here & reported[w]);
        counts[FPR_STATE_FREE_GIVEN_BACK] += ones(absent & bits->seen[w]);
        counts[FPR_STATE_FREE_UNTOUCHED] += ones(absent & ~bits->seen[w]);
    }
}

static bool all_are(const uint64_t *words, uint64_t word)
{
    uint64_t differ = 0;

    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        differ |= words[w] ^ word;
    return differ == 0;
}

/* The state of a whole chunk, where all of its pages are the same by words that say so at a glance;
 * FPR_PAGE_STATES where they may not be. Most chunks of a guest are like that. */
static uint32_t state_of_all(uint8_t state, const uint64_t *free_bits, const uint64_t *reported)
{
    bool here = state & (FPR_MAP_HUGE | FPR_MAP_FULL);

    if (!here && state & (FPR_MAP_SOME | FPR_MAP_LAZY))
        return FPR_PAGE_STATES;
    if (all_are(free_bits, 0))
        return here ? FPR_STATE_USED : FPR_STATE_USED_ABSENT;
    if (!all_are(free_bits, ~(uint64_t)0))
        return FPR_PAGE_STATES;
    if (!here)
        return state & FPR_MAP_SEEN_ALL ? FPR_STATE_FREE_GIVEN_BACK
               : state == 0             ? FPR_STATE_FREE_UNTOUCHED
                                        : FPR_PAGE_STATES;
    if (all_are(reported, ~(uint64_t)0))
        return FPR_STATE_REPORTED_HELD;
    return all_are(reported, 0) ? FPR_STATE_FREE_HELD : FPR_PAGE_STATES;
}

static void add_chunk(const struct fpr_map *map, struct fpr_chunk_range range,
                      const uint64_t *free_bits, const uint64_t *reported, uint64_t *counts)
{
    uint32_t state = FPR_PAGE_STATES;
    struct chunk_bits bits;

    if (range.count == FPR_HUGE_PAGES)
        state = state_of_all(map->state[range.chunk], free_bits, reported);
    if (state < FPR_PAGE_STATES) {
        counts[state] += FPR_HUGE_PAGES;
        return;
    }
    look(map, range, &bits);
    count_chunk(&bits, free_bits, reported, counts);
}

int fpr_map_count_states(const struct fpr_map *map, const uint64_t *free_bits,
                         const uint64_t *reported, uint64_t words, uint64_t row_pages,
                         uint64_t *counts, uint64_t rows)
{
    uint64_t row_chunks = row_pages / FPR_HUGE_PAGES;

    if (row_pages == 0 || row_pages % FPR_HUGE_PAGES || words < map->chunks * FPR_PAGE_WORDS ||
        rows < (map->chunks + row_chunks - 1) / row_chunks)
        return FPR_BAD_ARGUMENT;
    memset(counts, 0, rows * FPR_PAGE_STATES * sizeof *counts);
    for (uint32_t i = 0; i < map->region_count; i++) {
        uint64_t page = map->regions[i].gpa >> FPR_PAGE_SHIFT;
        uint64_t left = map->regions[i].bytes >> FPR_PAGE_SHIFT;

        while (left) {
            struct fpr_chunk_range range = fpr_map_cut(page, left);

            add_chunk(map, range, &free_bits[range.chunk * FPR_PAGE_WORDS],
                      &reported[range.chunk * FPR_PAGE_WORDS],
                      &counts[range.chunk / row_chunks * FPR_PAGE_STATES]);
            page += range.count;
            left -= range.count;
        }
    }
    return FPR_OK;
}
