/* Private to guest_model/native: what vm_clock.c (which VM goes next) and host_cpus.c (which vCPU
 * has a CPU of the host) share. */
#ifndef FPR_VM_CLOCK_STATE_H
#define FPR_VM_CLOCK_STATE_H

#include "guest_model/native/vcpu_state.h"
#include "guest_model/native/vm_clock.h"

#define FPR_WORKS_PER_VM 4

enum fpr_work_state { FPR_WORK_NONE = 0, FPR_WORK_QUEUED, FPR_WORK_RUNNING };

/* Work of the host: a device's for a VM, or (slot FPR_CLOCK_NO_VM) of nobody who waits for it. */
struct fpr_work {
    enum fpr_work_state state;
    uint32_t slot;
    uint64_t cost_ns, finish_ns;
    struct fpr_waiter waiter;
};

struct fpr_clock_vm {
    struct fpr_vcpus *vcpus; /* NULL: nobody */
    uint64_t horizon_ns;
};

struct fpr_vm_clock {
    struct fpr_vm_clock_config config;
    struct fpr_clock_vm *vms;
    struct fpr_work *works; /* FPR_WORKS_PER_VM a slot, then one for the host's own */
    uint32_t works_count;
    uint64_t next_finish_ns; /* of all running works; UINT64_MAX: none */
    /* Winner tree over the slots: node 1 the earliest; times by leaf. */
    uint32_t *winners;
    uint64_t *next_ns;
    uint32_t leaves;
    uint64_t seen_watched, seen_worked_ns;
    uint64_t owed_ns;          /* the host's own work that has not had a CPU yet */
    struct fpr_vcpus *current; /* whose turn it is, NULL: nobody's */
    /* host_cpus.c */
    uint32_t idle_cpus;
    struct fpr_waiter queue; /* after: the first */
};

/* vm_clock.c: a VM's vCPUs have changed. */
void fpr_clock_update(struct fpr_vm_clock *clock, uint32_t slot);

/* host_cpus.c. A vCPU is about to do something: FPR_OK, it may; FPR_EMPTY, it does not yet, and its
 * key has changed; FPR_LATER, other VMs come first. */
int fpr_want_host_cpu(struct fpr_vcpus *v, uint32_t index, uint64_t now_ns);
/* A vCPU has nothing to do from then on. */
void fpr_leave_host_cpu(struct fpr_cpu *cpu, uint64_t from_ns);
/* A VM goes: nothing of it waits or holds anything. */
void fpr_drop_host_cpus(struct fpr_vcpus *v, uint64_t now_ns);
/* CPU time that somebody takes for whom nobody waits. */
void fpr_host_worked(struct fpr_vm_clock *clock, uint64_t cost_ns);
void fpr_start_work(struct fpr_vm_clock *clock, struct fpr_work *work, uint64_t now_ns);
/* It is done, or given up. */
void fpr_end_work(struct fpr_vm_clock *clock, struct fpr_work *work, uint64_t now_ns);
/* What is owed queues up. */
void fpr_pay_work(struct fpr_vm_clock *clock, uint64_t now_ns);

#endif
