/* Fallback between migrate types, stealing of page blocks, and the highatomic reserve (linux v6.1
 * and v6.12, mm/page_alloc.c). */
#include "guest_model/native/page.h"

/* Types to try, best first, for unmovable, movable and reclaimable requests. */
static const uint8_t preference[FPR_HIGHATOMIC][2] = {
    [FPR_UNMOVABLE] = {FPR_RECLAIMABLE, FPR_MOVABLE},
    [FPR_MOVABLE] = {FPR_RECLAIMABLE, FPR_UNMOVABLE},
    [FPR_RECLAIMABLE] = {FPR_UNMOVABLE, FPR_MOVABLE},
};

/* What is in a page block. */
struct content {
    uint64_t start, end;
    uint64_t free, movable; /* frames on buddy lists; in use and allocated movable */
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

/* False where the page block crosses the zone's edge. */
static bool look_into(const struct fpr_allocator *a, const struct fpr_zone *zone, uint64_t pfn,
                      struct content *c)
{
    uint64_t size = (uint64_t)1 << a->config.pageblock_order;

    *c = (struct content){.start = pfn & ~(size - 1), .end = (pfn & ~(size - 1)) + size};
    if (c->start < zone->config.start_pfn) {
        if (a->config.rules.relabel)
            return false;
        c->start = pfn;
    }
    if (c->end > zone->config.end_pfn)
        return false;
    for (uint64_t at = c->start; at < c->end;) {
        const struct fpr_page *page = fpr_page(a, at);
        uint64_t count = page->state == FPR_PAGE_NONE ? 1 : (uint64_t)1 << page->order;

        if (page->state == FPR_PAGE_FREE)
            c->free += count;
        else if (page->state == FPR_PAGE_ALLOCATED && page->type == FPR_MOVABLE)
            c->movable += count;
        at += count;
    }
    return true;
}

static void move_content(struct fpr_allocator *a, struct fpr_zone *zone, const struct content *c,
                         uint32_t type)
{
    for (uint64_t at = c->start; at < c->end;) {
        const struct fpr_page *page = fpr_page(a, at);
        uint64_t count = page->state == FPR_PAGE_NONE ? 1 : (uint64_t)1 << page->order;

        if (page->state == FPR_PAGE_FREE)
            fpr_area_move(a, zone, at, type);
        at += count;
    }
}

bool fpr_move_pageblock(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t type)
{
    struct content content;

    if (!look_into(a, zone, pfn, &content))
        return false;
    move_content(a, zone, &content, type);
    return true;
}

void fpr_relabel(struct fpr_allocator *a, uint64_t pfn, uint32_t order, uint32_t type)
{
    for (uint64_t at = pfn; at < pfn + ((uint64_t)1 << order);
         at += (uint64_t)1 << a->config.pageblock_order)
        a->labels[at >> a->config.pageblock_order] = (uint8_t)type;
}

/* The page block is free, or like the request, by half at least. */
static bool enough_alike(const struct fpr_allocator *a, const struct content *c, uint32_t label,
                         uint32_t type)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order, alike = 0;

    if (type == FPR_MOVABLE)
        alike = c->movable;
    else if (label == FPR_MOVABLE)
        alike = pageblock - c->free - c->movable;
    return c->free + alike >= pageblock / 2;
}

void fpr_steal(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t type,
               bool whole)
{
    uint32_t label = fpr_label(a, pfn), order = fpr_page(a, pfn)->order;
    struct content content;

    a->counters.fallbacks++;
    if (label == FPR_HIGHATOMIC) {
        fpr_area_move(a, zone, pfn, type);
        return;
    }
    if (order >= a->config.pageblock_order) {
        fpr_relabel(a, pfn, order, type);
        fpr_area_move(a, zone, pfn, type);
        a->counters.steals++;
        return;
    }
    boost_watermark(a, zone);
    if (!whole || !look_into(a, zone, pfn, &content) || !content.free) {
        fpr_area_move(a, zone, pfn, type);
        return;
    }
    move_content(a, zone, &content, type);
    if (enough_alike(a, &content, label, type)) {
        fpr_relabel(a, pfn, 0, type);
        a->counters.steals++;
    }
}

uint64_t fpr_claim(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn, uint32_t order,
                   uint32_t type)
{
    const struct fpr_page *page = fpr_page(a, pfn);
    uint32_t from = page->type;
    struct content content;

    if (page->order >= a->config.pageblock_order) {
        fpr_relabel(a, pfn, page->order, type);
        a->counters.steals++;
        return fpr_remove_block(a, zone, pfn, order, type);
    }
    boost_watermark(a, zone);
    if (!look_into(a, zone, pfn, &content) || !enough_alike(a, &content, from, type))
        return FPR_NIL;
    move_content(a, zone, &content, type);
    fpr_relabel(a, pfn, 0, type);
    a->counters.steals++;
    return fpr_remove_smallest(a, zone, order, type);
}

