/* SPDX-License-Identifier: MIT */
/* Conformance suite for allocators. Each test opens the component anew between two guard strips,
 * keeps a shadow of what was given out, and asks check() after every step. What a component does
 * not claim is not asked of it; what it claims must be there. */
#include <unikit/testing/suite_alloc_shadow.h>

/* ---- tests ---------------------------------------------------------------------------------- */

static void test_claims(struct suite *s)
{
    KIT_TEST(s->report, "features claimed are present, others absent");
    const struct kit_alloc_component *c = s->component;
    KIT_REQUIRE(s->report, c->id != NULL && c->ops != NULL);
    KIT_CHECK(s->report, has(s, KIT_ALLOC_LAYER) == (c->wrap != NULL));
    KIT_CHECK(s->report, has(s, KIT_ALLOC_LAYER) == (c->open == NULL));
    KIT_CHECK(s->report, strlen(c->id) > 6 && memcmp(c->id, "alloc.", 6) == 0);
    KIT_CHECK_EQUAL(s->report, c->abi, KIT_ALLOC_ABI);
    const struct kit_alloc_ops *ops = c->ops;
    KIT_REQUIRE(s->report, ops->alloc && ops->free && ops->realloc && ops->usable_size &&
                               ops->stats && ops->check);
    uint32_t f = c->features;
    KIT_CHECK_SAYS(s->report, !(s->features & ~f), "more features than the component has");
    KIT_CHECK(s->report, !(f & KIT_ALLOC_OWNS) == !(ops->owns != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_WALK) == !(ops->walk != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_ADD_REGION) == !(ops->add_region != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_SCOPES) == !(ops->mark != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_SCOPES) == !(ops->release != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_RESIZE) == !(ops->resize != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_ZEROED) == !(ops->zeroed != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_THREADS) == !(ops->attach != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_THREADS) == !(ops->detach != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_PAGES) == !(ops->source != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_PAGES) == !(ops->tick != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_PAGES) == !(ops->trim != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_SITES) == !(ops->caller != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_LEAKS) == !(ops->live != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_FAILS) == !(ops->fail_at != NULL));
    KIT_CHECK(s->report, !(f & KIT_ALLOC_RECORDS) == !(ops->recorded != NULL));
}

static void test_small_memory(struct suite *s)
{
    KIT_TEST(s->report, "open refuses memory that is too small, and stays inside it");
    for (size_t size = 0; size < SIZE_MIN; size += size < 64 ? 1 : 13) {
        memset(s->memory, STRIP_BYTE, s->size);
        struct kit_alloc *a = NULL;
        int result = open_at(s, s->memory + STRIP, size, &a);
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
            size_t more = has(s, KIT_ALLOC_LAYER) ? align + (size_t)4 * 64 : 64;
            KIT_CHECK_SAYS(s->report, filled || room < sizes[i] + align + more,
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

static void test_full_heap(struct suite *s)
{
    KIT_TEST(s->report, "in a full heap there is what largest_free says, in any smaller size");
    enum { SIZES = 10, LARGEST = 8192 };
    struct link *chains[SIZES];
    if (!has(s, KIT_ALLOC_REUSES))
        return;
    for (size_t freed = 0; freed < SIZES; freed++) {
        if (!open_fresh(s))
            return;
        for (size_t i = 0; i < SIZES; i++) /* some of each size ... */
            if (!fill(s, &s->slots[i], LARGEST >> i, 0))
                s->slots[i].block = NULL;
        for (size_t i = 0; i < SIZES; i++) { /* ... then as many as there are */
            exhaust(s, LARGEST >> i, &chains[i]);
            KIT_CHECK(s->report, stats_of(s).largest_free < (size_t)LARGEST >> i);
        }
        if (s->slots[freed].block) /* one makes room for smaller ones */
            KIT_REQUIRE(s->report, drop(s, &s->slots[freed]));
        for (size_t i = 0; i < 12; i++)
            if (fill(s, &s->slots[SIZES + i], (size_t)8 << i, i % 2 ? 0 : 32))
                KIT_REQUIRE(s->report, drop(s, &s->slots[SIZES + i]));
        KIT_REQUIRE(s->report, kit_alloc_check(s->a) == 0);
        for (size_t i = 0; i < SIZES; i++)
            give_back(s, LARGEST >> i, chains[i]);
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 0));
        KIT_CHECK_EQUAL(s->report, stats_of(s).used, 0);
        close_fresh(s);
    }
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

int kit_suite_alloc_layers(const struct kit_alloc_choice *choices, size_t count, uint32_t features,
                           void *memory, size_t size, struct kit_report *report)
{
    static void (*const tests[])(struct suite *) = {
        test_small_memory, test_fresh,      test_alignments, test_zero_size, test_usable_size,
        test_impossible,   test_exhaustion, test_coalescing, test_realloc,   test_full_heap,
    };
    struct suite s = {.component = choices->component,
                      .choices = choices,
                      .count = count,
                      .features = features,
                      .report = report,
                      .memory = memory,
                      .size = size};
    int before = report->failures;
    test_claims(&s);
    if (report->failures != before)
        return report->failures - before;
    if (size < (size_t)2 * SIZE_MIN ||
        open_at(&s, s.memory + STRIP, size - (size_t)2 * STRIP, &s.a) == KIT_ENOMEM)
        return KIT_ENOMEM;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(tests); i++)
        tests[i](&s);
    kit_suite_alloc_features(&s);
    return report->failures - before;
}

int kit_suite_alloc(const struct kit_alloc_component *component, const uint64_t *options,
                    void *memory, size_t size, struct kit_report *report)
{
    struct kit_alloc_choice choice = {component, options};
    return kit_suite_alloc_layers(&choice, 1, component->features, memory, size, report);
}
