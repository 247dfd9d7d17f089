/* SPDX-License-Identifier: MIT */
/* Bounded model checking of an allocator: every sequence of operations up to a stated length in an
 * arena of a stated size, with every check there is after each step.
 *
 *     exhaustive ARENA OFFSET DEPTH LIVE SIZES ALIGNS RESIZES OPTION...
 *
 * SIZES, ALIGNS and RESIZES are lists joined by commas (or -). A move allocates one of SIZES at one
 * of ALIGNS, frees one of the blocks in use, or resizes one of them to one of RESIZES; at most LIVE
 * blocks are in use at a time.
 *
 * After each move: check() holds; every block lies in the arena, is aligned, overlaps no other and
 * holds what was written to all of its usable bytes; used, blocks and largest_free agree with what
 * was asked for; a refusal was true. From each state reached, freeing everything in rising and in
 * falling order of address must bring the largest free piece back. Memory outside the arena is
 * poisoned (AddressSanitizer) or compared.
 *
 * States are explored depth first. A state is the whole arena, so two sequences that lead to the
 * same bytes are followed once (64-bit hash: with 10^7 states the chance that two differ and are
 * taken for one is 3 in 10^6). Counters of the past (allocations, frees, failures, peak) would make
 * all states differ; their words are found by experiment and set back after each move, which no
 * operation can notice, for none may depend on them. Of a free piece all but the first and last 32
 * bytes is overwritten after each move: what a block held when it was freed is nobody's business,
 * and an allocator that thinks otherwise fails here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/alloc/alloc.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#ifndef COMPONENT
#error "name the component: -DCOMPONENT=kit_alloc_NAME"
#endif
extern const struct kit_alloc_component COMPONENT;

enum { LISTED = 16, LIVE_MAX = 16, DEPTH_MAX = 32, STRIP = 4096, FILL = 0xA5, EDGE = 32 };

struct list {
    size_t count, item[LISTED];
};

struct live {
    uint8_t *block;
    size_t size, align, usable;
};

struct move {
    enum { ALLOC, FREE, RESIZE } kind;
    size_t index, size, align;
};

struct state {
    size_t count;
    struct live live[LIVE_MAX]; /* by address */
};

struct entry {
    uint64_t hash;
    uint8_t depth; /* moves that were tried from there, plus 1; 0: empty */
};

static uint8_t *memory, *arena; /* strip, arena, strip */
static size_t arena_size, live_max, fresh_largest;
static struct list sizes, aligns, resizes;
static struct kit_alloc *a;
static struct state now;
static uint8_t *saved[DEPTH_MAX];
static struct state saved_state[DEPTH_MAX];
static struct move path[DEPTH_MAX];
static size_t path_length;
static struct entry *table;
static size_t table_size = 1 << 16, table_used;
static uint64_t moves, states, refusals;
static size_t counter_at[4]; /* offset in the arena plus 1; 0: not found */
enum { ALLOCATIONS, FREES, FAILURES, PEAK };

static void fail(const char *what)
{
    printf("FAILED: %s\n", what);
    for (size_t i = 0; i < path_length; i++) {
        const struct move *m = &path[i];
        static const char *const names[] = {"alloc", "free", "resize"};
        printf("  %s", names[m->kind]);
        if (m->kind != ALLOC)
            printf(" block %zu", m->index);
        if (m->kind != FREE)
            printf(" size %zu", m->size);
        if (m->kind == ALLOC)
            printf(" align %zu", m->align);
        printf("\n");
    }
    exit(1);
}

#define MUST(condition, what)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail(what);                                                                            \
    } while (0)

/* ---- what every state must keep -------------------------------------------------------------- */

static uint8_t pattern(const struct live *l, size_t at)
{
    return (uint8_t)((size_t)(l->block - arena) * 31 + l->size * 7 + at * 13 + 1);
}

static void fill(struct live *l)
{
    l->usable = kit_alloc_usable_size(a, l->block, l->size);
    MUST(l->usable >= l->size, "usable_size is less than was asked for");
    MUST(l->block >= arena && l->usable <= (size_t)(arena + arena_size - l->block),
         "a block leaves the arena");
    MUST((uintptr_t)l->block % (l->align ? l->align : KIT_ALLOC_ALIGN_MIN) == 0 &&
             (uintptr_t)l->block % KIT_ALLOC_ALIGN_MIN == 0,
         "a block is not aligned");
    for (size_t i = 0; i < l->usable; i++)
        l->block[i] = pattern(l, i);
}

