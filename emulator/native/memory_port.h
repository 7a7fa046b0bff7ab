/* The memory port: all that a guest knows of what backs its memory. */
#ifndef FPR_MEMORY_PORT_H
#define FPR_MEMORY_PORT_H

#include <stdint.h>

/* Flags of a touch. */
#define FPR_TOUCH_WRITE 1u
/* Others on the host may still do something earlier: what they could notice has to wait. */
#define FPR_TOUCH_AHEAD 2u

/* What a touch takes of its vCPU; both are 0 where all of it is resident. */
struct fpr_touch_cost {
    uint64_t ns;
    uint64_t asleep_ns; /* of it, waiting for a device, which needs no CPU of the host */
};

/* vCPU `vcpu` touches `count` frames from `pfn` on at virtual time `now_ns`. Returns an fpr_status;
 * FPR_LATER, with FPR_TOUCH_AHEAD alone: nothing was done. */
typedef int (*fpr_touch_fn)(void *host, uint64_t pfn, uint64_t count, uint32_t flags,
                            uint64_t now_ns, uint32_t vcpu, struct fpr_touch_cost *cost);

/* The guest has just freed `count` frames from `pfn` on. No real guest says so: the bound of all
 * reporting policies does. Returns an fpr_status. */
typedef int (*fpr_release_fn)(void *host, uint64_t pfn, uint64_t count, uint64_t now_ns);

struct fpr_memory_port {
    void *host;
    fpr_touch_fn touch;
    fpr_release_fn release; /* NULL: the host is not told */
};

#endif
