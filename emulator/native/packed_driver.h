/* The driver's side of a packed virtqueue (VIRTIO 2.8); see split_driver.h for what the functions
 * do. A buffer's slot is found by its id, which the device hands back. */
#ifndef FPR_PACKED_DRIVER_H
#define FPR_PACKED_DRIVER_H

#include <stdint.h>

#include "emulator/native/guest_memory.h"
#include "emulator/native/ring.h"
#include "emulator/native/split_driver.h"

struct packed_desc;
struct packed_event;

struct fpr_packed_driver {
    struct fpr_ring_layout layout;
    struct packed_desc *table;
    struct packed_event *driver;
    struct packed_event *device;
    struct packed_desc *tables;    /* indirect tables, back to back; NULL: only direct chains */
    struct fpr_driver_slot *slots; /* the caller's, layout.size of them, by buffer id */
    uint64_t tables_gpa;
    uint64_t free_tables; /* bit i: table i is free */
    uint32_t table_entries;
    uint32_t fault; /* enum fpr_ring_fault: the device broke the rules */
    uint32_t free_count;
    uint32_t added; /* descriptors since the last kick decision */
    uint16_t free_id;
    uint16_t avail, avail_wrap;
    uint16_t used, used_wrap;
    uint16_t event_flags; /* what was last asked of interrupts */
};

/* Start on memory that nobody uses yet: the ring is cleared. As fpr_split_driver_start. */
int fpr_packed_driver_start(struct fpr_packed_driver *driver, const struct fpr_guest_memory *memory,
                            const struct fpr_ring_layout *layout, struct fpr_driver_slot *slots,
                            uint64_t tables_gpa, uint32_t table_entries, uint32_t table_count);
/* Make a chain available under `token`; FPR_FULL where the ring has no room for it. */
int fpr_packed_driver_add(struct fpr_packed_driver *driver, const struct fpr_segment *segments,
                          uint32_t count, uint64_t token);
/* Whether the device wants to be told of what was added since the last decision. */
int fpr_packed_driver_should_kick(struct fpr_packed_driver *driver, uint32_t *kick);
/* Take a used chain back: its token, and the bytes that the device says it wrote. FPR_EMPTY: none.
 */
int fpr_packed_driver_get(struct fpr_packed_driver *driver, uint64_t *token, uint32_t *written);
/* Ask for no interrupts; the device may send some all the same. */
int fpr_packed_driver_disable_interrupts(struct fpr_packed_driver *driver);
/* Ask for interrupts again; *more: something was used meanwhile, and may come without one. */
int fpr_packed_driver_enable_interrupts(struct fpr_packed_driver *driver, uint32_t *more);

#endif
