/* The buddy lists: merge on free, cut on allocation. */
#include "guest_model/native/page.h"

static bool is_free_buddy(const struct fpr_allocator *a, const struct fpr_zone *zone, uint64_t pfn,
                          uint32_t order)
{
    const struct fpr_page *page;

    if (pfn < zone->config.start_pfn || pfn >= zone->config.end_pfn)
        return false;
    page = fpr_page(a, pfn);
    return page->state == FPR_PAGE_FREE && page->order == order;
}

/* The block (pfn, order) would soon be part of a larger one: the block beside its
 * parent is free. */
static bool merge_likely(const struct fpr_allocator *a, const struct fpr_zone *zone, uint64_t pfn,
                         uint32_t order)
{
    uint64_t parent;

    if (order + 1 >= a->config.top_order)
        return false;
    parent = pfn & ~((uint64_t)1 << order);
    return is_free_buddy(a, zone, parent ^ ((uint64_t)2 << order), order + 1);
}

/* One global random word, used up bit by bit from its low end. */
static bool shuffle_bit(struct fpr_allocator *a)
{
    bool bit;

    if (!a->shuffle_bits_left) {
        a->shuffle_bits = fpr_random_next(&a->random);
        a->shuffle_bits_left = 64;
    }
    bit = a->shuffle_bits & 1;
    a->shuffle_bits >>= 1;
    a->shuffle_bits_left--;
    return bit;
}

/* Mark a freed block; whether its zone has enough of them now. */
static bool mark_freed(struct fpr_freed_bitmap *freed, uint32_t zone, uint64_t pfn)
{
    uint64_t *word = &freed->words[pfn >> freed->order >> 6];
    uint64_t bit = (uint64_t)1 << (pfn >> freed->order & 63);

    freed->set[zone] += !(*word & bit);
    *word |= bit;
    return freed->set[zone] >= freed->threshold;
}

/* A block that could be reported was freed. */
static void notify(struct fpr_allocator *a, const struct fpr_zone *zone, uint64_t pfn,
                   uint32_t order)
{
    uint32_t bit = 1u << (zone - a->zones);

    if (a->freed.words) {
        if (!mark_freed(&a->freed, (uint32_t)(zone - a->zones), pfn) || a->notify.zones & bit)
            return;
        a->notify.zones |= bit;
    } else if (a->notify.high_water) {
        if (a->notify.zones & bit ||
            zone->areas[order].nr_free <
                zone->boundary.reported_blocks[order] + a->notify.high_water)
            return;
        a->notify.zones |= bit;
    } else {
        a->notify.armed = 0;
    }
    a->notify.raised = 1;
}

/* The end of its list that a block enters at. */
static bool goes_to_tail(struct fpr_allocator *a, const struct fpr_zone *zone, uint64_t pfn,
                         uint32_t order, uint32_t flags)
{
    const bool told = flags & FPR_FREE_TO_TAIL && a->config.rules.tails;

    switch (a->config.placement) {
    case FPR_PLACE_LIFO:
        return false;
    case FPR_PLACE_FIFO:
        return true;
    case FPR_PLACE_SHUFFLE:
        if (order >= a->config.top_order && !told)
            return shuffle_bit(a);
        /* fall through */
    default:
        return told || merge_likely(a, zone, pfn, order);
    }
}

/* These blocks may become one: page blocks of some types keep to themselves. */
static bool may_merge(const struct fpr_allocator *a, uint32_t label, uint32_t type)
{
    if (label == type)
        return true;
    if (!a->config.rules.guards_reserves)
        return label != FPR_ISOLATE && type != FPR_ISOLATE;
    return fpr_mergeable(label) && fpr_mergeable(type);
}

/* A buddy of page blocks joins a block of this type: where lists and labels agree, it follows. */
static void relabel_buddy(struct fpr_allocator *a, uint64_t buddy, uint32_t order, uint32_t type)
{
    if (a->config.rules.relabel == FPR_RELABEL_NONE || fpr_label(a, buddy) == type)
        return;
    fpr_relabel(a, buddy, a->config.rules.relabel == FPR_RELABEL_ALL ? order : 0, type);
}

