/* The driver's side of a split virtqueue (VIRTIO 2.7): what a guest's kernel does with it. */
#ifndef FPR_SPLIT_DRIVER_H
#define FPR_SPLIT_DRIVER_H

#include <stdint.h>

#include "emulator/native/guest_memory.h"
#include "emulator/native/ring.h"

#define FPR_DRIVER_TABLES_MAX 64

struct split_desc;
struct split_avail;
struct split_used;

/* What the driver keeps about a descriptor: the device cannot reach it. */
struct fpr_driver_slot {
    uint64_t token; /* of the buffer, at its head */
    uint16_t next;  /* in its chain, or in the free list */
    uint16_t count; /* descriptors of the chain, at its head; 0: no head */
    uint32_t table; /* indirect table of the chain, at its head; FPR_DRIVER_TABLES_MAX: none */
};

struct fpr_split_driver {
    struct fpr_ring_layout layout;
    struct split_desc *table;
    struct split_avail *avail;
    struct split_used *used;
    struct split_desc *tables;     /* indirect tables, back to back; NULL: only direct chains */
    struct fpr_driver_slot *slots; /* the caller's, layout.size of them */
    uint64_t tables_gpa;
    uint64_t free_tables; /* bit i: table i is free */
    uint32_t table_entries;
    uint32_t fault; /* enum fpr_ring_fault: the device broke the rules */
    uint32_t free_count;
    uint16_t free_head;
    uint16_t avail_index;
    uint16_t kicked; /* available index at the last kick decision */
    uint16_t last_used;
    uint16_t interrupts; /* wanted */
    uint16_t reserved;
};

/* Lay a fresh ring into memory that the driver owns: all three parts are cleared. `slots`: room for
 * layout->size, kept. `tables_gpa`: table_count tables of table_entries * 16 bytes, contiguous in
 * one region; table_count 0: none. */
int fpr_split_driver_start(struct fpr_split_driver *driver, const struct fpr_guest_memory *memory,
                           const struct fpr_ring_layout *layout, struct fpr_driver_slot *slots,
                           uint64_t tables_gpa, uint32_t table_entries, uint32_t table_count);

/* Make a buffer of `count` segments available, readable ones first. Two or more go into an indirect
 * table where one is free and long enough, else into a direct chain. FPR_FULL: no room. */
int fpr_split_driver_add(struct fpr_split_driver *driver, const struct fpr_segment *segments,
                         uint32_t count, uint64_t token);

/* Whether the device wants to hear of what was added since this was last asked. */
int fpr_split_driver_should_kick(struct fpr_split_driver *driver, uint32_t *kick);

/* Take back a used buffer. FPR_EMPTY; FPR_RING_BROKEN where the device used what it
 * does not have. */
int fpr_split_driver_get(struct fpr_split_driver *driver, uint64_t *token, uint32_t *written);

/* *more after enabling: buffers were used meanwhile, whose interrupt may be lost. */
int fpr_split_driver_disable_interrupts(struct fpr_split_driver *driver);
int fpr_split_driver_enable_interrupts(struct fpr_split_driver *driver, uint32_t *more);

#endif
