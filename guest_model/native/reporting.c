/* What a reporting policy may do to the free lists: walk and isolate, put back, read. */
#include "guest_model/native/page.h"

bool fpr_isolate(struct fpr_allocator *a, struct fpr_zone *zone, uint64_t pfn)
{
    struct fpr_page *page = fpr_page(a, pfn);
    uint64_t count = (uint64_t)1 << page->order;
    uint64_t pageblock = (uint64_t)1 << a->config.pageblock_order;

    if (fpr_label(a, pfn) != FPR_ISOLATE) {
        if (zone->free_pages <= zone->highatomic_pages ||
            zone->free_pages - zone->highatomic_pages <= zone->config.min_pages + count)
            return false;
        zone->free_pages -= count;
    }
    fpr_area_delete(a, zone, page);
    page->state = FPR_PAGE_ISOLATED;
    if (page->order + 1u >= a->config.pageblock_order)
        for (uint64_t at = pfn; at < pfn + count; at += pageblock) {
            if (!fpr_mergeable(fpr_label(a, at)))
                continue;
            /* where lists and labels agree, the rest of the page block comes along or none of it */
            if (a->config.rules.relabel && !fpr_move_pageblock(a, zone, at, FPR_MOVABLE))
                continue;
            a->labels[at >> a->config.pageblock_order] = FPR_MOVABLE;
        }
    return true;
}

int fpr_list_take(struct fpr_allocator *a, uint32_t zone_index, uint32_t order, uint32_t type,
                  uint32_t max, struct fpr_block *blocks, uint32_t *taken, uint32_t *stop)
{
    struct fpr_zone *zone;
    struct fpr_list *list;
    uint32_t pfn, next, n = 0;

    if (zone_index >= a->config.zones || order > a->config.top_order || type >= FPR_MIGRATETYPES)
        return FPR_BAD_ARGUMENT;
    zone = &a->zones[zone_index];
    list = &zone->areas[order].lists[type];
    *stop = FPR_TAKE_END;
    for (pfn = list->head; pfn != FPR_NIL; pfn = next) {
        next = fpr_page(a, pfn)->next;
        if (fpr_page(a, pfn)->reported)
            continue;
        if (n == max) {
            *stop = FPR_TAKE_CANDIDATE;
            break;
        }
        if (!fpr_isolate(a, zone, pfn)) {
            *stop = FPR_TAKE_REFUSED;
            break;
        }
        blocks[n++] = (struct fpr_block){pfn, order, type};
    }
    *taken = n;
    if (*stop != FPR_TAKE_END)
        fpr_list_rotate(a, list, pfn);
    return FPR_OK;
}

int fpr_list_put_back(struct fpr_allocator *a, const struct fpr_block *blocks, uint32_t count,
                      int reported)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t pfn = blocks[i].pfn;
        struct fpr_zone *zone = fpr_zone_of(a, pfn);
        struct fpr_page *page;

        if (!zone)
            return FPR_BAD_ARGUMENT;
        page = fpr_page(a, pfn);
        if (page->state != FPR_PAGE_ISOLATED || page->order != blocks[i].order)
            return FPR_BAD_ARGUMENT;
        fpr_free_one(a, zone, pfn, blocks[i].order, fpr_label(a, pfn),
                     FPR_FREE_TO_TAIL | FPR_FREE_SKIP_NOTIFY);
        if (reported && page->state == FPR_PAGE_FREE && page->order == blocks[i].order)
            fpr_mark_reported(a, zone, pfn, page);
    }
    return FPR_OK;
}

int fpr_count_isolated(const struct fpr_allocator *a, const struct fpr_block *blocks,
                       uint32_t count, uint32_t *isolated)
{
    *isolated = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct fpr_page *page;

        if (blocks[i].pfn >= a->config.frames)
            continue;
        page = fpr_page(a, blocks[i].pfn);
        *isolated += page->state == FPR_PAGE_ISOLATED && page->order == blocks[i].order;
    }
    return FPR_OK;
}

int fpr_list_read(const struct fpr_allocator *a, uint32_t zone, uint32_t order, uint32_t type,
                  uint64_t *pfns, uint64_t capacity, uint64_t *count)
{
    uint64_t n = 0;

    if (zone >= a->config.zones || order > a->config.top_order || type >= FPR_MIGRATETYPES)
        return FPR_BAD_ARGUMENT;
    for (uint32_t pfn = a->zones[zone].areas[order].lists[type].head; pfn != FPR_NIL; n++) {
        const struct fpr_page *page = fpr_page(a, pfn);

        if (n < capacity)
            pfns[n] = pfn | (uint64_t)page->reported << 63;
        pfn = page->next;
    }
    *count = n;
    return FPR_OK;
}
