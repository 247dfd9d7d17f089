/* SPDX-License-Identifier: MIT */
/* larson: a server. Each thread replaces random blocks of its share, and when it has done so often
 * enough hands the share to a new thread and ends: blocks outlive their threads.
 *
 *   larson THREADS LIVES SMALLEST LARGEST BLOCKS OPERATIONS
 *
 * BLOCKS per share, OPERATIONS per life of a thread, LIVES per share. */
#include "operators.h"
#include "pattern.h"

enum { WARM = 4, WORK = 8 };

struct share {
    char **blocks;
    size_t count;
    size_t operations;
    size_t lives;
    uint32_t smallest, range;
    uint64_t rng;
    pthread_mutex_t lock; /* lives == 0 is told through it */
    pthread_cond_t ended;
};

static char *one(struct share *share)
{
    size_t size = share->smallest + random_below(&share->rng, share->range);
    volatile char *block = new_block(size);
    block[0] = 'l';
    block[1] = block[0];
    return (char *)block;
}

static void replace(struct share *share, size_t operations)
{
    for (size_t n = 0; n < operations; n++) {
        for (int work = 0; work < WORK; work++) /* what a server does besides */
            (void)random_next(&share->rng);
        char **victim = &share->blocks[random_below(&share->rng, (uint32_t)share->count)];
        delete_block(*victim);
        *victim = one(share);
    }
}

static void start(struct share *share);

static void *live(void *argument)
{
    struct share *share = argument;
    replace(share, share->operations);
    if (--share->lives) {
        start(share);
    } else {
        pthread_mutex_lock(&share->lock);
        pthread_cond_signal(&share->ended);
        share->count = 0;
        pthread_mutex_unlock(&share->lock);
    }
    return NULL;
}

static void start(struct share *share)
{
    pthread_t thread;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &detached, live, share))
        fail("no thread");
    pthread_attr_destroy(&detached);
}

/* The blocks of all shares come from the first thread, shuffled and replaced a few times over. */
static void warm_up(struct share *all)
{
    for (size_t n = 0; n < all->count; n++)
        all->blocks[n] = one(all);
    for (size_t n = all->count; n > 1; n--) {
        size_t other = random_below(&all->rng, (uint32_t)n);
        char *moved = all->blocks[other];
        all->blocks[other] = all->blocks[n - 1];
        all->blocks[n - 1] = moved;
    }
    replace(all, WARM * all->count);
}

int main(int count, char **values)
{
    size_t threads = argument(count, values, 1, 1), blocks = argument(count, values, 5, 5000);
    uint32_t smallest = (uint32_t)argument(count, values, 3, 8);
    uint32_t largest = (uint32_t)argument(count, values, 4, 1000);
    static struct share shares[THREADS_MAX];
    static char *all[THREADS_MAX * 100000];
    if (threads > THREADS_MAX || threads * blocks > sizeof all / sizeof all[0])
        fail("too many");
    struct share first = {.blocks = all,
                          .count = threads * blocks,
                          .smallest = smallest,
                          .range = largest - smallest,
                          .rng = random_seed(4141)};
    warm_up(&first);
    for (size_t n = 0; n < threads; n++) {
        shares[n] = (struct share){.blocks = all + n * blocks,
                                   .count = blocks,
                                   .operations = argument(count, values, 6, 500000),
                                   .lives = argument(count, values, 2, 4),
                                   .smallest = smallest,
                                   .range = largest - smallest,
                                   .rng = random_seed(n),
                                   .lock = PTHREAD_MUTEX_INITIALIZER,
                                   .ended = PTHREAD_COND_INITIALIZER};
        start(&shares[n]);
    }
    for (size_t n = 0; n < threads; n++) {
        pthread_mutex_lock(&shares[n].lock);
        while (shares[n].count)
            pthread_cond_wait(&shares[n].ended, &shares[n].lock);
        pthread_mutex_unlock(&shares[n].lock);
    }
    return 0;
}
