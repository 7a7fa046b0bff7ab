/* A bitmap of freed blocks, the design of August 2019 ("mm: Support for page reporting", v12): one
 * bit for every 2^order frames, set where a free ended in a block of at least that order, and
 * scanned once a zone has enough of them. Beside the notice that a free gives anyway it costs one
 * bit operation, whatever the size of the guest. */
#ifndef FPR_FREED_BITMAP_H
#define FPR_FREED_BITMAP_H

#include <stdint.h>

#include "guest_model/native/allocator.h"

/* From now on frees mark `words`, which has `length` words, all 0, and is the caller's until
 * `end`. The hook (struct fpr_notify) is raised once a zone has `threshold` bits set, and its bit
 * in `zones` is set: until that is cleared, the zone is not told of again. The hook's own order is
 * the bitmap's. FPR_BAD_ARGUMENT: not a bit for every block of the guest. */
int fpr_freed_bitmap_begin(struct fpr_allocator *allocator, uint32_t order, uint64_t threshold,
                           uint64_t *words, uint64_t length);
int fpr_freed_bitmap_end(struct fpr_allocator *allocator);
/* Bits that are set in a zone. */
int fpr_freed_bitmap_count(const struct fpr_allocator *allocator, uint32_t zone, uint64_t *count);
/* Scan a zone's bits from frame *pfn on, clearing them, and isolate the blocks that are still free
 * there: the one that holds the bit's first frame, if it is of the bitmap's order or larger and
 * unreported. Ends with `max` blocks, or at the zone's end; *pfn is where to go on, *words how many
 * words were looked at. Where isolation is refused by the watermark the bit stays, *pfn is the
 * zone's end, and nothing more is taken. */
int fpr_freed_bitmap_take(struct fpr_allocator *allocator, uint32_t zone, uint32_t max,
                          struct fpr_block *blocks, uint64_t *pfn, uint32_t *taken,
                          uint64_t *words);

#endif
