/* SPDX-License-Identifier: MIT */
/* Conformance suite for allocators. Each test opens the component anew between two guard strips,
 * keeps a shadow of what was given out, and asks check() after every step. What a component does
 * not claim is not asked of it; what it claims must be there. */
#include <unikit/rt/bits.h>
#include <unikit/testing/suite_alloc.h>

enum { SLOTS = 48, STRIP = 32, STRIP_BYTE = 0xa7, EDGE = 128, SIZE_MIN = 1024 };

struct slot {
    uint8_t *block;
    size_t size, align;
    uint8_t seed;
};

struct suite {
    const struct kit_alloc_component *component;
    const uint64_t *options;
    struct kit_report *report;
    uint8_t *memory; /* all of it, guard strips included */
    size_t size;
    struct kit_alloc *a;
    uint64_t failures; /* NULL answers so far */
    uint64_t random;
    struct slot slots[SLOTS];
};

static bool has(const struct suite *s, uint32_t feature)
{
    return s->component->features & feature;
}

static struct kit_alloc_stats stats_of(const struct suite *s)
{
    struct kit_alloc_stats stats;
    kit_alloc_stats(s->a, &stats);
    return stats;
}

/* ---- opening and guard strips ------------------------------------------------------------- */

/* Opens in memory[STRIP + offset ... end) where everything else is a guard. */
static bool open_part(struct suite *s, size_t offset, size_t size)
{
    memset(s->memory, STRIP_BYTE, s->size);
    memset(s->slots, 0, sizeof s->slots);
    s->a = NULL;
    s->failures = 0;
    int result = s->component->open(s->options, s->memory + STRIP + offset, size, &s->a);
    return KIT_CHECK_EQUAL(s->report, result, 0) && KIT_CHECK(s->report, s->a != NULL);
}

static bool open_fresh(struct suite *s)
{
    return open_part(s, 0, s->size - (size_t)2 * STRIP);
}

static bool is_guard(const uint8_t *from, const uint8_t *to)
{
    while (from < to)
        if (*from++ != STRIP_BYTE)
            return false;
    return true;
}

static void check_guards(struct suite *s, size_t offset, size_t size)
{
    uint8_t *first = s->memory + STRIP + offset;
    KIT_CHECK_SAYS(s->report, is_guard(s->memory, first), "wrote before its memory");
    KIT_CHECK_SAYS(s->report, is_guard(first + size, s->memory + s->size),
                   "wrote behind its memory");
}

static void close_fresh(struct suite *s)
{
    KIT_CHECK_EQUAL(s->report, kit_alloc_check(s->a), 0);
    check_guards(s, 0, s->size - (size_t)2 * STRIP);
}

/* ---- the shadow ---------------------------------------------------------------------------- */

static uint8_t pattern(const struct slot *slot, size_t at)
{
    return (uint8_t)(slot->seed + at * 7 + (at >> 8));
}

/* Writes the first and the last bytes of a block. */
static void paint(struct slot *slot, uint8_t seed)
{
    slot->seed = seed;
    for (size_t i = 0; i < slot->size && i < EDGE; i++)
        slot->block[i] = pattern(slot, i);
    for (size_t i = slot->size > EDGE ? slot->size - EDGE : 0; i < slot->size; i++)
        slot->block[i] = pattern(slot, i);
}

/* Whether the first `size` bytes of a block are still as painted. */
static bool is_painted(const struct slot *slot, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (i == EDGE && slot->size > (size_t)2 * EDGE)
            i = slot->size - EDGE;
        if (i < size && slot->block[i] != pattern(slot, i))
            return false;
    }
    return true;
}

static bool is_apart(const struct suite *s, const struct slot *slot)
{
    for (const struct slot *other = s->slots; other < s->slots + SLOTS; other++)
        if (other != slot && other->block &&
            slot->block < other->block + other->size + !other->size &&
            other->block < slot->block + slot->size + !slot->size)
            return false;
    return true;
}

