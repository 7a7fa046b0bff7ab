/* Virtual CPUs and the tasks on them. A task executes a stream of operations, handed over chunk by
 * chunk; the vCPU whose next operation is earliest always goes first (ties: the lower number), so
 * a run depends on nothing but its input. Time is virtual, in nanoseconds.
 *
 * What a task allocates belongs to an owner: a queue of blocks, threaded through the metadata of
 * the blocks themselves, so that owning memory takes no memory. */
#ifndef FPR_VCPU_H
#define FPR_VCPU_H

#include <stdint.h>

#include "emulator/native/costs.h"
#include "emulator/native/histogram.h"
#include "emulator/native/memory_port.h"
#include "guest_model/native/allocator.h"

#define FPR_MAX_CPUS 1024
#define FPR_TIME_LIMIT_NS 0x20000000000000 /* 2^53: 104 days */

enum fpr_op_kind {
    FPR_OP_ALLOC = 0, /* `count` blocks of (order, type) to the tail of `owner` */
    FPR_OP_TOUCH = 1, /* write the blocks of `owner` from its head on: `count` of them, 0: all;
                         ends early where another task frees some of them */
    FPR_OP_FREE = 2,  /* free the blocks of `owner` from its head on: `count` of them, 0: all */
    FPR_OP_WAIT = 3,  /* sleep `count` nanoseconds */
    FPR_OP_UNTIL = 4, /* sleep until the instant `count` */
    FPR_OP_WORK = 5,  /* compute for `count` nanoseconds */
    FPR_OP_UNITS = 6, /* `count` units of this task's work are done */
    FPR_OP_KINDS = 7
};

/* Flags of FPR_OP_ALLOC. */
#define FPR_OP_FAULTED 1u    /* the application's page fault asks for it */
#define FPR_OP_ZEROED 2u     /* the guest clears it, which touches it */
#define FPR_OP_COPIED 4u     /* the guest copies into it, which touches it */
#define FPR_OP_PIECEMEAL 8u  /* where no block of this order is free: single pages instead */
#define FPR_OP_DMA32 16u     /* from DMA32 and below */
#define FPR_OP_COUNTED 32u   /* every page of it is a unit of the task's work */
#define FPR_OP_PART 64u      /* part of what began before: left out where that got no memory */
#define FPR_OP_OPTIONAL 128u /* done without where no memory is free: that is no failure */
#define FPR_OP_COLD 256u     /* of FPR_OP_FREE as well: the contents are in no CPU's cache */
#define FPR_OP_FLAGS 512u    /* all are below */

/* Flags of FPR_OP_FREE: who frees; a kernel frees what it has gathered from the last one on
 * (linux v6.1, mm/swap.c, release_pages). */
#define FPR_OP_UNMAPPED 1u  /* an unmapping: 8 blocks, then 510 at a time; anew every 9698 */
#define FPR_OP_TRUNCATED 2u /* the truncation of a file: 15 blocks at a time */
#define FPR_OP_AT_ONCE 4u   /* of one batch of an unmapping: all blocks are gathered */

/* One operation; 24 bytes, laid out as guest_model/workload/op.py has it. */
struct fpr_op {
    uint64_t count;
    uint32_t owner;
    uint8_t kind;
    uint8_t order;
    uint8_t type;
    uint32_t flags;
};

struct fpr_vcpus_config {
    uint32_t cpus, tasks, owners;
    uint64_t slice_ns; /* tasks that share a vCPU take turns of this length */
    struct fpr_guest_costs costs;
};

enum fpr_stop_reason {
    FPR_STOP_HORIZON = 1, /* nothing is left to do before the horizon */
    FPR_STOP_REFILL = 2,  /* `task` has executed its chunk */
    FPR_STOP_NOTIFY = 3,  /* the allocator's notify hook was raised on `cpu` */
    FPR_STOP_FAILED = 4,  /* `task` could not get memory; the rest of that operation is skipped */
    FPR_STOP_IDLE = 5,    /* no task is left */
    FPR_STOP_WORK = 6,    /* of a clock: the host has done `work` */
    FPR_STOP_WATCHED = 7  /* of a clock: what it watches has changed */
};

