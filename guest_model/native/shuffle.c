/* Boot-time shuffling of the free lists (linux v6.1, mm/shuffle.c). */
#include "guest_model/native/page.h"

#define MAX_TRIES 10

static const struct fpr_page *free_top(const struct fpr_allocator *a, uint64_t pfn)
{
    const struct fpr_page *page = fpr_page(a, pfn);

    return page->state == FPR_PAGE_FREE && page->order == a->config.top_order ? page : NULL;
}

/* Two blocks of one list change places. */
static void swap(struct fpr_allocator *a, struct fpr_list *list, uint32_t x, uint32_t y)
{
    struct fpr_page *first = fpr_page(a, x), *second = fpr_page(a, y);
    uint32_t behind = second->next;

    if (behind == x) {
        swap(a, list, y, x);
        return;
    }
    fpr_list_remove(a, list, second);
    fpr_list_add_before(a, list, x, y, second);
    fpr_list_remove(a, list, first);
    if (behind == FPR_NIL)
        fpr_list_add_tail(a, list, x, first);
    else
        fpr_list_add_before(a, list, behind, x, first);
}

/* A block that this one may change places with; FPR_NIL where none was found. */
static uint32_t partner(struct fpr_allocator *a, const struct fpr_zone *zone, uint64_t pfn)
{
    uint64_t span = zone->config.end_pfn - zone->config.start_pfn;
    const struct fpr_page *other;
    uint64_t at;

    for (uint32_t tries = 0; tries < MAX_TRIES; tries++) {
        at = (zone->config.start_pfn + fpr_random_below(&a->random, span)) & ~(uint64_t)a->top_mask;
        other = at == pfn || at < zone->config.start_pfn ? NULL : free_top(a, at);
        if (!other)
            continue;
        if (fpr_label(a, at) != fpr_label(a, pfn) || other->type != fpr_page(a, pfn)->type)
            return FPR_NIL;
        return (uint32_t)at;
    }
    return FPR_NIL;
}

int fpr_allocator_shuffle(struct fpr_allocator *a)
{
    uint64_t size = (uint64_t)1 << a->config.top_order;

    if (a->config.placement != FPR_PLACE_SHUFFLE)
        return FPR_BAD_ARGUMENT;
    for (uint32_t z = 0; z < a->config.zones; z++) {
        struct fpr_zone *zone = &a->zones[z];
        uint64_t pfn = (zone->config.start_pfn + size - 1) & ~(size - 1);

        for (; pfn + size <= zone->config.end_pfn; pfn += size) {
            const struct fpr_page *page = free_top(a, pfn);
            uint32_t other = page ? partner(a, zone, pfn) : FPR_NIL;

            if (other != FPR_NIL)
                swap(a, &zone->areas[page->order].lists[page->type], (uint32_t)pfn, other);
        }
    }
    return FPR_OK;
}
