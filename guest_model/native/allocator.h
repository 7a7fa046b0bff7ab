/* The page allocator of a Linux guest: zones, buddy lists by order and migrate type, fallback and
 * page-block stealing, per-CPU lists, watermarks. Frames are page frame numbers (pfn); a block
 * (pfn, order) is 2^order frames from pfn on, pfn a multiple of 2^order.
 *
 * A list's head is where allocation takes from. All functions return an fpr_status unless they say
 * otherwise, with the result in the last parameter; nothing is allocated after create. */
#ifndef FPR_ALLOCATOR_H
#define FPR_ALLOCATOR_H

#include <stddef.h>
#include <stdint.h>

#include "guest_model/native/block.h"
#include "guest_model/native/rules.h"

#define FPR_MAX_ORDERS 14 /* arm64 with 64 KiB pages: top order 13 */
#define FPR_MIGRATETYPES 6
#define FPR_MAX_ZONES 4
#define FPR_PCP_LISTS 14 /* orders 0..3 by three types, then THP: others, movable */

enum fpr_migratetype {
    FPR_UNMOVABLE = 0,
    FPR_MOVABLE = 1,
    FPR_RECLAIMABLE = 2,
    FPR_HIGHATOMIC = 3,
    FPR_CMA = 4,
    FPR_ISOLATE = 5,
};

/* Index of a zone in the kernel's order; a request may use its class and all below. */
enum fpr_zone_class {
    FPR_ZONE_DMA = 0,
    FPR_ZONE_DMA32 = 1,
    FPR_ZONE_NORMAL = 2,
    FPR_ZONE_MOVABLE = 3
};

/* Flags of an allocation. */
#define FPR_ALLOC_DMA 1u         /* only the DMA zone */
#define FPR_ALLOC_DMA32 2u       /* DMA32 and below */
#define FPR_ALLOC_HIGH 4u        /* high priority: half of the minimum watermark */
#define FPR_ALLOC_NONBLOCKING 8u /* another quarter of it; with order > 0: highatomic */
#define FPR_ALLOC_NO_RECLAIM 16u /* fails rather than empty per-CPU lists: a fault's huge page */
#define FPR_ALLOC_COLD 32u       /* will not be in a CPU's cache: see FPR_PLACE_HOT_COLD */

/* Flags of a free into the buddy lists. */
#define FPR_FREE_TO_TAIL 1u
#define FPR_FREE_SKIP_NOTIFY 2u
/* Flag of fpr_free: the block is in no CPU's cache. */
#define FPR_FREE_COLD 4u

/* Where blocks go in their lists, and which is taken. Halves of a block that is cut go to the
 * heads, and blocks that change their type to the tails, everywhere. */
enum fpr_placement {
    FPR_PLACE_LINUX = 0,   /* merge-likely and returned blocks to the tail, others to the head */
    FPR_PLACE_LIFO = 1,    /* every freed or returned block to the head */
    FPR_PLACE_FIFO = 2,    /* every one to the tail */
    FPR_PLACE_SHUFFLE = 3, /* as LINUX, but freed top-order blocks go to a random end */
    /* As LINUX, but cold blocks enter and leave per-CPU lists at the tail, as before 4.15. */
    FPR_PLACE_HOT_COLD = 4,
    /* As LINUX, but reported blocks are a run at the tail of their list, and an allocation takes
     * one only where its type has no unreported block that is large enough. */
    FPR_PLACE_REPORTED_LAST = 5,
    FPR_PLACEMENTS = 6
};

/* Why fpr_list_take stopped. */
enum fpr_take_stop {
    FPR_TAKE_END = 0,       /* ran off the end of the list */
    FPR_TAKE_CANDIDATE = 1, /* `max` taken, and one more unreported block is there: now the head */
    FPR_TAKE_REFUSED = 2,   /* isolation refused by the watermark: the refused block is the head */
};

struct fpr_allocator; /* opaque */

struct fpr_allocator_config {
    uint64_t frames; /* frames 0 .. frames-1 may exist */
    uint64_t seed;   /* of the placement that shuffles */
    uint32_t cpus;
    uint32_t zones;
    uint8_t top_order;       /* largest block, 10 on x86-64 */
    uint8_t pageblock_order; /* 9 on x86-64 */
    uint8_t thp_order;       /* per-CPU lists hold this order too; 0: no huge pages */
    uint8_t placement;       /* enum fpr_placement */
    uint32_t boost_factor;   /* watermark boost, in 1/10000 of the high watermark; 15000 */
    struct fpr_rules rules;  /* of the version of Linux */
};

