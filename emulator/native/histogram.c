#include "emulator/native/histogram_inline.h"

#define PPM 1000000u

void fpr_histogram_record(struct fpr_histogram *histogram, uint64_t value, uint64_t times)
{
    uint64_t sum;

    if (times == 0)
        return;
    if (__builtin_mul_overflow(value, times, &sum) ||
        __builtin_add_overflow(histogram->total, sum, &histogram->total))
        histogram->total = UINT64_MAX;
    histogram->count += times;
    if (value > histogram->max)
        histogram->max = value;
    histogram->buckets[fpr_histogram_bucket_inline(value)] += times;
}

void fpr_histogram_record_array(struct fpr_histogram *histogram, const uint64_t *values,
                                uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        fpr_histogram_record_inline(histogram, values[i]);
}

void fpr_histogram_merge(struct fpr_histogram *into, const struct fpr_histogram *from)
{
    into->count += from->count;
    if (__builtin_add_overflow(into->total, from->total, &into->total))
        into->total = UINT64_MAX;
    if (from->max > into->max)
        into->max = from->max;
    for (uint32_t i = 0; i < FPR_HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint32_t fpr_histogram_bucket(uint64_t value)
{
    return fpr_histogram_bucket_inline(value);
}

uint64_t fpr_histogram_bucket_top(uint32_t bucket)
{
    if (bucket < 2u << FPR_HISTOGRAM_SUB_BITS)
        return bucket;
    uint32_t shift = (bucket >> FPR_HISTOGRAM_SUB_BITS) - 1;
    uint64_t mantissa = bucket - ((uint64_t)shift << FPR_HISTOGRAM_SUB_BITS);
    /* mantissa + 1 may be 2^8 at shift 56: the sum wraps to 0, and the top is UINT64_MAX. */
    return ((mantissa + 1) << shift) - 1;
}

uint64_t fpr_histogram_percentile(const struct fpr_histogram *histogram, uint32_t ppm)
{
    /* Rank of the value, from 1: the smallest that has at least this share at or below it. */
    uint64_t rank = (uint64_t)(((__uint128_t)histogram->count * ppm + PPM - 1) / PPM);
    uint64_t seen = 0;

    if (histogram->count == 0)
        return 0;
    if (rank == 0)
        rank = 1;
    for (uint32_t i = 0; i < FPR_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            uint64_t top = fpr_histogram_bucket_top(i);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}
