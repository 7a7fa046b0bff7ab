/* A batch of ranges to discard, cut into system calls. Private to host_model. */
#ifndef FPR_BATCH_H
#define FPR_BATCH_H

#include "host_model/native/residency_map.h"

#define FPR_BATCH_MAX_RANGES 1024u /* of one call: what a caller keeps for each has a bound */

/* Consecutive ranges [first, end) of a batch that are one piece of memory. */
struct fpr_batch_call {
    uint32_t first, end;
    uint64_t gpa, bytes; /* 0 bytes: nothing in these ranges is to be discarded */
};

/* Whole pages of `page_bytes` inside range i: its start to *gpa, its length to *bytes, 0 where
 * there are none. What is cut off goes to the outcome's accounts, unless it is NULL. */
void fpr_batch_trim(const struct fpr_map *map, const uint64_t *ranges, uint32_t i,
                    uint32_t page_bytes, struct fpr_discard_outcome *outcome, uint64_t *gpa,
                    uint64_t *bytes);
/* The next call, from range `first` on. Merged, it has as many ranges as continue its piece at
 * either end, which are disjoint, whatever the guest named; `calls` is an enum fpr_discard_calls.
 */
struct fpr_batch_call fpr_batch_next(const struct fpr_map *map, const uint64_t *ranges,
                                     uint32_t count, uint32_t first, uint32_t page_bytes,
                                     uint32_t calls);

#endif