struct fpr_vcpu_stop {
    uint32_t reason, cpu, task;
    uint32_t order; /* of the block that could not be had, with FPR_STOP_FAILED */
    uint64_t now_ns;
};

enum fpr_task_state { FPR_TASK_NONE = 0, FPR_TASK_LIVE = 1, FPR_TASK_DONE = 2 };

/* What a task has done so far. */
struct fpr_task_view {
    uint32_t state, cpu;
    uint64_t units, failures;
    uint64_t busy_ns;   /* executing, host faults included */
    uint64_t fault_ns;  /* of that, host faults */
    uint64_t steal_ns;  /* beside busy_ns: waiting for a CPU of the host */
    uint64_t paused_ns; /* asleep because an operation says so: until wake_ns, which may be later */
    uint64_t wake_ns;
    uint64_t huge_faults, huge_fallbacks;
    uint64_t end_ns;
};

struct fpr_owner_view {
    uint64_t blocks, pages;
    uint32_t head; /* frame of the oldest block, UINT32_MAX: none */
};

struct fpr_vcpus; /* opaque */

/* Allocator, port and histogram are borrowed until it is destroyed. FPR_BAD_ARGUMENT: a number in
 * the configuration is 0 or beyond its limit; FPR_HOST_MEMORY. */
int fpr_vcpus_create(const struct fpr_vcpus_config *config, struct fpr_allocator *allocator,
                     const struct fpr_memory_port *port, struct fpr_histogram *alloc_latency,
                     struct fpr_vcpus **out);
void fpr_vcpus_destroy(struct fpr_vcpus *vcpus);
/* A page that waits for its LRU list as the first run begins (rules.keeps_unlisted); `dropped`: it
 * is allocated, and its owner has freed it. FPR_BAD_ARGUMENT: there is no room on the vCPU. */
int fpr_vcpus_add_unlisted(struct fpr_vcpus *vcpus, uint32_t cpu, uint64_t pfn, int dropped);
/* Put a task on a vCPU at an instant; it asks for its first chunk at once. A task that is done may
 * be started again, and counts from zero then. */
int fpr_vcpus_start(struct fpr_vcpus *vcpus, uint32_t task, uint32_t cpu, uint64_t now_ns);
/* Hand a task its next operations, which must stay where they are until it asks again; 0: it is
 * done. FPR_BAD_ARGUMENT: an operation breaks a rule. */
int fpr_vcpus_refill(struct fpr_vcpus *vcpus, uint32_t task, const struct fpr_op *ops,
                     uint64_t length);
/* The same for a task in the middle of its chunk, which wakes it if it sleeps. */
int fpr_vcpus_interrupt(struct fpr_vcpus *vcpus, uint32_t task, uint64_t now_ns,
                        const struct fpr_op *ops, uint64_t length);
/* After FPR_STOP_FAILED, before anything else is done with the task: go on with the operation that
 * failed as if it had not. FPR_BAD_ARGUMENT: it has not. */
int fpr_vcpus_retry(struct fpr_vcpus *vcpus, uint32_t task);
/* Run until an operation would start at `horizon_ns` or later, or until Python is needed.
 * FPR_BAD_ARGUMENT: a clock runs them. */
int fpr_vcpus_run(struct fpr_vcpus *vcpus, uint64_t horizon_ns, struct fpr_vcpu_stop *stop);
/* Before this instant no operation starts; FPR_TIME_LIMIT_NS or later: none is left. Not a status.
 */
uint64_t fpr_vcpus_next_ns(const struct fpr_vcpus *vcpus);
/* Something that is no task, such as the reporting worker, takes a vCPU for a while. */
int fpr_vcpus_charge(struct fpr_vcpus *vcpus, uint32_t cpu, uint64_t now_ns, uint64_t cost_ns);
int fpr_vcpus_task(const struct fpr_vcpus *vcpus, uint32_t task, struct fpr_task_view *out);
int fpr_vcpus_owner(const struct fpr_vcpus *vcpus, uint32_t owner, struct fpr_owner_view *out);
/* First frames of up to `capacity` blocks of an owner, oldest first. */
int fpr_vcpus_owner_read(const struct fpr_vcpus *vcpus, uint32_t owner, uint64_t *pfns,
                         uint64_t capacity, uint64_t *count);

#endif
