/* Seeded random numbers, integers only: the only source of randomness in a run. */
#ifndef FPR_RANDOM_H
#define FPR_RANDOM_H

#include <stdint.h>

struct fpr_random {
    uint64_t state[4];
};

/* `stream` separates independent users of one seed. */
void fpr_random_seed(struct fpr_random *random, uint64_t seed, uint64_t stream);
uint64_t fpr_random_next(struct fpr_random *random);
/* Uniform in [0, bound); bound 0 gives 0. */
uint64_t fpr_random_below(struct fpr_random *random, uint64_t bound);

#endif
