/* SPDX-License-Identifier: MIT */
/* sh6like: batches of blocks of one size after the other, small sizes in larger numbers.
 *
 * Sizes grow from 1 to 1000 bytes. The newest half of what is live is freed last in first out
 * whenever the table is full, and in every fourth filling the whole table first in first out.
 *
 *   sh6like THREADS ROUNDS */
#include "pattern.h"

enum { SMALLEST = 1, LARGEST = 1000, STEP = 7, TABLE = 600, PER_SIZE = 12000 };

struct worker {
    size_t rounds;
    size_t live;
    size_t fillings;
    char *table[TABLE];
};

static void spill(struct worker *me)
{
    if (++me->fillings % 4 == 0) {
        for (size_t n = 0; n < me->live; n++)
            free(me->table[n]);
        me->live = 0;
        return;
    }
    for (; me->live > TABLE / 2; me->live--)
        free(me->table[me->live - 1]);
}

static void *work(void *argument)
{
    struct worker *me = argument;
    for (size_t round = 0; round < me->rounds; round++)
        for (size_t size = SMALLEST; size <= LARGEST; size += STEP)
            for (size_t n = PER_SIZE / (size + 15) + 1; n > 0; n--) {
                if (me->live == TABLE)
                    spill(me);
                char *block = must(malloc(size));
                memset(block, 1, size);
                me->table[me->live++] = block;
            }
    for (; me->live > 0; me->live--)
        free(me->table[me->live - 1]);
    return NULL;
}

int main(int count, char **values)
{
    static struct worker workers[THREADS_MAX];
    size_t threads = argument(count, values, 1, 1);
    for (size_t n = 0; n < threads && n < THREADS_MAX; n++)
        workers[n].rounds = argument(count, values, 2, 100);
    in_threads(threads, work, workers, sizeof workers[0]);
    return 0;
}
