/* What things cost, in nanoseconds: distributions on the host's side, plain numbers on the
 * guest's. Growth is in millionths for every other vCPU that does the same at the same time (a
 * host's fault: that is in a host fault; a discard: the same; guest costs: that runs): a cost of c
 * becomes c * (1 + growth_ppm * others / 10^6). */
#ifndef FPR_COSTS_H
#define FPR_COSTS_H

#include <stdint.h>

#include "emulator/native/random.h"

#define FPR_COST_POINTS 6
#define FPR_COST_MAX_NS 10000000000 /* 10 s: a guest that waits longer has hung */

/* Values at the smallest, p50, p90, p99, p99.9 and largest; never falling. Between two of them the
 * distribution is taken to be even. */
struct fpr_cost {
    uint64_t ns[FPR_COST_POINTS];
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
    struct fpr_cost discard_split_2m; /* plus: a huge page of which a part is discarded */
    struct fpr_cost kick;             /* from the guest's kick to the device's work */
    struct fpr_cost interrupt;        /* from the used ring to the guest's handler */
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

/* FPR_BAD_ARGUMENT where a distribution falls or passes FPR_COST_MAX_NS. */
int fpr_host_costs_check(const struct fpr_host_costs *costs);
/* One value drawn from the distribution. */
uint64_t fpr_cost_draw(const struct fpr_cost *cost, struct fpr_random *random);
/* The distribution's mean. */
uint64_t fpr_cost_mean(const struct fpr_cost *cost);

#endif
