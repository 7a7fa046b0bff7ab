/* What things cost, in nanoseconds: distributions on the host's side, plain numbers on the
 * guest's. Growth is in millionths for every other vCPU that does the same at the same time (a
 * host's fault: that is in a host fault; a discard: the same; guest costs: that runs): a cost of c
 * becomes c * (1 + growth_ppm * others / 10^6). Where it was measured with several threads at once,
 * those distributions take the place of growth. */
#ifndef FPR_COSTS_H
#define FPR_COSTS_H

#include <stdint.h>

#include "emulator/native/random.h"

#define FPR_COST_POINTS 6
#define FPR_COST_STEPS 7
#define FPR_COST_MAX_NUMBER 65536 /* of threads, or of huge pages: 128 GiB */
#define FPR_COST_MAX_BEND 255
#define FPR_COST_MAX_NS 10000000000 /* 10 s: a guest that waits longer has hung */

/* Values at the smallest, p50, p90, p99, p99.9 and largest; never falling. Between two of them the
 * distribution is taken to be even; from p99 on a share t of the way is t^bend of the difference,
 * since most of a tail lies at its near end. */
struct fpr_cost {
    uint64_t ns[FPR_COST_POINTS];
    uint32_t bend; /* 0, 1: even there, too */
};

/* The same cost for other numbers than 1, ascending: of threads that pay it at once, or of things
 * that one call pays for, which is what all of them cost. */
struct fpr_cost_steps {
    uint32_t count;
    uint32_t number[FPR_COST_STEPS];
    struct fpr_cost at[FPR_COST_STEPS];
};

struct fpr_host_costs {
    struct fpr_cost fault_4k;   /* a page that was never resident */
    struct fpr_cost refault_4k; /* a page that was discarded */
    struct fpr_cost fault_2m;
    struct fpr_cost refault_2m;
    struct fpr_cost discard_call;     /* the system call itself, once for adjacent ranges */
    struct fpr_cost discard_flush;    /* plus: once for a call that unmaps anything */
    struct fpr_cost discard_huge_2m;  /* plus: a huge page freed whole */
    struct fpr_cost discard_4k;       /* plus: each page that was mapped by itself */
    struct fpr_cost discard_empty_2m; /* plus: 2 MiB with nothing in them */
    struct fpr_cost discard_table_2m; /* plus: 2 MiB with nothing in them, and a page table; or 0 */
    struct fpr_cost discard_split_2m; /* plus: a huge page of which a part is discarded */
    struct fpr_cost kick;             /* from the guest's kick to the device's work */
    struct fpr_cost interrupt;        /* from the used ring to the guest's handler */
    struct fpr_cost fault_outer_4k;   /* plus: memory that this host never used before */
    struct fpr_cost fault_outer_2m;
    struct fpr_cost_steps fault_4k_steps, refault_4k_steps;
    struct fpr_cost_steps fault_2m_steps, refault_2m_steps;
    struct fpr_cost_steps discard_huge_2m_steps; /* by huge pages that one call frees */
    /* With more vCPUs in a fault than so many CPUs, one in slice_ns of a fault's time ends with the
     * loss of the CPU, for the others' slices. 0: there is a CPU for each. */
    uint64_t cpus, slice_ns;
    /* How fast the machine is, for pace_ns at a time: all costs times this many millionths. 0 ns:
     * it is always the same. */
    struct fpr_cost pace;
    uint64_t pace_ns;
    uint32_t fault_4k_growth_ppm;
    uint32_t fault_2m_growth_ppm;
    uint32_t discard_growth_ppm;
};

struct fpr_guest_costs {
    uint64_t alloc_4k_ns; /* the page allocator alone */
    uint64_t free_4k_ns;
    uint64_t alloc_thp_ns;
    uint64_t free_thp_ns;
    uint64_t zero_4k_ns; /* clearing 4 KiB, and the first use of them */
    uint64_t copy_4k_ns;
    uint64_t fault_4k_ns; /* the guest's own fault without allocating, clearing or copying */
    uint64_t fault_thp_ns;
    uint32_t kernel_growth_ppm; /* allocator and faults */
    uint32_t memory_growth_ppm; /* clearing and copying */
};

/* FPR_BAD_ARGUMENT where a distribution falls or passes FPR_COST_MAX_NS, or where more huge pages
 * in a call cost less. */
int fpr_host_costs_check(const struct fpr_host_costs *costs);
/* One value drawn from the distribution. */
uint64_t fpr_cost_draw(const struct fpr_cost *cost, struct fpr_random *random);
/* The same where `others` do the same at the same time. Between two numbers of threads it is now
 * the one, now the other, as threads share a CPU or do not; beyond the last it grows. */
uint64_t fpr_cost_draw_among(const struct fpr_cost *cost, const struct fpr_cost_steps *steps,
                             uint32_t growth_ppm, uint32_t others, struct fpr_random *random);
/* What `number` of them cost in one call. Between two steps a call lies where it does in both: what
 * holds up a call holds it up once, however many pages it frees. Beyond the last step it is made of
 * pieces of that size, each drawn by itself; without steps, each of them is. */
uint64_t fpr_cost_draw_sum(const struct fpr_cost *cost, const struct fpr_cost_steps *steps,
                           uint64_t number, struct fpr_random *random);
/* The distribution's mean. */
uint64_t fpr_cost_mean(const struct fpr_cost *cost);
/* Bend the tail so that the mean is as near to this one as it can be. */
void fpr_cost_bend(struct fpr_cost *cost, uint64_t mean);

#endif
