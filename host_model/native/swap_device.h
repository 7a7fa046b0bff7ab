/* The host's swap: where on its device each page lies, and how long the device takes to get there.
 * One request at a time; a request that lies right behind the last one is cheaper, as on a disk
 * whose arm need not move. Private to host_model.
 *
 * Slots are given out as Linux does (v6.1, mm/swapfile.c, scan_swap_map_slots): 256 free ones in a
 * row, one after the other; where there are no such, the next free one. */
#ifndef FPR_SWAP_DEVICE_H
#define FPR_SWAP_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "host_model/native/pressure.h"

#define FPR_SWAP_CLUSTER 256u /* slots (SWAPFILE_CLUSTER) */

struct fpr_swap_device {
    struct fpr_swap_costs costs;
    uint64_t slots;
    uint64_t *used;                   /* a bit a slot */
    uint16_t *cluster_used;           /* used slots of each cluster */
    uint64_t clusters, free_clusters; /* whole ones, in which nothing is used */
    uint64_t next, left; /* the next slot; so many are free from it on, of a cluster taken */
    uint64_t head;       /* the slot behind the last request */
    uint64_t until_ns;   /* busy */
};

/* FPR_HOST_MEMORY. */
int fpr_swap_init(struct fpr_swap_device *device, const struct fpr_swap_costs *costs,
                  uint64_t slots);
void fpr_swap_release(struct fpr_swap_device *device);
/* A free slot, which is used from then on. There must be one. */
uint32_t fpr_swap_take(struct fpr_swap_device *device);
void fpr_swap_give_back(struct fpr_swap_device *device, uint32_t slot);
/* One request that is ready at at_ns: when the device begins with it. Whether it lies right behind
 * the last one goes to *next. */
uint64_t fpr_swap_request(struct fpr_swap_device *device, uint32_t slot, bool write, uint64_t at_ns,
                          bool *next);

#endif
