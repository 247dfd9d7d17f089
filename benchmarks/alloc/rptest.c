/* SPDX-License-Identifier: MIT */
/* rptest: each thread has a table of blocks and in turn frees some and replaces others, in
 * scattered order; every other turn it allocates as many again for another thread, which frees
 * them.
 *
 * Sizes 8 to 16000, the density falling linearly; two of three blocks below a page come by memalign
 * and are written in full, the rest by calloc.
 *
 *   rptest THREADS TURNS BLOCKS OPERATIONS */
#include <malloc.h>
#include <stdatomic.h>
#include <time.h>

#include "pattern.h"

enum { SIZES = 2000, SMALLEST = 8, LARGEST = 16000, PAGE = 4096, CROSS_RATE = 2 };

struct parcel {
    struct parcel *next;
    size_t count;
    void **blocks;
};

struct worker {
    _Atomic(struct parcel *) inbox;
    size_t number;
};

static struct worker workers[THREADS_MAX];
static size_t threads, turns, table_size, operations;
static uint32_t sizes[SIZES];
static atomic_size_t sending; /* threads that may still send */

static void draw(void)
{
    uint64_t rng = random_seed(16000);
    for (int n = 0; n < SIZES; n++) {
        double first = random_below(&rng, 100000) / 100000.0;
        double second = random_below(&rng, 100000) / 100000.0, share = 1 - first - second;
        share = (share < 0 ? -share : share) * random_below(&rng, 100000) / 100000.0;
        sizes[n] = SMALLEST + (uint32_t)(share * (LARGEST - SMALLEST));
    }
}

/* The n-th block: by alignment 0, 8, 16 in turn while it is below a page. */
static void *make(size_t n, size_t size)
{
    static const size_t alignments[] = {0, 8, 16};
    size_t align = size < PAGE ? alignments[n % 3] : 0;
    char *block = must(align ? memalign(align, size) : calloc(1, size));
    if (align)
        memset(block, 0xcd, size);
    for (size_t at = PAGE; at < size; at += PAGE)
        block[at] = 1;
    block[0] = 1;
    block[size - 1] = 1;
    return block;
}

static void drop_all(struct parcel *parcel)
{
    while (parcel) {
        struct parcel *next = parcel->next;
        for (size_t n = 0; n < parcel->count; n++)
            free(parcel->blocks[n]);
        free(parcel->blocks);
        free(parcel);
        parcel = next;
    }
}

static void send(struct worker *to, struct parcel *parcel)
{
    parcel->next = atomic_load(&to->inbox);
    while (!atomic_compare_exchange_weak(&to->inbox, &parcel->next, parcel))
        ;
}

static struct parcel *pack(size_t count, size_t *size_at)
{
    struct parcel *parcel = must(memalign(16, sizeof *parcel));
    parcel->count = count;
    parcel->blocks = must(memalign(16, count * sizeof(void *)));
    for (size_t n = 0; n < count; n++, ++*size_at)
        parcel->blocks[n] = make(*size_at + n, sizes[*size_at % SIZES]);
    return parcel;
}

static void *work(void *argument)
{
    struct worker *me = argument;
    uint64_t rng = random_seed(me->number);
    void **table = must(calloc(table_size, sizeof *table));
    size_t size_at = (me->number + 1) * 37, free_at = 0, make_at = 0, to = me->number;
    for (size_t turn = 0; turn < turns; turn++) {
        struct parcel *gifts = atomic_exchange(&me->inbox, NULL);
        size_t frees = random_below(&rng, (uint32_t)(operations * 8 / 10));
        size_t makes = random_below(&rng, (uint32_t)operations) + 1;
        for (size_t n = 0; n < frees; n++, free_at = (free_at + 7) % table_size) {
            free(table[free_at]);
            table[free_at] = NULL;
        }
        drop_all(gifts);
        for (size_t n = 0; n < makes; n++, size_at++, make_at = (make_at + 3) % table_size) {
            free(table[make_at]);
            table[make_at] = make(size_at + n, sizes[size_at % SIZES]);
        }
        if (threads > 1 && turn % CROSS_RATE == 0) {
            do
                to = (to + 1) % threads;
            while (to == me->number);
            send(&workers[to], pack(makes, &size_at));
        }
    }
    atomic_fetch_sub(&sending, 1);
    do {
        drop_all(atomic_exchange(&me->inbox, NULL));
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    } while (atomic_load(&sending));
    drop_all(atomic_exchange(&me->inbox, NULL));
    for (size_t n = 0; n < table_size; n++)
        free(table[n]);
    free(table);
    return NULL;
}

int main(int count, char **values)
{
    threads = argument(count, values, 1, 2);
    turns = argument(count, values, 2, 20000);
    table_size = argument(count, values, 3, 1000);
    operations = argument(count, values, 4, 100);
    if (threads > THREADS_MAX)
        fail("too many threads");
    draw();
    for (size_t n = 0; n < threads; n++)
        workers[n].number = n;
    atomic_store(&sending, threads);
    in_threads(threads, work, workers, sizeof workers[0]);
    return 0;
}
