/* What every layout of a virtqueue shares: where it lies, a descriptor chain as a private copy, and
 * the closed list of what a driver can do wrong. */
#ifndef FPR_RING_H
#define FPR_RING_H

#include <stdint.h>

#define FPR_RING_SIZE_MAX 32768 /* VIRTIO 2.7 */
/* Descriptors in a chain whose indirect table is longer than the queue: a driver may not do it,
 * real ones have, so it is let through up to here. */
#define FPR_CHAIN_MAX 1024

/* Ring features that were negotiated. */
#define FPR_RING_EVENT_IDX 1
#define FPR_RING_INDIRECT 2

/* Guest-physical addresses of the three parts. */
struct fpr_ring_layout {
    uint64_t descriptors_gpa;
    uint64_t driver_gpa; /* available ring; packed: driver event structure */
    uint64_t device_gpa; /* used ring; packed: device event structure */
    uint32_t size;       /* descriptors */
    uint32_t flags;      /* FPR_RING_* */
};

/* One piece of a buffer. */
struct fpr_segment {
    uint64_t gpa;
    uint32_t bytes;
    uint32_t writable; /* by the device */
};

/* A descriptor chain, indirect tables resolved. Each descriptor was read once. */
struct fpr_chain {
    struct fpr_segment *segments; /* the caller's memory */
    uint32_t capacity;            /* of it: at least FPR_CHAIN_MAX and the queue's size */
    uint32_t count;
    uint32_t id;          /* what goes back in the used ring; packed: | its descriptors << 16 */
    uint32_t table_bytes; /* of its indirect table; 0 where it has none */
    uint64_t table_gpa;
    uint64_t bytes; /* sum of all segments */
};

/* Why a queue could not start or had to stop. */
enum fpr_ring_fault {
    FPR_FAULT_NONE = 0,
    FPR_FAULT_SIZE = 1,           /* 0, above the maximum; split: not a power of two */
    FPR_FAULT_ALIGNMENT = 2,      /* a part is not aligned */
    FPR_FAULT_PART_OUTSIDE = 3,   /* a part is not wholly inside one region */
    FPR_FAULT_AVAIL_JUMP = 4,     /* the available index moved by more than the size, or back */
    FPR_FAULT_HEAD = 5,           /* the head of a chain is no descriptor of this queue */
    FPR_FAULT_NEXT = 6,           /* a chain goes on outside its table */
    FPR_FAULT_LOOP = 7,           /* a chain is longer than its table */
    FPR_FAULT_TOO_LONG = 8,       /* a chain is longer than the limit */
    FPR_FAULT_NOT_NEGOTIATED = 9, /* an indirect table without the feature */
    FPR_FAULT_NESTED_TABLE = 10,  /* an indirect table inside an indirect table */
    FPR_FAULT_TABLE_BYTES = 11,   /* length of an indirect table is 0 or no multiple of 16 */
    FPR_FAULT_TABLE_OUTSIDE = 12, /* an indirect table is not inside guest memory */
    FPR_FAULT_USED_ID = 13,       /* driver side: the device used what is not with it */
    FPR_FAULT_TABLE_IN_LIST = 14, /* packed: an indirect table in a list of descriptors */
    FPR_FAULT_POSITION = 15,      /* packed: the position to start at is none of the ring */
    FPR_FAULT_STALE_BASE = 16     /* packed: the ring was used further than where to start */
};

/* Monitors of the driver's behaviour, and volume. */
struct fpr_ring_counters {
    uint64_t chains;
    uint64_t descriptors;             /* in them, tables resolved */
    uint64_t tables;                  /* indirect tables read */
    uint64_t duplicate_heads;         /* made available again before it was used */
    uint64_t next_with_table;         /* NEXT beside INDIRECT, ignored */
    uint64_t readable_after_writable; /* chains in the wrong order */
    uint64_t unknown_flags;           /* descriptors with bits that mean nothing */
    uint64_t oversized_chains;        /* of 2^32 bytes or more */
    uint64_t used_overwritten;        /* times the driver wrote to the used ring */
    uint64_t notifications;           /* the driver wanted to be told */
    uint64_t suppressed;              /* it did not */
};

#endif
