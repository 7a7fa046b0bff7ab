/* Allocations that a trace does not show. The kernel's bulk allocator takes order-0 pages off the
 * per-CPU lists without an event (linux v6.1, __alloc_pages_bulk). They show all the same: a page
 * can be handed out only once those before it on its list are gone. */
#include <stdlib.h>
#include <string.h>

#include "guest_model/native/page.h"
#include "guest_model/native/replay.h"

#define TYPES FPR_HIGHATOMIC
#define NO_LIST 0xff
#define UNKNOWN 15 /* a type that no list has */

enum { AFTER_NONE = 0, AFTER_FREED = 1, AFTER_KEPT = 2 };

/* A frame on the copy of a per-CPU list. `after`: what the trace shows of it next. */
struct frame {
    uint32_t next, prev;
    uint64_t run;    /* event that began the refill which brought it, or UINT64_MAX */
    uint64_t pushed; /* event that freed it, or UINT64_MAX */
    uint8_t listed, after, type;
};

struct shadow {
    struct fpr_list lists[TYPES];
    uint64_t run;         /* event that began the last refill */
    uint64_t last_refill; /* the last event of it */
    uint64_t frees_until; /* end of the run of frees that was looked at */
    uint32_t refilled;    /* pages of it */
    uint8_t type;
};

struct search {
    const struct fpr_trace_event *events;
    uint64_t n, frames;
    const uint8_t *actions;
    struct frame *map;
    struct shadow *cpus; /* [cpu][zone]: each zone has lists of its own */
    uint32_t cpu_count;
    const struct fpr_zone_config *zones;
    uint32_t zone_count;
    uint64_t batch; /* of the phase */
    struct fpr_replay_unseen *out;
    uint64_t capacity, found;
    uint8_t *types; /* of each page block: the first that the trace tells */
    uint32_t pageblock_order;
};

static uint32_t zone_index(const struct search *s, uint64_t pfn)
{
    uint32_t zone = 0;

    while (zone + 1 < s->zone_count && pfn >= s->zones[zone].end_pfn)
        zone++;
    return zone;
}

/* What the copy knows of a CPU's lists in the zone of pfn. */
static struct shadow *shadow_of(const struct search *s, uint32_t cpu, uint64_t pfn)
{
    return &s->cpus[cpu * s->zone_count + zone_index(s, pfn)];
}

static void list_remove(struct search *s, struct fpr_list *list, uint32_t pfn)
{
    struct frame *f = &s->map[pfn];

    if (f->prev == FPR_NIL)
        list->head = f->next;
    else
        s->map[f->prev].next = f->next;
    if (f->next == FPR_NIL)
        list->tail = f->prev;
    else
        s->map[f->next].prev = f->prev;
    f->listed = NO_LIST;
}

static void list_add(struct search *s, struct fpr_list *list, uint32_t pfn, uint32_t cpu, bool tail)
{
    struct frame *f = &s->map[pfn];

    f->listed = (uint8_t)cpu;
    f->next = tail ? FPR_NIL : list->head;
    f->prev = tail ? list->tail : FPR_NIL;
    if (f->next == FPR_NIL)
        list->tail = pfn;
    else
        s->map[f->next].prev = pfn;
    if (f->prev == FPR_NIL)
        list->head = pfn;
    else
        s->map[f->prev].next = pfn;
}

/* This frame left its list unseen before event `at`; the first page of a refill caused that refill,
 * so it was asked for before it. */
static void unseen(struct search *s, uint32_t pfn, uint32_t cpu, uint64_t at)
{
    struct frame *f = &s->map[pfn];
    bool caused = f->run != UINT64_MAX && s->events[f->run].pfn == pfn;

    if (s->found < s->capacity)
        s->out[s->found] = (struct fpr_replay_unseen){caused ? f->run : at, pfn, cpu, f->type};
    s->found++;
    list_remove(s, &shadow_of(s, cpu, pfn)->lists[f->type], pfn);
}

/* Whatever is in front of `until` on its list and is not seen there again went unseen, before event
 * `at`; and before the frames that stay in front of it came. Returns the event before which `until`
 * went, if it went unseen. */
static uint64_t pop_front(struct search *s, struct fpr_list *list, uint32_t until, uint32_t cpu,
                          uint64_t at)
{
    uint32_t next;

    for (uint32_t pfn = list->head; pfn != FPR_NIL && pfn != until; pfn = next) {
        const struct frame *f = &s->map[pfn];

        next = f->next;
        if (f->after != AFTER_KEPT)
            unseen(s, pfn, cpu, at);
        else if (f->pushed < at)
            at = f->pushed;
    }
    return at;
}

