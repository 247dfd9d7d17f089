/* Threads at gates, for ThreadSanitizer: a lock around tlsf, faces of shard; threads come and go,
 * free each other's blocks, ask for statistics, fork, and outlive the gate. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <unikit/alloc/host_gate.h>

extern const struct kit_alloc_component kit_alloc_shard, kit_alloc_tlsf;

enum { THREADS = 4, TURNS = 20000, SLOTS = 64, LIVES = 5 };

static struct kit_alloc *gate;
static _Atomic(void *) slots[SLOTS];
static pthread_barrier_t barrier;

/* Sizes are kept in the blocks: whoever takes one from a slot frees it. */
static void *work(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    for (int turn = 0; turn < TURNS; turn++) {
        seed = seed * 1103515245 + 12345;
        size_t size = 16 + seed / 65536 % 2000;
        size_t *block = kit_alloc_alloc(gate, size, 16);
        if (block)
            *block = size;
        block = atomic_exchange(&slots[seed / 7 % SLOTS], block);
        if (block)
            kit_alloc_free(gate, block, *block, 16);
        if (turn % 1000 == 0) {
            struct kit_alloc_stats stats;
            kit_alloc_stats(gate, &stats);
        }
    }
    return NULL;
}

static void *linger(void *argument)
{
    (void)argument;
    kit_alloc_free(gate, kit_alloc_alloc(gate, 100, 0), 100, 0);
    pthread_barrier_wait(&barrier); /* it has a face */
    pthread_barrier_wait(&barrier); /* the gate is gone */
    return NULL;
}

static int forked(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        kit_alloc_free(gate, kit_alloc_alloc(gate, 1000, 0), 1000, 0);
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

static int run(const struct kit_alloc_component *component, int kind, int forks)
{
    const uint64_t options[32] = {0};
    const size_t size = 64 << 20;
    void *memory = malloc(size);
    struct kit_alloc *inner;
    pthread_t threads[THREADS + 1];
    if (component->open(options, memory, size, &inner) != 0 ||
        kit_gate_new(inner, kind, NULL, &gate) != 0)
        return 1;
    for (int life = 0; life < LIVES; life++) {
        for (uintptr_t i = 0; i < THREADS; i++)
            pthread_create(&threads[i], NULL, work, (void *)(i + 1));
        for (int i = 0; i < forks; i++)
            if (forked() != 0)
                return 2;
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        if (kit_alloc_check(gate) != 0)
            return 3;
    }
    for (int i = 0; i < SLOTS; i++) {
        size_t *block = atomic_exchange(&slots[i], NULL);
        if (block)
            kit_alloc_free(gate, block, *block, 16);
    }
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&threads[THREADS], NULL, linger, NULL);
    pthread_barrier_wait(&barrier);
    struct kit_alloc_stats stats;
    kit_alloc_stats(gate, &stats);
    kit_gate_delete(gate);
    pthread_barrier_wait(&barrier);
    pthread_join(threads[THREADS], NULL);
    free(memory);
    return stats.blocks == 0 ? 0 : 4;
}

int main(int count, char **arguments)
{
    int forks = count > 1 ? atoi(arguments[1]) : 0;
    int rc = run(&kit_alloc_tlsf, KIT_GATE_LOCK, forks);
    if (rc == 0)
        rc = 10 * run(&kit_alloc_shard, KIT_GATE_FACES, forks);
    printf("%d\n", rc);
    return rc;
}
