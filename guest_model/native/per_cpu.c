/* Per-CPU page lists (linux v6.1 and v6.12, mm/page_alloc.c). */
#include "guest_model/native/page.h"

#define COSTLY_ORDER 3u    /* largest order kept besides huge pages */
#define FREE_FACTOR_MAX 5u /* bulk frees, and later refills, grow up to batch << 5 */
#define LOW_LISTS (3u * (COSTLY_ORDER + 1u))

bool fpr_pcp_order(const struct fpr_allocator *a, uint32_t order)
{
    return order <= a->config.rules.pcp_top_order ||
           (a->config.rules.pcp_huge_lists && a->config.thp_order && order == a->config.thp_order);
}

static uint32_t list_index(const struct fpr_allocator *a, uint32_t order, uint32_t type)
{
    if (type >= FPR_HIGHATOMIC) /* kept with the movable ones; they return to their own type */
        type = FPR_MOVABLE;
    if (order <= COSTLY_ORDER)
        return 3 * order + type;
    return LOW_LISTS + (type == FPR_MOVABLE && a->config.rules.pcp_huge_lists > 1);
}

static uint32_t index_order(const struct fpr_allocator *a, uint32_t index)
{
    return index < LOW_LISTS ? index / 3 : a->config.thp_order;
}

/* The oldest block of list `index` goes back to the buddy lists: its pages. */
static uint32_t give_back(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_pcp *pcp,
                          uint32_t index)
{
    uint32_t order = index_order(a, index), pfn = pcp->lists[index].tail;
    struct fpr_page *page = fpr_page(a, pfn);
    uint32_t type = a->config.rules.pcp_keeps_type ? page->type : fpr_label(a, pfn);

    fpr_list_remove(a, &pcp->lists[index], page);
    pcp->count -= 1u << order;
    a->counters.drains++;
    fpr_free_one(a, zone, pfn, order, type, 0);
    return 1u << order;
}

/* From list `index` on, each until it is empty. */
static void drain_from(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_pcp *pcp,
                       uint32_t count, uint32_t index)
{
    while (count) {
        while (count && pcp->lists[index].tail != FPR_NIL) {
            uint32_t size = give_back(a, zone, pcp, index);

            count -= count < size ? count : size;
        }
        index = (index + 1) % FPR_PCP_LISTS;
    }
}

/* In turn, of each list one more than lists were found empty before it. */
static void drain_round_robin(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_pcp *pcp,
                              uint32_t count)
{
    const struct fpr_rules *rules = &a->config.rules;
    uint32_t lists = 3 * (rules->pcp_top_order + 1u) + rules->pcp_huge_lists;
    uint32_t index = 0, quota = 0;

    while (count) {
        do {
            quota++;
            index = (index + 1) % lists;
        } while (pcp->lists[index].tail == FPR_NIL);
        if (quota == lists) /* the only one with anything */
            quota = count;
        do {
            uint32_t size = give_back(a, zone, pcp, index);

            count -= count < size ? count : size;
        } while (count && --quota && pcp->lists[index].tail != FPR_NIL);
    }
}

/* Give `count` pages back to the buddy lists, oldest first; list `index` has been freed to. */
static void drain(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_pcp *pcp,
                  uint32_t count, uint32_t index)
{
    uint32_t batch = count;

    if (a->config.rules.pcp_drains_in_batches && zone->config.pcp_batch)
        batch = zone->config.pcp_batch;
    while (count && pcp->count) {
        uint32_t piece = count < batch ? count : batch;

        count -= piece;
        if (piece > pcp->count)
            piece = pcp->count;
        if (a->config.rules.pcp_drain == FPR_DRAIN_ROUND_ROBIN)
            drain_round_robin(a, zone, pcp, piece);
        else
            drain_from(a, zone, pcp, piece, index);
    }
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high)
{
    return least(most(value, low), high);
}

/* `less`, but not below 0. */
static uint32_t minus(uint32_t value, uint32_t less)
{
    return value - least(value, less);
}

/* The limit of a CPU's lists that are sized by demand, within its bounds. */
static uint32_t auto_limit(const struct fpr_zone *zone, struct fpr_pcp *pcp)
{
    pcp->high = clamp(pcp->high, zone->config.pcp_high, zone->config.pcp_high_max);
    return pcp->high;
}