static void verify_contents(const struct live *l, size_t count)
{
    for (size_t i = 0; i < count; i++)
        MUST(l->block[i] == pattern(l, i), "the contents of a block changed");
}

static void verify(void)
{
    struct kit_alloc_stats stats;
    MUST(kit_alloc_check(a) == 0, "check() finds the heap corrupt");
    size_t usable = 0;
    for (size_t i = 0; i < now.count; i++) {
        const struct live *l = &now.live[i];
        verify_contents(l, l->usable);
        MUST(i == 0 || now.live[i - 1].block + now.live[i - 1].usable <= l->block,
             "two blocks overlap");
        usable += l->usable;
    }
    kit_alloc_stats(a, &stats);
    MUST(stats.blocks == now.count, "stats count other blocks than are in use");
    MUST(stats.used >= usable && stats.used <= stats.capacity, "stats.used is out of its limits");
    MUST(stats.used <= stats.peak, "more is used than at the peak");
}

static void insert(struct live l)
{
    size_t at = now.count++;
    while (at > 0 && now.live[at - 1].block > l.block) {
        now.live[at] = now.live[at - 1];
        at--;
    }
    now.live[at] = l;
}

static struct live extract(size_t index)
{
    struct live l = now.live[index];
    now.count--;
    memmove(&now.live[index], &now.live[index + 1], (now.count - index) * sizeof l);
    return l;
}

static void refused(size_t size, size_t align)
{
    struct kit_alloc_stats stats;
    kit_alloc_stats(a, &stats);
    refusals++;
    MUST(align > KIT_ALLOC_ALIGN_MIN || (size ? size : 1) > stats.largest_free,
         "a request was refused that largest_free promises");
}

/* ---- moves ----------------------------------------------------------------------------------- */

static void do_alloc(size_t size, size_t align)
{
    struct live l = {kit_alloc_alloc(a, size, align), size, align, 0};
    if (l.block == NULL) {
        refused(size, align);
        return;
    }
    fill(&l);
    insert(l);
}

static void do_free(size_t index)
{
    struct live l = extract(index);
    memset(l.block, FILL, l.usable);
    kit_alloc_free(a, l.block, l.size, l.align);
}

static void do_resize(size_t index, size_t size)
{
    struct live before = extract(index), after = before;
    size_t kept = before.size < size ? before.size : size;
    after.block = kit_alloc_realloc(a, before.block, before.size, size, before.align);
    after.size = size;
    if (after.block == NULL) {
        verify_contents(&before, before.usable);
        insert(before);
        return;
    }
    for (size_t i = 0; i < kept; i++)
        MUST(after.block[i] == pattern(&before, i), "realloc lost what the block held");
    fill(&after);
    insert(after);
}

static void play(struct move m)
{
    moves++;
    if (m.kind == ALLOC)
        do_alloc(m.size, m.align);
    else if (m.kind == FREE)
        do_free(m.index);
    else
        do_resize(m.index, m.size);
    verify();
}

/* ---- states ------------------------------------------------------------------------------------
 */

static void set_counter(int which, uint64_t value)
{
    if (counter_at[which])
        memcpy(arena + counter_at[which] - 1, &value, sizeof value);
}

static int scrub(void *argument, void *block, size_t size, bool used)
{
    (void)argument;
    if (!used && size > 2 * EDGE)
        memset((uint8_t *)block + EDGE, FILL, size - 2 * EDGE);
    return 0;
}

/* Takes the past out of the state. */
static void forget(void)
{
    struct kit_alloc_stats stats;
    if (COMPONENT.features & KIT_ALLOC_WALK)
        kit_alloc_walk(a, scrub, NULL);
    kit_alloc_stats(a, &stats);
    set_counter(ALLOCATIONS, stats.blocks);
    set_counter(FREES, 0);
    set_counter(FAILURES, 0);
    set_counter(PEAK, stats.used);
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *at = data;
    uint64_t word;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    for (; size; size--)
        hash = (hash ^ *at++) * UINT64_C(0x100000001B3);
    return hash;
}