static void refill(struct search *s, const struct fpr_trace_event *e, uint64_t i, uint32_t cpu)
{
    struct shadow *shadow = shadow_of(s, cpu, e->pfn);
    uint64_t own = s->zones[zone_index(s, e->pfn)].pcp_batch;
    uint64_t batch = own < s->batch ? own : s->batch;
    uint32_t pfn = (uint32_t)e->pfn;

    if (shadow->last_refill + 1 != i || shadow->type != e->migratetype ||
        shadow->refilled >= batch) { /* a new one: the list ran empty before it */
        pop_front(s, &shadow->lists[e->migratetype], FPR_NIL, cpu, i);
        shadow->run = i;
        shadow->refilled = 0;
        shadow->type = (uint8_t)e->migratetype;
    }
    shadow->last_refill = i;
    shadow->refilled++;
    if (s->map[pfn].listed != NO_LIST)
        return;
    s->map[pfn].run = shadow->run;
    s->map[pfn].pushed = UINT64_MAX;
    s->map[pfn].type = (uint8_t)e->migratetype;
    list_add(s, &shadow->lists[e->migratetype], pfn, cpu, true);
}

/* Event i begins a run of frees of one task. Whatever of it the copy still lists was handed out
 * unseen before the run, and so was what was in front of it. */
static void begin_frees(struct search *s, uint64_t i, uint32_t cpu)
{
    uint64_t j;

    for (j = i; j < s->n; j++) {
        const struct fpr_trace_event *e = &s->events[j];
        struct frame *f;

        if (e->cpu != cpu)
            continue;
        if (e->pid != s->events[i].pid ||
            (e->kind != FPR_TRACE_FREE && e->kind != FPR_TRACE_FREE_BATCHED &&
             e->kind != FPR_TRACE_PCPU_DRAIN))
            break;
        if (e->kind != FPR_TRACE_FREE || e->order || e->pfn >= s->frames)
            continue;
        f = &s->map[e->pfn];
        if (f->listed == NO_LIST)
            continue;
        unseen(s, (uint32_t)e->pfn, f->listed,
               pop_front(s, &shadow_of(s, f->listed, e->pfn)->lists[f->type], (uint32_t)e->pfn,
                         f->listed, i));
    }
    s->cpus[cpu * s->zone_count].frees_until = j;
}

static void push(struct search *s, const struct fpr_trace_event *e, uint64_t i, uint32_t cpu)
{
    struct frame *f = &s->map[e->pfn];

    if (f->listed != NO_LIST || f->type >= TYPES)
        return;
    f->run = UINT64_MAX;
    f->pushed = i;
    list_add(s, &shadow_of(s, cpu, e->pfn)->lists[f->type], (uint32_t)e->pfn, cpu, false);
}

static void step(struct search *s, uint64_t i)
{
    const struct fpr_trace_event *e = &s->events[i];
    uint8_t action = s->actions[i];
    uint32_t cpu = e->cpu;
    struct frame *f;

    if (e->kind == FPR_TRACE_EXTFRAG && action != FPR_REPLAY_SPLIT && cpu < s->cpu_count) {
        struct shadow *shadow = shadow_of(s, cpu, e->pfn);

        shadow->last_refill += shadow->last_refill + 1 == i;
    }
    if (e->order || e->pfn >= s->frames || cpu >= s->cpu_count || e->flags & FPR_TRACE_FAILED)
        return;
    f = &s->map[e->pfn];
    if (e->kind == FPR_TRACE_FREE && i >= s->cpus[cpu * s->zone_count].frees_until)
        begin_frees(s, i, cpu);
    if ((e->kind == FPR_TRACE_ZONE_LOCKED || action == FPR_REPLAY_SPLIT) && e->migratetype >= 0 &&
        e->migratetype < TYPES) {
        refill(s, e, i, cpu);
    } else if (e->kind == FPR_TRACE_PCPU_DRAIN && f->listed != NO_LIST) {
        list_remove(s, &shadow_of(s, f->listed, e->pfn)->lists[f->type], (uint32_t)e->pfn);
    } else if (e->kind == FPR_TRACE_ALLOC && f->listed != NO_LIST) {
        struct fpr_list *list = &shadow_of(s, f->listed, e->pfn)->lists[f->type];

        pop_front(s, list, (uint32_t)e->pfn, f->listed, i);
        list_remove(s, list, (uint32_t)e->pfn);
    } else if ((e->kind == FPR_TRACE_FREE && action == FPR_REPLAY_NONE) ||
               (e->kind == FPR_TRACE_FREE_BATCHED && action == FPR_REPLAY_BATCHED)) {
        push(s, e, i, cpu);
    }
}

