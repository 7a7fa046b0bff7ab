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

struct fpr_pressure_config {
    uint64_t memory_pages; /* of 4 KiB, for guests */
    uint64_t swap_pages;   /* 0: none */
    /* Watermarks of free memory, ascending and below memory_pages. */
    uint64_t min_pages, low_pages, high_pages;
    uint64_t scattered_pages; /* at the start, free in pieces smaller than 2 MiB */
    struct fpr_cost swap_in_4k, swap_out_4k;
    uint64_t swap_device_4k_ns; /* the device is busy with one page: 1 / its throughput */
    uint64_t seed, stream;
    uint32_t vms; /* at most so many join */
};

struct fpr_pressure_counters {
    uint64_t resident_pages, resident_peak_pages;
    uint64_t swapped_pages, swapped_peak_pages;
    uint64_t swap_in_pages, swap_out_pages, swap_drop_pages;
    uint64_t background_pages; /* taken by the thread in the background */
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
/* Whether less is free than the high watermark. Not a status. */
int fpr_pressure_is_short(const struct fpr_pressure *pressure);
void fpr_pressure_counters(const struct fpr_pressure *pressure, struct fpr_pressure_counters *out);
/* FPR_INVALID: entries, pages or pieces do not add up. */
int fpr_pressure_validate(const struct fpr_pressure *pressure);

#endif
