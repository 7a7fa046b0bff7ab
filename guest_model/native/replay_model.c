/* Replay of a recorded trace with frames of the model's own choosing: from each event only order,
 * migrate type, CPU and urgency are taken. */
#include "guest_model/native/page.h"
#include "guest_model/native/replay.h"

struct run {
    struct fpr_allocator *a;
    uint32_t *map; /* recorded frame -> model's frame + 1 */
    uint64_t frames;
    struct fpr_replay_model_stats *stats;
};

/* The block of any state that covers pfn; NULL where no block is known to. */
static struct fpr_page *covering(const struct fpr_allocator *a, uint64_t pfn, uint64_t *head)
{
    for (uint32_t order = 0; order <= a->config.top_order; order++) {
        struct fpr_page *page = fpr_page(a, pfn & ~(((uint64_t)1 << order) - 1));

        *head = pfn & ~(((uint64_t)1 << order) - 1);
        if (page->state != FPR_PAGE_NONE)
            return page->order >= order ? page : NULL;
    }
    return NULL;
}

/* The kernel may allocate a large block and free it in pieces: cut it down to the order freed. */
static bool cut_allocated(struct fpr_allocator *a, uint64_t pfn, uint32_t order)
{
    uint64_t head;
    struct fpr_page *page = covering(a, pfn, &head);
    uint32_t whole;

    if (!page || page->state != FPR_PAGE_ALLOCATED || page->order < order)
        return false;
    whole = page->order;
    for (uint64_t at = head; whole > order && at < head + ((uint64_t)1 << whole);
         at += (uint64_t)1 << order)
        fpr_mark_allocated(a, at, order, page->type);
    return fpr_page(a, pfn)->state == FPR_PAGE_ALLOCATED && fpr_page(a, pfn)->order == order;
}

static void set_map(const struct run *r, uint64_t pfn, uint32_t order, uint64_t model_plus_1)
{
    for (uint64_t i = 0; i < (uint64_t)1 << order; i++)
        r->map[pfn + i] = model_plus_1 ? (uint32_t)(model_plus_1 + i) : 0;
}

/* The model's block for one that is about to be freed, cut to the order freed: its first frame + 1;
 * 0 where it is not known. */
static uint64_t find_owned(const struct run *r, const struct fpr_trace_event *e)
{
    uint64_t model = r->map[e->pfn], head;

    if (!model) { /* in use since before the trace: then in the model it is the same frame */
        if (covering(r->a, e->pfn, &head) || !fpr_zone_of(r->a, e->pfn))
            return 0;
        fpr_mark_allocated(r->a, e->pfn, e->order, fpr_label(r->a, e->pfn));
        set_map(r, e->pfn, e->order, e->pfn + 1);
        return e->pfn + 1;
    }
    return cut_allocated(r->a, model - 1, e->order) ? model : 0;
}

static void give_up(const struct run *r, const struct fpr_trace_event *e, uint64_t model,
                    uint32_t order, uint32_t cpu, bool trim)
{
    int status = FPR_NOT_ALLOCATED;

    r->stats->frees++;
    set_map(r, e->pfn, order, 0);
    if (model)
        status = trim ? fpr_buddy_free(r->a, model - 1, order, fpr_label(r->a, model - 1),
                                       FPR_FREE_TO_TAIL)
                      : fpr_free(r->a, cpu, model - 1, order, 0);
    r->stats->frees_unknown += status != FPR_OK;
}

static void release(const struct run *r, const struct fpr_trace_event *e, uint32_t cpu, bool trim)
{
    give_up(r, e, find_owned(r, e), e->order, cpu, trim);
}

/* The event of a batch does not say the order: it is that of the free before it. */
static void release_batched(const struct run *r, const struct fpr_trace_event *e, uint32_t cpu)
{
    uint64_t model = r->map[e->pfn];
    const struct fpr_page *page = model ? fpr_page(r->a, model - 1) : NULL;

    if (page && page->state == FPR_PAGE_ALLOCATED)
        give_up(r, e, model, page->order, cpu, false);
    else
        give_up(r, e, 0, 0, cpu, false);
}

