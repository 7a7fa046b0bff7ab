/* Replay of a recorded trace with the frames that the kernel gave. */
#include "guest_model/native/replay.h"

#include <string.h>

#include "guest_model/native/page.h"

/* What the next event of a frame is, seen from the event before it. */
enum { NEXT_NONE = 0, NEXT_FREE_AT_END = 1, NEXT_TAKEN, NEXT_RETURNED, NEXT_ALLOCATED, NEXT_FREED };

struct scan {
    const struct fpr_trace_event *events;
    uint64_t n, frames;
    const struct fpr_allocator_config *config;
    uint8_t *scratch, *actions;
};

static bool per_cpu(const struct scan *s, uint32_t order)
{
    const struct fpr_allocator_config *c = s->config;

    return order <= c->rules.pcp_top_order ||
           (c->rules.pcp_huge_lists && c->thp_order && order == c->thp_order);
}

static bool inside(const struct scan *s, const struct fpr_trace_event *e)
{
    return e->order < FPR_MAX_ORDERS && e->pfn < s->frames &&
           ((uint64_t)1 << e->order) <= s->frames - e->pfn;
}

/* Since linux v6.10 a fallback hands out of the block that it takes over right away, and its event
 * names what it handed out. Where it moved a page block first, the event before it on this CPU
 * showed how the block left the lists. */
static uint8_t fallback_action(const struct scan *s, uint64_t i)
{
    const struct fpr_trace_event *e = &s->events[i], *before = e;

    if (s->config->rules.fallback == FPR_MOVE_THEN_TEST)
        return FPR_REPLAY_STEAL;
    while (before > s->events && (--before)->cpu != e->cpu)
        ;
    if (before != e && before->cpu == e->cpu && before->kind == FPR_TRACE_ZONE_LOCKED &&
        before->pfn == e->pfn && before->order == e->order)
        return FPR_REPLAY_CLAIM;
    return FPR_REPLAY_SPLIT;
}

static void backwards(const struct scan *s)
{
    for (uint64_t i = s->n; i-- > 0;) {
        const struct fpr_trace_event *e = &s->events[i];
        uint8_t next = NEXT_NONE, action = FPR_REPLAY_NONE, batched = 0;

        s->actions[i] = FPR_REPLAY_NONE;
        if (!inside(s, e) || e->flags & FPR_TRACE_FAILED)
            continue;
        switch (e->kind) {
        case FPR_TRACE_ZONE_LOCKED:
            next = NEXT_TAKEN;
            action = FPR_REPLAY_TAKE;
            break;
        case FPR_TRACE_PCPU_DRAIN:
            next = NEXT_RETURNED;
            action = FPR_REPLAY_RETURN;
            break;
        case FPR_TRACE_ALLOC:
            next = NEXT_ALLOCATED;
            action = FPR_REPLAY_MAYBE;
            break;
        case FPR_TRACE_FREE_BATCHED:
            s->scratch[e->pfn] |= FPR_REPLAY_BATCHED;
            continue;
        case FPR_TRACE_FREE:
            next = s->scratch[e->pfn] & ~FPR_REPLAY_BATCHED;
            if (s->scratch[e->pfn] & FPR_REPLAY_BATCHED)
                batched = FPR_REPLAY_BATCHED;
            if (!per_cpu(s, e->order) || next == NEXT_TAKEN || next == NEXT_FREE_AT_END)
                action = FPR_REPLAY_RETURN;
            next = NEXT_FREED;
            break;
        case FPR_TRACE_EXTFRAG:
            action = fallback_action(s, i);
            s->actions[i] = action;
            if (action == FPR_REPLAY_STEAL)
                continue;
            next = NEXT_TAKEN;
            break;
        default:
            continue;
        }
        s->actions[i] = action | batched;
        memset(&s->scratch[e->pfn], next, (size_t)1 << e->order);
    }
}

/* The event that showed how a block left the lists after its page block was taken over: the
 * fallback's own event, which comes after it, does both. */