void fpr_free_one(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t order,
                  uint32_t type, uint32_t flags)
{
    const uint32_t top = a->config.top_order;

    if (type != FPR_ISOLATE)
        zone->free_pages += (uint64_t)1 << order;
    fpr_page(a, pfn)->state = FPR_PAGE_NONE;
    for (; order < top; order++) {
        uint64_t buddy = pfn ^ ((uint64_t)1 << order);

        if (!is_free_buddy(a, zone, buddy, order))
            break;
        if (order >= a->config.pageblock_order && !may_merge(a, fpr_label(a, buddy), type))
            break;
        fpr_area_delete(a, zone, fpr_page(a, buddy));
        if (order >= a->config.pageblock_order)
            relabel_buddy(a, buddy, order, type);
        a->counters.merges++;
        pfn &= buddy;
    }
    fpr_area_add(a, zone, pfn, order, type, goes_to_tail(a, zone, pfn, order, flags));
    if (!(flags & FPR_FREE_SKIP_NOTIFY) && a->notify.armed && order >= a->notify.order) {
        fpr_note_misplaced(a, zone, fpr_page(a, pfn));
        notify(a, zone, pfn, order);
    }
}

void fpr_free_direct(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t order,
                     uint32_t flags)
{
    uint32_t piece = order;

    if (a->config.rules.relabel && order > a->config.pageblock_order)
        piece = a->config.pageblock_order; /* each page block has a label of its own */
    fpr_page(a, pfn)->state = FPR_PAGE_NONE;
    for (uint64_t at = pfn; at < pfn + ((uint64_t)1 << order); at += (uint64_t)1 << piece)
        fpr_free_one(a, zone, at, piece, fpr_label(a, at), flags);
}

/* Cut block (pfn, from) down to `to`: upper halves go to the heads of their lists. */
static void expand(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t from,
                   uint32_t to, uint32_t type)
{
    while (from > to) {
        from--;
        fpr_area_add(a, zone, pfn + ((uint64_t)1 << from), from, type, false);
        a->counters.splits++;
    }
}

static void delete_free(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_page *page)
{
    a->counters.reported_allocs += page->reported;
    a->counters.reported_alloc_pages += (uint64_t)page->reported << page->order;
    fpr_area_delete(a, zone, page);
}

/* The lowest order from `order` on whose list begins with an unreported block, or where none does,
 * the lowest that has a block: a list begins with a reported one only if all of it is reported. */
static uint32_t order_unreported_first(const struct fpr_allocator *a, const struct fpr_zone *zone,
                                       uint32_t order, uint32_t type)
{
    uint32_t reported = a->config.top_order + 1u;

    for (uint32_t o = order; o <= a->config.top_order; o++) {
        uint32_t pfn = zone->areas[o].lists[type].head;

        if (pfn == FPR_NIL)
            continue;
        if (!fpr_page(a, pfn)->reported)
            return o;
        if (o < reported)
            reported = o;
    }
    return reported;
}

uint64_t fpr_remove_block(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                          uint32_t order, uint32_t type)
{
    uint32_t whole = fpr_page(a, pfn)->order;

    delete_free(a, zone, fpr_page(a, pfn));
    expand(a, zone, pfn, whole, order, type);
    zone->free_pages -= (uint64_t)1 << order;
    return pfn;
}

uint64_t fpr_remove_smallest(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order,
                             uint32_t type)
{
    uint32_t o = order;

    if (a->config.placement == FPR_PLACE_REPORTED_LAST)
        o = order_unreported_first(a, zone, order, type);
    for (; o <= a->config.top_order; o++)
        if (zone->areas[o].lists[type].head != FPR_NIL)
            return fpr_remove_block(a, zone, zone->areas[o].lists[type].head, order, type);
    return FPR_NIL;
}

