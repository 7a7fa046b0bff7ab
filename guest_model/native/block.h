/* A block of free memory as it travels between the allocator, a reporting policy and the driver. */
#ifndef FPR_BLOCK_H
#define FPR_BLOCK_H

#include <stdint.h>

struct fpr_block {
    uint64_t pfn;
    uint32_t order;
    uint32_t type; /* list it was taken from */
};

#endif
