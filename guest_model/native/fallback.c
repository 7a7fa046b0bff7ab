/* Fallback between migrate types, stealing of page blocks, and the highatomic reserve, as Linux
 * before 6.10 does it (linux v6.1, mm/page_alloc.c). */
#include "guest_model/native/page.h"

/* Types to try, best first, for unmovable, movable and reclaimable requests. */
static const uint8_t preference[FPR_HIGHATOMIC][2] = {
    [FPR_UNMOVABLE] = {FPR_RECLAIMABLE, FPR_MOVABLE},
    [FPR_MOVABLE] = {FPR_RECLAIMABLE, FPR_UNMOVABLE},
    [FPR_RECLAIMABLE] = {FPR_UNMOVABLE, FPR_MOVABLE},
};

bool fpr_claimable(const struct fpr_allocator *a, uint32_t order, uint32_t type)
{
    return order >= a->config.pageblock_order / 2u || type == FPR_RECLAIMABLE ||
           type == FPR_UNMOVABLE;
}

static uint32_t first_fallback(const struct fpr_zone *zone, uint32_t order, uint32_t type)
{
    const struct fpr_free_area *area = &zone->areas[order];

    if (!area->nr_free)
        return FPR_NOT_LISTED;
    for (int i = 0; i < 2; i++)
        if (area->lists[preference[type][i]].head != FPR_NIL)
            return preference[type][i];
    return FPR_NOT_LISTED;
}

static void boost_watermark(const struct fpr_allocator *a, struct fpr_zone *zone)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order;
    uint64_t limit = zone->config.high_pages * a->config.boost_factor / 10000;

    if (!limit || pageblock * 4 > zone->config.managed_pages)
        return;
    if (limit < pageblock)
        limit = pageblock;
    zone->boost_pages += pageblock;
    if (zone->boost_pages > limit)
        zone->boost_pages = limit;
}

uint64_t fpr_move_pageblock(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn,
                            uint32_t type, uint64_t *movable)
{
    uint64_t size = (uint64_t)1 << a->config.pageblock_order;
    uint64_t start = pfn & ~(size - 1), end = start + size, moved = 0;

    *movable = 0;
    if (start < zone->config.start_pfn)
        start = pfn;
    if (end > zone->config.end_pfn)
        return 0;
    for (uint64_t at = start; at < end;) {
        const struct fpr_page *page = fpr_page(a, at);
        uint64_t count = page->state == FPR_PAGE_NONE ? 1 : (uint64_t)1 << page->order;

        if (page->state == FPR_PAGE_FREE) {
            fpr_area_move(a, zone, at, type);
            moved += count;
        } else if (page->state == FPR_PAGE_ALLOCATED && page->type == FPR_MOVABLE) {
            *movable += count;
        }
        at += count;
    }
    return moved;
}

static void relabel(struct fpr_allocator *a, uint64_t pfn, uint32_t order, uint32_t type)
{
    for (uint64_t at = pfn; at < pfn + ((uint64_t)1 << order);
         at += (uint64_t)1 << a->config.pageblock_order)
        a->labels[at >> a->config.pageblock_order] = (uint8_t)type;
}

void fpr_steal(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t type,
               bool whole)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order, moved, movable, alike;
    uint32_t label = fpr_label(a, pfn), order = fpr_page(a, pfn)->order;

    a->counters.fallbacks++;
    if (label == FPR_HIGHATOMIC) {
        fpr_area_move(a, zone, pfn, type);
        return;
    }
    if (order >= a->config.pageblock_order) {
        relabel(a, pfn, order, type);
        fpr_area_move(a, zone, pfn, type);
        a->counters.steals++;
        return;
    }
    boost_watermark(a, zone);
    moved = whole ? fpr_move_pageblock(a, zone, pfn, type, &movable) : 0;
    if (!moved) {
        fpr_area_move(a, zone, pfn, type);
        return;
    }
    if (type == FPR_MOVABLE)
        alike = movable;
    else
        alike = label == FPR_MOVABLE ? pageblock - moved - movable : 0;
    if (moved + alike >= pageblock / 2) {
        relabel(a, pfn, 0, type);
        a->counters.steals++;
    }
}

bool fpr_fallback(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order, uint32_t type,
                  bool no_fragment)
{
    uint32_t lowest = order, current, from = FPR_NOT_LISTED;
    bool whole;

    if (type >= FPR_HIGHATOMIC)
        return false;
    if (no_fragment && order < a->config.pageblock_order)
        lowest = a->config.pageblock_order;
    for (current = a->config.top_order + 1u; current > lowest;) {
        from = first_fallback(zone, --current, type);
        if (from != FPR_NOT_LISTED)
            break;
    }
    if (from == FPR_NOT_LISTED)
        return false;
    whole = fpr_claimable(a, current, type);
    if (!whole && current > order) { /* then the smallest that fits fragments least */
        current = order;
        while ((from = first_fallback(zone, current, type)) == FPR_NOT_LISTED)
            current++;
        whole = fpr_claimable(a, current, type);
    }
    fpr_steal(a, zone, zone->areas[current].lists[from].head, type, whole);
    return true;
}

void fpr_reserve_highatomic(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order, movable;

    if (zone->highatomic_pages >= zone->config.managed_pages / 100 + pageblock ||
        !fpr_mergeable(fpr_label(a, pfn)))
        return;
    zone->highatomic_pages += pageblock;
    relabel(a, pfn, 0, FPR_HIGHATOMIC);
    fpr_move_pageblock(a, zone, pfn, FPR_HIGHATOMIC, &movable);
}

/* Give one reserved page block with free memory back to `type`, out of the request's zones. */
bool fpr_unreserve_highatomic(struct fpr_allocator *a, uint32_t zone_class, uint32_t type)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order, movable;

    for (uint32_t z = a->config.zones; z-- > 0;) {
        struct fpr_zone *zone = &a->zones[z];

        if (zone->config.zone_class > zone_class || zone->highatomic_pages <= pageblock)
            continue;
        for (uint32_t order = 0; order <= a->config.top_order; order++) {
            uint32_t pfn = zone->areas[order].lists[FPR_HIGHATOMIC].head;

            if (pfn == FPR_NIL)
                continue;
            if (fpr_label(a, pfn) == FPR_HIGHATOMIC)
                zone->highatomic_pages -= pageblock;
            relabel(a, pfn, 0, type);
            if (fpr_move_pageblock(a, zone, pfn, type, &movable))
                return true;
        }
    }
    return false;
}