static void leave_to_claims(const struct scan *s)
{
    for (uint64_t i = 0; i < s->n; i++) {
        const struct fpr_trace_event *e = &s->events[i];

        if (s->actions[i] != FPR_REPLAY_CLAIM)
            continue;
        for (uint64_t j = i; j-- > 0;)
            if (s->events[j].cpu == e->cpu) {
                s->actions[j] = FPR_REPLAY_NONE;
                break;
            }
    }
}

/* The event of a batch carries out the free that was left to it. */
static void mark_batches(const struct scan *s)
{
    memset(s->scratch, 0, s->frames);
    for (uint64_t i = 0; i < s->n; i++) {
        const struct fpr_trace_event *e = &s->events[i];

        if (!inside(s, e))
            continue;
        if (e->kind == FPR_TRACE_FREE)
            s->scratch[e->pfn] = s->actions[i] & FPR_REPLAY_BATCHED;
        else if (e->kind == FPR_TRACE_FREE_BATCHED && s->scratch[e->pfn]) {
            s->actions[i] = FPR_REPLAY_BATCHED;
            s->scratch[e->pfn] = 0;
        }
    }
}

/* An allocation of an exact size takes a whole block, and frees the pages beyond its size at once,
 * one by one, past the per-CPU lists and to the tails (linux v6.1, make_alloc_exact). */
static void mark_trims(const struct scan *s)
{
    for (uint64_t i = 0; i < s->n; i++) {
        const struct fpr_trace_event *e = &s->events[i];
        uint64_t end, first = 0, expected = 0, last = i;

        if (e->kind != FPR_TRACE_ALLOC || !e->order || !inside(s, e))
            continue;
        end = e->pfn + ((uint64_t)1 << e->order);
        for (uint64_t j = i + 1; j < s->n && j <= last + 64 && (!first || expected < end); j++) {
            const struct fpr_trace_event *f = &s->events[j];

            if (f->pid != e->pid || f->cpu != e->cpu)
                continue;
            if (f->kind != FPR_TRACE_FREE || f->order || f->pfn <= e->pfn || f->pfn >= end ||
                (first && f->pfn != expected))
                break;
            first = first ? first : j;
            expected = f->pfn + 1;
            last = j;
        }
        for (uint64_t j = first; first && expected == end && j <= last; j++)
            if (s->events[j].pid == e->pid && s->events[j].cpu == e->cpu)
                s->actions[j] = FPR_REPLAY_TRIM;
    }
}

/* Memory that the boot allocator hands over late (deferred initialization): whole page blocks never
 * seen allocated, and single pages never seen that the same thread frees. */
static void recognize_boot(const struct scan *s)
{
    uint32_t thread = 0;

    memset(s->scratch, 0, s->frames);
    for (uint64_t i = 0; i < s->n; i++) {
        const struct fpr_trace_event *e = &s->events[i];

        if (!inside(s, e))
            continue;
        if (e->kind == FPR_TRACE_FREE && !s->scratch[e->pfn] &&
            (e->order >= s->config->pageblock_order || (thread && e->pid == thread))) {
            s->actions[i] = FPR_REPLAY_BOOT;
            thread = e->pid;
        }
        memset(&s->scratch[e->pfn], 1, (size_t)1 << e->order);
    }
}

int fpr_replay_actions(const struct fpr_trace_event *events, uint64_t n,
                       const struct fpr_allocator_config *config, int boot, uint8_t *scratch,
                       uint8_t *actions)
{
    const struct scan s = {events, n, config->frames, config, scratch, actions};

    backwards(&s);
    leave_to_claims(&s);
    mark_batches(&s);
    mark_trims(&s);
    if (boot)
        recognize_boot(&s);
    return FPR_OK;
}

/* Would the lists hand out exactly this block now? */
static bool predicted(const struct fpr_allocator *a, const struct fpr_zone *zone,
                      const struct fpr_trace_event *e)
{
    for (uint32_t order = e->order; order <= a->config.top_order; order++) {
        uint32_t head = zone->areas[order].lists[e->migratetype].head;

        if (head != FPR_NIL)
            return head == e->pfn;
    }
    return false;
}

