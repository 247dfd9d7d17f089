/* SPDX-License-Identifier: MIT */
/* Conformance suite for allocators: sizes that the owner does not know, resizing in place, and
 * blocks that read as zero. */
#include <unikit/rt/bits.h>
#include <unikit/testing/suite_alloc_shadow.h>

static void test_unsized(struct suite *s)
{
    KIT_TEST(s->report, "without its size a block is freed, measured and moved all the same");
    if (!has(s, KIT_ALLOC_UNSIZED) || !open_fresh(s))
        return;
    size_t whole = stats_of(s).largest_free;
    for (size_t i = 0; i < 16; i++) {
        struct slot *slot = &s->slots[i];
        KIT_REQUIRE(s->report, fill(s, slot, 1 + 37 * i, i % 3 ? 0 : 64));
        KIT_CHECK_EQUAL(s->report, kit_alloc_usable_size(s->a, slot->block, KIT_ALLOC_UNKNOWN),
                        kit_alloc_usable_size(s->a, slot->block, slot->size));
    }
    for (size_t i = 0; i < 16; i += 2) { /* contents stay, also those beyond the size asked for */
        struct slot *slot = &s->slots[i];
        slot->size = kit_alloc_usable_size(s->a, slot->block, KIT_ALLOC_UNKNOWN);
        paint(slot, (uint8_t)i);
        for (int j = 0; j < 4; j++) /* with and without the size */
            KIT_REQUIRE(s->report, resize(s, slot, slot->size + 24) && check_step(s));
    }
    KIT_REQUIRE(s->report, drop_all(s, SLOTS, 3));
    kit_alloc_free(s->a, NULL, KIT_ALLOC_UNKNOWN, 0);
    uint8_t *block = kit_alloc_realloc(s->a, NULL, KIT_ALLOC_UNKNOWN, 50, 0);
    KIT_REQUIRE(s->report, block != NULL);
    kit_alloc_free(s->a, block, KIT_ALLOC_UNKNOWN, 0);
    KIT_REQUIRE(s->report, check_step(s));
    KIT_CHECK(s->report, !has(s, KIT_ALLOC_REUSES) || stats_of(s).largest_free == whole);
    close_fresh(s);
}

/* Resizes in place; whether that was done. All that may not change is checked. */
static bool resize_here(struct suite *s, struct slot *slot, size_t size, bool *done)
{
    struct kit_alloc_stats before = stats_of(s);
    bool concealed = conceal(s);
    *done = kit_alloc_resize(s->a, slot->block, concealed ? KIT_ALLOC_UNKNOWN : slot->size, size,
                             slot->align);
    struct kit_alloc_stats after = stats_of(s);
    size_t common = *done && size < slot->size ? size : slot->size;
    bool sound = KIT_CHECK_SAYS(s->report, is_painted(slot, common), "resize lost contents") &&
                 KIT_CHECK_EQUAL(s->report, after.allocations, before.allocations) &&
                 KIT_CHECK_EQUAL(s->report, after.failures, before.failures);
    if (!*done)
        return sound && KIT_CHECK_EQUAL(s->report, after.used, before.used);
    slot->size = size;
    return accept(s, slot) && sound && check_step(s);
}

static void test_resize(struct suite *s)
{
    KIT_TEST(s->report, "resize never moves a block, and shrinks any");
    static const size_t sizes[] = {200, 216, 100, 101, 600, 17, 0, 5000, 16, 90, 3000, 1};
    bool done;
    if (!has(s, KIT_ALLOC_RESIZE))
        return;
    for (size_t align = 0; align <= 256; align = align ? align * 4 : 16) {
        if (!open_fresh(s))
            return;
        for (size_t i = 0; i < 6; i++)
            KIT_REQUIRE(s->report, fill(s, &s->slots[i], 200, align) && check_step(s));
        KIT_REQUIRE(s->report, drop(s, &s->slots[2]) && drop(s, &s->slots[0]));
        for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++)
            for (size_t j = 1; j < 6; j += j == 1 ? 2u : 1u) {
                bool shrinks = sizes[i] <= s->slots[j].size;
                KIT_REQUIRE(s->report, resize_here(s, &s->slots[j], sizes[i], &done));
                KIT_CHECK_SAYS(s->report, done || !shrinks, "a block was not made smaller");
            }
        for (size_t j = 1; j < 6; j += j == 1 ? 2u : 1u) {
            KIT_REQUIRE(s->report, resize_here(s, &s->slots[j], SIZE_MAX - 1, &done));
            KIT_CHECK_SAYS(s->report, !done, "made impossibly large");
            KIT_REQUIRE(s->report, resize_here(s, &s->slots[j], s->size, &done));
            KIT_CHECK_SAYS(s->report, !done, "made larger than the memory");
        }
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, 1));
        close_fresh(s);
    }
}

static void test_growth(struct suite *s)
{
    KIT_TEST(s->report, "a block that grows in place stays inside the memory");
    if (!has(s, KIT_ALLOC_RESIZE) || !open_fresh(s))
        return;
    struct slot *slot = &s->slots[0];
    for (size_t align = (size_t)1 << kit_fls64(s->size); align >= 16; align /= 2) {
        if (!fill(s, slot, 1, align))
            continue;
        bool done = true;
        for (size_t size = 64; done && size <= s->size; size += size / 16)
            KIT_REQUIRE(s->report, resize_here(s, slot, size, &done));
        check_guards(s, 0, s->size - (size_t)2 * STRIP);
        KIT_REQUIRE(s->report, drop(s, slot));
    }
    close_fresh(s);
}

static void test_zeroed(struct suite *s)
{
    KIT_TEST(s->report, "zeroed blocks are zero, whatever the memory held before");
    static const size_t sizes[] = {0, 1, 24, 40, 100, 513, 2000, 17};
    if (!has(s, KIT_ALLOC_ZEROED) || !open_fresh(s))
        return;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++) {
            KIT_REQUIRE(s->report, fill_zeroed(s, &s->slots[i], sizes[i], i % 3 ? 0 : 128));
            memset(s->slots[i].block, 0xff, sizes[i]);
            paint(&s->slots[i], (uint8_t)i);
            KIT_REQUIRE(s->report, check_step(s));
        }
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, round));
    }
    size_t most = stats_of(s).largest_free;
    KIT_REQUIRE(s->report, fill_zeroed(s, &s->slots[0], most, 0) && check_step(s));
    memset(s->slots[0].block, 0xff, most);
    paint(&s->slots[0], 1);
    KIT_REQUIRE(s->report, !fill_zeroed(s, &s->slots[1], SIZE_MAX - 8, 0));
    KIT_REQUIRE(s->report, drop(s, &s->slots[0]));
    if (has(s, KIT_ALLOC_REUSES))
        KIT_REQUIRE(s->report, fill_zeroed(s, &s->slots[0], most, 0) && drop(s, &s->slots[0]));
    close_fresh(s);
}

void kit_suite_alloc_sizes(struct suite *s)
{
    test_zeroed(s);
    test_unsized(s);
    test_resize(s);
    test_growth(s);
}
