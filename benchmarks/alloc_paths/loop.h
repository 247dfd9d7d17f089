/* SPDX-License-Identifier: MIT */
/* One loop for every way to an allocator: replaces random ones of 1000 live blocks of 1 to 1024
 * bytes. Whoever includes it defines TAKE(size) and GIVE(block, size). With EMPTY the loop does
 * everything but that, so that the difference is the allocator with the call of it. */
#include <stddef.h>
#include <stdint.h>

enum { LIVE = 1000, SIZE_MAX_BITS = 10 };

#ifndef PAIRS
#define PAIRS 100000
#endif

struct live {
    void *block;
    size_t size;
};

static uint64_t replace(struct live *live, uint64_t pairs)
{
    uint64_t seed = 88172645463325252u;
    for (uint64_t pair = 0; pair < pairs; pair++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        struct live *one = &live[((seed >> 40) * LIVE) >> 24];
        size_t size = 1 + (seed >> 20) % (1 << SIZE_MAX_BITS);
#ifdef EMPTY
        one->block = (void *)(uintptr_t)(seed | 1);
#else
        GIVE(one->block, one->size);
        one->block = TAKE(size);
#endif
        one->size = size;
    }
    return seed;
}
