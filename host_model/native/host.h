/* What every host shows of itself: the memory that it holds for a guest, its counters, and the
 * outcome of a discard. */
#ifndef FPR_HOST_H
#define FPR_HOST_H

#include <stdint.h>

#define FPR_HOST_MAX_REGIONS 16          /* RAM of a guest lies in few pieces: x86 has two */
#define FPR_HOST_MAX_GPA 0x1000000000000 /* 2^48: four-level page tables reach no further */
#define FPR_HOST_MAX_VCPUS 4096          /* beyond what any VMM runs */

/* How a batch of ranges becomes system calls. */
enum fpr_discard_calls {
    FPR_CALLS_MERGED = 0,    /* ranges that touch are one call */
    FPR_CALLS_PER_ENTRY = 1, /* each range is a call of its own */
};

/* A piece of guest memory. Both are multiples of 4096. */
struct fpr_memory_region {
    uint64_t gpa;
    uint64_t bytes;
};

struct fpr_host_counters {
    /* Faults by the size of what came in. A refault brings in memory that was discarded before;
     * a huge fault is one where any of its pages was. */
    uint64_t first_faults_4k, refaults_4k;
    uint64_t first_faults_2m, refaults_2m;
    uint64_t fault_bytes;
    uint64_t refault_bytes; /* of fault_bytes: the pages that were discarded before */
    uint64_t fault_ns;      /* of the vCPUs: faults, swapping in, and making room for them */

    /* Where the host's memory is limited. A page that is swapped in is no fault of the above. */
    uint64_t swap_ins, swap_outs; /* pages of 4 KiB */
    uint64_t swap_drops;          /* were discarded while they were in swap */
    uint64_t swapped_bytes;       /* in swap now */
    uint64_t reclaim_ns;          /* of fault_ns: the vCPU had to make room itself */

    uint64_t discard_ranges; /* as handed in */
    uint64_t discard_calls;  /* system calls, as an enum fpr_discard_calls cuts them */
    uint64_t discard_ns;
    uint64_t asked_bytes;     /* = the sum of the eight that follow */
    uint64_t discarded_bytes; /* were resident, and are not any more */
    /* Resident, and the host may drop them when it needs memory; those that it had been told of
     * before count as already free. */
    uint64_t lazily_freed_bytes;
    uint64_t ineffective_bytes; /* the call succeeded, and they are still resident */
    uint64_t already_free_bytes;
    uint64_t cannot_free_bytes; /* the backing refuses for good */
    uint64_t error_bytes;       /* the call failed */
    uint64_t unaligned_bytes;   /* no whole page at this end of a range */
    uint64_t outside_bytes;     /* not guest memory */
    uint64_t huge_splits;       /* huge pages of which a part was discarded */

    uint64_t lazy_free_bytes; /* resident now, lazily freed and neither dropped nor touched since */
    uint64_t lazy_dropped_bytes; /* were, until the host dropped them */
    uint64_t lazy_kept_bytes;    /* were, until the guest touched them: no fault */

    uint64_t resident_bytes, resident_peak_bytes; /* lazily freed memory included */
    uint64_t footprint_byte_seconds;              /* integral of resident bytes over virtual time */
};

/* One batch; its byte accounts add up to the bytes of its ranges. */
struct fpr_discard_outcome {
    uint64_t cost_ns;
    uint64_t freed_bytes;
    uint64_t lazy_bytes; /* freed lazily */
    uint64_t ineffective_bytes;
    uint64_t already_free_bytes;
    uint64_t cannot_free_bytes;
    uint64_t error_bytes;
    uint64_t unaligned_bytes;
    uint64_t outside_bytes;
    uint64_t calls;
    int error; /* errno of the first call that failed, else 0 */
};

#endif
