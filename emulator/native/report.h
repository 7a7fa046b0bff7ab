/* From a chain on the reporting queue to the ranges that a host may discard: every descriptor is
 * judged alone (VIRTIO 5.5.6.7), and every byte of it ends in one account. */
#ifndef FPR_REPORT_H
#define FPR_REPORT_H

#include <stdint.h>

#include "emulator/native/guest_memory.h"
#include "emulator/native/ring.h"

/* Why the device does not pass bytes on to the host. */
#define FPR_SKIP_UNALIGNED 0   /* no whole backing page */
#define FPR_SKIP_OUTSIDE 1     /* not in guest memory */
#define FPR_SKIP_RING 2        /* a virtqueue or an indirect table lies there */
#define FPR_SKIP_READABLE 3    /* the device may only read it */
#define FPR_SKIP_ZERO_LENGTH 4 /* names nothing */
#define FPR_SKIP_POISON 5      /* the guest wants a pattern back that is not 0 */
#define FPR_SKIP_INHIBITED 6   /* the operator forbade discards */
#define FPR_SKIP_REASONS 7

#define FPR_SIZE_CLASSES 32

struct fpr_range {
    uint64_t gpa;
    uint64_t bytes;
};

struct fpr_report_account {
    uint64_t descriptors;
    uint64_t reported_bytes;                   /* sum of their lengths */
    uint64_t passed_bytes;                     /* given on in ranges */
    uint64_t skipped_bytes[FPR_SKIP_REASONS];  /* the three together: reported = passed + skipped */
    uint64_t skipped_pieces[FPR_SKIP_REASONS]; /* descriptors, or parts of them */
    uint64_t sizes[FPR_SIZE_CLASSES]; /* descriptors by floor(log2(bytes)); not the empty */
};

/* How far a chain was judged; all 0 at its start. */
struct fpr_report_cursor {
    uint32_t segment;
    uint32_t reserved;
    uint64_t done_bytes; /* of that segment */
};

struct fpr_report_rules {
    const struct fpr_range *guards; /* no page that shares a byte with these is passed on */
    uint32_t guard_count;
    uint32_t refuse; /* FPR_SKIP_REASONS, or the reason why nothing writable is passed on */
};

/* Judge a chain from the cursor on, until it ends or `capacity` ranges are filled: *count of them
 * (at least 1 is needed). Ranges are whole backing pages, each inside one region, in ring order.
 * The chain's own indirect table is a guard. *finished: nothing of the chain is left. */
int fpr_report_judge(const struct fpr_guest_memory *memory, const struct fpr_chain *chain,
                     const struct fpr_report_rules *rules, struct fpr_report_cursor *cursor,
                     struct fpr_range *ranges, uint32_t capacity, uint32_t *count,
                     uint32_t *finished, struct fpr_report_account *account);

#endif
