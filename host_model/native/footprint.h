/* What a host holds for all of its guests, added up as it changes: the most there ever was, and the
 * footprint at even marks of virtual time, whatever is sampled for pictures. */
#ifndef FPR_FOOTPRINT_H
#define FPR_FOOTPRINT_H

#include <stdint.h>

#define FPR_FOOTPRINT_MARKS 65536 /* a power of two */

struct fpr_footprint; /* opaque */

/* A mark every `step_ns`; where that makes more than FPR_FOOTPRINT_MARKS, every second one is
 * dropped and the step doubles. FPR_BAD_ARGUMENT: a step of 0; FPR_HOST_MEMORY. It outlives all who
 * report to it. */
int fpr_footprint_create(uint64_t step_ns, struct fpr_footprint **out);
void fpr_footprint_destroy(struct fpr_footprint *footprint);
/* Pages came or (negative) went at an instant, which is no earlier than any before. */
void fpr_footprint_change(struct fpr_footprint *footprint, int64_t pages, uint64_t now_ns);
/* The integral of resident bytes over virtual time up to `now_ns`, no earlier than any change. */
uint64_t fpr_footprint_byte_seconds(const struct fpr_footprint *footprint, uint64_t now_ns);
uint64_t fpr_footprint_resident_pages(const struct fpr_footprint *footprint);
uint64_t fpr_footprint_peak_pages(const struct fpr_footprint *footprint);
/* The footprint at each mark from 0 to `now_ns`, in byte seconds; `marks` has room for
 * FPR_FOOTPRINT_MARKS. */
void fpr_footprint_read(struct fpr_footprint *footprint, uint64_t now_ns, uint64_t *marks,
                        uint64_t *count, uint64_t *step_ns);

#endif
