/* From blocks of the allocator to the buffer that reports them. */
#include "guest_model/native/report_batch.h"

#include "emulator/native/status.h"

int fpr_report_segments(const struct fpr_block *blocks, uint32_t count, uint32_t page_shift,
                        struct fpr_segment *segments)
{
    for (uint32_t i = 0; i < count; i++) {
        if (page_shift > 31 || blocks[i].order > 31 - page_shift ||
            blocks[i].pfn > UINT64_MAX >> page_shift)
            return FPR_BAD_ARGUMENT;
        segments[i].gpa = blocks[i].pfn << page_shift;
        segments[i].bytes = (uint32_t)1 << (page_shift + blocks[i].order);
        segments[i].writable = 1;
    }
    return FPR_OK;
}
