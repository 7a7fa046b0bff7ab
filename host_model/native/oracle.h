/* A simulated host that hears of every free at once, and forgets nothing that the guest paid for:
 * what no policy can do, and the bound of what any could give back.
 *
 * It is two hosts. One is never told of a free, and says what faults cost: the guest's time is to
 * the nanosecond that of a guest without reporting. The other holds exactly the pages that the
 * guest has written to and not freed, each by itself, and says what is resident. */
#ifndef FPR_ORACLE_H
#define FPR_ORACLE_H

#include "host_model/native/residency.h"

struct fpr_oracle; /* opaque */

/* As fpr_residency_create. The caller destroys it. */
int fpr_oracle_create(const struct fpr_residency_config *config,
                      const struct fpr_memory_region *regions, uint32_t count,
                      const struct fpr_host_costs *costs, struct fpr_oracle **out);
void fpr_oracle_destroy(struct fpr_oracle *oracle);
/* From here on the host's footprint hears of all that comes and goes; NULL: it does not. */
void fpr_oracle_report_to(struct fpr_oracle *oracle, struct fpr_footprint *footprint);
/* An fpr_touch_fn and an fpr_release_fn; `host` is a struct fpr_oracle. */
int fpr_oracle_touch(void *host, uint64_t pfn, uint64_t count, uint32_t flags, uint64_t now_ns,
                     uint32_t vcpu, struct fpr_touch_cost *cost);
int fpr_oracle_release(void *host, uint64_t pfn, uint64_t count, uint64_t now_ns);
/* Blocks and bytes released so far. */
void fpr_oracle_released(const struct fpr_oracle *oracle, uint64_t *blocks, uint64_t *bytes);

/* The rest is what a struct fpr_residency has. Bytes are those of the exact host; numbers of faults
 * and all times are those of the other. */
int fpr_oracle_populate(struct fpr_oracle *oracle, uint64_t pfn, uint64_t count, uint64_t now_ns);
int fpr_oracle_discard(struct fpr_oracle *oracle, const uint64_t *ranges, uint32_t count,
                       uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out);
void fpr_oracle_counters(const struct fpr_oracle *oracle, uint64_t now_ns,
                         struct fpr_host_counters *out);
uint64_t fpr_oracle_resident_bytes(const struct fpr_oracle *oracle);
const struct fpr_histogram *fpr_oracle_fault_latency(const struct fpr_oracle *oracle);
int fpr_oracle_read(const struct fpr_oracle *oracle, uint64_t pfn, uint64_t count, uint8_t *out);

#endif
