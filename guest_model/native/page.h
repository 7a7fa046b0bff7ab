/* Private to guest_model/native: page metadata, free lists, zones, and the primitives on them. */
#ifndef FPR_PAGE_H
#define FPR_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "emulator/native/random.h"
#include "emulator/native/status.h"
#include "guest_model/native/allocator.h"

#define FPR_NIL UINT32_MAX /* end of a list of frames */
#define FPR_NOT_LISTED 0xff

enum fpr_page_state {
    FPR_PAGE_NONE = 0,      /* not a block head, or never handed to the allocator */
    FPR_PAGE_FREE = 1,      /* head of a block on a buddy list */
    FPR_PAGE_PCP = 2,       /* head of a block on a per-CPU list */
    FPR_PAGE_ALLOCATED = 3, /* head of an allocated block: next and prev belong to its owner */
    FPR_PAGE_ISOLATED = 4,  /* head of a block that is with the device */
};

/* Metadata of the head of a block. Frames are 32-bit here: guests up to 16 TiB of 4 KiB pages. */
struct fpr_page {
    uint32_t next, prev;
    uint8_t order;
    uint8_t state;
    uint8_t type; /* list it is on, type cached on the per-CPU list, or type it was allocated as */
    uint8_t reported;
};
_Static_assert(sizeof(struct fpr_page) == 12, "metadata per page is stated as 12 bytes");

struct fpr_list {
    uint32_t head, tail;
};

struct fpr_free_area {
    struct fpr_list lists[FPR_MIGRATETYPES];
    uint64_t nr_free;
};

struct fpr_pcp {
    uint32_t count, free_factor;
    /* Where lists are sized by demand: the limit now, pages freed of late, doublings of a refill,
     * and whether the last free was of several pages. */
    uint32_t high, free_count, alloc_factor;
    bool freed_several;
    bool empties_few; /* two such frees in a row give back what is less than a batch as well */
    struct fpr_list lists[FPR_PCP_LISTS];
};

/* See boundary.h. `counting` from the first pass on; `active` while the zone is being reported. */
struct fpr_boundary {
    uint32_t at[FPR_MAX_ORDERS][FPR_MIGRATETYPES];
    uint64_t reported_blocks[FPR_MAX_ORDERS]; /* of all types, those of each list: */
    uint32_t listed[FPR_MAX_ORDERS][FPR_MIGRATETYPES];
    bool counting, active;
};

/* See freed_bitmap.h; no words: nobody wants to know. */
struct fpr_freed_bitmap {
    uint64_t *words;
    uint64_t threshold;
    uint64_t set[FPR_MAX_ZONES]; /* bits, by zone */
    uint32_t order;
};

struct fpr_zone {
    struct fpr_zone_config config;
    struct fpr_boundary boundary;
    /* First block of the reported run at the tail of a list; FPR_NIL everywhere unless the
     * placement is FPR_PLACE_REPORTED_LAST. */
    uint32_t reported_run[FPR_MAX_ORDERS][FPR_MIGRATETYPES];
    uint64_t free_pages, boost_pages, highatomic_pages;
    bool below_high; /* an allocation has found less than the high watermark */
    struct fpr_free_area areas[FPR_MAX_ORDERS];
    struct fpr_pcp *pcps; /* one per CPU */
};

struct fpr_allocator {
    struct fpr_allocator_config config;
    struct fpr_zone zones[FPR_MAX_ZONES];
    struct fpr_notify notify;
    struct fpr_freed_bitmap freed;
    uint64_t *known_zero; /* see known_zero.h; NULL: nobody wants to know */
    bool took_zero;
    struct fpr_counters counters;
    struct fpr_random random;
    uint64_t shuffle_bits;
    uint32_t shuffle_bits_left;
    uint32_t top_mask;
    bool avoids_fragmentation[FPR_MAX_ZONES]; /* by the class of the request */
    /* Heads of top-order blocks live densely in `tops`, all others in `pages`: an idle guest
     * touches 12 bytes for each 4 MiB, and `pages` grows with what is split. */
    struct fpr_page *tops, *pages;
    uint8_t *labels; /* migrate type of each page block */
    uint64_t tops_bytes, pages_bytes, labels_bytes;
};

static inline struct fpr_page *fpr_page(const struct fpr_allocator *a, uint64_t pfn)
{
    return pfn & a->top_mask ? &a->pages[pfn] : &a->tops[pfn >> a->config.top_order];
}