/* The first time that the model's choice is not the kernel's: where was the frame that it took? */
static void note_miss(const struct run *r, uint64_t pfn, uint64_t index, uint64_t model)
{
    uint64_t head;
    const struct fpr_page *page = covering(r->a, pfn, &head);

    if (r->stats->first_miss != UINT64_MAX)
        return;
    r->stats->first_miss = index;
    r->stats->miss_model_pfn = model;
    r->stats->miss_state = page ? page->state : FPR_FRAME_UNKNOWN;
    r->stats->miss_order = page ? page->order : 0;
    r->stats->miss_type = page ? page->type : 0;
}

static void allocate(const struct run *r, const struct fpr_trace_event *e, uint64_t index,
                     uint32_t cpu)
{
    uint32_t flags = 0, type = e->migratetype < FPR_HIGHATOMIC ? (uint32_t)e->migratetype
                                                               : (uint32_t)FPR_MOVABLE;
    uint64_t model;

    flags |= e->gfp & FPR_GFP_DMA ? FPR_ALLOC_DMA : 0;
    flags |= e->gfp & FPR_GFP_DMA32 ? FPR_ALLOC_DMA32 : 0;
    flags |= e->gfp & FPR_GFP_HIGH ? FPR_ALLOC_HIGH : 0;
    flags |= e->gfp & FPR_GFP_ATOMIC ? FPR_ALLOC_NONBLOCKING : 0;
    if (r->map[e->pfn]) /* its free is missing from the trace */
        release(r, e, cpu, false);
    r->stats->allocs++;
    if (fpr_alloc(r->a, cpu, e->order, type, flags, &model)) {
        r->stats->allocs_failed++;
        return;
    }
    if (model == e->pfn)
        r->stats->allocs_equal++;
    else
        note_miss(r, e->pfn, index, model);
    set_map(r, e->pfn, e->order, model + 1);
}

static void hand_over(const struct run *r, const struct fpr_trace_event *e)
{
    struct fpr_zone *zone = fpr_zone_of(r->a, e->pfn);
    uint64_t head;

    if (!zone || covering(r->a, e->pfn, &head))
        return;
    fpr_boot_label(r->a, e->pfn);
    fpr_free_one(r->a, zone, e->pfn, e->order, fpr_label(r->a, e->pfn), FPR_FREE_TO_TAIL);
}

int fpr_replay_model(struct fpr_allocator *a, const struct fpr_trace_event *events,
                     const uint8_t *actions, uint64_t n, int64_t until_ns, uint32_t *map,
                     uint64_t frames, uint64_t *next, struct fpr_replay_model_stats *stats)
{
    const struct run r = {a, map, frames, stats};
    uint64_t i = *next;

    for (; i < n && events[i].time_ns < until_ns && !a->notify.raised; i++) {
        const struct fpr_trace_event *e = &events[i];
        bool batched = actions[i] & FPR_REPLAY_BATCHED;
        uint8_t action = actions[i] & ~FPR_REPLAY_BATCHED;
        uint32_t cpu = e->cpu < a->config.cpus ? e->cpu : 0;

        if (e->flags & FPR_TRACE_FAILED || e->order > a->config.top_order || e->pfn >= frames ||
            ((uint64_t)1 << e->order) > frames - e->pfn)
            continue;
        if (e->kind == FPR_TRACE_ALLOC && e->migratetype >= 0)
            allocate(&r, e, i, cpu);
        else if (e->kind == FPR_TRACE_FREE && action == FPR_REPLAY_BOOT)
            hand_over(&r, e);
        else if (e->kind == FPR_TRACE_FREE && batched)
            find_owned(&r, e);
        else if (e->kind == FPR_TRACE_FREE)
            release(&r, e, cpu, action == FPR_REPLAY_TRIM);
        else if (e->kind == FPR_TRACE_FREE_BATCHED && batched)
            release_batched(&r, e, cpu);
    }
    *next = i;
    return FPR_OK;
}
