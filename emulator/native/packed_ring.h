/* The device's side of a packed virtqueue (VIRTIO 2.8), behind the same functions as the split one;
 * see split_ring.h. The id of a chain that is handed back holds the number of its descriptors too,
 * because the ring's position moves on by it: nothing is looked up that a driver can write. */
#ifndef FPR_PACKED_RING_H
#define FPR_PACKED_RING_H

#include <stdint.h>

#include "emulator/native/guest_memory.h"
#include "emulator/native/ring.h"

/* Position and wrap counter of a fresh ring, for the available side and, << 16, the used one. */
#define FPR_PACKED_FRESH 0x80008000u

struct packed_desc;
struct packed_event;

/* How far a ring was used, in memory that outlives this process: what vhost-user's inflight memory
 * has there, in native order. Both positions differ only while a descriptor is being marked. */
struct fpr_packed_note {
    uint16_t used, old_used;
    uint8_t used_wrap, old_used_wrap;
};

struct fpr_packed_ring {
    struct fpr_ring_layout layout;
    struct packed_desc *table;
    struct packed_event *driver;
    struct packed_event *device;
    struct fpr_packed_note *note;   /* the caller's memory, or NULL */
    uint16_t avail, avail_wrap;     /* the next descriptor to take */
    uint16_t used, used_wrap;       /* the next used one to write */
    uint16_t last_avail, last_wrap; /* of the chain that was taken last */
    uint32_t pushed;                /* descriptors since the last decision to notify */
    uint32_t undecided;             /* started at 0: a fresh ring, or an odd number of laps */
    uint32_t fault;                 /* enum fpr_ring_fault */
    struct fpr_ring_counters counters;
};

/* Bytes of the three parts of a packed ring of `size` descriptors. */
int fpr_packed_part_bytes(uint32_t size, uint64_t *descriptors, uint64_t *driver, uint64_t *device);

/* `base` is both positions, as vhost-user saves them: bits 0-14 available position, 15 its wrap
 * counter, 16-30 used position, 31 its wrap counter. 0 is what some front-ends send for a fresh
 * ring: then the ring decides, at the latest by its first available descriptor. A front-end that
 * comes back after a crash may remember a base that is long past: FPR_FAULT_STALE_BASE where the
 * ring shows it. */
int fpr_packed_ring_start(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory,
                          const struct fpr_ring_layout *layout, uint32_t base);
int fpr_packed_ring_remap(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory);
int fpr_packed_ring_overlaps(const struct fpr_packed_ring *ring);
int fpr_packed_ring_pop(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory,
                        struct fpr_chain *chain);
int fpr_packed_ring_unpop(struct fpr_packed_ring *ring);
int fpr_packed_ring_push(struct fpr_packed_ring *ring, uint32_t id, uint32_t written);
int fpr_packed_ring_should_notify(struct fpr_packed_ring *ring, uint32_t *notify);
int fpr_packed_ring_disable_kicks(struct fpr_packed_ring *ring);
int fpr_packed_ring_enable_kicks(struct fpr_packed_ring *ring, uint32_t *more);
/* What `base` would go on from here. */
int fpr_packed_ring_base(const struct fpr_packed_ring *ring, uint32_t *base);

#endif