static inline uint32_t fpr_label(const struct fpr_allocator *a, uint64_t pfn)
{
    return a->labels[pfn >> a->config.pageblock_order];
}

/* U, M and R: the types that merge with each other, and that per-CPU lists hold. */
static inline bool fpr_mergeable(uint32_t type)
{
    return type < FPR_HIGHATOMIC;
}

static inline struct fpr_zone *fpr_zone_of(struct fpr_allocator *a, uint64_t pfn)
{
    for (uint32_t i = 0; i < a->config.zones; i++)
        if (pfn >= a->zones[i].config.start_pfn && pfn < a->zones[i].config.end_pfn)
            return &a->zones[i];
    return NULL;
}

static inline void fpr_list_init(struct fpr_list *list)
{
    list->head = list->tail = FPR_NIL;
}

static inline void fpr_list_add_head(struct fpr_allocator *a, struct fpr_list *list, uint64_t pfn,
                                     struct fpr_page *page)
{
    page->next = list->head;
    page->prev = FPR_NIL;
    if (list->head == FPR_NIL)
        list->tail = (uint32_t)pfn;
    else
        fpr_page(a, list->head)->prev = (uint32_t)pfn;
    list->head = (uint32_t)pfn;
}

static inline void fpr_list_add_tail(struct fpr_allocator *a, struct fpr_list *list, uint64_t pfn,
                                     struct fpr_page *page)
{
    page->prev = list->tail;
    page->next = FPR_NIL;
    if (list->tail == FPR_NIL)
        list->head = (uint32_t)pfn;
    else
        fpr_page(a, list->tail)->next = (uint32_t)pfn;
    list->tail = (uint32_t)pfn;
}

static inline void fpr_list_add_before(struct fpr_allocator *a, struct fpr_list *list,
                                       uint32_t next, uint64_t pfn, struct fpr_page *page)
{
    struct fpr_page *after = fpr_page(a, next);

    page->next = next;
    page->prev = after->prev;
    if (page->prev == FPR_NIL)
        list->head = (uint32_t)pfn;
    else
        fpr_page(a, page->prev)->next = (uint32_t)pfn;
    after->prev = (uint32_t)pfn;
}

static inline void fpr_list_remove(struct fpr_allocator *a, struct fpr_list *list,
                                   struct fpr_page *page)
{
    if (page->prev == FPR_NIL)
        list->head = page->next;
    else
        fpr_page(a, page->prev)->next = page->next;
    if (page->next == FPR_NIL)
        list->tail = page->prev;
    else
        fpr_page(a, page->next)->prev = page->prev;
}

/* Everything in front of pfn goes, in order, behind the tail. */
static inline void fpr_list_rotate(struct fpr_allocator *a, struct fpr_list *list, uint64_t pfn)
{
    struct fpr_page *page = fpr_page(a, pfn);

    if (list->head == pfn)
        return;
    fpr_page(a, list->tail)->next = list->head;
    fpr_page(a, list->head)->prev = list->tail;
    list->head = (uint32_t)pfn;
    list->tail = page->prev;
    fpr_page(a, page->prev)->next = FPR_NIL;
    page->prev = FPR_NIL;
}

/* To the tail: in front of the reported run where one is kept, or where the zone is being reported,
 * in front of the list's boundary. */
static inline void fpr_area_add_tail(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                                     struct fpr_page *page)
{
    struct fpr_list *list = &zone->areas[page->order].lists[page->type];
    uint32_t before = FPR_NIL;

    if (a->config.placement == FPR_PLACE_REPORTED_LAST)
        before = zone->reported_run[page->order][page->type];
    else if (zone->boundary.active && page->order >= a->notify.order)
        before = zone->boundary.at[page->order][page->type];
    if (before == FPR_NIL)
        fpr_list_add_tail(a, list, pfn, page);
    else
        fpr_list_add_before(a, list, before, pfn, page);
}

/* A reported block leaves its list: a run that begins with it is shorter. */
static inline void fpr_run_leave(const struct fpr_allocator *a, struct fpr_zone *zone,
                                 const struct fpr_page *page)
{
    uint32_t *run = &zone->reported_run[page->order][page->type];

    if (*run != FPR_NIL && fpr_page(a, *run) == page)
        *run = page->next;
}