/* Checks a block that was just given out, and paints it. */
static bool accept(struct suite *s, struct slot *slot)
{
    size_t align = slot->align > KIT_ALLOC_ALIGN_MIN ? slot->align : KIT_ALLOC_ALIGN_MIN;
    bool inside = slot->block >= s->memory + STRIP &&
                  slot->size <= (size_t)(s->memory + s->size - STRIP - slot->block);
    if (!KIT_CHECK_SAYS(s->report, inside, "a block outside the memory") ||
        !KIT_CHECK_SAYS(s->report, (uintptr_t)slot->block % align == 0, "a misaligned block") ||
        !KIT_CHECK_SAYS(s->report, is_apart(s, slot), "two blocks overlap") ||
        !KIT_CHECK(s->report, kit_alloc_usable_size(s->a, slot->block, slot->size) >= slot->size))
        return false;
    paint(slot, (uint8_t)kit_suite_random(&s->random));
    return true;
}

/* Whether the answer NULL is true: there was no room for such a request. */
static void refuse(struct suite *s, size_t size, size_t align)
{
    s->failures++;
    KIT_CHECK_EQUAL(s->report, stats_of(s).failures, s->failures);
    if (align <= KIT_ALLOC_ALIGN_MIN)
        KIT_CHECK_SAYS(s->report, size + !size > stats_of(s).largest_free,
                       "NULL although largest_free promised room");
}

/* Fills an empty slot; false: NULL, or a check failed. */
static bool fill(struct suite *s, struct slot *slot, size_t size, size_t align)
{
    void *block = kit_alloc_alloc(s->a, size, align);
    if (!block) {
        refuse(s, size, align);
        return false;
    }
    *slot = (struct slot){.block = block, .size = size, .align = align};
    return accept(s, slot);
}

static bool drop(struct suite *s, struct slot *slot)
{
    bool kept = KIT_CHECK_SAYS(s->report, is_painted(slot, slot->size), "a block was overwritten");
    kit_alloc_free(s->a, slot->block, slot->size, slot->align);
    slot->block = NULL;
    return kept;
}

static bool resize(struct suite *s, struct slot *slot, size_t size)
{
    bool kept = KIT_CHECK_SAYS(s->report, is_painted(slot, slot->size), "a block was overwritten");
    uint8_t *block = kit_alloc_realloc(s->a, slot->block, slot->size, size, slot->align);
    if (!block) {
        refuse(s, size, slot->align);
        return KIT_CHECK_SAYS(s->report, is_painted(slot, slot->size),
                              "a failed realloc changed the block");
    }
    slot->block = block;
    size_t common = slot->size < size ? slot->size : size;
    kept = KIT_CHECK_SAYS(s->report, is_painted(slot, common), "realloc lost contents") && kept;
    slot->size = size;
    return accept(s, slot) && kept;
}

struct sum {
    size_t blocks, bytes;
};

static struct sum live(const struct suite *s)
{
    struct sum sum = {0};
    for (const struct slot *slot = s->slots; slot < s->slots + SLOTS; slot++)
        if (slot->block) {
            sum.blocks++;
            sum.bytes += slot->size;
        }
    return sum;
}

