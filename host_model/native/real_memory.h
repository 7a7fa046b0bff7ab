/* Guest memory that is really mapped: a touch really writes and is timed, a discard is a real
 * system call, timed, and followed by a look at what it freed. It is the host's side of the memory
 * port, like the simulated host; its costs are measured, in nanoseconds of CLOCK_MONOTONIC.
 *
 * Each region lies between inaccessible guard pages, at an address and (memfd) a file offset equal
 * to its guest-physical address modulo 2 MiB, so that huge pages and ranges mean the same in all
 * three. What is resident is asked of the kernel by mincore() over the range in question, never
 * over all of memory. Only one thread may call these functions. */
#ifndef FPR_REAL_MEMORY_H
#define FPR_REAL_MEMORY_H

#include "emulator/native/histogram.h"
#include "emulator/native/memory_port.h"
#include "host_model/native/footprint.h"
#include "host_model/native/host.h"

struct fpr_real_memory; /* opaque */

enum fpr_memory_kind {
    FPR_MEMORY_ANONYMOUS = 0,       /* private, without a file */
    FPR_MEMORY_MEMFD = 1,           /* a shared file without a name */
    FPR_MEMORY_HUGETLB = 2,         /* the same, of pages of 2 MiB from the hugetlb pool */
    FPR_MEMORY_HUGETLB_PRIVATE = 3, /* such pages, private and without a file */
};

enum fpr_discard_method {
    FPR_DISCARD_DONTNEED = 0,   /* frees private memory; of a memfd it frees nothing */
    FPR_DISCARD_REMOVE = 1,     /* MADV_REMOVE: shared memory only */
    FPR_DISCARD_PUNCH_HOLE = 2, /* fallocate: shared memory only */
    FPR_DISCARD_FREE = 3,       /* MADV_FREE: anonymous only; resident until memory is short */
};

/* What a failed discard call means. */
enum fpr_discard_failure {
    FPR_DISCARD_RETRY = 0,       /* may work a second time */
    FPR_DISCARD_CANNOT_FREE = 1, /* never will: do not ask this region again */
    FPR_DISCARD_ERROR = 2,       /* locked memory, or a defect of ours */
};

struct fpr_real_memory_config {
    uint32_t kind;   /* an enum fpr_memory_kind */
    uint32_t thp;    /* huge pages wherever this machine gives them; else none. Not for hugetlb */
    uint32_t method; /* an enum fpr_discard_method */
    uint32_t calls;  /* an enum fpr_discard_calls */
    /* A touch that would make more than this resident is refused with FPR_HOST_MEMORY. */
    uint64_t touch_limit_bytes;
};

/* Map all regions. FPR_BAD_ARGUMENT: regions that are no guest memory, or a method that does not
 * suit its kind; FPR_HOST_MEMORY; FPR_SYSTEM, with ENOMEM where the hugetlb pool is too small. The
 * caller destroys it, which unmaps them. */
int fpr_real_memory_create(const struct fpr_real_memory_config *config,
                           const struct fpr_memory_region *regions, uint32_t count,
                           struct fpr_real_memory **out);
void fpr_real_memory_destroy(struct fpr_real_memory *memory);
/* From here on the host's footprint hears of all that comes and goes; NULL: it does not. */
void fpr_real_memory_report_to(struct fpr_real_memory *memory, struct fpr_footprint *footprint);
/* Where region i is mapped, and where it lies in the file; the file, or -1. Not statuses. */
void *fpr_real_memory_pointer(const struct fpr_real_memory *memory, uint32_t region);
uint64_t fpr_real_memory_offset(const struct fpr_real_memory *memory, uint32_t region);
int fpr_real_memory_fd(const struct fpr_real_memory *memory);

/* As of the simulated host (host_model/native/residency.h). A touch writes the first byte of every
 * page that is not known to be resident; of the hugetlb pool, it has the kernel make the page
 * present (MADV_POPULATE_WRITE, Linux 5.14), which fails where a write would kill this process. */
int fpr_real_memory_touch(void *host, uint64_t pfn, uint64_t count, uint32_t flags, uint64_t now_ns,
                          uint32_t vcpu, struct fpr_touch_cost *cost);
int fpr_real_memory_populate(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count,
                             uint64_t now_ns);
int fpr_real_memory_discard(struct fpr_real_memory *memory, const uint64_t *ranges, uint32_t count,
                            uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out);
void fpr_real_memory_counters(const struct fpr_real_memory *memory, uint64_t now_ns,
                              struct fpr_host_counters *out);
uint64_t fpr_real_memory_resident_bytes(const struct fpr_real_memory *memory);
const struct fpr_histogram *fpr_real_memory_fault_latency(const struct fpr_real_memory *memory);
/* Ask the kernel which lazily freed pages it has dropped since it was asked last. */
int fpr_real_memory_settle(struct fpr_real_memory *memory, uint64_t now_ns);
/* Have the kernel take from these frames now what it would take under pressure: what was freed
 * lazily, and where there is swap, all else (MADV_PAGEOUT, Linux 5.4). */
int fpr_real_memory_press(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count);
/* Asked of the kernel, except for 1 or 2, which is what the last fault showed. */
int fpr_real_memory_read(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count,
                         uint8_t *out);

/* From the errno of the call. */
enum fpr_discard_failure fpr_discard_failure_of(int error);

#endif
