/* A log-linear histogram of durations. Values below 128 have a bucket each; from there on every
 * power of two is cut into 128 equal buckets, so that a bucket is at most 1/128 (0.79 %) of its
 * values wide. A percentile is the highest value of its bucket: never below the exact one, and at
 * most 1/128 above it. Adding two histograms loses nothing. */
#ifndef FPR_HISTOGRAM_H
#define FPR_HISTOGRAM_H

#include <stdint.h>

#define FPR_HISTOGRAM_BUCKETS 7424 /* 128 + (63 - 7 + 1) * 128: all of uint64 */

struct fpr_histogram {
    uint64_t count;
    uint64_t total; /* sum of the values, saturating */
    uint64_t max;
    uint64_t buckets[FPR_HISTOGRAM_BUCKETS];
};

/* Count a value `times` times, or each of an array once; add up two. All 0 is an empty one. */
void fpr_histogram_record(struct fpr_histogram *histogram, uint64_t value, uint64_t times);
void fpr_histogram_record_array(struct fpr_histogram *histogram, const uint64_t *values,
                                uint64_t count);
void fpr_histogram_merge(struct fpr_histogram *into, const struct fpr_histogram *from);
/* The value that `ppm` millionths of all values do not exceed; 0 where there are none. */
uint64_t fpr_histogram_percentile(const struct fpr_histogram *histogram, uint32_t ppm);
/* Bucket of a value, and the highest value of a bucket. */
uint32_t fpr_histogram_bucket(uint64_t value);
uint64_t fpr_histogram_bucket_top(uint32_t bucket);

#endif
