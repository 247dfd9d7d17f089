/* SPDX-License-Identifier: MIT */
/* Three patterns to count instructions of: so many pairs of an allocation and its free.
 *
 * «hot» frees at once what it allocated; «batch» allocates 256 blocks and frees them in order;
 * «replace» has 1000 blocks of 1 to 1024 bytes live and replaces a random one. The difference of
 * two runs of different length is free of starting and ending; with an asterisk after the name
 * («hot*») everything is done but the calls, which is what is to be subtracted.
 *
 *   instructions PATTERN PAIRS */
#include "subject.h"

enum { SIZE = 64, BATCH = 256, LIVE = 1000, LARGEST = 1024, POOL = 64 << 20 };

static void *blocks[LIVE];
static uint32_t sizes[LIVE];

#ifdef KIT_SOLE_ALLOC
static void *bound_alloc(size_t size)
{
    return ask(size);
}

static void bound_free(void *block, size_t size)
{
    give(block, size);
}

static void idle_free(void *block, size_t size)
{
    (void)block;
    (void)size;
}
#define PUT(block, size) put(block, size)
#else
#define bound_alloc malloc
#define bound_free free
#define PUT(block, size) put(block)

static void idle_free(void *block)
{
    (void)block;
}
#endif

static void *idle_alloc(size_t size)
{
    return (void *)size;
}

/* Called through pointers, so that the call costs the same whoever answers. */
static typeof(bound_alloc) *get;
static typeof(bound_free) *put;

static void hot(size_t pairs)
{
    for (; pairs > 0; pairs--)
        PUT(get(SIZE), SIZE);
}

static void batch(size_t pairs)
{
    for (; pairs >= BATCH; pairs -= BATCH) {
        for (int n = 0; n < BATCH; n++)
            blocks[n] = get(SIZE);
        for (int n = 0; n < BATCH; n++)
            PUT(blocks[n], SIZE);
    }
}

static void replace(size_t pairs)
{
    uint64_t rng = random_seed(1024);
    for (size_t n = 0; n < LIVE + pairs; n++) {
        size_t at = n < LIVE ? n : random_below(&rng, LIVE);
        if (blocks[at])
            PUT(blocks[at], sizes[at]);
        sizes[at] = 1 + random_below(&rng, LARGEST);
        blocks[at] = get(sizes[at]);
    }
}

int main(int count, char **values)
{
    const char *name = count > 1 ? values[1] : "hot";
    size_t pairs = argument(count, values, 2, 1000);
    int idle = strchr(name, '*') != NULL;
    get = idle ? idle_alloc : bound_alloc;
    put = idle ? idle_free : bound_free;
#ifdef KIT_SOLE_ALLOC
    subject_open(subject_pool(POOL), POOL);
#endif
    if (*name == 'h')
        hot(pairs);
    else if (*name == 'b')
        batch(pairs);
    else
        replace(pairs);
    return 0;
}
