/* SPDX-License-Identifier: MIT */
/* Conformance suite for allocators: faces for threads, here all used by one thread in turn. */
#include <unikit/testing/suite_alloc_shadow.h>

enum { FACES = 3 };

/* Attaches up to FACES further faces; how many there are with the first one. */
static size_t attach_all(struct suite *s, struct kit_alloc *faces[FACES + 1])
{
    size_t count = 1;
    faces[0] = s->a;
    while (count <= FACES) {
        struct kit_alloc *face = NULL;
        int result = kit_alloc_attach(faces[kit_suite_random(&s->random) % count], &face);
        if (result != 0) {
            KIT_CHECK_EQUAL(s->report, result, KIT_ENOMEM);
            KIT_CHECK_SAYS(s->report, face == NULL, "a result in spite of failure");
            break;
        }
        faces[count++] = face;
    }
    return count;
}

/* Gives back the faces but the first, which stays the one in use. */
static void detach_all(struct suite *s, struct kit_alloc **faces, size_t count)
{
    s->a = faces[0];
    while (count > 1)
        kit_alloc_detach(faces[--count]);
}

static void test_faces(struct suite *s)
{
    KIT_TEST(s->report, "a block may be freed through any face, and every face sees the whole");
    struct kit_alloc *faces[FACES + 1];
    if (!has(s, KIT_ALLOC_THREADS))
        return;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        if (!open_fresh(s))
            return;
        s->random = seed;
        size_t capacity = stats_of(s).capacity;
        size_t count = attach_all(s, faces);
        KIT_CHECK_SAYS(s->report, count > 1, "no face at all");
        for (int step = 0; step < 400; step++) {
            s->a = faces[kit_suite_random(&s->random) % count];
            KIT_REQUIRE(s->report, kit_suite_alloc_step(s, capacity / 4) && check_step(s));
        }
        detach_all(s, faces, count);
        KIT_REQUIRE(s->report, check_step(s));
        KIT_REQUIRE(s->report, drop_all(s, SLOTS, (int)seed));
        close_fresh(s);
    }
}

static void test_detached_memory(struct suite *s)
{
    KIT_TEST(s->report, "what a detached face had free is there for the others");
    struct kit_alloc *faces[FACES + 1];
    if (!has(s, KIT_ALLOC_THREADS) || !has(s, KIT_ALLOC_REUSES) || !open_fresh(s))
        return;
    size_t size = stats_of(s).capacity / 100, first = 0;
    for (int round = 0; round < 6; round++) {
        size_t count = attach_all(s, faces), blocks = 0;
        s->a = faces[count - 1];
        while (blocks < SLOTS && fill(s, &s->slots[blocks], size, 0))
            blocks++;
        first = round ? first : blocks;
        KIT_CHECK_SAYS(s->report, blocks + blocks / 8 + 1 >= first, "memory was lost");
        for (size_t i = 0; i < blocks; i++) {
            s->a = faces[i % count];
            KIT_REQUIRE(s->report, drop(s, &s->slots[i]) && check_step(s));
        }
        detach_all(s, faces, count);
        KIT_REQUIRE(s->report, check_step(s));
    }
    close_fresh(s);
}

void kit_suite_alloc_faces(struct suite *s)
{
    test_faces(s);
    test_detached_memory(s);
}