/* What must hold after every step. */
static bool check_step(struct suite *s)
{
    struct kit_alloc_stats stats = stats_of(s);
    struct sum sum = live(s);
    return KIT_CHECK_EQUAL(s->report, kit_alloc_check(s->a), 0) &&
           KIT_CHECK_EQUAL(s->report, stats.blocks, sum.blocks) &&
           KIT_CHECK_EQUAL(s->report, stats.allocations - stats.frees, sum.blocks) &&
           KIT_CHECK_EQUAL(s->report, stats.failures, s->failures) &&
           KIT_CHECK(s->report, stats.used >= sum.bytes) &&
           KIT_CHECK(s->report, stats.used <= stats.peak) &&
           KIT_CHECK(s->report, stats.peak <= stats.capacity) &&
           KIT_CHECK(s->report, stats.largest_free <= stats.capacity);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void test_claims(struct suite *s)
{
    KIT_TEST(s->report, "features claimed are present, others absent");
    const struct kit_alloc_component *c = s->component;
    KIT_REQUIRE(s->report, c->id != NULL && c->ops != NULL && c->open != NULL);
    KIT_CHECK(s->report, strlen(c->id) > 6 && memcmp(c->id, "alloc.", 6) == 0);
    KIT_CHECK_EQUAL(s->report, c->abi, KIT_ALLOC_ABI);
    const struct kit_alloc_ops *ops = c->ops;
    KIT_REQUIRE(s->report, ops->alloc && ops->free && ops->realloc && ops->usable_size &&
                               ops->stats && ops->check);
    KIT_CHECK(s->report, has(s, KIT_ALLOC_OWNS) == (ops->owns != NULL));
    KIT_CHECK(s->report, has(s, KIT_ALLOC_WALK) == (ops->walk != NULL));
    KIT_CHECK(s->report, has(s, KIT_ALLOC_ADD_REGION) == (ops->add_region != NULL));
    KIT_CHECK(s->report, has(s, KIT_ALLOC_SCOPES) == (ops->mark != NULL));
    KIT_CHECK(s->report, has(s, KIT_ALLOC_SCOPES) == (ops->release != NULL));
}

static void test_small_memory(struct suite *s)
{
    KIT_TEST(s->report, "open refuses memory that is too small, and stays inside it");
    for (size_t size = 0; size < SIZE_MIN; size += size < 64 ? 1 : 13) {
        memset(s->memory, STRIP_BYTE, s->size);
        struct kit_alloc *a = NULL;
        int result = s->component->open(s->options, s->memory + STRIP, size, &a);
        if (result == 0) {
            s->a = a;
            KIT_CHECK(s->report, stats_of(s).capacity <= size);
            kit_alloc_alloc(a, 1, 0);
            KIT_CHECK_EQUAL(s->report, kit_alloc_check(a), 0);
        } else {
            KIT_CHECK_EQUAL(s->report, result, KIT_ENOMEM);
            KIT_CHECK_SAYS(s->report, a == NULL, "a result in spite of failure");
        }
        check_guards(s, 0, size);
    }
}

static void test_fresh(struct suite *s)
{
    KIT_TEST(s->report, "a fresh allocator is empty, at any alignment of its memory");
    for (size_t offset = 0; offset <= 17; offset++) {
        size_t size = s->size - (size_t)2 * STRIP - offset;
        if (!open_part(s, offset, size))
            return;
        struct kit_alloc_stats stats = stats_of(s);
        KIT_CHECK_EQUAL(s->report, stats.used, 0);
        KIT_CHECK_EQUAL(s->report, stats.peak, 0);
        KIT_CHECK(s->report, stats.capacity > 0 && stats.capacity <= size);
        KIT_CHECK(s->report, stats.largest_free > 0);
        if (!check_step(s) || !fill(s, &s->slots[0], stats.largest_free, 0))
            return;
        check_step(s);
        KIT_CHECK(s->report, stats_of(s).peak == stats_of(s).used);
        check_guards(s, offset, size);
    }
}

static void test_alignments(struct suite *s)
{
    KIT_TEST(s->report, "every alignment is kept for every size");
    static const size_t sizes[] = {0, 1, 8, 15, 16, 17, 24, 31, 32, 33, 100, 513, 1000};
    for (size_t align = 0; align <= 4096; align = align ? align * 2 : 1) {
        if (!open_fresh(s))
            return;
        for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++) {
            size_t room = stats_of(s).largest_free;
            bool filled = fill(s, &s->slots[i], sizes[i], align);
            KIT_CHECK_SAYS(s->report, filled || room < sizes[i] + align + 64,
                           "no block of that alignment although there is room");
            if (!check_step(s))
                return;
        }
        for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++)
            if (s->slots[i].block && (!drop(s, &s->slots[i]) || !check_step(s)))
                return;
        close_fresh(s);
    }
}