/* A free block has been reported: flag it. Where a run is kept, it is the first of it from now. */
static inline void fpr_mark_reported(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                                     struct fpr_page *page)
{
    uint32_t *run = &zone->reported_run[page->order][page->type];

    page->reported = 1;
    if (a->config.placement != FPR_PLACE_REPORTED_LAST)
        return;
    if (page->next != *run) {
        fpr_list_remove(a, &zone->areas[page->order].lists[page->type], page);
        fpr_area_add_tail(a, zone, pfn, page);
    }
    *run = (uint32_t)pfn;
}

/* An unreported block entered a list for which a boundary promises that it is in front. */
static inline void fpr_note_misplaced(struct fpr_allocator *a, const struct fpr_zone *zone,
                                      const struct fpr_page *page)
{
    if (zone->boundary.counting && page->next == FPR_NIL)
        a->counters.misplaced_blocks += zone->boundary.listed[page->order][page->type] > 0;
}

/* Count a block that is flagged reported from now on. */
static inline void fpr_boundary_join(struct fpr_zone *zone, const struct fpr_page *page)
{
    zone->boundary.reported_blocks[page->order]++;
    zone->boundary.listed[page->order][page->type]++;
}

/* A block leaves its list: a boundary that points at it moves towards the tail. It may have come to
 * point at an unreported one, where a placement mixes the two. */
static inline void fpr_boundary_leave(const struct fpr_allocator *a, struct fpr_zone *zone,
                                      const struct fpr_page *page)
{
    uint32_t *boundary = &zone->boundary.at[page->order][page->type];

    if (zone->boundary.active && *boundary != FPR_NIL && fpr_page(a, *boundary) == page)
        *boundary = page->next;
    if (!page->reported)
        return;
    zone->boundary.reported_blocks[page->order]--;
    zone->boundary.listed[page->order][page->type]--;
}

/* Put a block on its free list; it is unreported. The free count is the caller's. */
static inline void fpr_area_add(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                                uint32_t order, uint32_t type, bool tail)
{
    struct fpr_page *page = fpr_page(a, pfn);
    struct fpr_free_area *area = &zone->areas[order];

    page->order = (uint8_t)order;
    page->state = FPR_PAGE_FREE;
    page->type = (uint8_t)type;
    page->reported = 0;
    if (tail)
        fpr_area_add_tail(a, zone, pfn, page);
    else
        fpr_list_add_head(a, &area->lists[type], pfn, page);
    area->nr_free++;
}

/* Take a block off its free list. That clears its reported flag. */
static inline void fpr_area_delete(struct fpr_allocator *a, struct fpr_zone *zone,
                                   struct fpr_page *page)
{
    struct fpr_free_area *area = &zone->areas[page->order];

    if (zone->boundary.counting)
        fpr_boundary_leave(a, zone, page);
    if (page->reported)
        fpr_run_leave(a, zone, page);
    fpr_list_remove(a, &area->lists[page->type], page);
    area->nr_free--;
    page->state = FPR_PAGE_NONE;
    page->reported = 0;
}

/* Move a free block to the tail (once: the head) of another type's list; nobody is told. Its flag
 * stays, and it joins the run there, if any; with boundaries it becomes the boundary there, or
 * outside a pass loses its flag. */
static inline void fpr_area_move(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                                 uint32_t type)
{
    struct fpr_page *page = fpr_page(a, pfn);
    bool bounded = page->reported && zone->boundary.counting;

    if (zone->boundary.counting)
        fpr_boundary_leave(a, zone, page);
    if (page->reported)
        fpr_run_leave(a, zone, page);
    fpr_list_remove(a, &zone->areas[page->order].lists[page->type], page);
    page->type = (uint8_t)type;
    if (a->config.rules.tails || zone->boundary.counting ||
        a->config.placement == FPR_PLACE_REPORTED_LAST)
        fpr_area_add_tail(a, zone, pfn, page);
    else
        fpr_list_add_head(a, &zone->areas[page->order].lists[type], pfn, page);
    if (bounded) {
        if (zone->boundary.active)
            zone->boundary.at[page->order][type] = (uint32_t)pfn;
        else if (type != FPR_ISOLATE)
            page->reported = 0;
        if (page->reported)
            fpr_boundary_join(zone, page);
    }
    if (page->reported)
        fpr_mark_reported(a, zone, pfn, page);
    else
        fpr_note_misplaced(a, zone, page);
}

/* Deferred initialization labels a page block when it frees its first frame (deferred_free_range);
 * page blocks whose first frame is reserved keep the label 0. */
