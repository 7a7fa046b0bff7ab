/* Replay of a recorded page-allocator trace on the allocator: with the recorded frames, to follow
 * the free lists of a real kernel, or with frames of the model's own choosing, to compare them. */
#ifndef FPR_REPLAY_H
#define FPR_REPLAY_H

#include <stdint.h>

#include "emulator/native/trace_parser.h"
#include "guest_model/native/allocator.h"

/* What an event does to the buddy lists. */
enum fpr_replay_action {
    FPR_REPLAY_NONE = 0,
    FPR_REPLAY_TAKE = 1,   /* the block leaves the buddy lists */
    FPR_REPLAY_RETURN = 2, /* it comes back to them */
    FPR_REPLAY_BOOT = 3,   /* the boot allocator hands it over: to the tail */
    FPR_REPLAY_STEAL = 4,  /* a block of another type is taken over */
    FPR_REPLAY_MAYBE = 5,  /* an allocation: leaves the lists if it is still on them */
    FPR_REPLAY_TRIM = 6,   /* the unwanted end of a block comes back at once: to the tail */
    FPR_REPLAY_CLAIM = 7,  /* a page block is taken over, and a block of it leaves the lists */
    FPR_REPLAY_SPLIT = 8,  /* a block of another type leaves the lists; what is left of it stays, or
                              is taken over if it is page blocks */
};

/* Added to the action of a free that is carried out with its batch, and to that of the batch's
 * event. */
#define FPR_REPLAY_BATCHED 128

struct fpr_replay_frames_stats {
    uint64_t takes, takes_predicted;  /* the model had the block at the head of the list to use */
    uint64_t takes_missing;           /* taken, but not free in the model */
    uint64_t returns, returns_double; /* double: it was free in the model already */
    uint64_t steals, steals_predicted;
    uint64_t relabelled; /* page blocks whose guessed type a take refuted */
    uint64_t outside;    /* frames in no zone */
    uint64_t first_miss; /* index of the first take that was not predicted, or UINT64_MAX */
};

struct fpr_replay_model_stats {
    uint64_t allocs, allocs_equal;  /* served; with the frame that the kernel gave */
    uint64_t allocs_failed;         /* the model had no frame */
    uint64_t frees, frees_unknown;  /* unknown: allocated before the trace, and not known where */
    uint64_t first_miss;            /* index of the first allocation with another frame */
    uint64_t miss_model_pfn;        /* which the model gave instead */
    uint64_t miss_state;            /* where the model had the kernel's frame: fpr_frame_state */
    uint64_t miss_order, miss_type; /* of the block that holds it there */
};

/* Where a frame is, as far as the model knows. */
enum fpr_frame_state {
    FPR_FRAME_UNKNOWN = 0, /* in use since before the trace, or not the allocator's */
    FPR_FRAME_FREE = 1,
    FPR_FRAME_PER_CPU = 2,
    FPR_FRAME_IN_USE = 3,
    FPR_FRAME_WITH_DEVICE = 4,
};

/* Say of each of n events what it does to the buddy lists, reading the trace backwards: a free
 * whose frame leaves the lists later without having come back from a per-CPU list went straight to
 * them. scratch: one byte a frame, 1 where the frame is free at the end, 0 where not or unknown.
 * actions: n bytes. boot: memory handed over late by the boot allocator is recognized. */
int fpr_replay_actions(const struct fpr_trace_event *events, uint64_t n,
                       const struct fpr_allocator_config *config, int boot, uint8_t *scratch,
                       uint8_t *actions);

/* An allocation of one page that the trace does not show, to be carried out
 * before event `before`. */
struct fpr_replay_unseen {
    uint64_t before;
    uint64_t pfn;
    uint32_t cpu;
    uint32_t type;
};

/* From event `from` on, the per-CPU lists refill `batch` pages at a time. */
struct fpr_replay_phase {
    uint64_t from;
    uint64_t batch;
};

/* Find the order-0 pages that left the per-CPU lists without an event. `actions` as above;
 * phases[0] begins with event 0; zones ascend, one at least. Up to `capacity` records go to `out`;
 * *found counts all. Takes memory for its own time. */
int fpr_replay_unseen(const struct fpr_trace_event *events, const uint8_t *actions, uint64_t n,
                      const struct fpr_allocator_config *config,
                      const struct fpr_zone_config *zones, uint32_t zone_count,
                      const struct fpr_replay_phase *phases, uint32_t phase_count,
                      struct fpr_replay_unseen *out, uint64_t capacity, uint64_t *found);

/* Run events[*next..n) up to time until_ns (exclusive) with the recorded frames, or until the
 * notify hook is raised (the event that did it is done). guesses: for each page block, a bit for
 * each type that its free blocks could be of; 0 where the type is known. A smaller block that the
 * kernel left alone was not of the type asked for: its page block gets the next type
 * that is left. */
int fpr_replay_frames(struct fpr_allocator *allocator, const struct fpr_trace_event *events,
                      const uint8_t *actions, uint64_t n, int64_t until_ns, uint8_t *guesses,
                      uint64_t *next, struct fpr_replay_frames_stats *stats);

/* The same with only order, type and CPU of each event. `map`: for each recorded frame the model's
 * frame + 1, 0 where none. A free that is part of a batch is carried out at its
 * mm_page_free_batched. */
int fpr_replay_model(struct fpr_allocator *allocator, const struct fpr_trace_event *events,
                     const uint8_t *actions, uint64_t n, int64_t until_ns, uint32_t *map,
                     uint64_t frames, uint64_t *next, struct fpr_replay_model_stats *stats);

#endif
