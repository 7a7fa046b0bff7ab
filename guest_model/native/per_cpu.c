/* Per-CPU page lists as Linux 5.14 to 6.6 keeps them (linux v6.1, mm/page_alloc.c). */
#include "guest_model/native/page.h"

#define COSTLY_ORDER 3u    /* largest order kept besides huge pages */
#define FREE_FACTOR_MAX 5u /* bulk frees grow up to batch << 5 */
#define LOW_LISTS (3u * (COSTLY_ORDER + 1u))

bool fpr_pcp_order(const struct fpr_allocator *a, uint32_t order)
{
    return order <= COSTLY_ORDER || (a->config.thp_order && order == a->config.thp_order);
}

static uint32_t list_index(uint32_t order, uint32_t type)
{
    if (type >= FPR_HIGHATOMIC) /* kept with the movable ones; they return to their own type */
        type = FPR_MOVABLE;
    if (order <= COSTLY_ORDER)
        return 3 * order + type;
    return LOW_LISTS + (type == FPR_MOVABLE);
}

static uint32_t index_order(const struct fpr_allocator *a, uint32_t index)
{
    return index < LOW_LISTS ? index / 3 : a->config.thp_order;
}

/* Give `count` pages back to the buddy lists, oldest first, from list `index` on. */
static void drain(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_pcp *pcp,
                  uint32_t count, uint32_t index)
{
    if (count > pcp->count)
        count = pcp->count;
    while (count) {
        struct fpr_list *list = &pcp->lists[index];
        uint32_t order = index_order(a, index), size = 1u << order;

        while (count && list->tail != FPR_NIL) {
            uint32_t pfn = list->tail;
            struct fpr_page *page = fpr_page(a, pfn);

            fpr_list_remove(a, list, page);
            pcp->count -= size;
            count -= count < size ? count : size;
            a->counters.drains++;
            fpr_free_one(a, zone, pfn, order, page->type, 0);
        }
        index = (index + 1) % FPR_PCP_LISTS;
    }
}

static uint32_t refill_size(uint32_t batch, uint32_t order)
{
    uint32_t size = batch >> order;

    if (batch <= 1) /* such a list never keeps anything */
        return batch;
    return size < 2 ? 2 : size;
}

uint64_t fpr_pcp_alloc(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t cpu, uint32_t order,
                       uint32_t type, uint32_t how)
{
    const bool no_fragment = how & FPR_PCP_NO_FRAGMENT, cold = how & FPR_PCP_COLD;
    struct fpr_pcp *pcp = &zone->pcps[cpu];
    struct fpr_list *list = &pcp->lists[list_index(order, type)];
    uint32_t pfn;

    pcp->free_factor >>= 1;
    if (list->head == FPR_NIL) {
        for (uint32_t n = refill_size(zone->config.pcp_batch, order); n; n--) {
            uint64_t got = fpr_remove(a, zone, order, type, no_fragment);
            struct fpr_page *page;

            if (got == FPR_NIL)
                break;
            page = fpr_page(a, got);
            page->order = (uint8_t)order;
            page->state = FPR_PAGE_PCP;
            page->type = (uint8_t)type;
            if (cold) /* so that taking from the tail ascends as well */
                fpr_list_add_head(a, list, got, page);
            else
                fpr_list_add_tail(a, list, got, page);
            pcp->count += 1u << order;
            a->counters.refills++;
        }
        if (list->head == FPR_NIL)
            return FPR_NIL;
    }
    pfn = cold ? list->tail : list->head;
    fpr_list_remove(a, list, fpr_page(a, pfn));
    pcp->count -= 1u << order;
    return pfn;
}

/* How many pages to give back when a list is full; bulk freeing makes it grow. */
static uint32_t drain_size(struct fpr_pcp *pcp, uint32_t high, uint32_t batch, bool all)
{
    uint32_t most, size;

    if (all)
        return pcp->count;
    if (high < batch)
        return 1;
    most = high - batch;
    size = batch << pcp->free_factor;
    if (size < most && pcp->free_factor < FREE_FACTOR_MAX)
        pcp->free_factor++;
    if (size < batch)
        size = batch;
    return size < most ? size : most;
}

void fpr_pcp_free(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t cpu, uint64_t pfn,
                  uint32_t label, uint32_t how)
{
    struct fpr_pcp *pcp = &zone->pcps[cpu];
    struct fpr_page *page = fpr_page(a, pfn);
    uint32_t order = page->order, index = list_index(order, label);
    bool all = pcp->free_factor && order && order <= COSTLY_ORDER;
    uint32_t high = all ? 0 : zone->config.pcp_high;

    page->state = FPR_PAGE_PCP;
    page->type = (uint8_t)label;
    if (how & FPR_PCP_COLD)
        fpr_list_add_tail(a, &pcp->lists[index], pfn, page);
    else
        fpr_list_add_head(a, &pcp->lists[index], pfn, page);
    pcp->count += 1u << order;
    if (pcp->count >= high)
        drain(a, zone, pcp, drain_size(pcp, high, zone->config.pcp_batch, all), index);
}

int fpr_drain_pcp(struct fpr_allocator *a, uint32_t cpu)
{
    if (cpu != UINT32_MAX && cpu >= a->config.cpus)
        return FPR_BAD_ARGUMENT;
    for (uint32_t c = 0; c < a->config.cpus; c++)
        for (uint32_t z = 0; z < a->config.zones && (cpu == UINT32_MAX || c == cpu); z++)
            drain(a, &a->zones[z], &a->zones[z].pcps[c], UINT32_MAX, 0);
    return FPR_OK;
}

int fpr_pcp_read(const struct fpr_allocator *a, uint32_t zone, uint32_t cpu, uint32_t index,
                 uint64_t *pfns, uint64_t capacity, uint64_t *count)
{
    uint64_t n = 0;

    if (zone >= a->config.zones || cpu >= a->config.cpus || index >= FPR_PCP_LISTS)
        return FPR_BAD_ARGUMENT;
    for (uint32_t pfn = a->zones[zone].pcps[cpu].lists[index].head; pfn != FPR_NIL;
         pfn = fpr_page(a, pfn)->next, n++)
        if (n < capacity)
            pfns[n] = pfn;
    *count = n;
    return FPR_OK;
}
