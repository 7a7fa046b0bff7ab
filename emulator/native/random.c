/* xoshiro256** (Blackman and Vigna, public domain algorithm), seeded by splitmix64. */
#include "emulator/native/random.h"

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t value, int bits)
{
    return (value << bits) | (value >> (64 - bits));
}

void fpr_random_seed(struct fpr_random *random, uint64_t seed, uint64_t stream)
{
    uint64_t state = stream;
    state = seed ^ splitmix(&state);
    for (int i = 0; i < 4; i++)
        random->state[i] = splitmix(&state);
}

uint64_t fpr_random_next(struct fpr_random *random)
{
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t fpr_random_below(struct fpr_random *random, uint64_t bound)
{
    /* The high word of a 128-bit product; its bias is below bound / 2^64. */
    return (uint64_t)(((__uint128_t)fpr_random_next(random) * bound) >> 64);
}
