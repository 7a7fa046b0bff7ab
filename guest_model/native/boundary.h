/* Free lists with a boundary, the design of September 2019: reported blocks stay together at the
 * tail of their list behind a pointer that moves when its block is pulled ("mm / virtio: Provide
 * support for unused page reporting", v9, patch 6). Orders below fpr_notify.order have none. */
#ifndef FPR_BOUNDARY_H
#define FPR_BOUNDARY_H

#include <stdint.h>

#include "guest_model/native/allocator.h"

#define FPR_NO_BOUNDARY 0xffffffff /* nothing reported behind it: the end of the list */

/* Begin to report a zone: all boundaries to the ends of their lists; from now on blocks that go to
 * a tail go in front of the boundary, and reported blocks are counted by order. */
int fpr_boundary_begin(struct fpr_allocator *allocator, uint32_t zone);
/* Boundaries rest; every list of the zone should now be unreported blocks, then reported ones. */
int fpr_boundary_end(struct fpr_allocator *allocator, uint32_t zone);
/* Pull up to `max` unreported blocks of a list: each the one in front of the boundary, or where
 * that is reported, the head; where both are, the boundary is set to the head and the list is done.
 * Pulled blocks are in no list, and not free. */
int fpr_boundary_pull(struct fpr_allocator *allocator, uint32_t zone, uint32_t order, uint32_t type,
                      uint32_t max, struct fpr_block *blocks, uint32_t *taken);
/* Put pulled blocks back in index order, in front of the boundary, without notice. One that did not
 * merge is flagged reported, counted, and the new boundary of the list it went to. */
int fpr_boundary_return(struct fpr_allocator *allocator, const struct fpr_block *blocks,
                        uint32_t count);
/* Reported blocks of an order, and the boundary of a list: a frame, or FPR_NO_BOUNDARY. */
int fpr_boundary_read(const struct fpr_allocator *allocator, uint32_t zone, uint32_t order,
                      uint32_t type, uint64_t *reported, uint64_t *boundary);

#endif