/* The kernel took a block of a larger order: no block between was of this type. */
static void refute(struct fpr_allocator *a, struct fpr_zone *zone, const struct fpr_trace_event *e,
                   uint8_t *guesses, struct fpr_replay_frames_stats *stats)
{
    uint32_t type = (uint32_t)e->migratetype;
    struct fpr_block block;

    if (fpr_buddy_find(a, e->pfn, &block) || block.type != type)
        return;
    for (uint32_t order = e->order; order < block.order; order++) {
        uint32_t next;

        for (uint32_t pfn = zone->areas[order].lists[type].head; pfn != FPR_NIL; pfn = next) {
            uint64_t pageblock = pfn >> a->config.pageblock_order;

            next = fpr_page(a, pfn)->next;
            guesses[pageblock] &= (uint8_t)~(1u << type);
            if (!guesses[pageblock])
                continue;
            a->labels[pageblock] = (uint8_t)__builtin_ctz(guesses[pageblock]);
            fpr_move_pageblock(a, zone, pfn, a->labels[pageblock]);
            stats->relabelled++;
            next = zone->areas[order].lists[type].head;
        }
    }
}

static void take(struct fpr_allocator *a, struct fpr_zone *zone, const struct fpr_trace_event *e,
                 uint64_t index, uint8_t *guesses, struct fpr_replay_frames_stats *stats)
{
    bool typed = e->migratetype >= 0 && e->migratetype < FPR_MIGRATETYPES;
    bool hit = typed && predicted(a, zone, e);

    if (typed && !hit) {
        refute(a, zone, e, guesses, stats);
        hit = predicted(a, zone, e);
    }

    stats->takes++;
    stats->takes_predicted += hit;
    if (!hit && stats->first_miss == UINT64_MAX)
        stats->first_miss = index;
    if (hit)
        fpr_remove_smallest(a, zone, e->order, (uint32_t)e->migratetype);
    else if (fpr_buddy_take(a, e->pfn, e->order))
        stats->takes_missing++;
    else
        fpr_page(a, e->pfn)->state = FPR_PAGE_NONE; /* whoever has it now is not followed */
}

static void give_back(struct fpr_allocator *a, struct fpr_zone *zone,
                      const struct fpr_trace_event *e, uint32_t flags,
                      struct fpr_replay_frames_stats *stats)
{
    struct fpr_block block;
    uint32_t type = fpr_label(a, e->pfn);

    stats->returns++;
    if (!fpr_buddy_find(a, e->pfn, &block) || fpr_page(a, e->pfn)->state == FPR_PAGE_ISOLATED) {
        stats->returns_double++;
        return;
    }
    if (e->kind == FPR_TRACE_PCPU_DRAIN && e->migratetype >= 0 && e->migratetype < FPR_MIGRATETYPES)
        type = (uint32_t)e->migratetype;
    fpr_free_one(a, zone, e->pfn, e->order, type, flags);
}

/* A fallback: the block's list was empty of the wanted type. The trace says who owns the page block
 * afterwards. */
static void take_over(struct fpr_allocator *a, struct fpr_zone *zone,
                      const struct fpr_trace_event *e, struct fpr_replay_frames_stats *stats)
{
    const struct fpr_page *page = fpr_page(a, e->pfn);
    struct fpr_block block;
    uint32_t type = (uint32_t)e->migratetype;
    bool own = e->flags & FPR_TRACE_CHANGE_OWNERSHIP;

    if (e->migratetype < 0 || e->migratetype >= FPR_HIGHATOMIC)
        return;
    stats->steals++;
    if (page->state == FPR_PAGE_FREE && page->order == e->fallback_order &&
        (int8_t)page->type == e->fallback_migratetype)
        fpr_steal(a, zone, e->pfn, type, fpr_claimable(a, e->fallback_order, type));
    else if (!fpr_buddy_find(a, e->pfn, &block))
        fpr_area_move(a, zone, block.pfn, type);
    if (own == (fpr_label(a, e->pfn) == type))
        stats->steals_predicted++;
    else if (own)
        a->labels[e->pfn >> a->config.pageblock_order] = (uint8_t)type;
}

