/* SPDX-License-Identifier: MIT */
/* mleak10: many short threads, ten at a time. Each allocates one block, puts it in the place of a
 * random other one, frees that, and ends: an allocator that gives each thread a heap of its own
 * must take it back.
 *
 *   mleak ROUNDS */
#include <stdatomic.h>

#include "pattern.h"

enum { AT_ONCE = 10, PLACES = 1000, SIZE = 128 };

static _Atomic(void *) places[PLACES];
static _Atomic uint64_t ticket;

static void *life(void *unused)
{
    uint64_t rng = random_seed(atomic_fetch_add(&ticket, 1));
    (void)unused;
    free(atomic_exchange(&places[random_below(&rng, PLACES)], must(calloc(1, SIZE))));
    return NULL;
}

int main(int count, char **values)
{
    char unused[AT_ONCE];
    for (size_t n = argument(count, values, 1, 500); n > 0; n--)
        in_threads(AT_ONCE, life, unused, 1);
    for (int n = 0; n < PLACES; n++)
        free(places[n]);
    return 0;
}
