/* SPDX-License-Identifier: MIT */
/* cache-scratch and cache-thrash: whether blocks of different threads share cache lines.
 *
 * Each thread allocates a small block, touches it very often, frees it, and again. In «scratch»
 * each first frees a block that the first thread allocated for it, next to those of the others: an
 * allocator that gives it out again keeps two threads in one line. «thrash» has no such gift.
 * As in the programs of these names, when they are optimised, the block itself is written once only
 * and then read: both hardly tell allocators apart.
 *
 *   sharing scratch|thrash THREADS ITERATIONS SIZE WRITES */
#include "pattern.h"

struct worker {
    char *gift;
    size_t iterations, size, writes;
};

static void *work(void *argument)
{
    struct worker me = *(struct worker *)argument;
    free(me.gift);
    for (size_t n = 0; n < me.iterations; n++) {
        char *block = must(malloc(me.size));
        memset(block, 1, me.size);
        for (size_t times = 0; times < me.writes; times++)
            for (size_t at = 0; at < me.size; at++) {
                volatile char seen = block[at];
                seen++;
            }
        free(block);
    }
    return NULL;
}

int main(int count, char **values)
{
    struct worker workers[THREADS_MAX];
    int scratch = count > 1 && !strcmp(values[1], "scratch");
    size_t threads = argument(count, values, 2, 1), size = argument(count, values, 4, 1);
    if (threads > THREADS_MAX)
        fail("too many threads");
    for (size_t n = 0; n < threads; n++)
        workers[n] = (struct worker){.gift = scratch ? must(malloc(size)) : NULL,
                                     .iterations = argument(count, values, 3, 1000),
                                     .size = size,
                                     .writes = argument(count, values, 5, 200000) / threads};
    in_threads(threads, work, workers, sizeof workers[0]);
    return 0;
}