static void test_zero_size(struct suite *s)
{
    KIT_TEST(s->report, "size 0 gives unique blocks, and free of NULL does nothing");
    if (!open_fresh(s))
        return;
    for (size_t i = 0; i < 4; i++)
        KIT_REQUIRE(s->report, fill(s, &s->slots[i], 0, 0) && check_step(s));
    struct kit_alloc_stats before = stats_of(s);
    kit_alloc_free(s->a, NULL, 0, 0);
    KIT_CHECK_EQUAL(s->report, stats_of(s).frees, before.frees);
    KIT_CHECK_EQUAL(s->report, stats_of(s).used, before.used);
    KIT_REQUIRE(s->report, resize(s, &s->slots[0], 40) && resize(s, &s->slots[0], 0));
    check_step(s);
    close_fresh(s);
}

static void test_usable_size(struct suite *s)
{
    KIT_TEST(s->report, "all of usable_size may be written");
    if (!open_fresh(s))
        return;
    for (size_t i = 0; i < 24; i++) {
        struct slot *slot = &s->slots[i];
        if (!fill(s, slot, i * 5, i % 3 ? 0 : 64))
            break;
        size_t usable = kit_alloc_usable_size(s->a, slot->block, slot->size);
        memset(slot->block + slot->size, 0xff, usable - slot->size);
        KIT_REQUIRE(s->report, check_step(s));
    }
    for (size_t i = 0; i < 24; i++)
        if (s->slots[i].block)
            KIT_REQUIRE(s->report, drop(s, &s->slots[i]) && check_step(s));
    close_fresh(s);
}

static void test_impossible(struct suite *s)
{
    KIT_TEST(s->report, "impossible requests are refused and change nothing");
    static const size_t sizes[] = {SIZE_MAX,         SIZE_MAX - 15,   SIZE_MAX / 2,
                                   SIZE_MAX / 2 + 1, (size_t)1 << 47, (size_t)1 << 45,
                                   SIZE_MAX - 4096};
    if (!open_fresh(s) || !fill(s, &s->slots[0], 100, 0))
        return;
    struct kit_alloc_stats before = stats_of(s);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++) {
        KIT_REQUIRE(s->report, !fill(s, &s->slots[1], sizes[i], 0));
        KIT_REQUIRE(s->report, !fill(s, &s->slots[1], sizes[i], 4096));
        KIT_REQUIRE(s->report, resize(s, &s->slots[0], sizes[i]));
        KIT_REQUIRE(s->report, check_step(s));
    }
    KIT_REQUIRE(s->report, !fill(s, &s->slots[1], before.capacity + 1, 0));
    KIT_CHECK_EQUAL(s->report, stats_of(s).used, before.used);
    KIT_CHECK_EQUAL(s->report, stats_of(s).peak, before.peak);
    KIT_CHECK_EQUAL(s->report, stats_of(s).largest_free, before.largest_free);
    KIT_CHECK_EQUAL(s->report, stats_of(s).allocations, before.allocations);
    drop(s, &s->slots[0]);
    close_fresh(s);
}

/* ---- exhaustion: blocks chained through their own first bytes ------------------------------- */

struct link {
    struct link *next, *self;
};

/* Allocates blocks of `size` until NULL; how many, and the chain. */
static size_t exhaust(struct suite *s, size_t size, struct link **chain)
{
    size_t count = 0;
    struct link *link;
    *chain = NULL;
    while ((link = kit_alloc_alloc(s->a, size, 0))) {
        *link = (struct link){*chain, link};
        *chain = link;
        if (++count > s->size / 16)
            break;
    }
    s->failures++;
    return count;
}

static size_t give_back(struct suite *s, size_t size, struct link *chain)
{
    size_t count = 0;
    while (chain && KIT_CHECK_SAYS(s->report, chain->self == chain, "a block was overwritten")) {
        struct link *next = chain->next;
        kit_alloc_free(s->a, chain, size, 0);
        chain = next;
        count++;
    }
    return count;
}

