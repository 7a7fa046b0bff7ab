/* Timing of what a host does to guest memory: touches and discards of real memory, by one thread or
 * by several at once, each call timed by itself. Left out is what reading the clock takes, and what
 * a thread waits for a CPU that others have: that is told apart, as the kernel accounts for it.
 *
 * Each thread has an area of its own in one mapping, as the vCPUs of a guest do. */
#ifndef FPR_MEASURE_H
#define FPR_MEASURE_H

#include <stdint.h>

#include "emulator/native/histogram.h"

#define FPR_MEASURE_MAX_THREADS 256
#define FPR_MEASURE_MAX_BYTES 0x10000000000 /* 1 TiB */

enum fpr_measure_kind {
    FPR_MEASURE_ANONYMOUS = 0,
    FPR_MEASURE_MEMFD = 1,
    FPR_MEASURE_HUGETLB = 2,
};

/* Who serves faults: the kernel, or a thread behind a userfaultfd, which fills pages that are
 * missing, or maps those that are in the file already (shared memory alone). */
enum fpr_measure_server {
    FPR_MEASURE_KERNEL = 0,
    FPR_MEASURE_MISSING = 1,
    FPR_MEASURE_MINOR = 2,
};

enum fpr_measure_action {
    FPR_MEASURE_READ = 0,  /* of one byte */
    FPR_MEASURE_WRITE = 1, /* of one byte */
    FPR_MEASURE_POPULATE = 2,
    FPR_MEASURE_DONTNEED = 3,
    FPR_MEASURE_FREE = 4,
    FPR_MEASURE_PUNCH_HOLE = 5,
    FPR_MEASURE_ACTIONS = 6,
};

struct fpr_measure_config {
    uint32_t kind, server;
    uint32_t thp;
    uint32_t threads;    /* at most so many at once */
    uint64_t area_bytes; /* of each thread: a multiple of 2 MiB */
};

/* `threads` threads apply `action` to the first `bytes` of their areas (one that is alone: of the
 * mapping), to `call_bytes` of every
 * `step_bytes` by themselves, `rounds` times with `reset` over all of it in between; meanwhile
 * `company` threads more write to theirs, page by page or huge page by huge page (`company_bytes`),
 * and reset them in turn. */
struct fpr_measure_order {
    uint32_t action, reset;
    uint32_t threads, company;
    uint32_t rounds;
    uint64_t bytes, step_bytes, call_bytes, group_bytes, company_bytes;
};

struct fpr_measure; /* opaque */

/* FPR_BAD_ARGUMENT; FPR_HOST_MEMORY; FPR_SYSTEM: the kernel has or allows no such memory. */
int fpr_measure_create(const struct fpr_measure_config *config, struct fpr_measure **out);
void fpr_measure_destroy(struct fpr_measure *measure);
/* Map all areas anew: nothing is left, page tables included. */
int fpr_measure_fresh(struct fpr_measure *measure);
/* The ns of each step go to `each`, of each `group_bytes` of steps to `groups`, and of each wait
 * for a CPU during a step to `waits`. Only what happens while all threads are at work counts.
 * FPR_SYSTEM: a call failed. */
int fpr_measure_run(struct fpr_measure *measure, const struct fpr_measure_order *order,
                    struct fpr_histogram *each, struct fpr_histogram *groups,
                    struct fpr_histogram *waits);
/* Bytes of all areas that are resident. */
int fpr_measure_resident(struct fpr_measure *measure, uint64_t *bytes);

/* Two threads wake each other through eventfds, `count` times: from the write to the reader's
 * return, one way and the other. */
int fpr_measure_signals(uint64_t count, struct fpr_histogram *there, struct fpr_histogram *back);
/* What reading the clock twice takes, in ns; not a status. */
uint64_t fpr_measure_clock_ns(void);

#endif