/* The largest block of another type, from `top` down to `lowest`: its type. */
static uint32_t largest(const struct fpr_zone *zone, uint32_t top, uint32_t lowest, uint32_t type,
                        uint32_t *order)
{
    for (uint32_t current = top + 1u; current > lowest;) {
        uint32_t from = first_fallback(zone, --current, type);

        *order = current;
        if (from != FPR_NOT_LISTED)
            return from;
    }
    return FPR_NOT_LISTED;
}

/* The smallest block of another type that fits: its type. */
static uint32_t smallest(const struct fpr_allocator *a, const struct fpr_zone *zone, uint32_t type,
                         uint32_t *order)
{
    for (; *order <= a->config.top_order; ++*order) {
        uint32_t from = first_fallback(zone, *order, type);

        if (from != FPR_NOT_LISTED)
            return from;
    }
    return FPR_NOT_LISTED;
}

/* Before 6.15: one block is chosen, and what happens to it follows. */
static uint64_t choose_one(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order,
                           uint32_t type, uint32_t lowest)
{
    uint32_t current, from = largest(zone, a->config.top_order, lowest, type, &current);
    uint64_t pfn, got = FPR_NIL;
    bool whole;

    if (from == FPR_NOT_LISTED)
        return FPR_NIL;
    whole = fpr_claimable(a, current, type);
    if (!whole && current > order) { /* then the smallest that fits fragments least */
        current = order;
        from = smallest(a, zone, type, &current);
        whole = fpr_claimable(a, current, type);
    }
    pfn = zone->areas[current].lists[from].head;
    if (a->config.rules.fallback == FPR_MOVE_THEN_TEST) {
        fpr_steal(a, zone, pfn, type, whole);
        return fpr_remove_smallest(a, zone, order, type);
    }
    a->counters.fallbacks++;
    if (whole)
        got = fpr_claim(a, zone, pfn, order, type);
    else
        boost_watermark(a, zone);
    return got == FPR_NIL ? fpr_remove_block(a, zone, pfn, order, from) : got;
}

static uint64_t claim_or_steal(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order,
                               uint32_t type, uint32_t lowest, bool no_fragment,
                               enum fpr_remove_mode *mode)
{
    uint32_t current = a->config.top_order + 1u, from;

    while (*mode == FPR_REMOVE_OWN && current > lowest && fpr_claimable(a, --current, type)) {
        uint64_t got;

        from = first_fallback(zone, current, type);
        if (from == FPR_NOT_LISTED)
            continue;
        got = fpr_claim(a, zone, zone->areas[current].lists[from].head, order, type);
        if (got != FPR_NIL) {
            a->counters.fallbacks++;
            return got;
        }
    }
    if (no_fragment)
        return FPR_NIL;
    current = order;
    from = smallest(a, zone, type, &current);
    if (from == FPR_NOT_LISTED)
        return FPR_NIL;
    *mode = FPR_REMOVE_STEAL;
    a->counters.fallbacks++;
    return fpr_remove_block(a, zone, zone->areas[current].lists[from].head, order, from);
}

uint64_t fpr_fallback(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order, uint32_t type,
                      bool no_fragment, enum fpr_remove_mode *mode)
{
    uint32_t lowest = order;

    if (type >= FPR_HIGHATOMIC)
        return FPR_NIL;
    if (no_fragment && order < a->config.pageblock_order)
        lowest = a->config.pageblock_order;
    if (a->config.rules.fallback == FPR_CLAIM_OR_STEAL)
        return claim_or_steal(a, zone, order, type, lowest, no_fragment, mode);
    return choose_one(a, zone, order, type, lowest);
}

static uint64_t highatomic_limit(const struct fpr_allocator *a, const struct fpr_zone *zone)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order;
    uint64_t percent = zone->config.managed_pages / 100;

    if (!a->config.rules.highatomic_rounds_up)
        return percent + pageblock;
    return percent < pageblock ? 0 : (percent + pageblock - 1) & ~(pageblock - 1);
}

void fpr_reserve_highatomic(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn)
{
    if (zone->highatomic_pages >= highatomic_limit(a, zone) || !fpr_mergeable(fpr_label(a, pfn)))
        return;
    if (!fpr_move_pageblock(a, zone, pfn, FPR_HIGHATOMIC) && a->config.rules.relabel)
        return;
    zone->highatomic_pages += (uint64_t)1 << a->config.pageblock_order;
    fpr_relabel(a, pfn, 0, FPR_HIGHATOMIC);
}

/* Give one reserved page block with free memory back to `type`, out of the request's zones. */
bool fpr_unreserve_highatomic(struct fpr_allocator *a, uint32_t zone_class, uint32_t type)
{
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order;

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
            fpr_relabel(a, pfn, 0, type);
            if (fpr_move_pageblock(a, zone, pfn, type))
                return true;
        }
    }
    return false;
}