static void test_exhaustion(struct suite *s)
{
    KIT_TEST(s->report, "exhaustion is answered with NULL, and freeing recovers from it");
    if (!open_fresh(s))
        return;
    struct kit_alloc_stats empty = stats_of(s);
    size_t size = empty.capacity / 256 > 48 ? empty.capacity / 256 : 48;
    size_t first = 0;
    for (int round = 0; round < 3; round++) {
        struct link *chain;
        size_t count = exhaust(s, size, &chain);
        struct kit_alloc_stats full = stats_of(s);
        KIT_REQUIRE(s->report, count > 0 && count <= s->size / 16);
        KIT_CHECK_EQUAL(s->report, full.blocks, count);
        KIT_CHECK_EQUAL(s->report, full.failures, s->failures);
        KIT_CHECK(s->report, full.largest_free < size);
        KIT_CHECK(s->report, full.used >= count * size && full.used <= full.capacity);
        KIT_REQUIRE(s->report, kit_alloc_check(s->a) == 0);
        KIT_REQUIRE(s->report, give_back(s, size, chain) == count);
        KIT_REQUIRE(s->report, check_step(s));
        first = round ? first : count;
        if (!has(s, KIT_ALLOC_REUSES))
            break;
        KIT_CHECK_EQUAL(s->report, count, first);
        KIT_CHECK_EQUAL(s->report, stats_of(s).used, 0);
        KIT_CHECK_EQUAL(s->report, stats_of(s).largest_free, empty.largest_free);
    }
    close_fresh(s);
}

/* Frees all slots: 0 ascending, 1 descending, 2 even then odd, 3 odd then even, else shuffled. */
static bool drop_all(struct suite *s, size_t count, int order)
{
    size_t stride = order > 3 ? (size_t)(2 * order + 1) : 1; /* odd: visits all of SLOTS = 3 * 16 */
    for (size_t i = 0; i < SLOTS; i++) {
        size_t at = order == 1 ? SLOTS - 1 - i : i;
        if (order == 2 || order == 3)
            at = i < SLOTS / 2 ? 2 * i + (order == 3) : 2 * (i - SLOTS / 2) + (order == 2);
        if (order > 3)
            at = i * (stride % 3 ? stride : stride + 2) % SLOTS;
        if (at < count && s->slots[at].block && (!drop(s, &s->slots[at]) || !check_step(s)))
            return false;
    }
    return true;
}

static void test_coalescing(struct suite *s)
{
    KIT_TEST(s->report, "when all blocks are free, the memory is whole again in any order");
    if (!has(s, KIT_ALLOC_REUSES))
        return;
    for (int order = 0; order < 8; order++) {
        if (!open_fresh(s))
            return;
        size_t whole = stats_of(s).largest_free;
        for (size_t i = 0; i < SLOTS; i++)
            if (!fill(s, &s->slots[i], whole / (SLOTS + 16) + i % 3 * 16, i % 5 ? 0 : 128))
                break;
        KIT_REQUIRE(s->report, live(s).blocks > SLOTS / 2 && check_step(s));
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, order));
        KIT_CHECK_EQUAL(s->report, live(s).blocks, 0);
        KIT_CHECK_EQUAL(s->report, stats_of(s).used, 0);
        KIT_CHECK_EQUAL(s->report, stats_of(s).largest_free, whole);
        KIT_REQUIRE(s->report, fill(s, &s->slots[0], whole, 0) && check_step(s));
        close_fresh(s);
    }
}

