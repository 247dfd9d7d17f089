/* SPDX-License-Identifier: MIT */
/* Conformance suite for allocators, second part: optional features, several instances, and random
 * sequences of operations. */
#include <unikit/rt/bits.h>
#include <unikit/testing/suite_alloc_shadow.h>

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
        if (open_at(s, s->memory + STRIP, first, &probe) != 0)
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
    if (!open_fresh(s) || open_at(s, s->memory + STRIP, half, &other) != 0)
        return;
    if (!open_part(s, half, half))
        return;
    KIT_REQUIRE(s->report, open_at(s, s->memory + STRIP, half, &other) == 0);
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

bool kit_suite_alloc_step(struct suite *s, size_t capacity)
{
    uint64_t random = kit_suite_random(&s->random);
    struct slot *slot = &s->slots[random % SLOTS];
    size_t size = random_size(s, capacity);
    size_t align = random >> 32 & 3 ? 0 : (size_t)1 << (random >> 40) % 13;
    if (!slot->block) {
        int before = s->report->failures;
        if (has(s, KIT_ALLOC_ZEROED) && random >> 21 & 1)
            fill_zeroed(s, slot, size, align);
        else
            fill(s, slot, size, align);
        return before == s->report->failures;
    }
    return random >> 20 & 1 ? resize(s, slot, size) : drop(s, slot);
}

static void test_random(struct suite *s)
{
    KIT_TEST(s->report, "random sequences agree with the shadow at every step");
    for (uint64_t seed = 1; seed <= 6; seed++) {
        s->random = seed;
        if (!(seed & 1 ? open_random(s) : open_fresh(s)))
            return;
        size_t whole = stats_of(s).largest_free, capacity = stats_of(s).capacity;
        size_t mark = has(s, KIT_ALLOC_SCOPES) ? kit_alloc_mark(s->a) : 0;
        for (int step = 0; step < 600; step++)
            KIT_REQUIRE(s->report, kit_suite_alloc_step(s, capacity) && check_step(s) &&
                                       (step % 16 || check_views(s)));
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 4));
        if (has(s, KIT_ALLOC_SCOPES))
            kit_alloc_release(s->a, mark);
        if (has(s, KIT_ALLOC_SCOPES) || has(s, KIT_ALLOC_REUSES))
            KIT_CHECK_EQUAL(s->report, stats_of(s).largest_free, whole);
        close_fresh(s);
    }
}

void kit_suite_alloc_features(struct suite *s)
{
    test_views(s);
    test_scopes(s);
    test_add_region(s);
    test_instances(s);
    kit_suite_alloc_sizes(s);
    kit_suite_alloc_pages(s);
    kit_suite_alloc_faces(s);
    test_random(s);
}
