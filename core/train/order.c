/* order.c -- a random order of n things in no memory: a Feistel network on numbers.
 *
 * Four-round networks of random functions are permutations that look random (Luby and
 * Rackoff); six rounds cost nothing here.  The domain is the next even power of two;
 * walking the cycle until the value is below n restricts it to [0,n) and stays a
 * permutation. */
#include "train/train.h"

uint64_t cm_permute(cm_rng r, uint64_t i, uint64_t n) {
    CM_ASSERT(i < n, "cm_permute: %llu is not below %llu", (unsigned long long)i,
              (unsigned long long)n);
    int half = 1;
    while (half < 31 && ((uint64_t)1 << (2 * half)) < n) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t mixed = left ^ (cm_rng_u64(r, round << 32 | right) & mask);
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
