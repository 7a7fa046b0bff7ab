/* The residency of a guest's memory without any cost: shared by the simulated host and by the real
 * backings, which keep it to know what a touch or a discard should find. Private to host_model. */
#ifndef FPR_RESIDENCY_MAP_H
#define FPR_RESIDENCY_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "emulator/native/histogram.h"
#include "host_model/native/footprint.h"
#include "host_model/native/host.h"

#define FPR_PAGE_SHIFT 12
#define FPR_PAGE_BYTES 4096u
#define FPR_HUGE_SHIFT 21
#define FPR_HUGE_BYTES 2097152u
#define FPR_HUGE_PAGES 512u
#define FPR_PAGE_WORDS 8u

/* State of an aligned 2 MiB. */
#define FPR_MAP_HUGE 1u     /* one huge page: resident[] does not count */
#define FPR_MAP_FULL 2u     /* 512 small pages; resident[] is all ones */
#define FPR_MAP_SOME 4u     /* at least one small page */
#define FPR_MAP_SEEN_ALL 8u /* all 512 were resident at some time: seen[] does not count */
#define FPR_MAP_TABLE 16u   /* a page table maps it by 4 KiB */
/* Some of it was freed lazily: resident until the host needs memory, or until it is touched. Of
 * a huge page all of it, and lazy[] does not count. */
#define FPR_MAP_LAZY 32u
#define FPR_MAP_SEEN 64u /* some were resident at some time: seen[] counts */

struct fpr_map_pages {
    uint64_t resident[FPR_PAGE_WORDS];
    uint64_t seen[FPR_PAGE_WORDS]; /* was resident at some time */
};

/* Where the host's memory is limited: what became of pages of a 2 MiB. */
struct fpr_map_marks {
    uint64_t swapped[FPR_PAGE_WORDS]; /* not resident, and kept in swap */
    uint64_t young[FPR_PAGE_WORDS];   /* used since reclaim last looked */
};

struct fpr_map_lazy {
    uint64_t pages[FPR_PAGE_WORDS]; /* freed lazily, and not touched or dropped since */
};

struct fpr_map {
    uint8_t *state;              /* one for every 2 MiB from gpa 0 on */
    struct fpr_map_pages *pages; /* the same; read only where state says so */
    struct fpr_map_marks *marks; /* the same; NULL where memory is not limited */
    struct fpr_map_lazy *lazy;   /* the same; only pages that are resident */
    uint64_t chunks;             /* of 2 MiB */
    struct fpr_memory_region regions[FPR_HOST_MAX_REGIONS];
    uint32_t region_count;
    /* Sums over all changes, whatever the order of their times: the footprint up to T is
     * resident_pages * T - moment. */
    uint64_t resident_pages;
    uint64_t lazy_pages;             /* of them, freed lazily */
    uint64_t lazy_hand;              /* the chunk where fpr_map_drop_lazy() goes on */
    __int128 moment;                 /* sum of (pages that came or went) * ns */
    struct fpr_footprint *footprint; /* of the host, which hears of them; NULL: none */
    struct fpr_host_counters counters;
    struct fpr_histogram fault_latency;
};

/* Pages of one 2 MiB chunk: [first, first + count), below 512. */
struct fpr_chunk_range {
    uint64_t chunk;
    uint32_t first, count;
};

/* What became resident in a chunk. */
struct fpr_chunk_faults {
    uint32_t pages;    /* all; 512 with `huge` */
    uint32_t refaults; /* of them, discarded before */
    uint32_t swapped;  /* of them, swapped out before: no refaults */
    bool huge;
    uint32_t fresh; /* of them, memory that the host itself never used: its accounts say */
};

/* What was mapped in a chunk, before a discard. */
struct fpr_chunk_mapped {
    uint32_t pages;
    bool huge;
    bool table; /* there is a page table for 4 KiB, whether anything is in it or not */
};

int fpr_map_init(struct fpr_map *map, const struct fpr_memory_region *regions, uint32_t count);
void fpr_map_release(struct fpr_map *map);
/* Keep marks from here on. FPR_HOST_MEMORY. */
int fpr_map_keep_marks(struct fpr_map *map);
uint64_t fpr_map_metadata_bytes(const struct fpr_map *map);

/* The region that holds all of [gpa, gpa + bytes), or NULL. */
const struct fpr_memory_region *fpr_map_region(const struct fpr_map *map, uint64_t gpa,
                                               uint64_t bytes);