static struct entry *slot(uint64_t hash)
{
    size_t at = hash & (table_size - 1);
    while (table[at].depth && table[at].hash != hash)
        at = (at + 1) & (table_size - 1);
    return &table[at];
}

static void grow(void)
{
    struct entry *old = table;
    size_t old_size = table_size;
    table_size *= 2;
    table = calloc(table_size, sizeof *table);
    MUST(table != NULL, "no memory for the table of states");
    for (size_t i = 0; i < old_size; i++)
        if (old[i].depth)
            *slot(old[i].hash) = old[i];
    free(old);
}

/* Whether this state was not yet explored so deep. */
static bool is_new(size_t depth)
{
    uint64_t hash = hash_bytes(now.count, arena, arena_size);
    for (size_t i = 0; i < now.count; i++) {
        const size_t key[] = {(size_t)(now.live[i].block - arena), now.live[i].size,
                              now.live[i].align};
        hash = hash_bytes(hash, key, sizeof key);
    }
    struct entry *entry = slot(hash);
    if (entry->depth > depth)
        return false;
    states += entry->depth == 0;
    table_used += entry->depth == 0;
    *entry = (struct entry){hash, (uint8_t)(depth + 1)};
    if (table_used * 2 > table_size)
        grow();
    return true;
}

static void save(size_t level)
{
    memcpy(saved[level], arena, arena_size);
    saved_state[level] = now;
}

static void restore(size_t level)
{
    memcpy(arena, saved[level], arena_size);
    now = saved_state[level];
}

/* Frees all blocks, from the lowest or from the highest on, and looks at what there is then. */
static void drain(size_t level, bool from_the_top)
{
    struct kit_alloc_stats stats;
    while (now.count) {
        do_free(from_the_top ? now.count - 1 : 0);
        MUST(kit_alloc_check(a) == 0, "check() finds the heap corrupt while all is freed");
    }
    kit_alloc_stats(a, &stats);
    MUST(stats.blocks == 0, "all is freed and blocks are in use");
    if (COMPONENT.features & KIT_ALLOC_REUSES) {
        MUST(stats.used == 0, "all is freed and memory is in use");
        MUST(stats.largest_free >= fresh_largest,
             "all is freed and the largest piece is smaller than at the start");
    }
    restore(level);
}

static void explore(size_t depth);

static void follow(struct move m, size_t level, size_t depth)
{
    path[path_length++] = m;
    play(m);
    forget();
    if (is_new(depth - 1))
        explore(depth - 1);
    path_length--;
    restore(level);
}

static void explore(size_t depth)
{
    size_t level = path_length;
    save(level);
    drain(level, false);
    drain(level, true);
    if (depth == 0)
        return;
    for (size_t i = 0; i < now.count; i++) {
        follow((struct move){FREE, i, 0, 0}, level, depth);
        for (size_t r = 0; r < resizes.count; r++)
            follow((struct move){RESIZE, i, resizes.item[r], 0}, level, depth);
    }
    if (now.count < live_max)
        for (size_t s = 0; s < sizes.count; s++)
            for (size_t g = 0; g < aligns.count; g++)
                follow((struct move){ALLOC, 0, sizes.item[s], aligns.item[g]}, level, depth);
}

/* ---- counters -------------------------------------------------------------------------------- */

static uint64_t counter(int which)
{
    struct kit_alloc_stats stats;
    kit_alloc_stats(a, &stats);
    return which == ALLOCATIONS ? stats.allocations
           : which == FREES     ? stats.frees
           : which == FAILURES  ? stats.failures
                                : stats.peak;
}

/* Changes all four counters, each to a number of its own. */
static void stir(size_t round)
{
    void *blocks[3];
    for (size_t i = 0; i < 1009 + round; i++)
        kit_alloc_free(a, kit_alloc_alloc(a, 1, 0), 1, 0);
    for (size_t i = 0; i < 353 + 2 * round; i++)
        kit_alloc_alloc(a, SIZE_MAX / 2, 0);
    for (size_t i = 0; i < 3; i++) {
        blocks[i] = kit_alloc_alloc(a, 1 + 16 * round, 0);
        MUST(blocks[i] != NULL, "the arena is too small for three small blocks");
    }
    kit_alloc_free(a, blocks[1], 1 + 16 * round, 0);
}

