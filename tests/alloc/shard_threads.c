/* SPDX-License-Identifier: MIT */
/* Threads that allocate through faces of their own and free each other's blocks: every thread
 * keeps a table of blocks, and exchanges some of them with a table that all share. Generations of
 * threads come and go meanwhile, and with them faces. In the end everything must be free and sound,
 * and all memory in as few pieces as the faces leave: a face stays where it was made, which is in
 * the middle of the heap if its thread came late, so no size can be expected of the largest one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component COMPONENT;

enum { THREADS = 4, OWN = 200, SHARED = 512 };

static struct kit_alloc *first;
static _Atomic(uint64_t *) shared[SHARED];
static int rounds, generations;

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* A block says its own size and address at both ends. */
static uint64_t *make(struct kit_alloc *face, uint64_t *random)
{
    static const size_t most[] = {64, 300, 2000, 2000, 300, 64, 64, 40000};
    size_t words = 2 + next_random(random) % most[next_random(random) % 8] / 8;
    uint64_t *block = kit_alloc_alloc(face, words * 8, 0);
    if (!block)
        return NULL;
    block[0] = words;
    block[words - 1] = (uint64_t)(uintptr_t)block;
    return block;
}

static void drop(struct kit_alloc *face, uint64_t *block, bool sized)
{
    if (!block)
        return;
    size_t words = block[0];
    if (block[words - 1] != (uint64_t)(uintptr_t)block) {
        fprintf(stderr, "a block was overwritten\n");
        exit(3);
    }
    kit_alloc_free(face, block, sized ? words * 8 : KIT_ALLOC_UNKNOWN, 0);
}

static void *work(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument, *own[OWN] = {0};
    struct kit_alloc *face;
    if (kit_alloc_attach(first, &face) != 0)
        exit(4);
    for (int round = 0; round < rounds; round++) {
        size_t at = next_random(&random) % OWN;
        drop(face, own[at], round & 1);
        own[at] = make(face, &random);
        if (next_random(&random) % 4 == 0)
            own[at] = atomic_exchange(&shared[next_random(&random) % SHARED], own[at]);
        if (next_random(&random) % 5000 == 0)
            kit_alloc_tick(face);
        if (next_random(&random) % 5000 == 0) {
            struct kit_alloc_stats stats;
            kit_alloc_stats(face, &stats);
        }
    }
    for (size_t i = 0; i < OWN; i++)
        drop(face, own[i], true);
    kit_alloc_detach(face);
    return NULL;
}

struct pieces {
    size_t count, bytes, largest;
};

static int add_piece(void *argument, void *block, size_t size, bool used)
{
    struct pieces *pieces = argument;
    (void)block;
    pieces->count++;
    pieces->bytes += size;
    pieces->largest = size > pieces->largest ? size : pieces->largest;
    return used; /* ends the walk */
}

static int verdict(size_t capacity)
{
    struct pieces pieces = {0};
    struct kit_alloc_stats stats;
    for (size_t i = 0; i < SHARED; i++)
        drop(first, atomic_exchange(&shared[i], NULL), true);
    if (kit_alloc_check(first) != 0)
        return fprintf(stderr, "corrupt\n"), 5;
    kit_alloc_trim(first, 0);
    kit_alloc_stats(first, &stats);
    int stopped = kit_alloc_walk(first, add_piece, &pieces);
    printf("%llu allocations, %zu of %zu bytes in one of %zu pieces\n",
           (unsigned long long)stats.allocations, pieces.largest, capacity, pieces.count);
    if (stats.used || stats.blocks || stats.allocations != stats.frees || stats.failures)
        return fprintf(stderr, "%zu blocks, %zu bytes\n", stats.blocks, stats.used), 6;
    bool whole = !stopped && pieces.bytes == stats.capacity && pieces.count <= THREADS + 1 &&
                 stats.largest_free <= pieces.largest && stats.capacity <= capacity;
    return whole ? 0 : 7;
}

int main(int argc, char **argv)
{
    size_t size = (size_t)64 << 20;
    char *memory = malloc(size);
    uint64_t options[16] = {0};
    struct kit_alloc_stats stats;
    options[1] = argc == 4; /* hardened */
    if (argc < 3 || !memory || COMPONENT.open(options, memory, size, &first) != 0)
        return 2;
    rounds = atoi(argv[1]);
    generations = atoi(argv[2]);
    kit_alloc_stats(first, &stats);
    for (int generation = 0; generation < generations; generation++) {
        pthread_t threads[THREADS];
        for (uintptr_t i = 0; i < THREADS; i++)
            if (pthread_create(&threads[i], NULL, work, (void *)(i + 1 + 10 * generation)) != 0)
                return 2;
        for (uintptr_t i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    int result = verdict(stats.capacity);
    free(memory);
    return result;
}