static void test_realloc(struct suite *s)
{
    KIT_TEST(s->report, "realloc keeps contents and alignment, up, down and between neighbours");
    static const size_t sizes[] = {24, 25, 600, 40, 41, 0, 16, 300, 2000, 1, 700};
    for (size_t align = 0; align <= 256; align = align ? align * 4 : 16) {
        if (!open_fresh(s))
            return;
        for (size_t i = 0; i < 4; i++)
            KIT_REQUIRE(s->report, fill(s, &s->slots[i], 200, align) && check_step(s));
        for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++) /* slot 0 is free: room before slot 1 */
            for (size_t j = 1; j < 4; j++) {
                if (i == 3 && j == 1)
                    KIT_REQUIRE(s->report, drop(s, &s->slots[0]));
                KIT_REQUIRE(s->report, resize(s, &s->slots[j], sizes[i]) && check_step(s));
            }
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 1));
        uint8_t *block = kit_alloc_realloc(s->a, NULL, 0, 100, align);
        KIT_REQUIRE(s->report, block != NULL);
        s->slots[0] = (struct slot){.block = block, .size = 100, .align = align};
        KIT_REQUIRE(s->report, accept(s, &s->slots[0]) && check_step(s));
        close_fresh(s);
    }
}

/* ---- optional features ----------------------------------------------------------------------- */

struct tour {
    struct suite *suite;
    size_t used_blocks, used_bytes, visits, stop_after;
    uintptr_t end; /* of the block before */
    bool in_order, known;
};

static int on_block(void *argument, void *block, size_t size, bool used)
{
    struct tour *tour = argument;
    bool known = !used;
    tour->in_order = tour->in_order && (uintptr_t)block >= tour->end;
    tour->end = (uintptr_t)block + size;
    for (const struct slot *slot = tour->suite->slots; slot < tour->suite->slots + SLOTS; slot++)
        known = known || (slot->block == block && size >= slot->size);
    tour->known = tour->known && known;
    tour->used_blocks += used;
    tour->used_bytes += used ? size : 0;
    return ++tour->visits == tour->stop_after ? 77 : 0;
}

/* What walk and owns say against the shadow. */
static bool check_views(struct suite *s)
{
    if (has(s, KIT_ALLOC_WALK)) {
        struct tour tour = {.suite = s, .in_order = true, .known = true};
        if (!KIT_CHECK_EQUAL(s->report, kit_alloc_walk(s->a, on_block, &tour), 0) ||
            !KIT_CHECK_SAYS(s->report, tour.in_order, "walk leaves the address order") ||
            !KIT_CHECK_SAYS(s->report, tour.known, "walk shows an unknown used block") ||
            !KIT_CHECK_EQUAL(s->report, tour.used_blocks, live(s).blocks) ||
            !KIT_CHECK_EQUAL(s->report, tour.used_bytes, stats_of(s).used))
            return false;
    }
    if (has(s, KIT_ALLOC_OWNS))
        for (const struct slot *slot = s->slots; slot < s->slots + SLOTS; slot++)
            if (slot->block && (!KIT_CHECK(s->report, kit_alloc_owns(s->a, slot->block)) ||
                                !KIT_CHECK(s->report, !kit_alloc_owns(s->a, slot->block + 8))))
                return false;
    return true;
}

static void test_views(struct suite *s)
{
    KIT_TEST(s->report, "walk and owns agree with what was given out");
    if (!has(s, KIT_ALLOC_WALK | KIT_ALLOC_OWNS) || !open_fresh(s))
        return;
    for (size_t i = 0; i < 12; i++)
        KIT_REQUIRE(s->report,
                    fill(s, &s->slots[i], 16 + 24 * i, i % 4 ? 0 : 64) && check_views(s));
    for (size_t i = 0; i < 12; i += 2) {
        uint8_t *block = s->slots[i].block;
        KIT_REQUIRE(s->report, drop(s, &s->slots[i]) && check_views(s));
        KIT_CHECK(s->report, !has(s, KIT_ALLOC_OWNS) || !kit_alloc_owns(s->a, block));
    }
    if (has(s, KIT_ALLOC_OWNS)) {
        KIT_CHECK(s->report, !kit_alloc_owns(s->a, NULL));
        KIT_CHECK(s->report, !kit_alloc_owns(s->a, s->memory));
        KIT_CHECK(s->report, !kit_alloc_owns(s->a, s->memory + s->size));
    }
    struct tour tour = {.suite = s, .stop_after = 3};
    if (has(s, KIT_ALLOC_WALK)) {
        KIT_CHECK_EQUAL(s->report, kit_alloc_walk(s->a, on_block, &tour), 77);
        KIT_CHECK_EQUAL(s->report, tour.visits, 3);
    }
    close_fresh(s);
}

