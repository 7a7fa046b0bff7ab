#include "host_model/native/host_load.h"

#include <stdlib.h>

#include "emulator/native/status.h"

/* A heap of the instants at which faults end, the earliest first. */
struct fpr_host_load {
    uint32_t vcpus, faulting;
    uint64_t until_ns[];
};

int fpr_host_load_create(uint32_t vcpus, struct fpr_host_load **out)
{
    *out = NULL;
    if (vcpus == 0)
        return FPR_BAD_ARGUMENT;
    *out = calloc(1, sizeof **out + vcpus * sizeof(*out)->until_ns[0]);
    if (*out == NULL)
        return FPR_HOST_MEMORY;
    (*out)->vcpus = vcpus;
    return FPR_OK;
}

void fpr_host_load_destroy(struct fpr_host_load *load)
{
    free(load);
}

static void take_first(struct fpr_host_load *load)
{
    uint64_t last = load->until_ns[--load->faulting];
    uint32_t at = 0;

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= load->faulting)
            break;
        if (child + 1 < load->faulting && load->until_ns[child + 1] < load->until_ns[child])
            child++;
        if (load->until_ns[child] >= last)
            break;
        load->until_ns[at] = load->until_ns[child];
        at = child;
    }
    load->until_ns[at] = last;
}

uint32_t fpr_host_load_faulting(struct fpr_host_load *load, uint64_t now_ns)
{
    while (load->faulting && load->until_ns[0] <= now_ns)
        take_first(load);
    return load->faulting;
}

int fpr_host_load_fault(struct fpr_host_load *load, uint64_t until_ns)
{
    uint32_t at = load->faulting;

    if (at == load->vcpus)
        return FPR_FULL;
    load->faulting++;
    for (; at && load->until_ns[(at - 1) / 2] > until_ns; at = (at - 1) / 2)
        load->until_ns[at] = load->until_ns[(at - 1) / 2];
    load->until_ns[at] = until_ns;
    return FPR_OK;
}
