/* The memory port: all that a guest knows of what backs its memory. */
#ifndef FPR_MEMORY_PORT_H
#define FPR_MEMORY_PORT_H

#include <stdint.h>

/* vCPU `vcpu` touches `count` frames from `pfn` on at virtual time `now_ns`. The cost of the host
 * faults that this takes goes to *cost_ns, in nanoseconds: 0 where all of it is resident. Returns
 * an fpr_status. */
typedef int (*fpr_touch_fn)(void *host, uint64_t pfn, uint64_t count, int write, uint64_t now_ns,
                            uint32_t vcpu, uint64_t *cost_ns);

/* The guest has just freed `count` frames from `pfn` on. No real guest says so: the bound of all
 * reporting policies does. Returns an fpr_status. */
typedef int (*fpr_release_fn)(void *host, uint64_t pfn, uint64_t count, uint64_t now_ns);

struct fpr_memory_port {
    void *host;
    fpr_touch_fn touch;
    fpr_release_fn release; /* NULL: the host is not told */
};

#endif
