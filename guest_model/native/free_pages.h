/* Which pages are free now, as bits: what a map of guest memory is drawn from. */
#ifndef FPR_FREE_PAGES_H
#define FPR_FREE_PAGES_H

#include "guest_model/native/allocator.h"

/* Set bit pfn of `free_bits` for every page that is free, on the buddy lists or on a CPU's list,
 * and of `reported` for those in blocks flagged reported; all other bits become 0. Both have
 * `words` 64-bit words: FPR_BAD_ARGUMENT where that is less than a bit for every frame. */
int fpr_free_pages(const struct fpr_allocator *allocator, uint64_t *free_bits, uint64_t *reported,
                   uint64_t words);

#endif
