/* Private to the C code: the recording half of the histogram, for loops that record a value every
 * few nanoseconds. */
#ifndef FPR_HISTOGRAM_INLINE_H
#define FPR_HISTOGRAM_INLINE_H

#include "emulator/native/histogram.h"

#define FPR_HISTOGRAM_SUB_BITS 7

_Static_assert(FPR_HISTOGRAM_BUCKETS == (64 - FPR_HISTOGRAM_SUB_BITS + 1) << FPR_HISTOGRAM_SUB_BITS,
               "one bucket for every value of uint64");

static inline uint32_t fpr_histogram_bucket_inline(uint64_t value)
{
    if (value < 1u << FPR_HISTOGRAM_SUB_BITS)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - FPR_HISTOGRAM_SUB_BITS;
    return (shift << FPR_HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

static inline void fpr_histogram_record_inline(struct fpr_histogram *histogram, uint64_t value)
{
    histogram->count++;
    if (__builtin_add_overflow(histogram->total, value, &histogram->total))
        histogram->total = UINT64_MAX;
    if (value > histogram->max)
        histogram->max = value;
    histogram->buckets[fpr_histogram_bucket_inline(value)]++;
}

#endif
