/* SPDX-License-Identifier: MIT */
/* Cycles of every single allocation and free, with what the machine adds taken away.
 *
 * 50,000 blocks live; 500,000 times a random one is freed and a new one allocated, each of both
 * timed by the TSC. The same sequence is replayed from the same start eleven times, and of each
 * operation the fastest counts: an interrupt or a preemption does not hit it every time, its own
 * slow path does. The cost of reading the clock is within the figures, and printed as «empty».
 *
 * A replay of malloc and free is a fork of a process that has not allocated yet, so that the heap
 * grows anew; a component bound directly is opened anew in its pool.
 *
 *   latency uniform|log         sizes 1 to 1024 evenly; 8 to 8192, every doubling as frequent */
#include <math.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "subject.h"

enum { LIVE = 50000, STEPS = 500000, REPLAYS = 11, POOL = 512 << 20 };

struct step {
    uint32_t slot, size;
};

/* What is measured, in memory that all forks share: the least cycles of each operation so far. */
struct cycles {
    uint32_t alloc[STEPS], free[STEPS], empty[STEPS];
};

static struct step fill[LIVE], steps[STEPS];
static void *blocks[LIVE];
static uint32_t sizes[LIVE];

static uint32_t pick_size(uint64_t *rng, int evenly)
{
    if (evenly)
        return 1 + random_below(rng, 1024);
    return (uint32_t)exp2(3 + (double)(random_next(rng) >> 11) * 0x1p-53 * 10);
}

static void draw(int evenly)
{
    uint64_t rng = random_seed(50000);
    for (uint32_t n = 0; n < LIVE; n++)
        fill[n] = (struct step){n, pick_size(&rng, evenly)};
    for (uint32_t n = 0; n < STEPS; n++)
        steps[n] = (struct step){random_below(&rng, LIVE), pick_size(&rng, evenly)};
}

/* Serialised on both sides: nothing of what is timed is executed before or after. */
static inline uint64_t before(void)
{
    _mm_lfence();
    uint64_t now = __rdtsc();
    _mm_lfence();
    return now;
}

static inline uint64_t after(void)
{
    unsigned cpu;
    uint64_t now = __rdtscp(&cpu);
    _mm_lfence();
    return now;
}

static inline void keep_least(uint32_t *least, uint64_t cycles)
{
    if (cycles < *least)
        *least = (uint32_t)cycles;
}

static void replay(struct cycles *cycles)
{
    for (uint32_t n = 0; n < LIVE; n++) {
        sizes[n] = fill[n].size;
        *(volatile char *)(blocks[n] = must(ask(fill[n].size))) = 1;
    }
    for (uint32_t n = 0; n < STEPS; n++) {
        uint32_t slot = steps[n].slot;
        uint64_t start = before();
        keep_least(&cycles->empty[n], after() - start);
        (*(volatile char *)blocks[slot])++; /* a program has just used what it frees */
        start = before();
        give(blocks[slot], sizes[slot]);
        uint64_t freed = after();
        keep_least(&cycles->free[n], freed - start);
        start = before();
        void *block = ask(steps[n].size);
        uint64_t allocated = after();
        keep_least(&cycles->alloc[n], allocated - start);
        *(volatile char *)must(block) = 1;
        blocks[slot] = block;
        sizes[slot] = steps[n].size;
    }
}

#ifdef KIT_SOLE_ALLOC
static void replay_all(struct cycles *cycles)
{
    void *pool = subject_pool(POOL);
    for (int n = 0; n < REPLAYS; n++) {
        subject_open(pool, POOL);
        replay(cycles);
    }
}
#else
static void replay_all(struct cycles *cycles)
{
    for (int n = 0; n < REPLAYS; n++) {
        int status;
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (!child) {
            replay(cycles);
            _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status)
            fail("a replay failed");
    }
}
#endif

static int by_value(const void *left, const void *right)
{
    uint32_t one = *(const uint32_t *)left, two = *(const uint32_t *)right;
    return (one > two) - (one < two);
}

static void print(const char *name, uint32_t values[STEPS])
{
    static const double shares[] = {0.5, 0.99, 0.999, 0.9999, 1};
    qsort(values, STEPS, sizeof values[0], by_value);
    printf("\"%s\": [", name);
    for (size_t n = 0; n < sizeof shares / sizeof shares[0]; n++) {
        size_t at = (size_t)(shares[n] * STEPS);
        printf("%s%u", n ? ", " : "", values[at < STEPS ? at : STEPS - 1]);
    }
    printf("]");
}

int main(int count, char **values)
{
    struct cycles *cycles =
        mmap(NULL, sizeof *cycles, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (cycles == MAP_FAILED)
        fail("no memory");
    memset(cycles, 0xff, sizeof *cycles);
    draw(count < 2 || !strcmp(values[1], "uniform"));
    replay_all(cycles);
    printf("{");
    print("malloc", cycles->alloc);
    printf(", ");
    print("free", cycles->free);
    printf(", ");
    print("empty", cycles->empty);
    printf("}\n");
    return 0;
}
