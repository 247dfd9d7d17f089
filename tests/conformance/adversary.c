/* SPDX-License-Identifier: MIT */
/* Programs that are as bad for an allocator as is known, against what its bounds() promises.
 *
 *     adversary memory LIVE LARGEST OVERHEAD [OPTION...]   extents against the promised memory
 *     adversary count OPERATIONS SIZE [OPTION...]          most instructions of one operation
 *
 * The memory that the formula says is given to the component, and no request may be refused. What
 * is measured is the extent: from the first byte of the memory to the end of the highest block
 * ever. Sequences: the program of Robson's lower bound («Bounds for some functions concerning
 * dynamic storage allocation», JACM 21(3), 1974), for any allocator; ladders, which keep as few
 * blocks as leave no hole of the next size, in steps of a factor, for fits without powers of two;
 * random replacement. Instructions are counted by single steps: the trap flag, in this very
 * process. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <unikit/testing/suite.h>

#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component COMPONENT;

struct block {
    char *start;
    size_t size;
};

struct game {
    struct kit_alloc *a;
    char *memory;
    struct block *blocks;
    size_t count, live, most, extent;
    size_t overhead; /* bytes that a block has beside its size */
    bool half;       /* ask for little more than half of a power of two */
    uint64_t random;
};

static void fail(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(3);
}

/* ---- counting ------------------------------------------------------------------------------- */

static volatile sig_atomic_t counting;
static volatile uint64_t steps;
static uint64_t most_alloc, most_free, empty;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    ucontext_t *state = context;
    if (counting)
        steps++;
    else
        state->uc_mcontext.gregs[REG_EFL] &= ~0x100;
}

static void step_on(void)
{
    steps = 0;
    counting = 1;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
}

static uint64_t step_off(void)
{
    counting = 0; /* the next trap ends it */
    __asm__ volatile("nop; nop" ::: "memory");
    return steps - empty;
}

/* ---- moves ---------------------------------------------------------------------------------- */

static size_t counted(size_t size)
{
    return size ? (size + 15) & ~(size_t)15 : 16;
}

static bool game_take(struct game *g, size_t size, size_t align, bool stepping)
{
    if (g->live + counted(size) > g->most)
        return false;
    if (stepping)
        step_on();
    char *start = kit_alloc_alloc(g->a, size, align);
    if (stepping) {
        uint64_t found = step_off();
        most_alloc = most_alloc > found ? most_alloc : found;
    }
    if (!start) {
        if (!stepping)
            fail("refused within the promised memory");
        return false;
    }
    g->blocks[g->count++] = (struct block){start, size};
    g->live += counted(size);
    size_t end = (size_t)(start + size - g->memory);
    g->extent = g->extent > end ? g->extent : end;
    return true;
}

static void game_drop(struct game *g, size_t index, bool stepping)
{
    struct block block = g->blocks[index];
    g->live -= counted(block.size);
    if (stepping)
        step_on();
    kit_alloc_free(g->a, block.start, block.size, 0);
    if (stepping) {
        uint64_t found = step_off();
        most_free = most_free > found ? most_free : found;
    }
    g->blocks[index] = g->blocks[--g->count];
}

static int by_address(const void *one, const void *other)
{
    const struct block *a = one, *b = other;
    return (a->start > b->start) - (a->start < b->start);
}

/* Frees the blocks whose mark is zero; keeps the order. */
static void game_sweep(struct game *g, const char *keep)
{
    size_t kept = 0;
    for (size_t i = 0; i < g->count; i++) {
        struct block block = g->blocks[i];
        if (keep[i]) {
            g->blocks[kept++] = block;
            continue;
        }
        g->live -= counted(block.size);
        kit_alloc_free(g->a, block.start, block.size, 0);
    }
    g->count = kept;
}

/* ---- sequences ------------------------------------------------------------------------------ */

/* The request that a block of `size` bytes, a power of two, answers; and the other way round. */
static size_t request_of(const struct game *g, size_t size)
{
    return (g->half ? size / 2 + 1 : size) - g->overhead;
}

static size_t whole_of(const struct game *g, size_t request)
{
    size_t size = request + g->overhead, whole = 32;
    while (whole < size)
        whole *= 2;
    return g->half ? whole : size;
}

/* Whether a block has a byte at `offset` modulo `step` from the memory's start on. */
static bool occupies(const struct game *g, const struct block *block, size_t offset, size_t step)
{
    size_t at = (size_t)(block->start - g->memory);
    size_t next = at + (offset + step - at % step) % step;
    return next < at + whole_of(g, block->size);
}

static void robson(struct game *g, size_t largest)
{
    size_t unit = 32, offset = 0;
    char *keep = malloc(g->most / 16 + 1);
    for (size_t size = unit; request_of(g, size) <= largest; size *= 2) {
        if (size > unit) {
            size_t lost[2] = {0, 0};
            for (int i = 0; i < 2; i++)
                for (size_t b = 0; b < g->count; b++)
                    if (occupies(g, &g->blocks[b], offset + (size_t)i * size / 2, size))
                        lost[i] += size - whole_of(g, g->blocks[b].size);
            offset += lost[1] > lost[0] ? size / 2 : 0;
            for (size_t b = 0; b < g->count; b++)
                keep[b] = occupies(g, &g->blocks[b], offset, size);
            game_sweep(g, keep);
        }
        while (game_take(g, request_of(g, size), 0, false))
            ;
    }
    free(keep);
}

