/* Which free of a recorded trace ends which allocation. */
#ifndef FPR_TRACE_PAIRING_H
#define FPR_TRACE_PAIRING_H

#include <stdint.h>

#include "emulator/native/trace_parser.h"

/* What to do at event `event`: allocate its block for `owner`, or free the block of `owner`. An
 * owner has one block at a time. */
struct fpr_trace_op {
    uint32_t event;
    uint32_t owner;
    uint32_t frees; /* 0: allocate */
};

struct fpr_trace_pairing {
    uint64_t ops;
    uint64_t owners;        /* 0 .. owners-1 are used */
    uint64_t allocations;   /* blocks allocated */
    uint64_t frees;         /* blocks freed again; the other ones are held at the end */
    uint64_t held_pages;    /* pages of blocks held at the end, but for parts freed by then */
    uint64_t failed;        /* allocations that found no frame: left out */
    uint64_t unknown_frees; /* frees of what was allocated before the trace: left out */
    uint64_t unknown_pages; /* pages of them */
    uint64_t partial_frees; /* frees of a part of a block: the last part frees it whole */
    uint64_t implied_frees; /* blocks whose frame was allocated again, their free not traced */
};

/* The caller's memory: `frame_owners` has `frames` zeros, `left` and `unused` have `count` words,
 * `ops` has 2 * count. An event of a frame that is not below `frames`, or of an order above 13:
 * FPR_OUTSIDE. count must be below 2^32 - 1. */
int fpr_trace_pair(const struct fpr_trace_event *events, uint64_t count, uint32_t *frame_owners,
                   uint64_t frames, uint32_t *left, uint32_t *unused, struct fpr_trace_op *ops,
                   struct fpr_trace_pairing *out);

#endif
