/* SPDX-License-Identifier: MIT */
/* What the allocation patterns share: random numbers, arguments, threads, memory that must come.
 *
 * Each program does a fixed amount of work that its arguments and a fixed seed decide, so that
 * CPU time is the figure; it never measures itself. It ends with 0 or says why not. */
#ifndef PATTERN_H
#define PATTERN_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 16 };

/* xorshift64*: the state MUST NOT be 0. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* A number below `limit`, from the upper half, which is the better one. */
static inline uint32_t random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((random_next(state) >> 32) * limit) >> 32);
}

/* A state for the n-th of several independent streams. */
static inline uint64_t random_seed(uint64_t n)
{
    uint64_t state = (n + 1) * UINT64_C(0x9E3779B97F4A7C15);
    (void)random_next(&state);
    return state;
}

static inline void *must(void *block)
{
    if (!block) {
        fputs("out of memory\n", stderr);
        exit(3);
    }
    return block;
}

static inline void fail(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(4);
}

/* The index-th argument as a number, or `fallback` if there is none. */
static inline size_t argument(int count, char **values, int index, size_t fallback)
{
    return index < count ? strtoull(values[index], NULL, 0) : fallback;
}

/* Runs `body` in `count` threads at once, the n-th with the address of the n-th of `items`. */
static inline void in_threads(size_t count, void *(*body)(void *), void *items, size_t item_size)
{
    pthread_t threads[THREADS_MAX];
    if (count > THREADS_MAX)
        fail("too many threads");
    for (size_t n = 0; n < count; n++)
        if (pthread_create(&threads[n], NULL, body, (char *)items + n * item_size))
            fail("no thread");
    for (size_t n = 0; n < count; n++)
        pthread_join(threads[n], NULL);
}

#endif
