/* SPDX-License-Identifier: MIT */
/* glibc-thread: a working set of 1024 blocks per thread, a random one replaced each time by one of
 * a random size from 4 to 32768 with density 1 / size^2, written in full.
 *
 *   working THREADS OPERATIONS */
#include "pattern.h"

enum { LIVE = 1024, SIZES = 8000, PLACES = 4 * LIVE, SMALLEST = 4, LARGEST = 32768 };

static uint32_t sizes[SIZES], places[PLACES]; /* drawn once, so that drawing costs no time */
static size_t operations;

static void draw(void)
{
    uint64_t rng = random_seed(88);
    for (int n = 0; n < SIZES; n++) {
        double u = (double)(random_next(&rng) >> 11) * 0x1p-53;
        sizes[n] = (uint32_t)(1.0 / (u / LARGEST + (1 - u) / SMALLEST));
    }
    for (int n = 0; n < PLACES; n++)
        places[n] = random_below(&rng, LIVE);
}

static void *work(void *argument)
{
    unsigned char **live = argument;
    size_t size_at = 0, place_at = 0;
    for (size_t n = 0; n < operations; n++) {
        size_at = size_at + 1 < SIZES ? size_at + 1 : 0;
        place_at = place_at + 1 < PLACES ? place_at + 1 : 0;
        unsigned char **place = &live[places[place_at]];
        size_t size = sizes[size_at];
        free(*place);
        unsigned char *block = must(malloc(size));
        *place = block;
        for (size_t at = 0; at < size; at++)
            block[at] = (unsigned char)at;
    }
    return NULL;
}

int main(int count, char **values)
{
    static unsigned char *live[THREADS_MAX][LIVE];
    size_t threads = argument(count, values, 1, 1);
    operations = argument(count, values, 2, 5000000);
    draw();
    if (threads == 1) /* no second thread at all: allocators may notice */
        work(live[0]);
    else
        in_threads(threads, work, live, sizeof live[0]);
    return 0;
}
