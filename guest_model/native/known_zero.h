/* Pages that a guest knows its host will hand out cleared: they lie in a block that was reported
 * and that nobody has taken since. One bit a page, which splitting and merging do not change. */
#ifndef FPR_KNOWN_ZERO_H
#define FPR_KNOWN_ZERO_H

#include <stdint.h>

#include "guest_model/native/allocator.h"

/* From now on reported blocks are remembered in `words`, which has `length` words, all 0, and is
 * the caller's until the allocator is gone. FPR_BAD_ARGUMENT: not a bit for every frame. */
int fpr_known_zero_begin(struct fpr_allocator *allocator, uint64_t *words, uint64_t length);
/* Whether all of the block that was allocated last was known to be zero. Not a status. */
int fpr_known_zero_taken(const struct fpr_allocator *allocator);

#endif