static void open_arena(const uint64_t *options)
{
    memset(arena, FILL, arena_size);
    int result = COMPONENT.open(options, arena, arena_size, &a);
    MUST(result == 0, "open() refuses the arena: give more memory");
}

/* Finds the words that hold the counters: those which follow them through three rounds. */
static void find_counters(const uint64_t *options)
{
    for (int which = 0; which < 4; which++) {
        size_t found = 0, count = 0;
        for (size_t at = (8 - (uintptr_t)arena % 8) % 8; at + 8 <= arena_size; at += 8) {
            bool same = true;
            open_arena(options);
            for (size_t round = 1; round <= 3 && same; round++) {
                uint64_t word;
                if (COMPONENT.features & KIT_ALLOC_REUSES)
                    stir(round);
                memcpy(&word, arena + at, sizeof word);
                same = word == counter(which) && word > 0;
            }
            if (same) {
                found = at + 1;
                count++;
            }
            if (at > 2048) /* the state of an allocator stands at the beginning */
                break;
        }
        counter_at[which] = count == 1 ? found : 0;
    }
}

/* ---- main ------------------------------------------------------------------------------------ */

static struct list parse(char *text)
{
    struct list list = {0};
    if (strcmp(text, "-") == 0)
        return list;
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ","))
        if (list.count < LISTED)
            list.item[list.count++] = strtoull(word, NULL, 0);
    return list;
}

int main(int argc, char **argv)
{
    uint64_t options[LISTED] = {0};
    if (argc < 8) {
        fprintf(stderr,
                "usage: exhaustive ARENA OFFSET DEPTH LIVE SIZES ALIGNS RESIZES OPTION...\n");
        return 2;
    }
    arena_size = strtoull(argv[1], NULL, 0);
    size_t offset = strtoull(argv[2], NULL, 0), depth = strtoull(argv[3], NULL, 0);
    live_max = strtoull(argv[4], NULL, 0);
    sizes = parse(argv[5]), aligns = parse(argv[6]), resizes = parse(argv[7]);
    for (int i = 8; i < argc && i - 8 < LISTED; i++)
        options[i - 8] = strtoull(argv[i], NULL, 0);
    if (depth >= DEPTH_MAX || live_max > LIVE_MAX) {
        fprintf(stderr, "exhaustive: at most %d moves and %d blocks\n", DEPTH_MAX - 1, LIVE_MAX);
        return 2;
    }
    size_t whole = (arena_size + offset + 2 * STRIP + 4095) / 4096 * 4096;
    memory = aligned_alloc(4096, whole);
    table = calloc(table_size, sizeof *table);
    for (size_t i = 0; i <= depth; i++)
        saved[i] = malloc(arena_size);
    arena = memory + STRIP + offset;
    memset(memory, FILL, whole);
    ASAN_POISON_MEMORY_REGION(memory, STRIP + offset / 8 * 8);
    ASAN_POISON_MEMORY_REGION(arena + arena_size, (size_t)(memory + whole - arena) - arena_size);
    find_counters(options);
    struct kit_alloc_stats stats;
    open_arena(options);
    kit_alloc_stats(a, &stats);
    fresh_largest = stats.largest_free;
    for (size_t limit = 1; limit <= depth;
         limit++) { /* so that the first failure is the shortest */
        is_new(limit);
        explore(limit);
    }
#if !defined(__SANITIZE_ADDRESS__)
    for (uint8_t *at = memory; at < memory + whole; at++)
        if (at < arena || at >= arena + arena_size)
            MUST(*at == FILL, "memory outside the arena was written");
#endif
    printf("%s: depth %zu, %llu states, %llu moves, %llu refusals, counters %d%d%d%d\n",
           COMPONENT.id, depth, (unsigned long long)states, (unsigned long long)moves,
           (unsigned long long)refusals, counter_at[0] > 0, counter_at[1] > 0, counter_at[2] > 0,
           counter_at[3] > 0);
    for (size_t i = 0; i <= depth; i++)
        free(saved[i]);
    free(table);
    return 0;
}
