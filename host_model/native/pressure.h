/* A host's memory, shared by VMs and limited: who waits for room, who is swapped out, who is
 * killed.
 *
 * As Linux does it (Documentation/admin-guide/mm/concepts.rst): a thread in the background makes
 * room when free memory falls below the low watermark, until it is above the high one; a vCPU that
 * finds less than the least watermark makes room itself, and waits; where nothing can be taken any
 * more, the VM that holds most is killed.
 *
 * What is taken is what was not used for longest, over all VMs: 2 MiB of guest memory are one entry
 * of a list, each page of it has a mark of use (the accessed bit of its page table entry), and the
 * oldest entry gives up the pages whose mark is not set (second chance). */
#ifndef FPR_PRESSURE_H
#define FPR_PRESSURE_H

#include "emulator/native/costs.h"
#include "host_model/native/host.h"

#define FPR_PRESSURE_MAX_VMS 16384

struct fpr_pressure; /* opaque */

/* What swap costs. A request lies right behind the last one, or elsewhere. */
struct fpr_swap_costs {
    struct fpr_cost in_4k, in_next_4k; /* from the fault to the page, alone */
    struct fpr_cost out_4k;            /* CPU time of reclaim for a page */
    /* The device is busy with a request of one page. */
    uint64_t read_ns, read_next_ns, write_ns, write_next_ns;
};

struct fpr_pressure_config {
    uint64_t memory_pages; /* of 4 KiB, for guests */
    uint64_t swap_pages;   /* 0: none */
    /* Watermarks of free memory, ascending and below memory_pages. */
    uint64_t min_pages, low_pages, high_pages;
    uint64_t scattered_pages; /* at the start, free in pieces smaller than 2 MiB */
    /* So much may come in while some VM is ahead of the others (vm_clock.h): with no more than this
     * above the high watermark, whatever uses memory has to wait for its turn. */
    uint64_t ahead_pages;
    struct fpr_swap_costs swap;
    uint64_t seed, stream;
    uint32_t vms; /* at most so many join */
};

struct fpr_pressure_counters {
    uint64_t resident_pages, resident_peak_pages;
    uint64_t swapped_pages, swapped_peak_pages;
    uint64_t swap_in_pages, swap_out_pages, swap_drop_pages;
    uint64_t background_pages; /* taken by the thread in the background */
    uint64_t background_ns;    /* of a CPU: what that takes of it */
    uint64_t direct_pages;     /* by vCPUs that waited */
    uint64_t direct_reclaims;
    uint64_t direct_ns;
    uint64_t huge_unavailable; /* huge faults that came small for want of 2 MiB in one piece */
    uint64_t free_huge_pages;  /* pieces of 2 MiB that are free now */
    uint64_t kills;
};

/* FPR_BAD_ARGUMENT: a number breaks a rule above; FPR_HOST_MEMORY. VMs leave before it is
 * destroyed. */
int fpr_pressure_create(const struct fpr_pressure_config *config, struct fpr_pressure **out);
void fpr_pressure_destroy(struct fpr_pressure *pressure);
/* `kills` and `background_ns` of the counters, where they change; valid while the host is. */
const uint64_t *fpr_pressure_kills(const struct fpr_pressure *pressure);
const uint64_t *fpr_pressure_background_ns(const struct fpr_pressure *pressure);
void fpr_pressure_counters(const struct fpr_pressure *pressure, struct fpr_pressure_counters *out);
/* FPR_INVALID: entries, pages or pieces do not add up. */
int fpr_pressure_validate(const struct fpr_pressure *pressure);

#endif
