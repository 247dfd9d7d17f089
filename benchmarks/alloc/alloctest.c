/* SPDX-License-Identifier: MIT */
/* alloc-test: slots hit with a Pareto law, each hit frees what is there or allocates.
 *
 * Six times 80/20: a fifth of the slots gets four fifths of the hits, and so on inside of it. Sizes
 * up to 1 KiB, each doubling half as frequent as the one before; blocks are written and read in
 * full, by way of new and delete. Work happens in threads other than the first even if there is one
 * only.
 *
 *   alloctest THREADS OPERATIONS */
#include "operators.h"
#include "pattern.h"

enum { SLOTS = 1 << 18, LEVELS = 6, SIZE_BITS = 7 };

struct slot {
    unsigned char *block;
    uint32_t size;
};

struct worker {
    size_t slots;
    size_t operations;
    uint64_t sum;
};

/* Level k of the law: hit with probability upto[k] - upto[k - 1], slots first[k] ... */
struct pareto {
    uint32_t upto[LEVELS + 1];
    uint32_t first[LEVELS + 2];
};

static void pareto_init(struct pareto *law, size_t slots)
{
    double hits = 1, share = 1, hit_sum = 0, share_sum = 0;
    for (int k = 0; k < LEVELS; k++) {
        hits *= 0.8;
        share *= 0.2;
    }
    for (int k = 0; k <= LEVELS; k++) {
        hit_sum += hits;
        law->upto[k] = k == LEVELS ? UINT32_MAX : (uint32_t)(hit_sum * UINT32_MAX);
        law->first[k] = (uint32_t)(share_sum * (double)slots);
        share_sum += share;
        /* the next term of both binomial expansions of (0.8 + 0.2) ^ LEVELS */
        hits *= 0.2 / 0.8 * (LEVELS - k) / (k + 1);
        share *= 0.8 / 0.2 * (LEVELS - k) / (k + 1);
    }
    law->first[LEVELS + 1] = (uint32_t)slots;
}

static uint32_t pareto_pick(const struct pareto *law, uint64_t *rng)
{
    uint64_t r = random_next(rng);
    uint32_t chance = (uint32_t)(r >> 32);
    int k = 0;
    while (chance > law->upto[k])
        k++;
    return law->first[k] + (uint32_t)r % (law->first[k + 1] - law->first[k]);
}

/* 2^(n+2) < size <= 2^(n+3) with probability 2^-(n+1) */
static uint32_t pick_size(uint64_t *rng)
{
    uint64_t r = random_next(rng) >> 16;
    uint32_t doublings = (uint32_t)__builtin_ctz(((uint32_t)r & ((1U << SIZE_BITS) - 1)) + 1) + 2;
    return ((uint32_t)(r >> SIZE_BITS) & ((1U << doublings) - 1)) + 1 + (1U << doublings);
}

static void fill(struct slot *slot, uint64_t *rng)
{
    slot->size = pick_size(rng);
    slot->block = new_block(slot->size);
    memset(slot->block, (int)(slot->size & 255), slot->size);
}

static uint64_t empty(struct slot *slot)
{
    uint64_t sum = 0, word;
    uint32_t at = 0;
    for (; at + sizeof word <= slot->size; at += (uint32_t)sizeof word) {
        memcpy(&word, slot->block + at, sizeof word);
        sum += word;
    }
    for (; at < slot->size; at++)
        sum += slot->block[at];
    delete_block(slot->block);
    slot->block = NULL;
    return sum;
}

static void *work(void *argument)
{
    struct worker *me = argument;
    uint64_t rng = random_seed(41);
    struct slot *slots = must(malloc(me->slots * sizeof *slots));
    struct pareto law;
    memset(slots, 0, me->slots * sizeof *slots);
    pareto_init(&law, me->slots);
    for (size_t n = 0; n < me->slots; n++)
        if (random_next(&rng) >> 63)
            fill(&slots[n], &rng);
    for (size_t n = 0; n < me->operations; n++) {
        struct slot *slot = &slots[pareto_pick(&law, &rng)];
        if (slot->block)
            me->sum += empty(slot);
        else
            fill(slot, &rng);
    }
    for (size_t n = 0; n < me->slots; n++)
        if (slots[n].block)
            me->sum += empty(&slots[n]);
    free(slots);
    return NULL;
}

int main(int count, char **values)
{
    size_t threads = argument(count, values, 1, 1);
    struct worker workers[THREADS_MAX] = {0};
    for (size_t n = 0; n < threads && n < THREADS_MAX; n++)
        workers[n] = (struct worker){.slots = SLOTS / threads,
                                     .operations = argument(count, values, 2, 4000000)};
    in_threads(threads, work, workers, sizeof workers[0]);
    return workers[0].sum == 0;
}
