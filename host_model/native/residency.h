/* The simulated host: which 4 KiB pages and which 2 MiB huge pages of a guest are resident, and
 * what faults and discards of them cost by a cost profile. It is the host's side of the memory
 * port.
 *
 * Memory for an idle guest is reserved, not used: 1 byte for every 2 MiB, and 128 bytes more for
 * every 2 MiB that ever hold small pages, 64 for every one of which some are freed lazily; each is
 * paged in as it is first written. */
#ifndef FPR_RESIDENCY_H
#define FPR_RESIDENCY_H

#include "emulator/native/costs.h"
#include "emulator/native/histogram.h"
#include "emulator/native/memory_port.h"
#include "host_model/native/footprint.h"
#include "host_model/native/host.h"
#include "host_model/native/host_load.h"
#include "host_model/native/pressure.h"

struct fpr_residency; /* opaque */

struct fpr_residency_config {
    uint64_t seed, stream; /* of the drawn costs */
    /* An aligned 2 MiB of guest memory with nothing resident comes in as one huge page. */
    uint32_t thp;
    /* A call that discards an aligned 2 MiB whole also frees the page table that mapped it by
     * 4 KiB, so that it may come back huge (Linux 6.14 and later, x86; seen on 6.18). Without, or
     * discarded in two halves, it comes back page by page. */
    uint32_t page_table_reclaim;
    /* Pages of a file, as of a memfd: no page table stands in the way of a huge page. */
    uint32_t file;
    /* Pages of the hugetlb pool: every page is 2 MiB, and nothing smaller can be freed. */
    uint32_t hugetlb;
    /* A discard succeeds and frees nothing, as MADV_DONTNEED does on shared memory. */
    uint32_t discard_without_effect;
    /* A discard leaves pages resident until the host needs memory, as MADV_FREE does; a touch
     * before that costs nothing. Not with hugetlb. */
    uint32_t discard_lazily;
    uint32_t calls; /* an enum fpr_discard_calls */
};

/* Nothing is resident at first. FPR_BAD_ARGUMENT: regions that are no guest memory, or costs out of
 * order; FPR_HOST_MEMORY. The caller destroys it. */
int fpr_residency_create(const struct fpr_residency_config *config,
                         const struct fpr_memory_region *regions, uint32_t count,
                         const struct fpr_host_costs *costs, struct fpr_residency **out);
void fpr_residency_destroy(struct fpr_residency *residency);
/* Live on a host whose memory is limited, which lives longer. FPR_BAD_ARGUMENT: it does already, or
 * memory is resident; FPR_FULL; FPR_HOST_MEMORY. */
int fpr_residency_join(struct fpr_residency *residency, struct fpr_pressure *pressure);
/* Share a host with other VMs, which lives longer: their huge faults get in each other's way, and a
 * touch that is ahead of them waits if it has anything to bring in. */
void fpr_residency_share(struct fpr_residency *residency, struct fpr_host_load *load);
/* From here on the host's footprint hears of all that comes and goes; NULL: it does not. */
void fpr_residency_report_to(struct fpr_residency *residency, struct fpr_footprint *footprint);
/* When the host killed the VM; UINT64_MAX: it has not. Touches of a killed VM do nothing. */
uint64_t fpr_residency_killed_ns(const struct fpr_residency *residency);

/* An fpr_touch_fn; `host` is a struct fpr_residency, `vcpu` below FPR_HOST_MAX_VCPUS. FPR_OUTSIDE:
 * some frame is not guest memory, and nothing was touched. A vCPU is in a fault from now_ns until
 * its cost has passed; costs grow with the vCPUs that are in one at the same time. Reads and writes
 * cost the same: a guest writes to what it allocates. */
int fpr_residency_touch(void *host, uint64_t pfn, uint64_t count, uint32_t flags, uint64_t now_ns,
                        uint32_t vcpu, struct fpr_touch_cost *cost);
/* Make frames resident as small pages without a fault: memory touched before the run began. */
int fpr_residency_populate(struct fpr_residency *residency, uint64_t pfn, uint64_t count,
                           uint64_t now_ns);
/* Discard `count` ranges of (gpa, bytes), in order. freed[i], unless freed is NULL: the bytes of
 * range i that were resident and are not any more. */
int fpr_residency_discard(struct fpr_residency *residency, const uint64_t *ranges, uint32_t count,
                          uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out);

/* The host needs memory: drop lazily freed pages until `pages` or more are gone, or none is left.
 */
int fpr_residency_drop_lazy(struct fpr_residency *residency, uint64_t pages, uint64_t now_ns,
                            uint64_t *dropped);

/* Counters as of now_ns, which is no earlier than any change so far. */
void fpr_residency_counters(const struct fpr_residency *residency, uint64_t now_ns,
                            struct fpr_host_counters *out);
/* Not a status. */
uint64_t fpr_residency_resident_bytes(const struct fpr_residency *residency);
const struct fpr_histogram *fpr_residency_fault_latency(const struct fpr_residency *residency);
/* Residency of `count` frames from pfn on, one byte each: 0 absent, 1 small, 2 in a huge page. */
int fpr_residency_read(const struct fpr_residency *residency, uint64_t pfn, uint64_t count,
                       uint8_t *out);
/* Bytes of this process's memory that the map could ever take. */
uint64_t fpr_residency_metadata_bytes(const struct fpr_residency *residency);

#endif
