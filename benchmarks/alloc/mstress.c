/* SPDX-License-Identifier: MIT */
/* mstress: threads allocate at random, keep some, free some, and exchange some with the others
 * through a shared table; all threads but the first are new in each round, and half of the table
 * survives it.
 *
 * Sizes in words: 1 to 16, of those that are kept 1 to 64, of both one in 50 a hundred times as
 * large, few of these ten or a hundred times more. Every word is written, and checked on free.
 *
 *   mstress THREADS SCALE ROUNDS */
#include <stdatomic.h>

#include "pattern.h"

enum { TABLE = 1000, SMALL_SHIFTS = 5, KEPT_SHIFTS = 7, GROWTH = 100000 };

static const uint64_t MASK = UINT64_C(0x5bd1e9955bd1e995);
static _Atomic(uint64_t *) table[TABLE];
static size_t scale;

/* True in n + 1 of 100 cases. */
static int chance(uint64_t *rng, uint32_t n)
{
    return random_below(rng, 100) <= n;
}

static uint64_t *make(uint64_t *rng, uint32_t shifts)
{
    size_t words = (size_t)1 << random_below(rng, shifts);
    if (chance(rng, 1)) {
        if (chance(rng, 0))
            words *= 10000;
        else if (chance(rng, 4))
            words *= 1000;
        else
            words *= 100;
    }
    uint64_t *block = must(malloc(words * sizeof *block));
    for (size_t n = 0; n < words; n++)
        block[n] = (words - n) ^ MASK;
    return block;
}

static void drop(uint64_t *block)
{
    if (block) {
        uint64_t words = block[0] ^ MASK;
        for (uint64_t n = 0; n < words; n++)
            if ((block[n] ^ MASK) != words - n)
                fail("a block was overwritten");
    }
    free(block);
}

struct stock {
    uint64_t **blocks;
    size_t count, room;
};

static void add(struct stock *stock, uint64_t *block)
{
    if (stock->count == stock->room) {
        stock->room += GROWTH;
        stock->blocks = must(realloc(stock->blocks, stock->room * sizeof(uint64_t *)));
    }
    stock->blocks[stock->count++] = block;
}

static void *stress(void *argument)
{
    size_t me = *(size_t *)argument;
    uint64_t rng = random_seed(me);
    size_t to_make = 100 * scale * (me % 8 + 1), to_keep = to_make / 2, kept_count = 0;
    uint64_t **kept = must(malloc(to_keep * sizeof *kept));
    struct stock stock = {0};
    while (to_make || to_keep) {
        if (!to_keep || (to_make && chance(&rng, 50))) {
            to_make--;
            add(&stock, make(&rng, SMALL_SHIFTS));
        } else {
            to_keep--;
            kept[kept_count++] = make(&rng, KEPT_SHIFTS);
        }
        if (chance(&rng, 66) && stock.count) {
            uint64_t **victim = &stock.blocks[random_below(&rng, (uint32_t)stock.count)];
            drop(*victim);
            *victim = NULL;
        }
        if (chance(&rng, 25) && stock.count) {
            uint64_t **mine = &stock.blocks[random_below(&rng, (uint32_t)stock.count)];
            *mine = atomic_exchange(&table[random_below(&rng, TABLE)], *mine);
        }
    }
    for (size_t n = 0; n < kept_count; n++)
        drop(kept[n]);
    for (size_t n = 0; n < stock.count; n++)
        drop(stock.blocks[n]);
    free(kept);
    free(stock.blocks);
    return NULL;
}

static void one_round(size_t threads)
{
    pthread_t others[THREADS_MAX];
    size_t numbers[THREADS_MAX] = {0};
    for (size_t n = 1; n < threads; n++) {
        numbers[n] = n;
        if (pthread_create(&others[n], NULL, stress, &numbers[n]))
            fail("no thread");
    }
    stress(&numbers[0]);
    for (size_t n = 1; n < threads; n++)
        pthread_join(others[n], NULL);
}

int main(int count, char **values)
{
    size_t threads = argument(count, values, 1, 1);
    uint64_t rng = random_seed(1849);
    scale = argument(count, values, 2, 50);
    if (threads > THREADS_MAX)
        fail("too many threads");
    for (size_t rounds = argument(count, values, 3, 25); rounds > 0; rounds--) {
        one_round(threads);
        for (int n = 0; n < TABLE; n++)
            if (rounds == 1 || chance(&rng, 50))
                drop(atomic_exchange(&table[n], NULL));
    }
    return 0;
}
