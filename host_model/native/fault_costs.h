/* What faults and discards on the simulated host cost: drawn from a profile, by who else is in a
 * host fault at the time, and by the machine's pace then. Private to host_model. */
#ifndef FPR_FAULT_COSTS_H
#define FPR_FAULT_COSTS_H

#include "emulator/native/costs.h"
#include "emulator/native/histogram.h"
#include "host_model/native/host.h"
#include "host_model/native/residency_map.h"

/* Costs of each sort have random numbers of their own, so that a run and its control, which
 * discards nothing, draw the same ones for the same faults. */
enum fpr_draw {
    FPR_DRAW_FAULT_4K,
    FPR_DRAW_REFAULT_4K,
    FPR_DRAW_FAULT_2M,
    FPR_DRAW_REFAULT_2M,
    FPR_DRAW_DISCARD,
    FPR_DRAW_OUTER,
    FPR_DRAW_WAIT,
    FPR_DRAWS
};

struct fpr_fault_costs {
    struct fpr_host_costs costs;
    struct fpr_random random[FPR_DRAWS];
    uint64_t seed, period; /* of the pace, and which period it is drawn for: UINT64_MAX, none */
    uint64_t pace_ppm;
    uint32_t vcpus; /* that ever faulted: the highest, plus 1 */
    uint64_t fault_until_ns[FPR_HOST_MAX_VCPUS];
};

/* vCPUs that are in a fault beside the one in question: of its VM, with whose locks small faults
 * spend their time, and of all VMs, with which huge ones share the memory's bandwidth. */
struct fpr_others {
    uint32_t of_vm, of_host;
};

/* FPR_BAD_ARGUMENT: costs out of order. */
int fpr_fault_costs_init(struct fpr_fault_costs *costs, const struct fpr_host_costs *profile,
                         uint64_t seed, uint64_t stream);

/* vCPUs in a fault at now_ns besides `self`; UINT32_MAX is none of them. What is drawn from here on
 * has the machine's pace of that time. */
uint32_t fpr_faulting(struct fpr_fault_costs *costs, uint32_t self, uint64_t now_ns);
/* vCPU `vcpu` is in a fault until then. */
void fpr_faults_until(struct fpr_fault_costs *costs, uint32_t vcpu, uint64_t until_ns);
/* The cost of what became resident in one chunk, next to `others`; each fault is recorded.
 * `faults.fresh` of the pages are memory that the host itself has to get from an outer one. */
uint64_t fpr_draw_faults(struct fpr_fault_costs *costs, struct fpr_chunk_faults faults,
                         struct fpr_others others, struct fpr_histogram *latency);

/* How many of the pages that just came make the host's memory larger than it ever was (*most_pages,
 * which grows with it): those it has to get from an outer host. 0 where the profile knows none. */
uint32_t fpr_fresh_pages(const struct fpr_fault_costs *costs, uint64_t *most_pages,
                         uint64_t resident_pages);

/* What a discard's costs grow by next to `others`, for the calls below. */
uint64_t fpr_discard_factor(const struct fpr_fault_costs *costs, uint32_t others);
/* What a call costs by itself, and once more where it unmaps anything. */
uint64_t fpr_draw_discard_call(struct fpr_fault_costs *costs, uint64_t grown);
uint64_t fpr_draw_discard_flush(struct fpr_fault_costs *costs, uint64_t grown);
/* Whether what is found in a chunk is a huge page that is charged with the call's others, by
 * fpr_draw_discard_huge() once: where the profile says what several of them cost. */
bool fpr_huge_pages_in_sum(const struct fpr_fault_costs *costs, struct fpr_chunk_range range,
                           struct fpr_chunk_mapped found);
/* What a call adds for all of these. */
uint64_t fpr_draw_discard_huge(struct fpr_fault_costs *costs, uint64_t huge_pages, uint64_t grown);
/* What a call adds for what it finds in one chunk, otherwise. */
uint64_t fpr_draw_discard(struct fpr_fault_costs *costs, struct fpr_chunk_range range,
                          struct fpr_chunk_mapped found, uint64_t grown);

#endif
