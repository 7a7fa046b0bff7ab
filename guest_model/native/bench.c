#include "guest_model/native/bench.h"

#include "emulator/native/status.h"

int fpr_bench_pairs(struct fpr_allocator *allocator, uint32_t order, uint32_t type, uint64_t pairs)
{
    uint64_t pfn;
    int status = FPR_OK;

    while (pairs-- && !status) {
        status = fpr_alloc(allocator, 0, order, type, 0, &pfn);
        if (!status)
            status = fpr_free(allocator, 0, pfn, order, 0);
    }
    return status;
}

int fpr_bench_mixed(struct fpr_allocator *allocator, struct fpr_random *random, uint32_t max_order,
                    uint64_t operations, uint64_t *slots, uint64_t slot_count)
{
    int status = FPR_OK;

    for (uint64_t i = 0; i < operations + slot_count && !status; i++) {
        uint64_t *slot =
            &slots[i < operations ? fpr_random_below(random, slot_count) : i - operations];
        uint32_t order;

        if (*slot) {
            status = fpr_free(allocator, 0, *slot >> 8, *slot >> 1 & 127, 0);
            *slot = 0;
        } else if (i < operations) {
            uint64_t bits = fpr_random_next(random), pfn;

            order = (uint32_t)(bits % (max_order + 1));
            status = fpr_alloc(allocator, 0, order, (uint32_t)(bits >> 32) % 3, 0, &pfn);
            *slot = pfn << 8 | order << 1 | 1;
        }
    }
    return status;
}
