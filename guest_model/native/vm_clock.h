/* One clock for all VMs of a host. Whoever is earliest goes first (ties: the lower slot), so that
 * the host's memory, its swap and its CPUs see everything in the order of time, and no result
 * depends on how the VMs take turns.
 *
 * What a VM does by itself need not wait: it may run up to `ahead_ns` ahead of the earliest, until
 * a step that another VM could notice (FPR_LATER of the memory port, a CPU of the host).
 *
 * Where the host has `cpus`, a vCPU that has something to do needs one of them, and holds it for
 * `turn_ns` while others wait: one fair queue, in which the host's own work stands as well. */
#ifndef FPR_VM_CLOCK_H
#define FPR_VM_CLOCK_H

#include "guest_model/native/vcpu.h"

#define FPR_CLOCK_MAX_VMS 16384
#define FPR_CLOCK_NO_VM 0xffffffff

struct fpr_vm_clock; /* opaque */

struct fpr_vm_clock_config {
    uint32_t vms;  /* that are there at once */
    uint32_t cpus; /* of the host; 0: as many as are wanted */
    uint64_t turn_ns;
    uint64_t ahead_ns;
    const uint64_t *watched;   /* NULL, or a number whose change stops a run */
    const uint64_t *worked_ns; /* NULL, or CPU time of the host's own, which grows */
};

struct fpr_clock_stop {
    uint32_t vm;   /* FPR_CLOCK_NO_VM: all are at the limit */
    uint32_t work; /* with FPR_STOP_WORK */
    struct fpr_vcpu_stop vcpu;
};

/* FPR_BAD_ARGUMENT: a number is beyond its limit; FPR_HOST_MEMORY. VMs are removed before it is
 * destroyed. */
int fpr_vm_clock_create(const struct fpr_vm_clock_config *config, struct fpr_vm_clock **out);
void fpr_vm_clock_destroy(struct fpr_vm_clock *clock);
/* A VM joins; the clock runs its vCPUs from then on. FPR_FULL; FPR_BAD_ARGUMENT: it has a clock. */
int fpr_vm_clock_add(struct fpr_vm_clock *clock, struct fpr_vcpus *vcpus, uint32_t *slot);
/* It leaves at an instant, in the middle of whatever it does. */
int fpr_vm_clock_remove(struct fpr_vm_clock *clock, uint32_t slot, uint64_t now_ns);
/* The next event of a VM apart from its vCPUs' operations: before it, they run by themselves. What
 * is done to a VM's vCPUs from outside is followed by this. */
int fpr_vm_clock_horizon(struct fpr_vm_clock *clock, uint32_t slot, uint64_t horizon_ns);
/* The host works for a VM for so long, from now_ns or, where it has to wait for a CPU, later on;
 * FPR_STOP_WORK says when it is done. FPR_FULL: more at once than a VM has queues. */
int fpr_vm_clock_work(struct fpr_vm_clock *clock, uint32_t slot, uint64_t now_ns, uint64_t cost_ns,
                      uint32_t *work);
/* Run until everything before limit_ns is done, or Python is needed: FPR_STOP_HORIZON with a VM
 * says that its own next event is the earliest thing on the host. */
int fpr_vm_clock_run(struct fpr_vm_clock *clock, uint64_t limit_ns, struct fpr_clock_stop *stop);

#endif