/* What the trace shows of each frame after each time that it enters a per-CPU list, and the list:
 * found backwards and kept in `after` of the event. */
static void look_ahead(struct search *s, uint8_t *after)
{
    for (uint64_t i = s->n; i-- > 0;) {
        const struct fpr_trace_event *e = &s->events[i];
        struct frame *f;

        if (e->order || e->pfn >= s->frames)
            continue;
        f = &s->map[e->pfn];
        after[i] = (uint8_t)(f->after | f->type << 4);
        if (e->migratetype >= 0 && e->migratetype < TYPES)
            s->types[e->pfn >> s->pageblock_order] = (uint8_t)e->migratetype;
        if (e->kind == FPR_TRACE_ALLOC || e->kind == FPR_TRACE_PCPU_DRAIN) {
            f->after = AFTER_KEPT;
            f->type = UNKNOWN;
            if (e->migratetype >= 0 && e->migratetype < TYPES)
                f->type = (uint8_t)e->migratetype;
        } else if (e->kind == FPR_TRACE_FREE) {
            f->after = AFTER_FREED;
            f->type = UNKNOWN;
        }
    }
}

/* A frame that is not on a list: what comes next, and the type it would be listed as. Where the
 * trace does not say, it is the type it was last handed out as, or that of others in its page
 * block. */
static void expect(const struct search *s, const struct fpr_trace_event *e, uint8_t after)
{
    struct frame *f = &s->map[e->pfn];

    f->after = after & 15;
    if (after >> 4 < TYPES)
        f->type = after >> 4;
    else if (e->kind == FPR_TRACE_ALLOC && e->migratetype >= 0 && e->migratetype < TYPES)
        f->type = (uint8_t)e->migratetype;
    else if (f->type == UNKNOWN)
        f->type = s->types[e->pfn >> s->pageblock_order];
}

int fpr_replay_unseen(const struct fpr_trace_event *events, const uint8_t *actions, uint64_t n,
                      const struct fpr_allocator_config *config,
                      const struct fpr_zone_config *zones, uint32_t zone_count,
                      const struct fpr_replay_phase *phases, uint32_t phase_count,
                      struct fpr_replay_unseen *out, uint64_t capacity, uint64_t *found)
{
    const uint64_t frames = config->frames;
    const uint32_t cpus = config->cpus, pageblock_order = config->pageblock_order;
    struct search s = {.events = events,
                       .n = n,
                       .frames = frames,
                       .actions = actions,
                       .cpu_count = cpus,
                       .zones = zones,
                       .zone_count = zone_count,
                       .pageblock_order = pageblock_order,
                       .out = out,
                       .capacity = capacity};
    uint32_t phase = 0;
    uint8_t *after = calloc(n + 1, 1);

    s.map = calloc(frames, sizeof *s.map);
    s.cpus = calloc((size_t)cpus * zone_count, sizeof *s.cpus);
    s.types = malloc((frames >> pageblock_order) + 1);
    if (!after || !s.map || !s.cpus || !s.types || cpus >= NO_LIST) {
        free(after);
        free(s.map);
        free(s.cpus);
        free(s.types);
        return cpus >= NO_LIST ? FPR_BAD_ARGUMENT : FPR_HOST_MEMORY;
    }
    for (uint64_t pfn = 0; pfn < frames; pfn++) {
        s.map[pfn].listed = NO_LIST;
        s.map[pfn].type = UNKNOWN;
    }
    for (uint32_t cpu = 0; cpu < cpus * zone_count; cpu++) {
        s.cpus[cpu].last_refill = UINT64_MAX - 1;
        for (uint32_t type = 0; type < TYPES; type++)
            fpr_list_init(&s.cpus[cpu].lists[type]);
    }
    memset(s.types, UNKNOWN, (frames >> pageblock_order) + 1);
    look_ahead(&s, after);
    for (uint64_t pfn = 0; pfn < frames; pfn++)
        s.map[pfn].type = UNKNOWN;
    for (uint64_t i = 0; i < n; i++) {
        while (phase < phase_count && phases[phase].from <= i)
            s.batch = phases[phase++].batch;
        if (!events[i].order && events[i].pfn < frames && s.map[events[i].pfn].listed == NO_LIST)
            expect(&s, &events[i], after[i]);
        step(&s, i);
    }
    *found = s.found;
    free(after);
    free(s.map);
    free(s.cpus);
    free(s.types);
    return FPR_OK;
}