/* Order-0 refills double while pages are asked for and none is freed; every refill raises the limit
 * unless memory is short. */
static uint32_t auto_refill(const struct fpr_zone *zone, struct fpr_pcp *pcp, uint32_t order)
{
    uint32_t batch = zone->config.pcp_batch, size = batch, high = auto_limit(zone, pcp);

    if (high < batch)
        return 1;
    if (!order)
        size <<= pcp->alloc_factor;
    if (zone->config.pcp_high != zone->config.pcp_high_max && !zone->below_high)
        high = pcp->high = least(high + size, zone->config.pcp_high_max);
    if (!order) {
        uint32_t room = most(minus(high, pcp->count + batch), batch);

        if (size <= room && pcp->alloc_factor < FREE_FACTOR_MAX)
            pcp->alloc_factor++;
        size = least(size, room);
    }
    return size;
}

static uint32_t refill_size(const struct fpr_allocator *a, const struct fpr_zone *zone,
                            struct fpr_pcp *pcp, uint32_t order)
{
    uint32_t size = zone->config.pcp_batch;

    if (a->config.rules.pcp_sizing == FPR_PCP_AUTO)
        size = auto_refill(zone, pcp, order);
    return size > 1 ? most(size >> order, 2) : size; /* one page: such a list keeps nothing */
}