uint64_t fpr_remove(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order, uint32_t type,
                    bool no_fragment, enum fpr_remove_mode *mode)
{
    uint64_t pfn = FPR_NIL;

    if (*mode == FPR_REMOVE_OWN)
        pfn = fpr_remove_smallest(a, zone, order, type);
    return pfn == FPR_NIL ? fpr_fallback(a, zone, order, type, no_fragment, mode) : pfn;
}

int fpr_buddy_alloc(struct fpr_allocator *a, uint32_t zone, uint32_t order, uint32_t type,
                    uint64_t *pfn)
{
    enum fpr_remove_mode mode = FPR_REMOVE_OWN;
    uint64_t found;

    if (zone >= a->config.zones || order > a->config.top_order || type >= FPR_MIGRATETYPES)
        return FPR_BAD_ARGUMENT;
    found = fpr_remove(a, &a->zones[zone], order, type, false, &mode);
    if (found == FPR_NIL)
        return FPR_NO_MEMORY;
    fpr_mark_allocated(a, found, order, type);
    *pfn = found;
    return FPR_OK;
}

static bool aligned(uint64_t pfn, uint32_t order)
{
    return !(pfn & (((uint64_t)1 << order) - 1));
}

int fpr_buddy_free(struct fpr_allocator *a, uint64_t pfn, uint32_t order, uint32_t type,
                   uint32_t flags)
{
    struct fpr_zone *zone = fpr_zone_of(a, pfn);
    const struct fpr_page *page;

    if (!zone || order > a->config.top_order || type >= FPR_MIGRATETYPES || !aligned(pfn, order))
        return FPR_BAD_ARGUMENT;
    page = fpr_page(a, pfn);
    if (page->state != FPR_PAGE_ALLOCATED || page->order != order)
        return FPR_NOT_ALLOCATED;
    fpr_free_one(a, zone, pfn, order, type, flags);
    return FPR_OK;
}

int fpr_buddy_find(const struct fpr_allocator *a, uint64_t pfn, struct fpr_block *out)
{
    if (pfn >= a->config.frames)
        return FPR_BAD_ARGUMENT;
    for (uint32_t order = 0; order <= a->config.top_order; order++) {
        uint64_t head = pfn & ~(((uint64_t)1 << order) - 1);
        const struct fpr_page *page = fpr_page(a, head);

        if (page->state == FPR_PAGE_FREE && page->order >= order) {
            if (head + ((uint64_t)1 << page->order) <= pfn)
                return FPR_NOT_FREE;
            *out = (struct fpr_block){head, page->order, page->type};
            return FPR_OK;
        }
        if (page->state != FPR_PAGE_NONE)
            return FPR_NOT_FREE;
    }
    return FPR_NOT_FREE;
}

int fpr_buddy_take(struct fpr_allocator *a, uint64_t pfn, uint32_t order)
{
    struct fpr_block block;
    struct fpr_zone *zone;
    int status;

    if (order > a->config.top_order || !aligned(pfn, order))
        return FPR_BAD_ARGUMENT;
    status = fpr_buddy_find(a, pfn, &block);
    if (status)
        return status;
    if (block.order < order)
        return FPR_NOT_FREE;
    zone = fpr_zone_of(a, pfn);
    delete_free(a, zone, fpr_page(a, block.pfn));
    while (block.order > order) {
        uint64_t half = (uint64_t)1 << --block.order;
        bool upper = pfn >= block.pfn + half;

        fpr_area_add(a, zone, upper ? block.pfn : block.pfn + half, block.order, block.type, false);
        block.pfn += upper ? half : 0;
        a->counters.splits++;
    }
    if (block.type != FPR_ISOLATE)
        zone->free_pages -= (uint64_t)1 << order;
    fpr_mark_allocated(a, pfn, order, block.type);
    return FPR_OK;
}