struct fpr_zone_config {
    uint64_t start_pfn, end_pfn;
    uint64_t managed_pages;
    uint64_t min_pages, low_pages, high_pages; /* watermarks */
    uint64_t lowmem_reserve[FPR_MAX_ZONES];    /* by the class of the request */
    uint32_t zone_class;
    uint32_t pcp_batch, pcp_high;
    uint32_t pcp_high_max; /* where lists are sized by demand: pcp_high is the least they hold */
};

/* What a zone looks like now. */
struct fpr_zone_state {
    struct fpr_zone_config config;
    uint64_t free_pages; /* not those on per-CPU lists, with the device, or isolated */
    uint64_t boost_pages;
    uint64_t highatomic_pages;
    uint64_t pcp_pages;               /* on the per-CPU lists, all CPUs */
    uint64_t nr_free[FPR_MAX_ORDERS]; /* blocks of each order, all types */
};

/* What a CPU's lists of a zone remember of what was asked for; see enum fpr_pcp_sizing. */
struct fpr_pcp_demand {
    uint32_t free_factor;   /* doublings of a drain: FPR_PCP_FREE_FACTOR; else FPR_PCP_AUTO: */
    uint32_t high;          /* the limit now */
    uint32_t free_count;    /* pages freed of late */
    uint32_t alloc_factor;  /* doublings of a refill */
    uint32_t freed_several; /* the last free was of several pages */
    uint32_t empties_few;   /* so do two such frees in a row what is less than a batch */
};

struct fpr_counters {
    uint64_t allocs, frees;     /* requests served, blocks freed */
    uint64_t failures;          /* requests that no zone could serve */
    uint64_t refills, drains;   /* blocks moved to and from the per-CPU lists */
    uint64_t fallbacks, steals; /* taken from another type; those that claimed a page block */
    uint64_t merges, splits;
    uint64_t reported_allocs;      /* blocks that were flagged reported when they were allocated */
    uint64_t reported_alloc_pages; /* all pages of those blocks, also where one was cut */
    /* Where a boundary promises an order (boundary.h): lists looked at when a zone's pass ended,
     * those with an unreported block behind a reported one, and blocks that went there. */
    uint64_t checked_lists, broken_lists, misplaced_blocks;
};

/* The hook that tells a reporting policy of free blocks. While `armed`, a free that ends in a block
 * of at least `order` sets `raised` and clears `armed`; whoever drives the allocator looks at
 * `raised` after each operation. order 255: never. With `high_water`, only once a zone has that
 * many blocks of the order more than are reported; then the zone's bit is set in `zones`, where it
 * is not told of again, and `armed` stays. */
struct fpr_notify {
    uint32_t order;
    uint32_t armed;
    uint32_t raised;
    uint32_t high_water;
    uint32_t zones;
};

/* All lists begin empty. FPR_BAD_ARGUMENT: a configuration beyond the limits above;
 * FPR_HOST_MEMORY. The caller destroys it; what the next two hand out lives as long. */
int fpr_allocator_create(const struct fpr_allocator_config *config,
                         const struct fpr_zone_config *zones, struct fpr_allocator **out);
void fpr_allocator_destroy(struct fpr_allocator *allocator);
struct fpr_notify *fpr_allocator_notify(struct fpr_allocator *allocator);
const struct fpr_counters *fpr_allocator_counters(const struct fpr_allocator *allocator);
/* Bytes of this process's memory that the metadata could ever take, and takes now. */
uint64_t fpr_allocator_metadata_bytes(const struct fpr_allocator *allocator);

/* Hand over a free range as the boot allocator does: cut greedily, ascending, to the tails. */
int fpr_allocator_add_range(struct fpr_allocator *allocator, uint64_t pfn, uint64_t count);
/* Shuffle the free top-order blocks once all memory is handed over: each in turn changes places
 * with a random one of its zone, list and label, if up to 10 tries find one (page_alloc.shuffle,
 * linux v6.1, mm/shuffle.c). FPR_BAD_ARGUMENT where the placement is another. */
int fpr_allocator_shuffle(struct fpr_allocator *allocator);
/* Put a free block at the tail of a list as it is known to be, without merging. */
int fpr_allocator_add_block(struct fpr_allocator *allocator, uint64_t pfn, uint32_t order,
                            uint32_t type);
/* Put an allocated block where it is known to be. `type` is what it was allocated as. */
int fpr_allocator_add_allocated(struct fpr_allocator *allocator, uint64_t pfn, uint32_t order,
                                uint32_t type);
/* Put a free block at the tail of the CPU's list that takes its order and type; no limit is looked
 * at. FPR_BAD_ARGUMENT also where no such list takes this order. */
int fpr_allocator_add_pcp(struct fpr_allocator *allocator, uint32_t cpu, uint64_t pfn,
                          uint32_t order, uint32_t type);
