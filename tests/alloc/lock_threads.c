/* SPDX-License-Identifier: MIT */
/* Threads that use one locked allocator at once and exchange blocks, each of which says its own
 * size and address at both ends; some look at statistics meanwhile. In the end nothing is in use.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component kit_alloc_lock, kit_alloc_tlsf;

enum { THREADS = 4, SHARED = 64, MEMORY = 4 << 20 };

static struct kit_alloc *heap;
static _Atomic(uint64_t *) shared[SHARED];
static int rounds;

static void drop(struct kit_alloc *a, uint64_t *block)
{
    if (block != NULL && block[block[0] - 1] != (uint64_t)(uintptr_t)block) {
        fprintf(stderr, "a block was overwritten\n");
        exit(3);
    }
    if (block != NULL)
        kit_alloc_free(a, block, block[0] * 8, 0);
}

static void *work(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument;
    struct kit_alloc *face;
    if (kit_alloc_attach(heap, &face) != 0)
        exit(4);
    for (int round = 0; round < rounds; round++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t words = 2 + (random >> 40) % 200;
        uint64_t *block = kit_alloc_alloc(face, words * 8, 0);
        if (block == NULL)
            exit(5);
        block[0] = words;
        block[words - 1] = (uint64_t)(uintptr_t)block;
        drop(face, atomic_exchange(&shared[random >> 33 & (SHARED - 1)], block));
        struct kit_alloc_stats stats;
        if (round % 64 == 0)
            kit_alloc_stats(face, &stats);
    }
    kit_alloc_detach(face);
    return NULL;
}

int main(int argc, char **argv)
{
    static char memory[MEMORY];
    const uint64_t none[] = {0};
    const struct kit_alloc_choice choices[] = {{&kit_alloc_lock, none}, {&kit_alloc_tlsf, none}};
    size_t at;
    rounds = argc > 1 ? atoi(argv[1]) : 1000;
    if (kit_alloc_compose(choices, 2, memory, sizeof memory, &heap, &at) != 0)
        return 1;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SHARED; i++)
        drop(heap, shared[i]);
    struct kit_alloc_stats stats;
    kit_alloc_stats(heap, &stats);
    printf("%d blocks %zu bytes, check %d\n", (int)stats.blocks, stats.used, kit_alloc_check(heap));
    return stats.blocks != 0 || stats.used != 0 || kit_alloc_check(heap) != 0 ? 2 : 0;
}