/* Whether the chunk lies inside guest memory as a whole. */
bool fpr_map_whole(const struct fpr_map *map, uint64_t chunk);
/* Pages of a range that are resident; bit i of words[] for page i of the chunk, unless NULL. */
struct fpr_chunk_mapped fpr_map_look(const struct fpr_map *map, struct fpr_chunk_range range,
                                     uint64_t *words);
/* Make a range resident by small pages; or, with `huge`, the whole of an empty chunk. */
struct fpr_chunk_faults fpr_map_populate(struct fpr_map *map, struct fpr_chunk_range range,
                                         bool huge, uint64_t now_ns);
/* Make absent every page of the chunk whose bit is set in gone[8]; how many there were.
 * `drop_table`: nothing is left of its page table if nothing is left of its pages. */
uint32_t fpr_map_remove(struct fpr_map *map, uint64_t chunk, const uint64_t *gone, bool drop_table,
                        uint64_t now_ns);
/* Pages of the chunk that are resident. */
uint32_t fpr_map_resident_pages(const struct fpr_map *map, uint64_t chunk);
/* With marks: take resident pages to swap; forget swapped pages, how many there were; a range is
 * used. */
void fpr_map_swap_out(struct fpr_map *map, uint64_t chunk, const uint64_t *gone, uint64_t now_ns);
uint32_t fpr_map_drop_swapped(struct fpr_map *map, uint64_t chunk, const uint64_t *gone);
void fpr_map_use(struct fpr_map *map, struct fpr_chunk_range range);
/* Free the resident pages of a range lazily, as MADV_FREE does: they stay until they are dropped,
 * and a touch before that keeps them. A huge page of which this is a part becomes small pages. The
 * pages that were not lazily freed before. */
uint32_t fpr_map_free_lazily(struct fpr_map *map, struct fpr_chunk_range range);
/* Lazily freed pages of a range; bit i of words[] for page i of the chunk, unless NULL. */
uint32_t fpr_map_look_lazy(const struct fpr_map *map, struct fpr_chunk_range range,
                           uint64_t *words);
/* A range is touched: its lazily freed pages are the guest's again. A touch of any part of a huge
 * page keeps all of it. */
void fpr_map_keep(struct fpr_map *map, struct fpr_chunk_range range);
/* The host needs memory: drop all lazily freed pages of one chunk; those in `gone` only, unless it
 * is NULL. The pages dropped. */
uint32_t fpr_map_drop_lazy_in(struct fpr_map *map, uint64_t chunk, const uint64_t *gone,
                              uint64_t now_ns);
/* The same for lazily freed pages anywhere, chunk by chunk in a circle, until `pages` or more are
 * gone, or none is left. */
uint64_t fpr_map_drop_lazy(struct fpr_map *map, uint64_t pages, uint64_t now_ns);
/* Bits [first, first + count) of a chunk. */
void fpr_map_mask(struct fpr_chunk_range range, uint64_t *words);
/* Add an outcome to the counters. */
void fpr_map_count_discard(struct fpr_map *map, uint32_t ranges,
                           const struct fpr_discard_outcome *outcome);
void fpr_map_count_faults(struct fpr_map *map, struct fpr_chunk_faults faults, uint64_t cost_ns);
void fpr_map_counters(const struct fpr_map *map, uint64_t now_ns, struct fpr_host_counters *out);
/* Count pages by enum fpr_page_state_of_both; see page_states.h. */
int fpr_map_count_states(const struct fpr_map *map, const uint64_t *free_bits,
                         const uint64_t *reported, uint64_t words, uint64_t row_pages,
                         uint64_t *counts, uint64_t rows);
int fpr_map_read(const struct fpr_map *map, uint64_t pfn, uint64_t count, uint8_t *out);

/* True where a touch of the whole chunk finds all of it. */
static inline bool fpr_map_resident(const struct fpr_map *map, uint64_t chunk)
{
    return map->state[chunk] & (FPR_MAP_HUGE | FPR_MAP_FULL);
}

/* Cut what starts at page `page` with `left` pages at the end of its chunk. */
static inline struct fpr_chunk_range fpr_map_cut(uint64_t page, uint64_t left)
{
    struct fpr_chunk_range range = {page / FPR_HUGE_PAGES, (uint32_t)(page % FPR_HUGE_PAGES), 0};
    uint64_t room = FPR_HUGE_PAGES - range.first;

    range.count = (uint32_t)(left < room ? left : room);
    return range;
}

#endif
