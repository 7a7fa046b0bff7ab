/* Loops for the benchmarks: one crossing from Python for many operations. */
#ifndef FPR_BENCH_H
#define FPR_BENCH_H

#include <stdint.h>

#include "emulator/native/random.h"
#include "guest_model/native/allocator.h"

/* Allocate one block and free it, `pairs` times, on CPU 0. */
int fpr_bench_pairs(struct fpr_allocator *allocator, uint32_t order, uint32_t type, uint64_t pairs);
/* `operations` on random slots: a full one is freed, an empty one allocated with a random order up
 * to max_order and a random type. slots: pfn << 8 | order << 1 | 1 of each held block, else 0; all
 * are freed at the end. */
int fpr_bench_mixed(struct fpr_allocator *allocator, struct fpr_random *random, uint32_t max_order,
                    uint64_t operations, uint64_t *slots, uint64_t slot_count);

#endif
