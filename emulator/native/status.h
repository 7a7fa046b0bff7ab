/* The closed list of outcomes of every C function of this project. Python maps a status to an
 * exception in one place, emulator/native/__init__.py; each has one sentence there. */
#ifndef FPR_STATUS_H
#define FPR_STATUS_H

enum fpr_status {
    FPR_OK = 0,
    FPR_NO_MEMORY = 1,     /* the modelled guest has no frame that fits */
    FPR_HOST_MEMORY = 2,   /* this process could not get memory from its own kernel */
    FPR_BAD_ARGUMENT = 3,  /* the caller broke the contract of the function */
    FPR_NOT_FREE = 4,      /* the frame is not a free block of this order */
    FPR_NOT_ALLOCATED = 5, /* the frame is not an allocated block of this order */
    FPR_REFUSED = 6,       /* isolation would take the zone below its minimum watermark */
    FPR_INVALID = 7,       /* validate() found a broken invariant */
    FPR_OUTSIDE = 8,       /* an address lies outside guest memory */
    FPR_RING_BROKEN = 9,   /* the other side broke the ring's rules: the queue must stop */
    FPR_EMPTY = 10,        /* nothing to take */
    FPR_FULL = 11,         /* no room */
    FPR_SYSTEM = 12,       /* a system call failed: errno says why */
    FPR_LATER = 13,        /* nothing was done: another VM of the host is earlier */
};

#endif
