/* SPDX-License-Identifier: MIT */
/* Conformance suite for allocators: page sources. The source here fills what it takes back with
 * zeros at once, so that a page given back too early shows as contents lost. */
#include <unikit/rt/bits.h>
#include <unikit/testing/suite_alloc_shadow.h>

struct source {
    struct kit_alloc_pages pages;
    struct suite *suite;
    size_t given; /* bytes since it was asked last */
    uint8_t *spare, *spare_end;
    size_t maps;
};

static void on_decommit(void *context, void *start, size_t size)
{
    struct source *source = context;
    struct suite *s = source->suite;
    uint8_t *first = start;
    size_t mask = source->pages.page - 1;
    bool inside =
        first >= s->memory + STRIP && size <= (size_t)(s->memory + s->size - STRIP - first);
    KIT_REQUIRE(s->report, inside && size > 0);
    KIT_CHECK_SAYS(s->report, !((uintptr_t)start & mask) && !(size & mask), "not whole pages");
    for (const struct slot *slot = s->slots; slot < s->slots + SLOTS; slot++)
        if (slot->block)
            KIT_CHECK_SAYS(s->report,
                           slot->block + slot->size <= first || slot->block >= first + size,
                           "pages of a block in use were given back");
    memset(first, 0, size);
    source->given += size;
}

static void *on_map(void *context, size_t size, size_t *got)
{
    struct source *source = context;
    uint8_t *start = source->spare;
    size = kit_align_up(size, source->pages.page);
    if (!start || size > (size_t)(source->spare_end - start))
        return NULL;
    source->spare += size;
    source->maps++;
    memset(start, 0, size);
    *got = size;
    return start;
}

/* Opens over the first `part` bytes with a source behind; false: it failed. */
static bool open_paged(struct suite *s, struct source *source, size_t part, bool fresh)
{
    size_t page = s->size >= (size_t)256 << 10 ? 4096 : 512;
    *source = (struct source){
        .suite = s,
        .pages = {.context = source, .decommit = on_decommit, .page = page, .fresh = fresh}};
    return open_filled(s, 0, part, fresh ? 0 : STRIP_BYTE) &&
           KIT_CHECK_EQUAL(s->report, kit_alloc_source(s->a, &source->pages), 0);
}

static size_t inside(const struct suite *s)
{
    return s->size - (size_t)2 * STRIP;
}

/* Calls trim (or tick if `keep` is NULL) and compares what it says with what the source saw. */
static size_t give(struct suite *s, struct source *source, const size_t *keep)
{
    source->given = 0;
    size_t said = keep ? kit_alloc_trim(s->a, *keep) : kit_alloc_tick(s->a);
    KIT_CHECK_EQUAL(s->report, said, source->given);
    for (const struct slot *slot = s->slots; slot < s->slots + SLOTS; slot++)
        KIT_CHECK_SAYS(s->report, !slot->block || is_painted(slot, slot->size),
                       "giving back destroyed a block");
    return said;
}

static void test_trim(struct suite *s)
{
    KIT_TEST(s->report, "trim gives back what is free, but what is to be kept");
    struct source source;
    size_t none = 0, all = SIZE_MAX;
    if (!has(s, KIT_ALLOC_PAGES) || !open_paged(s, &source, inside(s), false))
        return;
    size_t slack = source.pages.page * 4, half = stats_of(s).largest_free / 2;
    KIT_REQUIRE(s->report, fill(s, &s->slots[0], 100, 0) && fill(s, &s->slots[1], half, 0) &&
                               fill(s, &s->slots[2], 100, 0));
    memset(s->slots[1].block, 0xff, half);
    paint(&s->slots[1], 1);
    KIT_REQUIRE(s->report, drop(s, &s->slots[1]));
    KIT_CHECK_EQUAL(s->report, give(s, &source, &all), 0);
    size_t keep = half / 2;
    give(s, &source, &keep);
    size_t rest = give(s, &source, &none);
    KIT_CHECK_SAYS(s->report, rest + slack >= keep && rest <= keep + slack,
                   "not what was to be kept was kept");
    KIT_CHECK_EQUAL(s->report, give(s, &source, &none), 0);
    KIT_REQUIRE(s->report, check_step(s));
    for (size_t i = 3; i < SLOTS && fill(s, &s->slots[i], half / 60, 0); i++)
        KIT_REQUIRE(s->report, check_step(s));
    KIT_REQUIRE(s->report, drop_all(s, SLOTS, 1));
    give(s, &source, &none);
    KIT_CHECK_EQUAL(s->report, give(s, &source, &none), 0);
    KIT_REQUIRE(s->report, check_step(s));
    close_fresh(s);
}