/* How demand has sized the lists that a CPU has of a zone. */
int fpr_allocator_set_pcp(struct fpr_allocator *allocator, uint32_t zone, uint32_t cpu,
                          const struct fpr_pcp_demand *demand);
/* Label of the page block of pfn; not a status. */
uint32_t fpr_allocator_label(const struct fpr_allocator *allocator, uint64_t pfn);
int fpr_allocator_set_label(struct fpr_allocator *allocator, uint64_t pfn, uint32_t type);
int fpr_allocator_zone(const struct fpr_allocator *allocator, uint32_t zone,
                       struct fpr_zone_state *out);
/* Change watermarks, managed pages, reserves and per-CPU parameters of a zone; the
 * boost is reset. */
int fpr_allocator_set_zone(struct fpr_allocator *allocator, uint32_t zone,
                           const struct fpr_zone_config *config);

/* Allocate and free as the kernel's top level does: zonelist, watermarks, per-CPU lists. */
int fpr_alloc(struct fpr_allocator *allocator, uint32_t cpu, uint32_t order, uint32_t type,
              uint32_t flags, uint64_t *pfn);
int fpr_free(struct fpr_allocator *allocator, uint32_t cpu, uint64_t pfn, uint32_t order,
             uint32_t flags);
/* The same for `count` blocks, one after the other. Where an allocation fails, `*taken` of them are
 * there; where a block cannot be freed, those before it are free. */
int fpr_alloc_each(struct fpr_allocator *allocator, uint32_t cpu, uint32_t order, uint32_t type,
                   uint32_t flags, uint64_t *pfns, uint32_t count, uint32_t *taken);
int fpr_free_each(struct fpr_allocator *allocator, uint32_t cpu, const uint64_t *pfns,
                  uint32_t count, uint32_t order, uint32_t flags);
/* Empty the per-CPU lists of one CPU, or of all (cpu = UINT32_MAX). */
int fpr_drain_pcp(struct fpr_allocator *allocator, uint32_t cpu);
/* What the kernel does once a second where lists are sized by demand: lower this CPU's limits, and
 * give back what is beyond them. */
int fpr_decay_pcp(struct fpr_allocator *allocator, uint32_t cpu);

/* The buddy lists alone, without watermarks and per-CPU lists. */
int fpr_buddy_alloc(struct fpr_allocator *allocator, uint32_t zone, uint32_t order, uint32_t type,
                    uint64_t *pfn);
int fpr_buddy_free(struct fpr_allocator *allocator, uint64_t pfn, uint32_t order, uint32_t type,
                   uint32_t flags);
/* Take exactly this block out of whatever free block holds it; the rest goes to the heads of its
 * lists, largest first. FPR_NOT_FREE where some frame of it is not free. */
int fpr_buddy_take(struct fpr_allocator *allocator, uint64_t pfn, uint32_t order);
/* The free block that holds pfn, if any: *out, else FPR_NOT_FREE. */
int fpr_buddy_find(const struct fpr_allocator *allocator, uint64_t pfn, struct fpr_block *out);

/* Walk list [order][type] from its head, pass over reported blocks, isolate up to `max` unreported
 * ones (out of every list and of the free count) into blocks[0..*taken). Where it stops at a block,
 * the list is rotated so that this block is its head. `floor`: isolation is refused unless more
 * than the minimum watermark + 2^order pages are free. */
int fpr_list_take(struct fpr_allocator *allocator, uint32_t zone, uint32_t order, uint32_t type,
                  uint32_t max, struct fpr_block *blocks, uint32_t *taken, uint32_t *stop);
/* Put isolated blocks back in index order, each to the tail of the list of its page block's label,
 * without notice; those that did not merge are flagged reported if `reported`. */
int fpr_list_put_back(struct fpr_allocator *allocator, const struct fpr_block *blocks,
                      uint32_t count, int reported);
/* How many of these blocks are isolated now, each as a whole. */
int fpr_count_isolated(const struct fpr_allocator *allocator, const struct fpr_block *blocks,
                       uint32_t count, uint32_t *isolated);
/* Up to `capacity` blocks of a list, head first: pfn, and bit 63 set where flagged reported. */
int fpr_list_read(const struct fpr_allocator *allocator, uint32_t zone, uint32_t order,
                  uint32_t type, uint64_t *pfns, uint64_t capacity, uint64_t *count);
int fpr_pcp_read(const struct fpr_allocator *allocator, uint32_t zone, uint32_t cpu, uint32_t index,
                 uint64_t *pfns, uint64_t capacity, uint64_t *count);

/* Check every invariant of the whole structure. FPR_INVALID: `why` says which, and where. */
int fpr_allocator_validate(const struct fpr_allocator *allocator, char *why, size_t size);

#endif
