/* Allocation and free at the top level: zonelist, watermarks, then per-CPU lists or buddy. */
#include "guest_model/native/page.h"

struct request {
    uint32_t cpu, order, type, zone_class;
    bool high, nonblocking;
    uint8_t how; /* of the per-CPU lists */
};

static bool has_free_block(const struct fpr_allocator *a, const struct fpr_zone *zone,
                           const struct request *r)
{
    for (uint32_t order = r->order; order <= a->config.top_order; order++) {
        const struct fpr_free_area *area = &zone->areas[order];

        if (!area->nr_free)
            continue;
        for (uint32_t type = 0; type < FPR_HIGHATOMIC; type++)
            if (area->lists[type].head != FPR_NIL)
                return true;
        if (r->nonblocking && area->lists[FPR_HIGHATOMIC].head != FPR_NIL)
            return true;
    }
    return false;
}

static bool watermark_ok(const struct fpr_allocator *a, const struct fpr_zone *zone,
                         const struct request *r, uint64_t mark)
{
    uint64_t unusable = ((uint64_t)1 << r->order) - 1;

    if (!r->nonblocking)
        unusable += zone->highatomic_pages;
    if (zone->free_pages <= unusable ||
        zone->free_pages - unusable <= mark + zone->config.lowmem_reserve[r->zone_class])
        return false;
    return !r->order || has_free_block(a, zone, r);
}

bool fpr_above_high(const struct fpr_zone *zone)
{
    return zone->free_pages > zone->highatomic_pages &&
           zone->free_pages - zone->highatomic_pages >
               zone->config.high_pages + zone->boost_pages +
                   zone->config.lowmem_reserve[FPR_ZONE_MOVABLE];
}

/* Where per-CPU lists are sized by demand, a zone that was seen below its high watermark is
 * remembered, so that they shrink. */
static bool plenty(const struct fpr_allocator *a, struct fpr_zone *zone, const struct request *r)
{
    if (a->config.rules.pcp_sizing != FPR_PCP_AUTO || zone->below_high)
        return false;
    zone->below_high = !watermark_ok(a, zone, r, zone->config.high_pages + zone->boost_pages);
    return !zone->below_high;
}

static uint64_t take(struct fpr_allocator *a, struct fpr_zone *zone, const struct request *r,
                     bool no_fragment)
{
    enum fpr_remove_mode mode = FPR_REMOVE_OWN;
    uint64_t pfn = FPR_NIL;

    if (fpr_pcp_order(a, r->order)) {
        pfn = fpr_pcp_alloc(a, zone, r->cpu, r->order, r->type,
                            r->how | (no_fragment ? FPR_PCP_NO_FRAGMENT : 0));
        if (pfn != FPR_NIL)
            return pfn;
    }
    if (r->order && r->nonblocking)
        pfn = fpr_remove_smallest(a, zone, r->order, FPR_HIGHATOMIC);
    if (pfn == FPR_NIL)
        pfn = fpr_remove(a, zone, r->order, r->type, no_fragment, &mode);
    return pfn;
}

/* Try the zones from the highest that the request may use; `slow` counts from the minimum. */
static uint64_t try_zones(struct fpr_allocator *a, const struct request *r, bool slow,
                          bool no_fragment)
{
    for (uint32_t z = a->config.zones; z-- > 0;) {
        struct fpr_zone *zone = &a->zones[z];
        uint64_t mark, pfn;

        if (zone->config.zone_class > r->zone_class || !zone->config.managed_pages)
            continue;
        if (slow) {
            mark = zone->config.min_pages + zone->boost_pages;
            mark -= r->high ? mark / 2 : 0;
            mark -= r->nonblocking ? mark / 4 : 0;
        } else {
            mark = zone->config.low_pages + zone->boost_pages;
        }
        if (!plenty(a, zone, r) && !watermark_ok(a, zone, r, mark))
            continue;
        pfn = take(a, zone, r, no_fragment);
        if (pfn == FPR_NIL)
            continue;
        if (slow && r->order && r->nonblocking)
            fpr_reserve_highatomic(a, zone, pfn);
        return pfn;
    }
    return FPR_NIL;
}

/* Fragmentation is avoided at first where the preferred zone is Normal and DMA32 exists. */
void fpr_prefer_zones(struct fpr_allocator *a)
{
    bool dma32 = false;

    for (uint32_t z = 0; z < a->config.zones; z++)
        dma32 |= a->zones[z].config.zone_class == FPR_ZONE_DMA32;
    for (uint32_t request = 0; request < FPR_MAX_ZONES; request++) {
        uint32_t preferred = FPR_ZONE_DMA;

        for (uint32_t z = 0; z < a->config.zones; z++)
            if (a->zones[z].config.zone_class <= request && a->zones[z].config.managed_pages)
                preferred = a->zones[z].config.zone_class;
        a->avoids_fragmentation[request] = dma32 && preferred == FPR_ZONE_NORMAL;
    }
}

