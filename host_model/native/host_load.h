/* What the VMs of a host share whatever its memory: the bandwidth with which pages are cleared.
 * Huge faults of all VMs get in each other's way; small ones spend their time under the locks of
 * their own VM's process. */
#ifndef FPR_HOST_LOAD_H
#define FPR_HOST_LOAD_H

#include <stdint.h>

struct fpr_host_load; /* opaque */

/* Room for so many vCPUs, of all VMs that ever come. FPR_BAD_ARGUMENT: none; FPR_HOST_MEMORY. VMs
 * leave before it is destroyed. */
int fpr_host_load_create(uint32_t vcpus, struct fpr_host_load **out);
void fpr_host_load_destroy(struct fpr_host_load *load);
/* vCPUs that are in a fault at now_ns, which is no earlier than in any call before. Not a status.
 */
uint32_t fpr_host_load_faulting(struct fpr_host_load *load, uint64_t now_ns);
/* One more is, from the last now_ns on. FPR_FULL: more than there is room for. */
int fpr_host_load_fault(struct fpr_host_load *load, uint64_t until_ns);

#endif
