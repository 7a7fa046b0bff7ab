#include "host_model/native/swap_device.h"

#include <stdlib.h>

#include "emulator/native/status.h"

int fpr_swap_init(struct fpr_swap_device *device, const struct fpr_swap_costs *costs,
                  uint64_t slots)
{
    *device = (struct fpr_swap_device){.costs = *costs, .slots = slots, .head = UINT64_MAX};
    device->clusters = device->free_clusters = slots / FPR_SWAP_CLUSTER;
    device->used = calloc(slots / 64 + 1, sizeof *device->used);
    device->cluster_used = calloc(device->clusters + 1, sizeof *device->cluster_used);
    return device->used && device->cluster_used ? FPR_OK : FPR_HOST_MEMORY;
}

void fpr_swap_release(struct fpr_swap_device *device)
{
    free(device->used);
    free(device->cluster_used);
}

/* Slots of a cluster; those behind the last whole one are a cluster that is never free. */
static uint64_t slots_of(const struct fpr_swap_device *device, uint64_t cluster)
{
    return cluster < device->clusters ? FPR_SWAP_CLUSTER
                                      : device->slots - cluster * FPR_SWAP_CLUSTER;
}

/* The next cluster in which nothing is used, from the one on that `next` lies in. */
static void find_cluster(struct fpr_swap_device *device)
{
    uint64_t at = device->next / FPR_SWAP_CLUSTER;

    for (;; at++) {
        if (at >= device->clusters)
            at = 0;
        if (!device->cluster_used[at])
            break;
    }
    device->next = at * FPR_SWAP_CLUSTER;
    device->left = FPR_SWAP_CLUSTER;
}

/* The next free slot, from `next` on. */
static void find_slot(struct fpr_swap_device *device)
{
    for (;;) {
        uint64_t cluster;

        if (device->next >= device->slots)
            device->next = 0;
        cluster = device->next / FPR_SWAP_CLUSTER;
        if (device->cluster_used[cluster] == slots_of(device, cluster))
            device->next = (cluster + 1) * FPR_SWAP_CLUSTER;
        else if (device->used[device->next / 64] >> device->next % 64 & 1)
            device->next++;
        else
            return;
    }
}

uint32_t fpr_swap_take(struct fpr_swap_device *device)
{
    uint64_t slot, cluster;

    if (!device->left && device->free_clusters)
        find_cluster(device);
    if (!device->left)
        find_slot(device);
    slot = device->next++;
    device->left -= device->left != 0;
    cluster = slot / FPR_SWAP_CLUSTER;
    device->used[slot / 64] |= (uint64_t)1 << slot % 64;
    if (!device->cluster_used[cluster]++ && cluster < device->clusters)
        device->free_clusters--;
    return (uint32_t)slot;
}

void fpr_swap_give_back(struct fpr_swap_device *device, uint32_t slot)
{
    uint64_t cluster = slot / FPR_SWAP_CLUSTER;

    device->used[slot / 64] &= ~((uint64_t)1 << slot % 64);
    if (!--device->cluster_used[cluster] && cluster < device->clusters)
        device->free_clusters++;
}

uint64_t fpr_swap_request(struct fpr_swap_device *device, uint32_t slot, bool write, uint64_t at_ns,
                          bool *next)
{
    const struct fpr_swap_costs *costs = &device->costs;
    uint64_t begin_ns = at_ns > device->until_ns ? at_ns : device->until_ns;

    *next = slot == device->head;
    device->head = (uint64_t)slot + 1;
    if (write)
        device->until_ns = begin_ns + (*next ? costs->write_next_ns : costs->write_ns);
    else
        device->until_ns = begin_ns + (*next ? costs->read_next_ns : costs->read_ns);
    return begin_ns;
}
