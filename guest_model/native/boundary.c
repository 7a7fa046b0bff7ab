#include "guest_model/native/boundary.h"

#include "guest_model/native/page.h"

_Static_assert(FPR_NO_BOUNDARY == FPR_NIL, "the end of a list is the boundary of an empty run");

static bool place_ok(const struct fpr_allocator *a, uint32_t zone, uint32_t order, uint32_t type)
{
    return zone < a->config.zones && order <= a->config.top_order && type < FPR_MIGRATETYPES;
}

int fpr_boundary_begin(struct fpr_allocator *a, uint32_t zone)
{
    struct fpr_boundary *boundary;

    if (zone >= a->config.zones)
        return FPR_BAD_ARGUMENT;
    boundary = &a->zones[zone].boundary;
    for (uint32_t order = 0; order < FPR_MAX_ORDERS; order++)
        for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++)
            boundary->at[order][type] = FPR_NIL;
    boundary->counting = boundary->active = true;
    return FPR_OK;
}

/* Whether no unreported block of a list is behind a reported one. */
static bool in_order(const struct fpr_allocator *a, const struct fpr_list *list)
{
    bool reported = false;

    for (uint32_t pfn = list->head; pfn != FPR_NIL; pfn = fpr_page(a, pfn)->next) {
        if (reported && !fpr_page(a, pfn)->reported)
            return false;
        reported = fpr_page(a, pfn)->reported;
    }
    return true;
}

static void count_broken_lists(struct fpr_allocator *a, const struct fpr_zone *zone)
{
    for (uint32_t order = a->notify.order; order <= a->config.top_order; order++)
        for (uint32_t type = 0; type < FPR_ISOLATE; type++) {
            const struct fpr_list *list = &zone->areas[order].lists[type];

            if (list->head == FPR_NIL)
                continue;
            a->counters.checked_lists++;
            a->counters.broken_lists += !in_order(a, list);
        }
}

int fpr_boundary_end(struct fpr_allocator *a, uint32_t zone)
{
    if (zone >= a->config.zones)
        return FPR_BAD_ARGUMENT;
    a->zones[zone].boundary.active = false;
    count_broken_lists(a, &a->zones[zone]);
    return FPR_OK;
}

/* The next block to pull; FPR_NIL where the list has no unreported one that can be reached. */
static uint32_t next_block(const struct fpr_allocator *a, struct fpr_zone *zone, uint32_t order,
                           uint32_t type)
{
    const struct fpr_list *list = &zone->areas[order].lists[type];
    uint32_t boundary = zone->boundary.at[order][type];
    uint32_t before = boundary == FPR_NIL ? list->tail : fpr_page(a, boundary)->prev;

    if (before == FPR_NIL || !fpr_page(a, before)->reported)
        return before;
    if (!fpr_page(a, list->head)->reported)
        return list->head;
    zone->boundary.at[order][type] = list->head;
    return FPR_NIL;
}

int fpr_boundary_pull(struct fpr_allocator *a, uint32_t zone_index, uint32_t order, uint32_t type,
                      uint32_t max, struct fpr_block *blocks, uint32_t *taken)
{
    struct fpr_zone *zone;
    uint32_t n = 0;

    if (!place_ok(a, zone_index, order, type))
        return FPR_BAD_ARGUMENT;
    zone = &a->zones[zone_index];
    while (n < max) {
        uint32_t pfn = next_block(a, zone, order, type);

        if (pfn == FPR_NIL)
            break;
        fpr_area_delete(a, zone, fpr_page(a, pfn));
        fpr_page(a, pfn)->state = FPR_PAGE_ISOLATED;
        zone->free_pages -= (uint64_t)1 << order;
        blocks[n++] = (struct fpr_block){pfn, order, type};
    }
    *taken = n;
    return FPR_OK;
}

int fpr_boundary_return(struct fpr_allocator *a, const struct fpr_block *blocks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t pfn = blocks[i].pfn;
        uint32_t order = blocks[i].order;
        struct fpr_zone *zone = fpr_zone_of(a, pfn);
        struct fpr_page *page;

        if (!zone)
            return FPR_BAD_ARGUMENT;
        page = fpr_page(a, pfn);
        if (page->state != FPR_PAGE_ISOLATED || page->order != order)
            return FPR_BAD_ARGUMENT;
        fpr_free_one(a, zone, pfn, order, fpr_label(a, pfn),
                     FPR_FREE_TO_TAIL | FPR_FREE_SKIP_NOTIFY);
        if (page->state != FPR_PAGE_FREE || page->order != order)
            continue;
        fpr_mark_reported(a, zone, pfn, page);
        fpr_boundary_join(zone, page);
        zone->boundary.at[order][page->type] = (uint32_t)pfn;
    }
    return FPR_OK;
}

int fpr_boundary_read(const struct fpr_allocator *a, uint32_t zone, uint32_t order, uint32_t type,
                      uint64_t *reported, uint64_t *boundary)
{
    if (!place_ok(a, zone, order, type))
        return FPR_BAD_ARGUMENT;
    *reported = a->zones[zone].boundary.reported_blocks[order];
    *boundary = a->zones[zone].boundary.at[order][type];
    return FPR_OK;
}