static inline void fpr_boot_label(struct fpr_allocator *a, uint64_t pfn)
{
    if (!(pfn & (((uint64_t)1 << a->config.pageblock_order) - 1)))
        a->labels[pfn >> a->config.pageblock_order] = FPR_MOVABLE;
}

static inline void fpr_mark_allocated(struct fpr_allocator *a, uint64_t pfn, uint32_t order,
                                      uint32_t type)
{
    struct fpr_page *page = fpr_page(a, pfn);

    page->order = (uint8_t)order;
    page->state = FPR_PAGE_ALLOCATED;
    page->type = (uint8_t)type;
    page->reported = 0;
}

/* allocator.c: the zone of a block that is neither free nor in use yet; NULL for anything else. */
struct fpr_zone *fpr_empty_place(struct fpr_allocator *a, uint64_t pfn, uint32_t order,
                                 uint32_t type);

/* buddy.c */
void fpr_free_one(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t order,
                  uint32_t type, uint32_t flags);
/* A block that its owner frees past the per-CPU lists, to the lists of its page blocks' labels. */
void fpr_free_direct(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t order,
                     uint32_t flags);
/* The head of the first list [order..top][type], cut to size; FPR_NIL where all are empty.
 * Placement FPR_PLACE_REPORTED_LAST: of the first whose head is unreported, if there is one. */
uint64_t fpr_remove_smallest(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order,
                             uint32_t type);
/* Exactly this free block off its list, cut to `order`; the upper halves become `type`. */
uint64_t fpr_remove_block(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                          uint32_t order, uint32_t type);
/* What the last request of a refill had to do: the next one begins with that. */
enum fpr_remove_mode { FPR_REMOVE_OWN = 0, FPR_REMOVE_STEAL = 1 };
/* As fpr_remove_smallest, with fallback to other types. *mode: FPR_REMOVE_OWN at first. */
uint64_t fpr_remove(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order, uint32_t type,
                    bool no_fragment, enum fpr_remove_mode *mode);

/* fallback.c: a block out of another type's lists, or FPR_NIL where nothing fits. */
uint64_t fpr_fallback(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order, uint32_t type,
                      bool no_fragment, enum fpr_remove_mode *mode);
/* A block of this order of another type may be taken with its whole page block. */
bool fpr_claimable(const struct fpr_allocator *a, uint32_t order, uint32_t type);
/* Take free block pfn over for `type`, with its whole page block if `whole` and enough is alike. */
void fpr_steal(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t type,
               bool whole);
/* Take the page block of free block pfn over for `type` if enough is alike, and out of it a block
 * of `order`: FPR_NIL where it was not taken over. */
uint64_t fpr_claim(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t order,
                   uint32_t type);
/* Move every free block of the page block of pfn to `type`: false where it crosses the zone's edge.
 * Before 6.10 a page block that begins before the zone is moved from pfn on. */
bool fpr_move_pageblock(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                        uint32_t type);
/* Label the page blocks that free block (pfn, order) covers. */
void fpr_relabel(struct fpr_allocator *a, uint64_t pfn, uint32_t order, uint32_t type);
void fpr_reserve_highatomic(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn);
bool fpr_unreserve_highatomic(struct fpr_allocator *a, uint32_t zone_class, uint32_t type);

/* alloc.c: what is free exceeds the high watermark. */
bool fpr_above_high(const struct fpr_zone *zone);
/* Work out what requests of each class prefer, after zones have changed. */
void fpr_prefer_zones(struct fpr_allocator *a);

/* reporting.c: take a free block out of every list for the device; false where the minimum
 * watermark forbids it. */
bool fpr_isolate(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn);

/* known_zero.c: a block was reported; a block was taken. */
void fpr_known_zero_add(struct fpr_allocator *a, uint64_t pfn, uint32_t order);
void fpr_known_zero_take(struct fpr_allocator *a, uint64_t pfn, uint32_t order);

/* per_cpu.c */
bool fpr_pcp_order(const struct fpr_allocator *a, uint32_t order);
/* `how`: avoid fragmentation; use the tail of the list. The block that is freed has its order. */
#define FPR_PCP_NO_FRAGMENT 1u
#define FPR_PCP_COLD 2u
uint64_t fpr_pcp_alloc(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t cpu, uint32_t order,
                       uint32_t type, uint32_t how);
void fpr_pcp_free(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t cpu, uint64_t pfn,
                  uint32_t label, uint32_t how);

#endif