static void test_scopes(struct suite *s)
{
    KIT_TEST(s->report, "release frees all that was allocated since the mark, and nothing else");
    if (!has(s, KIT_ALLOC_SCOPES) || !open_fresh(s))
        return;
    KIT_REQUIRE(s->report, fill(s, &s->slots[0], 100, 0) && fill(s, &s->slots[1], 20, 256));
    size_t outer = kit_alloc_mark(s->a);
    struct kit_alloc_stats before = stats_of(s);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 2; i < 8; i++)
            KIT_REQUIRE(s->report, fill(s, &s->slots[i], 30 * i, i & 1 ? 0 : 64) && check_step(s));
        size_t inner = kit_alloc_mark(s->a);
        KIT_REQUIRE(s->report, fill(s, &s->slots[8], 50, 0) && drop(s, &s->slots[3]));
        kit_alloc_release(s->a, inner);
        s->slots[8].block = NULL;
        KIT_REQUIRE(s->report, is_painted(&s->slots[7], s->slots[7].size));
        kit_alloc_release(s->a, outer);
        for (size_t i = 2; i < 8; i++)
            s->slots[i].block = NULL;
        KIT_REQUIRE(s->report, check_step(s));
        KIT_CHECK_EQUAL(s->report, stats_of(s).used, before.used);
        KIT_CHECK_EQUAL(s->report, stats_of(s).largest_free, before.largest_free);
    }
    KIT_REQUIRE(s->report, drop(s, &s->slots[1]) && drop(s, &s->slots[0]));
    close_fresh(s);
}

static void test_add_region(struct suite *s)
{
    KIT_TEST(s->report, "a further region is used, and what lies between is not");
    if (!has(s, KIT_ALLOC_ADD_REGION))
        return;
    size_t inside = s->size - (size_t)2 * STRIP, gap = 40;
    for (size_t part = 8; part >= 2; part /= 2) {
        size_t first = inside / part;
        struct kit_alloc *probe;
        if (s->component->open(s->options, s->memory + STRIP, first, &probe) != 0)
            continue; /* too small for this component */
        if (!open_part(s, 0, first))
            return;
        uint8_t *second = s->memory + STRIP + first + gap;
        struct kit_alloc_stats before = stats_of(s);
        KIT_REQUIRE(s->report, fill(s, &s->slots[0], 64, 0));
        KIT_CHECK(s->report, kit_alloc_add_region(s->a, second, 8) != 0);
        KIT_CHECK_EQUAL(s->report, stats_of(s).capacity, before.capacity);
        KIT_REQUIRE(s->report, kit_alloc_add_region(s->a, second, inside - first - gap) == 0);
        KIT_CHECK(s->report, stats_of(s).capacity > before.capacity);
        KIT_REQUIRE(s->report, check_step(s) && check_views(s));
        bool reached = false;
        for (size_t i = 1; i < SLOTS && fill(s, &s->slots[i], inside / 40, 0); i++) {
            reached = reached || s->slots[i].block >= second;
            KIT_REQUIRE(s->report, check_step(s) && check_views(s));
        }
        KIT_CHECK_SAYS(s->report, reached, "nothing came from the added region");
        KIT_CHECK_SAYS(s->report, is_guard(second - gap, second), "wrote between the regions");
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 2));
        close_fresh(s);
    }
}

