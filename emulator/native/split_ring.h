/* The device's side of a split virtqueue (VIRTIO 2.7). What a driver wrote is hostile until it was
 * copied and checked. Where a rule is broken beyond repair, FPR_RING_BROKEN, and `fault` says how:
 * the queue must not be used again before it is started anew. */
#ifndef FPR_SPLIT_RING_H
#define FPR_SPLIT_RING_H

#include <stdint.h>

#include "emulator/native/guest_memory.h"
#include "emulator/native/ring.h"

struct split_desc;
struct split_avail;
struct split_used;

struct fpr_split_ring {
    struct fpr_ring_layout layout;
    struct split_desc *table;
    struct split_avail *avail;
    struct split_used *used;
    uint64_t *taken;   /* the caller's, layout.size of them: what was available when it was taken */
    uint64_t position; /* chains taken since the start */
    uint16_t next_avail;  /* index of the next chain to take */
    uint16_t next_used;   /* private: the driver can write the one in memory */
    uint16_t notified;    /* used index at the last decision to notify */
    uint16_t notify_once; /* nothing was decided since the start */
    uint32_t fault;       /* enum fpr_ring_fault */
    struct fpr_ring_counters counters;
};

/* Bytes of the three parts, the event indices included. */
int fpr_split_part_bytes(uint32_t size, uint64_t *descriptors, uint64_t *driver, uint64_t *device);

/* Check the parts and find them in memory. The next chain to take is `avail_base`; the used index
 * goes on from what memory says. `taken`: room for layout->size numbers, the ring keeps it.
 * FPR_RING_BROKEN: not started. */
int fpr_split_ring_start(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory,
                         const struct fpr_ring_layout *layout, uint16_t avail_base,
                         uint64_t *taken);

/* Find the parts again after the region table changed; the indices stay. */
int fpr_split_ring_remap(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory);

/* Whether two parts share memory: accepted, and worth a word. Not a status. */
int fpr_split_ring_overlaps(const struct fpr_split_ring *ring);

/* Take the next chain. FPR_EMPTY, or FPR_RING_BROKEN. */
int fpr_split_ring_pop(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory,
                       struct fpr_chain *chain);

/* Put the chain that was taken last back, unused: the next one to take is that one again. */
int fpr_split_ring_unpop(struct fpr_split_ring *ring);

/* Hand a chain back, `written` bytes from its first writable one on being valid. When this returns,
 * the driver may own the memory again. */
int fpr_split_ring_push(struct fpr_split_ring *ring, uint32_t id, uint32_t written);

/* Whether the driver wants to hear of what was pushed since the last time this was asked. */
int fpr_split_ring_should_notify(struct fpr_split_ring *ring, uint32_t *notify);

/* Ask the driver not to kick, or to kick again. *more after enabling: chains came meanwhile, whose
 * kick may be lost. */
int fpr_split_ring_disable_kicks(struct fpr_split_ring *ring);
int fpr_split_ring_enable_kicks(struct fpr_split_ring *ring, uint32_t *more);

#endif