/* The same since linux v6.10: the event names the block that was handed out, out of one that was
 * taken over or of another type's. */
static void hand_out(struct fpr_allocator *a, struct fpr_zone *zone,
                     const struct fpr_trace_event *e, bool claimed, uint64_t index,
                     struct fpr_replay_frames_stats *stats)
{
    uint32_t type = (uint32_t)e->migratetype;
    struct fpr_block block;
    bool hit;

    stats->takes++;
    stats->steals++;
    if (e->migratetype < 0 || e->migratetype >= FPR_HIGHATOMIC || fpr_buddy_find(a, e->pfn, &block))
        hit = false;
    else if (claimed)
        hit = fpr_move_pageblock(a, zone, e->pfn, type);
    else
        hit = block.pfn == e->pfn && block.order == e->fallback_order &&
              (int)block.type == e->fallback_migratetype &&
              zone->areas[block.order].lists[block.type].head == e->pfn;
    if (hit && claimed)
        fpr_relabel(a, e->pfn, 0, type);
    hit = hit && (!claimed || predicted(a, zone, e));
    stats->takes_predicted += hit;
    stats->steals_predicted += hit;
    if (!hit && stats->first_miss == UINT64_MAX)
        stats->first_miss = index;
    if (hit && claimed)
        fpr_remove_smallest(a, zone, e->order, type);
    else if (hit && block.order >= a->config.pageblock_order)
        fpr_claim(a, zone, e->pfn, e->order, type);
    else if (fpr_buddy_take(a, e->pfn, e->order))
        stats->takes_missing++;
    else
        fpr_page(a, e->pfn)->state = FPR_PAGE_NONE;
    if (!hit && e->flags & FPR_TRACE_CHANGE_OWNERSHIP)
        fpr_relabel(a, e->pfn & ~(((uint64_t)1 << a->config.pageblock_order) - 1), 0, type);
}

int fpr_replay_frames(struct fpr_allocator *a, const struct fpr_trace_event *events,
                      const uint8_t *actions, uint64_t n, int64_t until_ns, uint8_t *guesses,
                      uint64_t *next, struct fpr_replay_frames_stats *stats)
{
    uint64_t i = *next;

    for (; i < n && events[i].time_ns < until_ns && !a->notify.raised; i++) {
        const struct fpr_trace_event *e = &events[i];
        struct fpr_zone *zone;
        struct fpr_block block;
        uint8_t action = actions[i] & ~FPR_REPLAY_BATCHED;

        if (action == FPR_REPLAY_NONE)
            continue;
        zone = fpr_zone_of(a, e->pfn);
        if (!zone) {
            stats->outside++;
            continue;
        }
        switch (action) {
        case FPR_REPLAY_TAKE:
            take(a, zone, e, i, guesses, stats);
            break;
        case FPR_REPLAY_MAYBE:
            if (!fpr_buddy_find(a, e->pfn, &block))
                take(a, zone, e, i, guesses, stats);
            break;
        case FPR_REPLAY_RETURN:
            give_back(a, zone, e, 0, stats);
            break;
        case FPR_REPLAY_TRIM:
            give_back(a, zone, e, FPR_FREE_TO_TAIL, stats);
            break;
        case FPR_REPLAY_BOOT:
            fpr_boot_label(a, e->pfn);
            give_back(a, zone, e, FPR_FREE_TO_TAIL, stats);
            break;
        case FPR_REPLAY_STEAL:
            take_over(a, zone, e, stats);
            break;
        case FPR_REPLAY_CLAIM:
        case FPR_REPLAY_SPLIT:
            hand_out(a, zone, e, action == FPR_REPLAY_CLAIM, i, stats);
            break;
        default:
            return FPR_BAD_ARGUMENT;
        }
    }
    *next = i;
    return FPR_OK;
}
