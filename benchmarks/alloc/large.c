/* SPDX-License-Identifier: MIT */
/* malloc-large: twenty buffers of 5 to 25 MiB, a random one replaced each time by a new one that is
 * cleared. The new one is there before the old one is freed.
 *
 *   large REPLACEMENTS */
#include "pattern.h"

enum { BUFFERS = 20, MIB = 1 << 20, SMALLEST = 5 * MIB, LARGEST = 25 * MIB };

int main(int count, char **values)
{
    char *buffers[BUFFERS] = {0};
    uint64_t rng = random_seed(42);
    for (size_t n = argument(count, values, 1, 500); n > 0; n--) {
        char **place = &buffers[random_below(&rng, BUFFERS)];
        size_t size = SMALLEST + random_below(&rng, LARGEST - SMALLEST + 1);
        char *fresh = must(malloc(size));
        /* cleared by hand, and without the compiler making a calloc of it, which would spare the
         * allocators that map anew */
        __asm__ volatile("" : "+r"(fresh));
        memset(fresh, 0, size);
        __asm__ volatile("" ::"r"(fresh) : "memory");
        free(*place);
        *place = fresh;
    }
    for (int n = 0; n < BUFFERS; n++)
        free(buffers[n]);
    return 0;
}