static void test_instances(struct suite *s)
{
    KIT_TEST(s->report, "two instances know nothing of each other");
    size_t half = (s->size - (size_t)2 * STRIP) / 2;
    struct kit_alloc *other;
    if (!open_fresh(s) || s->component->open(s->options, s->memory + STRIP, half, &other) != 0)
        return;
    if (!open_part(s, half, half))
        return;
    KIT_REQUIRE(s->report, s->component->open(s->options, s->memory + STRIP, half, &other) == 0);
    for (size_t i = 0; i < 8; i++) {
        KIT_REQUIRE(s->report, fill(s, &s->slots[i], 50 * i, 0));
        uint8_t *foreign = kit_alloc_alloc(other, 50 * i, 0);
        KIT_REQUIRE(s->report, foreign && foreign + 50 * i <= s->memory + STRIP + half);
        KIT_REQUIRE(s->report, s->slots[i].block >= s->memory + STRIP + half);
        memset(foreign, 0, 50 * i);
    }
    KIT_CHECK_EQUAL(s->report, kit_alloc_check(other), 0);
    check_step(s);
    KIT_REQUIRE(s->report, drop_all(s, SLOTS, 0));
}

/* ---- random sequences --------------------------------------------------------------------------
 */

/* Sizes from 0 to a fair part of the memory, small ones more often. */
static size_t random_size(struct suite *s, size_t capacity)
{
    uint64_t random = kit_suite_random(&s->random);
    unsigned most = kit_fls64(capacity / 8 | 256);
    return (size_t)(random >> 8) & (((size_t)1 << (random % (most + 1))) - 1);
}

static bool random_step(struct suite *s, size_t capacity)
{
    uint64_t random = kit_suite_random(&s->random);
    struct slot *slot = &s->slots[random % SLOTS];
    size_t size = random_size(s, capacity);
    size_t align = random >> 32 & 3 ? 0 : (size_t)1 << (random >> 40) % 10;
    if (!slot->block) {
        int before = s->report->failures;
        fill(s, slot, size, align);
        return before == s->report->failures;
    }
    return random >> 20 & 1 ? resize(s, slot, size) : drop(s, slot);
}

static void test_random(struct suite *s)
{
    KIT_TEST(s->report, "random sequences agree with the shadow at every step");
    for (uint64_t seed = 1; seed <= 6; seed++) {
        if (!open_fresh(s))
            return;
        s->random = seed;
        size_t whole = stats_of(s).largest_free, capacity = stats_of(s).capacity;
        size_t mark = has(s, KIT_ALLOC_SCOPES) ? kit_alloc_mark(s->a) : 0;
        for (int step = 0; step < 600; step++)
            KIT_REQUIRE(s->report,
                        random_step(s, capacity) && check_step(s) && (step % 16 || check_views(s)));
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 4));
        if (has(s, KIT_ALLOC_SCOPES))
            kit_alloc_release(s->a, mark);
        if (has(s, KIT_ALLOC_SCOPES) || has(s, KIT_ALLOC_REUSES))
            KIT_CHECK_EQUAL(s->report, stats_of(s).largest_free, whole);
        close_fresh(s);
    }
}

int kit_suite_alloc(const struct kit_alloc_component *component, const uint64_t *options,
                    void *memory, size_t size, struct kit_report *report)
{
    static void (*const tests[])(struct suite *) = {
        test_small_memory, test_fresh,      test_alignments, test_zero_size, test_usable_size,
        test_impossible,   test_exhaustion, test_coalescing, test_realloc,   test_views,
        test_scopes,       test_add_region, test_instances,  test_random,
    };
    struct suite s = {.component = component,
                      .options = options,
                      .report = report,
                      .memory = memory,
                      .size = size};
    int before = report->failures;
    test_claims(&s);
    if (report->failures != before)
        return report->failures - before;
    if (size < (size_t)2 * SIZE_MIN ||
        component->open(options, s.memory + STRIP, size - (size_t)2 * STRIP, &s.a) == KIT_ENOMEM)
        return KIT_ENOMEM;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(tests); i++)
        tests[i](&s);
    return report->failures - before;
}
