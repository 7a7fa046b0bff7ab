#include "emulator/native/trace_pairing.h"

#include <stddef.h>

#include "emulator/native/status.h"

#define ORDER_MAX 13

struct pairing {
    uint32_t *frame_owners; /* owner + 1 of an allocated frame, else 0 */
    uint32_t *left;         /* by owner: pages of its block that are not freed yet */
    uint32_t *unused;       /* ring of owners without a block; the one longest unused goes first, so
                             * that a free that comes late meets no other block */
    uint64_t capacity, first_unused, unused_count;
    struct fpr_trace_op *ops;
    struct fpr_trace_pairing *out;
};

static uint32_t take_owner(struct pairing *p)
{
    uint32_t owner;

    if (!p->unused_count)
        return (uint32_t)p->out->owners++;
    owner = p->unused[p->first_unused];
    p->first_unused = (p->first_unused + 1) % p->capacity;
    p->unused_count--;
    return owner;
}

static void free_owner(struct pairing *p, uint32_t owner, uint64_t event)
{
    p->ops[p->out->ops++] = (struct fpr_trace_op){(uint32_t)event, owner, 1};
    p->unused[(p->first_unused + p->unused_count) % p->capacity] = owner;
    p->unused_count++;
    p->out->frees++;
}

/* A frame is free from `event` on. 1 where that frees the last frame of its block, 0 where some are
 * left, -1 where nobody is known to have had it. */
static int release(struct pairing *p, uint64_t pfn, uint64_t event)
{
    uint32_t owner = p->frame_owners[pfn];

    if (!owner--)
        return -1;
    p->frame_owners[pfn] = 0;
    p->out->held_pages--;
    if (--p->left[owner])
        return 0;
    free_owner(p, owner, event);
    return 1;
}

static void allocate(struct pairing *p, const struct fpr_trace_event *e, uint64_t event)
{
    uint64_t pages = (uint64_t)1 << e->order;
    uint32_t owner;

    for (uint64_t page = 0; page < pages; page++)
        p->out->implied_frees += release(p, e->pfn + page, event) == 1;
    owner = take_owner(p);
    for (uint64_t page = 0; page < pages; page++)
        p->frame_owners[e->pfn + page] = owner + 1;
    p->left[owner] = (uint32_t)pages;
    p->out->held_pages += pages;
    p->out->allocations++;
    p->ops[p->out->ops++] = (struct fpr_trace_op){(uint32_t)event, owner, 0};
}

static void free_block(struct pairing *p, const struct fpr_trace_event *e, uint64_t event)
{
    uint64_t pages = (uint64_t)1 << e->order, unknown = 0, whole = 0;

    for (uint64_t page = 0; page < pages; page++) {
        int last = release(p, e->pfn + page, event);
        unknown += last < 0;
        whole += last > 0;
    }
    p->out->unknown_pages += unknown;
    p->out->unknown_frees += unknown == pages;
    p->out->partial_frees += !whole && unknown < pages;
}

int fpr_trace_pair(const struct fpr_trace_event *events, uint64_t count, uint32_t *frame_owners,
                   uint64_t frames, uint32_t *left, uint32_t *unused, struct fpr_trace_op *ops,
                   struct fpr_trace_pairing *out)
{
    struct pairing p = {frame_owners, left, unused, count, 0, 0, ops, out};

    if (!events || !frame_owners || !left || !unused || !ops || !out || count >= UINT32_MAX)
        return FPR_BAD_ARGUMENT;
    *out = (struct fpr_trace_pairing){0};
    for (uint64_t i = 0; i < count; i++) {
        const struct fpr_trace_event *e = &events[i];

        if (e->kind != FPR_TRACE_ALLOC && e->kind != FPR_TRACE_FREE)
            continue;
        if (e->flags & FPR_TRACE_FAILED) {
            out->failed += e->kind == FPR_TRACE_ALLOC;
            continue;
        }
        if (e->order > ORDER_MAX || e->pfn >= frames || frames - e->pfn < (uint64_t)1 << e->order)
            return FPR_OUTSIDE;
        if (e->kind == FPR_TRACE_ALLOC)
            allocate(&p, e, i);
        else
            free_block(&p, e, i);
    }
    return FPR_OK;
}
