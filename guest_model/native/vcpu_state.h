/* Private to guest_model/native: what vcpu.c (who runs when) and operation.c (what
 * it does) share. */
#ifndef FPR_VCPU_STATE_H
#define FPR_VCPU_STATE_H

#include "guest_model/native/page.h"
#include "guest_model/native/vcpu.h"

#define FPR_CPU_BITS 10
#define FPR_GROWTH_SHIFT 20
#define FPR_IDLE_KEY UINT64_MAX

#define FPR_LRU_BATCH 31 /* folios that a CPU gathers (linux v6.12, v7.2, folio_batch) */

_Static_assert(FPR_MAX_CPUS == 1 << FPR_CPU_BITS, "a key holds the number of a vCPU");
_Static_assert(sizeof(struct fpr_op) == 24, "guest_model/workload/op.py states this layout");

struct fpr_owner {
    uint32_t head, tail;
    uint64_t blocks, pages;
    uint64_t freed; /* blocks so far */
};

/* A block that an allocation has got, before it is written. */
struct fpr_taken {
    uint64_t pfn, guest_ns;
    uint32_t frames; /* to be written */
    uint32_t order;
    bool waits; /* for other VMs of the host: what follows is what it does next */
};

struct fpr_task {
    const struct fpr_op *ops;
    uint64_t length, position;
    uint64_t done;     /* of the current operation's count */
    uint64_t gathered; /* blocks that an operation that frees has still to free in this turn */
    uint32_t pieces;   /* single pages still to come in place of a huge block */
    uint32_t cursor;   /* next block of an FPR_OP_TOUCH under way */
    uint64_t freed;    /* of its owner when that began: another task may free blocks meanwhile */
    uint32_t next;     /* task after this one on its vCPU, circular */
    uint64_t wake_ns;  /* not runnable before */
    uint64_t asked_ns; /* for operations, the last time */
    uint32_t asked;    /* before, at that instant */
    struct fpr_taken taken;
    uint64_t failed_done; /* `done` and `pieces` of the operation that failed last */
    uint32_t failed_pieces;
    bool failed; /* the last allocation that was no part of another, or a part of it */
    struct fpr_task_view view;
};

/* Waits for a CPU of the host: a vCPU, or work of the host itself. */
struct fpr_waiter {
    struct fpr_waiter *before, *after;
    struct fpr_vcpus *vcpus; /* NULL: the host's work */
    uint32_t index;          /* of the vCPU, or of the work */
    uint64_t since_ns;
};

enum fpr_host_cpu {
    FPR_HOST_CPU_NONE = 0,
    FPR_HOST_CPU_HELD,
    FPR_HOST_CPU_QUEUED, /* wants one */
    FPR_HOST_CPU_LEAVING /* has one until leave_ns, and nothing to do with it */
};

struct fpr_cpu {
    uint64_t clock_ns; /* free for the next operation from here on */
    uint64_t slice_end_ns;
    uint64_t asleep_ns;               /* of the last step: waiting for a device, at its end */
    uint32_t current;                 /* task, FPR_NIL: none */
    uint32_t last;                    /* some task on this vCPU, FPR_NIL: none */
    uint32_t running;                 /* 0 while idle or asleep */
    uint32_t unlisted[FPR_LRU_BATCH]; /* pages that wait for their LRU list */
    uint32_t unlisted_count;
    /* Where the host has few CPUs, see host_cpus.c. */
    enum fpr_host_cpu host_cpu;
    uint64_t turn_end_ns, leave_ns;
    struct fpr_waiter waiter;
};

/* What the LRU lists have to do with an allocated page: its `prev`, which its owner leaves. */
enum fpr_listing {
    FPR_LISTED = 0,
    FPR_UNLISTED = 1, /* waits on some CPU */
    FPR_DROPPED = 2,  /* waits there, and its owner has freed it */
};

/* What work costs while so many vCPUs are busy, as a factor in 1/2^20. */
struct fpr_growth {
    uint64_t kernel, memory;
};

struct fpr_vcpus {
    struct fpr_vcpus_config config;
    struct fpr_allocator *allocator;
    struct fpr_memory_port port;
    struct fpr_histogram *alloc_latency;
    struct fpr_cpu *cpus;
    struct fpr_task *tasks;
    struct fpr_owner *owners;
    struct fpr_growth *growth; /* by the number of busy vCPUs, 0 to cpus */
    /* Winner tree: leaf `leaves + cpu` holds (start of the next operation << FPR_CPU_BITS) | cpu,
     * an inner node the smaller of its two children, node 1 the earliest of all. */
    uint64_t *keys;
    uint32_t leaves;
    uint32_t running; /* vCPUs that are */
    /* No other VM of the host does anything before this instant; UINT64_MAX for a VM by itself. */
    uint64_t turn_until_ns;
    struct fpr_vm_clock *clock; /* NULL: a VM by itself */
    uint32_t slot;              /* of the clock */
    /* vCPUs, and work for the VM, that wait for others of the host: they may be woken at any time,
     * so that nothing of the VM may go ahead. */
    uint32_t waiting;
};

/* operation.c: the next step of a task at cpu->clock_ns, one block at most; its cost moves the
 * clock. Sets stop->reason where Python is needed. */
int fpr_step(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint32_t task_index,
             struct fpr_vcpu_stop *stop);
/* listing.c, where the rules are that an unmapping leaves what waits: */
/* A page that a process or a file got waits; the last one that there is room for lists them all. */
int fpr_listing_add(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint64_t pfn);
/* List them all; those that were freed meanwhile go back to the allocator. */
int fpr_listing_flush(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index);
/* A block goes back to the allocator, if it does not wait. */
int fpr_listing_free(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint64_t pfn,
                     uint32_t flags);
int fpr_check_ops(const struct fpr_vcpus *v, const struct fpr_op *ops, uint64_t length);
/* vcpu.c: run until a step would start at end_ns or later, or Python is needed. FPR_LATER: until a
 * step that has to wait for other VMs. */
int fpr_vcpus_advance(struct fpr_vcpus *v, uint64_t end_ns, struct fpr_vcpu_stop *stop);
/* The key of a vCPU has changed. */
void fpr_update_key(struct fpr_vcpus *v, uint32_t index);
/* A vCPU is executing, or not. */
void fpr_set_running(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t running);

#endif
