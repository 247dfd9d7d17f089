/* SPDX-License-Identifier: MIT */
/* What every console promises: it takes no more than it is given and says how much, leaves the
 * caller's bytes alone, has no state outside its object, and refuses to open without a trace. */
#include <unikit/testing/suite_console.h>

enum { TEXT_SIZE = 2048, INPUT_SIZE = 64, FAILURES_MAX = 64 };

struct subject {
    const struct kit_console_component *component;
    const uint64_t *options;
    const struct kit_console_parts *parts;
    struct kit_report *report;
};

static console_interface_t *suite_console_open(struct subject *s)
{
    console_interface_t *console = NULL;
    int rc = s->component->open(s->options, s->parts, &console);
    KIT_CHECK_EQUAL(s->report, rc, 0);
    if (rc != 0 || !KIT_CHECK(s->report, console != NULL) ||
        !KIT_CHECK(s->report, console->write != NULL && console->read != NULL))
        return NULL;
    return console;
}

static void test_identity(struct subject *s)
{
    KIT_TEST(s->report, "it says what it is");
    KIT_REQUIRE(s->report, s->component->id != NULL && strlen(s->component->id) > 8);
    KIT_CHECK(s->report, memcmp(s->component->id, "console.", 8) == 0);
    KIT_CHECK_EQUAL(s->report, s->component->abi, KIT_CONSOLE_ABI);
}

static void test_write(struct subject *s)
{
    static const size_t sizes[] = {1, 2, 7, 79, 80, 255, 256, 257, 511, 1024, TEXT_SIZE};
    char text[TEXT_SIZE], copy[TEXT_SIZE];
    uint64_t seed = 7;
    KIT_TEST(s->report, "it takes at most what it is given and changes none of it");
    console_interface_t *console = suite_console_open(s);
    KIT_REQUIRE(s->report, console != NULL);
    for (size_t i = 0; i < TEXT_SIZE; i++) {
        uint64_t random = kit_suite_random(&seed);
        text[i] = random % 40 == 0 ? '\n' : (char)(random >> 8);
    }
    memcpy(copy, text, TEXT_SIZE);
    for (unsigned round = 0; round < 8; round++)
        for (size_t i = 0; i < KIT_ARRAY_SIZE(sizes); i++) {
            size_t taken = kit_console_write(console, text + TEXT_SIZE - sizes[i], sizes[i]);
            KIT_CHECK(s->report, taken <= sizes[i]);
            KIT_CHECK(s->report, memcmp(text, copy, TEXT_SIZE) == 0);
        }
}

static void test_flush(struct subject *s)
{
    KIT_TEST(s->report, "writing nothing takes nothing, with or without data");
    console_interface_t *console = suite_console_open(s);
    KIT_REQUIRE(s->report, console != NULL);
    KIT_CHECK_EQUAL(s->report, kit_console_write(console, NULL, 0), 0);
    KIT_CHECK(s->report, kit_console_write(console, "half a line", 11) <= 11);
    KIT_CHECK_EQUAL(s->report, kit_console_write(console, NULL, 0), 0);
    KIT_CHECK_EQUAL(s->report, kit_console_write(console, "x", 0), 0);
    KIT_CHECK(s->report, kit_console_write(console, " and the rest\n", 14) <= 14);
}

static void test_read(struct subject *s)
{
    char buffer[INPUT_SIZE + 2];
    KIT_TEST(s->report, "it reads at most what there is room for");
    console_interface_t *console = suite_console_open(s);
    KIT_REQUIRE(s->report, console != NULL);
    for (size_t room = 0; room <= INPUT_SIZE; room++) {
        memset(buffer, '~', sizeof buffer);
        size_t got = kit_console_input(console, buffer + 1, room);
        KIT_CHECK(s->report, got <= room);
        KIT_CHECK(s->report, buffer[0] == '~' && buffer[1 + room] == '~');
        if (got == 0 && room > 1)
            break;
    }
}

/* An instance that kept state outside its object would mix the two. */
static void test_instances(struct subject *s)
{
    KIT_TEST(s->report, "two of them do not disturb each other");
    console_interface_t *a = suite_console_open(s), *b = suite_console_open(s);
    KIT_REQUIRE(s->report, a != NULL && b != NULL);
    for (unsigned i = 0; i < 100; i++) {
        KIT_CHECK(s->report, kit_console_write(a, "first console\n", 14) <= 14);
        KIT_CHECK(s->report, kit_console_write(b, "second", 6) <= 6);
        KIT_CHECK(s->report, kit_console_write(b, " console\n", 9) <= 9);
    }
}

static void test_missing_part(struct subject *s, const struct kit_console_parts *parts)
{
    console_interface_t untouched = {NULL, NULL}, *console = &untouched;
    int rc = s->component->open(s->options, parts, &console);
    KIT_CHECK(s->report, rc == 0 || rc == KIT_ENOTSUP);
    KIT_CHECK(s->report, (rc == 0) == (console != &untouched));
    if (rc == 0)
        KIT_CHECK(s->report, kit_console_write(console, "line\n", 5) <= 5);
}

static void test_missing_parts(struct subject *s)
{
    struct kit_console_parts parts = *s->parts;
    KIT_TEST(s->report, "without a part it works or says that it does not");
    parts.net = NULL;
    test_missing_part(s, &parts);
    parts = *s->parts;
    parts.inner_count = 0;
    test_missing_part(s, &parts);
}

#ifndef KIT_SOLE_ALLOC
/* An allocator that refuses the n-th request and counts what is not given back. */
struct miser {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    unsigned granted;
    unsigned limit;
    unsigned held;
};

static void *miser_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct miser *miser = KIT_CONTAINER_OF(a, struct miser, alloc);
    if (miser->granted == miser->limit)
        return NULL;
    void *block = kit_alloc_alloc(miser->inner, size, align);
    miser->granted += block != NULL;
    miser->held += block != NULL;
    return block;
}

static void miser_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    struct miser *miser = KIT_CONTAINER_OF(a, struct miser, alloc);
    miser->held -= block != NULL;
    kit_alloc_free(miser->inner, block, size, align);
}

static void test_out_of_memory(struct subject *s)
{
    static const struct kit_alloc_ops ops = {.alloc = miser_alloc, .free = miser_free};
    struct kit_console_parts parts = *s->parts;
    KIT_TEST(s->report, "out of memory at any request: no console, and nothing kept");
    for (unsigned limit = 0; limit < FAILURES_MAX; limit++) {
        console_interface_t untouched = {NULL, NULL}, *console = &untouched;
        struct miser miser = {.alloc = {&ops}, .inner = s->parts->alloc, .limit = limit};
        parts.alloc = &miser.alloc;
        int rc = s->component->open(s->options, &parts, &console);
        if (rc == 0)
            return;
        KIT_CHECK_EQUAL(s->report, rc, KIT_ENOMEM);
        KIT_CHECK(s->report, console == &untouched);
        KIT_CHECK_EQUAL(s->report, miser.held, 0);
    }
    KIT_CHECK_SAYS(s->report, false, "it never opened, however much memory there was");
}
#endif

int kit_suite_console(const struct kit_console_component *component, const uint64_t *options,
                      const struct kit_console_parts *parts, struct kit_report *report)
{
    struct subject subject = {component, options, parts, report};
    int before = report->failures;
    test_identity(&subject);
    test_write(&subject);
    test_flush(&subject);
    test_read(&subject);
    test_instances(&subject);
    test_missing_parts(&subject);
#ifndef KIT_SOLE_ALLOC
    test_out_of_memory(&subject);
#endif
    return report->failures - before;
}