uint64_t fpr_pcp_alloc(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t cpu, uint32_t order,
                       uint32_t type, uint32_t how)
{
    const bool no_fragment = how & FPR_PCP_NO_FRAGMENT, cold = how & FPR_PCP_COLD;
    struct fpr_pcp *pcp = &zone->pcps[cpu];
    struct fpr_list *list = &pcp->lists[list_index(a, order, type)];
    enum fpr_remove_mode mode = FPR_REMOVE_OWN;
    uint32_t pfn;

    pcp->free_factor >>= 1;
    pcp->free_count >>= 1;
    if (list->head == FPR_NIL) {
        for (uint32_t n = refill_size(a, zone, pcp, order); n; n--) {
            uint64_t got = fpr_remove(a, zone, order, type, no_fragment, &mode);
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
            a->counters.refills++;
            pcp->count += 1u << order;
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
static uint32_t drain_size(struct fpr_pcp *pcp, uint32_t high, uint32_t batch)
{
    uint32_t limit, size;

    if (high < batch)
        return 1;
    limit = high - batch;
    size = batch << pcp->free_factor;
    if (size < limit && pcp->free_factor < FREE_FACTOR_MAX)
        pcp->free_factor++;
    return least(most(size, batch), limit);
}

/* One block more was freed to list `index` of lists that grow and shrink with demand. */
static void auto_freed(struct fpr_allocator *a, struct fpr_zone *zone, struct fpr_pcp *pcp,
                       uint32_t order, uint32_t index)
{
    uint32_t batch = zone->config.pcp_batch, least_high = zone->config.pcp_high;
    uint32_t high, bulk = batch << FREE_FACTOR_MAX;
    bool all = false;

    pcp->alloc_factor >>= 1;
    if (order && order <= COSTLY_ORDER) {
        all = pcp->free_count >= batch && pcp->freed_several &&
              (pcp->empties_few || pcp->count >= batch);
        pcp->freed_several = true;
    } else {
        pcp->freed_several = false;
    }
    if (pcp->free_count < bulk)
        pcp->free_count += 1u << order;
    high = auto_limit(zone, pcp);
    if (high && all) {
        pcp->high = most(minus(high, bulk), least_high);
    } else if (high && least_high != zone->config.pcp_high_max) {
        if (zone->below_high) {
            pcp->high = most(minus(high, most(pcp->free_count, batch)), least_high);
            high = most(pcp->count, least_high);
        } else if (pcp->count >= high && pcp->high < pcp->free_count + batch) {
            pcp->high = clamp(pcp->free_count + batch, least_high, zone->config.pcp_high_max);
        }
    }
    if (all)
        drain(a, zone, pcp, least(pcp->count, bulk), index);
    else if (pcp->count >= high)
        drain(a, zone, pcp, high < batch ? 1 : clamp(pcp->free_count, batch, high - batch), index);
    else
        return;
    if (zone->below_high && fpr_above_high(zone))
        zone->below_high = false;
}

void fpr_pcp_free(struct fpr_allocator *a, struct fpr_zone *zone, uint32_t cpu, uint64_t pfn,
                  uint32_t label, uint32_t how)
{
    const struct fpr_rules *rules = &a->config.rules;
    struct fpr_pcp *pcp = &zone->pcps[cpu];
    struct fpr_page *page = fpr_page(a, pfn);
    uint32_t order = page->order, index = list_index(a, order, label);
    uint32_t batch = zone->config.pcp_batch;

    page->state = FPR_PAGE_PCP;
    page->type = (uint8_t)label;
    if (how & FPR_PCP_COLD)
        fpr_list_add_tail(a, &pcp->lists[index], pfn, page);
    else
        fpr_list_add_head(a, &pcp->lists[index], pfn, page);
    pcp->count += 1u << order;
    if (rules->pcp_sizing == FPR_PCP_AUTO)
        auto_freed(a, zone, pcp, order, index);
    else if (rules->pcp_drain == FPR_DRAIN_FROM_FREED && pcp->free_factor && order &&
             order <= COSTLY_ORDER)
        drain(a, zone, pcp, pcp->count, index);
    else if (pcp->count >= zone->config.pcp_high)
        drain(a, zone, pcp,
              rules->pcp_sizing == FPR_PCP_FIXED ? batch
                                                 : drain_size(pcp, zone->config.pcp_high, batch),
              index);
}

int fpr_allocator_add_pcp(struct fpr_allocator *a, uint32_t cpu, uint64_t pfn, uint32_t order,
                          uint32_t type)
{
    struct fpr_zone *zone = fpr_empty_place(a, pfn, order, type);
    struct fpr_page *page;
    struct fpr_pcp *pcp;

    if (!zone || cpu >= a->config.cpus || !fpr_pcp_order(a, order) || type == FPR_ISOLATE)
        return FPR_BAD_ARGUMENT;
    pcp = &zone->pcps[cpu];
    page = fpr_page(a, pfn);
    page->order = (uint8_t)order;
    page->state = FPR_PAGE_PCP;
    page->type = (uint8_t)type;
    fpr_list_add_tail(a, &pcp->lists[list_index(a, order, type)], pfn, page);
    pcp->count += 1u << order;
    return FPR_OK;
}

int fpr_allocator_set_pcp(struct fpr_allocator *a, uint32_t zone, uint32_t cpu,
                          const struct fpr_pcp_demand *demand)
{
    struct fpr_pcp *pcp;

    if (zone >= a->config.zones || cpu >= a->config.cpus || demand->free_factor > FREE_FACTOR_MAX ||
        demand->alloc_factor > FREE_FACTOR_MAX)
        return FPR_BAD_ARGUMENT;
    pcp = &a->zones[zone].pcps[cpu];
    pcp->free_factor = demand->free_factor;
    pcp->high = demand->high;
    pcp->free_count = demand->free_count;
    pcp->alloc_factor = demand->alloc_factor;
    pcp->freed_several = demand->freed_several;
    pcp->empties_few = demand->empties_few;
    return FPR_OK;
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

int fpr_decay_pcp(struct fpr_allocator *a, uint32_t cpu)
{
    if (cpu >= a->config.cpus)
        return FPR_BAD_ARGUMENT;
    for (uint32_t z = 0; z < a->config.zones; z++) {
        struct fpr_zone *zone = &a->zones[z];
        struct fpr_pcp *pcp = &zone->pcps[cpu];

        if (a->config.rules.pcp_sizing != FPR_PCP_AUTO)
            continue;
        if (pcp->high > zone->config.pcp_high) {
            uint32_t kept = minus(pcp->count, zone->config.pcp_batch << FREE_FACTOR_MAX);

            pcp->high = most(most(kept, pcp->high - (pcp->high >> 3)), zone->config.pcp_high);
        }
        drain(a, zone, pcp, minus(pcp->count, pcp->high), 0);
    }
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