static void test_tick(struct suite *s)
{
    KIT_TEST(s->report, "ticks give back what lies free, at last all that is large");
    struct source source;
    size_t none = 0;
    for (int fresh = 0; fresh < 2; fresh++) {
        if (!has(s, KIT_ALLOC_PAGES) || !open_paged(s, &source, inside(s), fresh))
            return;
        size_t half = stats_of(s).largest_free / 2, given = 0;
        KIT_REQUIRE(s->report, fill(s, &s->slots[0], half, 0) && fill(s, &s->slots[1], 100, 0));
        memset(s->slots[0].block, 0xff, half);
        paint(&s->slots[0], 1);
        give(s, &source, NULL);
        KIT_REQUIRE(s->report, drop(s, &s->slots[0]));
        for (int i = 0; i < 200; i++)
            given += give(s, &source, NULL);
        bool large = half >= source.pages.page * 64;
        KIT_CHECK_SAYS(s->report, !large || given >= half / 2, "ticks do not give back");
        KIT_CHECK_SAYS(s->report, !large || give(s, &source, &none) <= half / 2,
                       "ticks leave the most");
        KIT_REQUIRE(s->report, drop(s, &s->slots[1]) && check_step(s));
        close_fresh(s);
    }
}

static void test_given_at_random(struct suite *s)
{
    KIT_TEST(s->report, "giving back at any time changes nothing that is in use");
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct source source;
        if (!has(s, KIT_ALLOC_PAGES) || !open_paged(s, &source, inside(s), seed & 1))
            return;
        size_t capacity = stats_of(s).capacity, whole = stats_of(s).largest_free;
        s->random = seed;
        for (int step = 0; step < 500; step++) {
            KIT_REQUIRE(s->report, kit_suite_alloc_step(s, capacity) && check_step(s));
            size_t keep = kit_suite_random(&s->random) % capacity >> (step % 20);
            if (step % 9 == 0 || step % 11 == 0)
                give(s, &source, step % 9 ? &keep : NULL);
        }
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 5));
        give(s, &source, NULL);
        KIT_CHECK(s->report, !has(s, KIT_ALLOC_REUSES) || stats_of(s).largest_free == whole);
        close_fresh(s);
    }
}

static void test_zeroed_anew(struct suite *s)
{
    KIT_TEST(s->report, "what was given back reads as zero, and what was not is cleared");
    struct source source;
    for (size_t keep = 0; keep < 4; keep++) {
        if (!has(s, KIT_ALLOC_PAGES) || !has(s, KIT_ALLOC_ZEROED) ||
            !open_paged(s, &source, inside(s), keep & 1))
            return;
        size_t most = stats_of(s).largest_free, kept = most / 4 * keep;
        for (size_t divisor = 1; divisor < 8; divisor++) {
            KIT_REQUIRE(s->report, fill(s, &s->slots[0], most / divisor, 0));
            memset(s->slots[0].block, 0xff, most / divisor);
            paint(&s->slots[0], 1);
            bool between = fill(s, &s->slots[1], 100, 0);
            KIT_REQUIRE(s->report, drop(s, &s->slots[0]));
            give(s, &source, divisor == 4 ? NULL : &kept);
            KIT_REQUIRE(s->report, !has(s, KIT_ALLOC_REUSES) ||
                                       fill_zeroed(s, &s->slots[0], most / divisor, 0));
            KIT_REQUIRE(s->report, !between || drop(s, &s->slots[1]));
            KIT_REQUIRE(s->report, drop_all(s, SLOTS, 0));
            if (!has(s, KIT_ALLOC_REUSES))
                break;
        }
        close_fresh(s);
    }
}

static void test_map(struct suite *s)
{
    KIT_TEST(s->report, "more memory from the source is used, if it is asked for");
    struct source source;
    size_t part = inside(s) / 4, none = 0;
    struct kit_alloc *probe;
    if (!has(s, KIT_ALLOC_PAGES) || open_at(s, s->memory + STRIP, part, &probe) != 0 ||
        !open_paged(s, &source, part, true))
        return;
    source.pages.map = on_map;
    source.spare = (uint8_t *)kit_align_up((uintptr_t)s->memory + STRIP + part, source.pages.page);
    source.spare_end = s->memory + s->size - STRIP;
    size_t capacity = stats_of(s).capacity;
    for (size_t i = 0; i < SLOTS && fill(s, &s->slots[i], part / 16, i % 4 ? 0 : 64); i++)
        KIT_REQUIRE(s->report, check_step(s));
    KIT_CHECK(s->report, (source.maps > 0) == (stats_of(s).capacity > capacity));
    KIT_REQUIRE(s->report, drop_all(s, SLOTS, 2));
    give(s, &source, &none);
    for (size_t i = 0; i < SLOTS && fill(s, &s->slots[i], part / 20, 0); i++)
        KIT_REQUIRE(s->report, check_step(s));
    KIT_REQUIRE(s->report, drop_all(s, SLOTS, 3));
    KIT_CHECK_EQUAL(s->report, kit_alloc_check(s->a), 0);
}

void kit_suite_alloc_pages(struct suite *s)
{
    test_trim(s);
    test_tick(s);
    test_given_at_random(s);
    test_zeroed_anew(s);
    test_map(s);
}
