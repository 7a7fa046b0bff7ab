#include "host_model/native/batch.h"

void fpr_batch_trim(const struct fpr_map *map, const uint64_t *ranges, uint32_t i,
                    uint32_t page_bytes, struct fpr_discard_outcome *outcome, uint64_t *gpa,
                    uint64_t *bytes)
{
    uint64_t from = ranges[2 * i], length = ranges[2 * i + 1], to, start, stop;

    *gpa = from;
    *bytes = 0;
    if (length == 0)
        return;
    if (fpr_map_region(map, from, length) == NULL) {
        if (outcome != NULL)
            outcome->outside_bytes += length;
        return;
    }
    /* Inside guest memory, below 2^48: nothing here overflows. */
    to = from + length;
    start = (from + page_bytes - 1) / page_bytes * page_bytes;
    stop = to / page_bytes * page_bytes;
    *gpa = start;
    *bytes = stop > start ? stop - start : 0;
    if (outcome != NULL)
        outcome->unaligned_bytes += length - *bytes;
}

struct fpr_batch_call fpr_batch_next(const struct fpr_map *map, const uint64_t *ranges,
                                     uint32_t count, uint32_t first, uint32_t page_bytes,
                                     uint32_t calls)
{
    struct fpr_batch_call call = {first, first + 1, 0, 0};

    fpr_batch_trim(map, ranges, first, page_bytes, NULL, &call.gpa, &call.bytes);
    if (calls == FPR_CALLS_PER_ENTRY)
        return call;
    for (; call.end < count && call.end - first < FPR_BATCH_MAX_RANGES; call.end++) {
        uint64_t gpa, bytes, from = call.gpa;

        fpr_batch_trim(map, ranges, call.end, page_bytes, NULL, &gpa, &bytes);
        if (bytes == 0)
            continue;
        if (call.bytes == 0) {
            call.gpa = gpa;
            call.bytes = bytes;
            continue;
        }
        if (gpa + bytes == call.gpa)
            from = gpa;
        else if (gpa != call.gpa + call.bytes)
            break;
        /* Two regions may touch in guest-physical space and lie apart in ours. */
        if (fpr_map_region(map, from, call.bytes + bytes) == NULL)
            break;
        call.gpa = from;
        call.bytes += bytes;
    }
    return call;
}