/* What the first try, from the low watermark, has left: the minimum, then the per-CPU lists. */
static uint64_t allocate_slowly(struct fpr_allocator *a, struct request *r, uint32_t flags)
{
    uint64_t pfn = FPR_NIL;

    if (a->avoids_fragmentation[r->zone_class])
        pfn = try_zones(a, r, false, false);
    r->high = flags & FPR_ALLOC_HIGH;
    r->nonblocking = flags & FPR_ALLOC_NONBLOCKING;
    if (pfn == FPR_NIL)
        pfn = try_zones(a, r, true, false);
    if (pfn == FPR_NIL && !r->nonblocking && !(flags & FPR_ALLOC_NO_RECLAIM)) {
        /* what direct reclaim does when it found nothing: pages that drain keep their old type */
        fpr_unreserve_highatomic(a, r->zone_class, r->type);
        fpr_drain_pcp(a, UINT32_MAX);
        pfn = try_zones(a, r, true, false);
    }
    return pfn;
}

int fpr_alloc(struct fpr_allocator *a, uint32_t cpu, uint32_t order, uint32_t type, uint32_t flags,
              uint64_t *pfn)
{
    struct request r = {.cpu = cpu, .order = order, .type = type};
    uint64_t got;

    if (cpu >= a->config.cpus || order > a->config.top_order || !fpr_mergeable(type))
        return FPR_BAD_ARGUMENT;
    r.zone_class = type == FPR_MOVABLE ? FPR_ZONE_MOVABLE : FPR_ZONE_NORMAL;
    if (flags & (FPR_ALLOC_DMA | FPR_ALLOC_DMA32))
        r.zone_class = flags & FPR_ALLOC_DMA ? FPR_ZONE_DMA : FPR_ZONE_DMA32;
    if (flags & FPR_ALLOC_COLD && a->config.placement == FPR_PLACE_HOT_COLD)
        r.how = FPR_PCP_COLD;
    got = try_zones(a, &r, false, a->avoids_fragmentation[r.zone_class]);
    if (got == FPR_NIL)
        got = allocate_slowly(a, &r, flags);
    if (got == FPR_NIL) {
        a->counters.failures++;
        return FPR_NO_MEMORY;
    }
    fpr_mark_allocated(a, got, order, type);
    if (a->known_zero)
        fpr_known_zero_take(a, got, order);
    a->counters.allocs++;
    *pfn = got;
    return FPR_OK;
}

int fpr_free(struct fpr_allocator *a, uint32_t cpu, uint64_t pfn, uint32_t order, uint32_t flags)
{
    struct fpr_zone *zone = fpr_zone_of(a, pfn);
    const struct fpr_page *page;
    uint32_t label, how = 0;

    if (!zone || cpu >= a->config.cpus || order > a->config.top_order ||
        pfn & (((uint64_t)1 << order) - 1))
        return FPR_BAD_ARGUMENT;
    page = fpr_page(a, pfn);
    if (page->state != FPR_PAGE_ALLOCATED || page->order != order)
        return FPR_NOT_ALLOCATED;
    a->counters.frees++;
    label = fpr_label(a, pfn);
    if (flags & FPR_FREE_COLD && a->config.placement == FPR_PLACE_HOT_COLD)
        how = FPR_PCP_COLD;
    if (fpr_pcp_order(a, order) && label != FPR_ISOLATE)
        fpr_pcp_free(a, zone, cpu, pfn, label, how);
    else
        fpr_free_direct(a, zone, pfn, order, 0);
    return FPR_OK;
}

int fpr_alloc_each(struct fpr_allocator *a, uint32_t cpu, uint32_t order, uint32_t type,
                   uint32_t flags, uint64_t *pfns, uint32_t count, uint32_t *taken)
{
    for (*taken = 0; *taken < count; ++*taken) {
        int status = fpr_alloc(a, cpu, order, type, flags, &pfns[*taken]);

        if (status)
            return status;
    }
    return FPR_OK;
}

int fpr_free_each(struct fpr_allocator *a, uint32_t cpu, const uint64_t *pfns, uint32_t count,
                  uint32_t order, uint32_t flags)
{
    for (uint32_t i = 0; i < count; i++) {
        int status = fpr_free(a, cpu, pfns[i], order, flags);

        if (status)
            return status;
    }
    return FPR_OK;
}
