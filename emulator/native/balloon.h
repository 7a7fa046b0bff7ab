/* Messages of the balloon's queues: bytes that a chain lets the device read, and page numbers that
 * become ranges to give back. */
#ifndef FPR_BALLOON_H
#define FPR_BALLOON_H

#include <stdint.h>

#include "emulator/native/guest_memory.h"
#include "emulator/native/report.h"
#include "emulator/native/ring.h"

#define FPR_BALLOON_PAGE_BYTES 4096 /* of a page number, whatever the guest's page is */

struct fpr_message_account {
    uint64_t writable_segments; /* in the wrong direction: passed over */
    uint64_t outside_bytes;     /* not in guest memory: passed over */
};

/* Copy what device-readable segments hold, from the cursor on, as one stream of bytes: a message
 * may be cut anywhere (VIRTIO 2.7.4.1). *count below `capacity`: the chain is at its end. */
int fpr_message_read(const struct fpr_guest_memory *memory, const struct fpr_chain *chain,
                     struct fpr_report_cursor *cursor, uint8_t *out, uint64_t capacity,
                     uint64_t *count, struct fpr_message_account *account);

/* Which pages the balloon holds: a bit a page number, in the caller's zeroed memory. */
struct fpr_page_set {
    uint64_t *words; /* (pages + 63) / 64 of them */
    uint64_t pages;
    uint64_t count; /* in the set */
};

struct fpr_balloon_account {
    uint64_t numbers; /* inflated or deflated; the following are among them */
    uint64_t outside; /* no such page in guest memory */
    uint64_t repeats; /* inflated: in the balloon already; deflated: not in it */
};

/* Inflate: `numbers` ascend, none twice. Their pages go into the set, and every backing page that
 * is wholly in the balloon with them into segments[0..*segment_count), each by itself, ascending:
 * room for `count` is needed. Whether neighbours are one call is the host's matter. */
int fpr_balloon_inflate(const struct fpr_guest_memory *memory, struct fpr_page_set *set,
                        const uint32_t *numbers, uint32_t count, struct fpr_segment *segments,
                        uint32_t *segment_count, struct fpr_balloon_account *account);

/* Deflate: take pages out of the set. */
int fpr_balloon_deflate(const struct fpr_guest_memory *memory, struct fpr_page_set *set,
                        const uint32_t *numbers, uint32_t count,
                        struct fpr_balloon_account *account);

#endif