/* Sizes grow by `percent`; before each step as few blocks stay as leave no hole of that size. */
static void ladder(struct game *g, size_t largest, size_t percent)
{
    char *keep = malloc(g->most / 16 + 1);
    for (size_t size = 32; size - g->overhead <= largest;) {
        qsort(g->blocks, g->count, sizeof *g->blocks, by_address);
        char *end = g->memory;
        for (size_t b = 0; b < g->count; b++) {
            const struct block *block = &g->blocks[b];
            const char *next = b + 1 < g->count ? block[1].start : g->memory + g->extent;
            keep[b] = next - end >= (ptrdiff_t)size;
            if (keep[b])
                end = block->start + block->size;
        }
        game_sweep(g, keep);
        while (game_take(g, size - g->overhead, 0, false))
            ;
        size_t next = (size * percent / 100 + 15) & ~(size_t)15;
        size = next > size ? next : size + 16;
    }
    free(keep);
}

static void replace(struct game *g, size_t largest, size_t operations, bool stepping)
{
    unsigned bits = 0;
    while ((size_t)2 << bits <= largest)
        bits++;
    for (size_t i = 0; i < operations; i++) {
        uint64_t random = kit_suite_random(&g->random);
        size_t size = ((size_t)1 << (random >> 8) % (bits + 1)) + (random >> 20 & 63) * 3;
        size_t align = stepping && (random >> 40) % 8 == 0 ? (size_t)1 << (random >> 44) % 13 : 0;
        size = size > largest ? largest : size;
        if ((random & 1 && g->count) || !game_take(g, size, align, stepping))
            if (g->count)
                game_drop(g, (size_t)(random >> 32) % g->count, stepping);
    }
}

static void clear(struct game *g)
{
    while (g->count)
        game_drop(g, g->count - 1, false);
    g->extent = 0;
}

/* ---- the two modes -------------------------------------------------------------------------- */

static void open_game(struct game *g, const uint64_t *options, size_t size)
{
    char *map = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        fail("no such memory");
    g->memory = map + 4096 - 16; /* not better aligned than promised */
    g->blocks = malloc((g->most / 16 + 2) * sizeof *g->blocks);
    if (COMPONENT.open(options, g->memory, size, &g->a) != 0)
        fail("does not open");
}

static int measure_memory(char **argv, const uint64_t *options)
{
    size_t live = strtoull(argv[2], NULL, 0), largest = strtoull(argv[3], NULL, 0);
    struct kit_alloc_bounds bounds;
    COMPONENT.bounds(options, live, largest, &bounds);
    if (!bounds.memory)
        fail("promises nothing");
    static const char *const names[] = {"robson",     "robson half", "ladder 200", "ladder 150",
                                        "ladder 107", "ladder 103",  "random"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct game g = {.most = live, .overhead = strtoull(argv[4], NULL, 0), .random = 1};
        open_game(&g, options, bounds.memory);
        g.half = i == 1;
        if (i < 2)
            robson(&g, largest);
        else if (i + 1 < sizeof names / sizeof *names)
            ladder(&g, largest, strtoull(names[i] + 7, NULL, 10));
        else
            replace(&g, largest, 200000, false);
        printf("%s: %zu of %zu\n", names[i], g.extent, bounds.memory);
        if (kit_alloc_check(g.a) != 0)
            fail("corrupt");
    }
    return 0;
}

static int measure_count(char **argv, const uint64_t *options)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    step_on();
    empty = step_off();
    size_t operations = strtoull(argv[2], NULL, 0), size = strtoull(argv[3], NULL, 0);
    struct game g = {.most = size / 2, .random = 7};
    open_game(&g, options, size);
    replace(&g, 60000, operations, true); /* until it is fragmented */
    while (g.count > 1)
        game_drop(&g, g.count - 1, false);
    for (size_t part = 2; part < size / 64; part *= 2) { /* the deepest splits and joins */
        g.most = SIZE_MAX / 2;
        if (game_take(&g, size / part - size / 64 - 64, 0, true) && game_take(&g, 1, 0, true)) {
            game_drop(&g, g.count - 2, true);
            game_take(&g, 1, 0, true);
            game_drop(&g, g.count - 1, true);
        }
        clear(&g);
    }
    struct kit_alloc_bounds bounds;
    COMPONENT.bounds(options, 1, 1, &bounds);
    printf("alloc: %llu of %llu\nfree: %llu of %llu\n", (unsigned long long)most_alloc,
           (unsigned long long)bounds.alloc_instructions, (unsigned long long)most_free,
           (unsigned long long)bounds.free_instructions);
    return most_alloc > bounds.alloc_instructions || most_free > bounds.free_instructions;
}

int main(int argc, char **argv)
{
    bool memory = argc > 4 && strcmp(argv[1], "memory") == 0;
    if (argc < 4 || !COMPONENT.bounds)
        return 2;
    uint64_t options[16] = {0};
    for (int i = memory ? 5 : 4, n = 0; i < argc && n < 16; i++, n++)
        options[n] = strtoull(argv[i], NULL, 0);
    return memory ? measure_memory(argv, options) : measure_count(argv, options);
}
