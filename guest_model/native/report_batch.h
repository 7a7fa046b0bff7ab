/* From blocks of the allocator to the buffer that reports them. */
#ifndef FPR_REPORT_BATCH_H
#define FPR_REPORT_BATCH_H

#include <stdint.h>

#include "emulator/native/ring.h"
#include "guest_model/native/block.h"

/* One device-writable segment a block, in index order, (1 << page_shift) << order bytes long.
 * FPR_BAD_ARGUMENT where a length does not fit a descriptor's 32 bits, or an address its 64. */
int fpr_report_segments(const struct fpr_block *blocks, uint32_t count, uint32_t page_shift,
                        struct fpr_segment *segments);

#endif
