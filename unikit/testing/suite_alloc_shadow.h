/* SPDX-License-Identifier: MIT */
/* What the files of the allocator suite share: opening between two guard strips, and a shadow of
 * what was given out. */
#ifndef KIT_TESTING_SUITE_ALLOC_SHADOW_H
#define KIT_TESTING_SUITE_ALLOC_SHADOW_H

#include <unikit/testing/suite_alloc.h>

enum { SLOTS = 48, STRIP = 32, STRIP_BYTE = 0xa7, EDGE = 128, SIZE_MIN = 1024 };

struct slot {
    uint8_t *block;
    size_t size, align;
    uint8_t seed;
};

struct suite {
    const struct kit_alloc_component *component; /* the outermost of `choices` */
    const struct kit_alloc_choice *choices;
    size_t count;
    uint32_t features;
    struct kit_report *report;
    uint8_t *memory; /* all of it, guard strips included */
    size_t size;
    struct kit_alloc *a;
    uint64_t failures; /* NULL answers so far */
    uint64_t random;
    struct slot slots[SLOTS];
};

KIT_INLINE bool has(const struct suite *s, uint32_t feature)
{
    return s->features & feature;
}

KIT_INLINE struct kit_alloc_stats stats_of(const struct suite *s)
{
    struct kit_alloc_stats stats;
    kit_alloc_stats(s->a, &stats);
    return stats;
}

/* ---- opening and guard strips ------------------------------------------------------------- */

/* Opens at any place; the code. */
KIT_INLINE int open_at(const struct suite *s, void *memory, size_t size, struct kit_alloc **out)
{
    size_t at;
    return kit_alloc_compose(s->choices, s->count, memory, size, out, &at);
}

/* Opens in memory[STRIP + offset ... end) where everything else is a guard; the memory holds
 * `fill`. */
KIT_INLINE bool open_filled(struct suite *s, size_t offset, size_t size, uint8_t fill)
{
    memset(s->memory, STRIP_BYTE, s->size);
    memset(s->memory + STRIP + offset, fill, size);
    memset(s->slots, 0, sizeof s->slots);
    s->a = NULL;
    s->failures = 0;
    int result = open_at(s, s->memory + STRIP + offset, size, &s->a);
    return KIT_CHECK_EQUAL(s->report, result, 0) && KIT_CHECK(s->report, s->a != NULL);
}

KIT_INLINE bool open_part(struct suite *s, size_t offset, size_t size)
{
    return open_filled(s, offset, size, STRIP_BYTE);
}

KIT_INLINE bool open_fresh(struct suite *s)
{
    return open_part(s, 0, s->size - (size_t)2 * STRIP);
}

/* The same over memory that holds numbers of any kind. */
KIT_INLINE bool open_random(struct suite *s)
{
    size_t size = s->size - (size_t)2 * STRIP;
    memset(s->memory, STRIP_BYTE, s->size);
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t random = kit_suite_random(&s->random);
        random = random & 1 ? random : random >> 32 & 63;
        memcpy(s->memory + STRIP + i, &random, sizeof random);
    }
    memset(s->slots, 0, sizeof s->slots);
    s->failures = 0;
    return KIT_CHECK_EQUAL(s->report, open_at(s, s->memory + STRIP, size, &s->a), 0);
}

KIT_INLINE bool is_guard(const uint8_t *from, const uint8_t *to)
{
    while (from < to)
        if (*from++ != STRIP_BYTE)
            return false;
    return true;
}

KIT_INLINE void check_guards(struct suite *s, size_t offset, size_t size)
{
    uint8_t *first = s->memory + STRIP + offset;
    KIT_CHECK_SAYS(s->report, is_guard(s->memory, first), "wrote before its memory");
    KIT_CHECK_SAYS(s->report, is_guard(first + size, s->memory + s->size),
                   "wrote behind its memory");
}

KIT_INLINE void close_fresh(struct suite *s)
{
    KIT_CHECK_EQUAL(s->report, kit_alloc_check(s->a), 0);
    check_guards(s, 0, s->size - (size_t)2 * STRIP);
}

/* ---- the shadow ---------------------------------------------------------------------------- */

/* What a block holds: bytes that all differ, or small numbers, which a component may take for
 * bookkeeping of its own. */
KIT_INLINE uint8_t pattern(const struct slot *slot, size_t at)
{
    if ((slot->seed & 3) == 3)
        return at & 7 ? 0 : (uint8_t)(4 + (slot->seed >> 2 & 15));
    return (uint8_t)(slot->seed + at * 7 + (at >> 8));
}

/* Writes the first and the last bytes of a block. */
KIT_INLINE void paint(struct slot *slot, uint8_t seed)
{
    slot->seed = seed;
    for (size_t i = 0; i < slot->size && i < EDGE; i++)
        slot->block[i] = pattern(slot, i);
    for (size_t i = slot->size > EDGE ? slot->size - EDGE : 0; i < slot->size; i++)
        slot->block[i] = pattern(slot, i);
}

/* Whether the first `size` bytes of a block are still as painted. */
KIT_INLINE bool is_painted(const struct slot *slot, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (i == EDGE && slot->size > (size_t)2 * EDGE)
            i = slot->size - EDGE;
        if (i < size && slot->block[i] != pattern(slot, i))
            return false;
    }
    return true;
}

KIT_INLINE bool is_apart(const struct suite *s, const struct slot *slot)
{
    for (const struct slot *other = s->slots; other < s->slots + SLOTS; other++)
        if (other != slot && other->block &&
            slot->block < other->block + other->size + !other->size &&
            other->block < slot->block + slot->size + !slot->size)
            return false;
    return true;
}

/* Checks a block that was just given out, and paints it. */
KIT_INLINE bool accept(struct suite *s, struct slot *slot)
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
KIT_INLINE void refuse(struct suite *s, size_t size, size_t align)
{
    s->failures++;
    KIT_CHECK_EQUAL(s->report, stats_of(s).failures, s->failures);
    if (align <= KIT_ALLOC_ALIGN_MIN)
        KIT_CHECK_SAYS(s->report, size + !size > stats_of(s).largest_free,
                       "NULL although largest_free promised room");
}

/* Fills an empty slot; false: NULL, or a check failed. */
KIT_INLINE bool fill(struct suite *s, struct slot *slot, size_t size, size_t align)
{
    void *block = kit_alloc_alloc(s->a, size, align);
    if (!block) {
        refuse(s, size, align);
        return false;
    }
    *slot = (struct slot){.block = block, .size = size, .align = align};
    return accept(s, slot);
}

/* Whether to keep a block's size from the component this time. */
KIT_INLINE bool conceal(struct suite *s)
{
    return has(s, KIT_ALLOC_UNSIZED) && kit_suite_random(&s->random) & 1;
}

/* As fill, by zeroed(): every byte must be zero. */
KIT_INLINE bool fill_zeroed(struct suite *s, struct slot *slot, size_t size, size_t align)
{
    uint8_t *block = kit_alloc_zeroed(s->a, size, align);
    if (!block) {
        refuse(s, size, align);
        return false;
    }
    size_t at = 0;
    while (at < size && !block[at])
        at++;
    *slot = (struct slot){.block = block, .size = size, .align = align};
    return KIT_CHECK_EQUAL(s->report, at, size) && accept(s, slot);
}

KIT_INLINE bool drop(struct suite *s, struct slot *slot)
{
    bool kept = KIT_CHECK_SAYS(s->report, is_painted(slot, slot->size), "a block was overwritten");
    if (conceal(s))
        kit_alloc_free(s->a, slot->block, KIT_ALLOC_UNKNOWN, 64);
    else
        kit_alloc_free(s->a, slot->block, slot->size, slot->align);
    slot->block = NULL;
    return kept;
}

KIT_INLINE bool resize(struct suite *s, struct slot *slot, size_t size)
{
    bool kept = KIT_CHECK_SAYS(s->report, is_painted(slot, slot->size), "a block was overwritten");
    bool concealed = conceal(s);
    size_t align = concealed ? 0 : slot->align;
    uint8_t *block =
        kit_alloc_realloc(s->a, slot->block, concealed ? KIT_ALLOC_UNKNOWN : slot->size, size,
                          concealed ? 64 : align);
    if (!block) {
        refuse(s, size, align);
        return KIT_CHECK_SAYS(s->report, is_painted(slot, slot->size),
                              "a failed realloc changed the block");
    }
    slot->block = block;
    slot->align = align;
    size_t common = slot->size < size ? slot->size : size;
    kept = KIT_CHECK_SAYS(s->report, is_painted(slot, common), "realloc lost contents") && kept;
    slot->size = size;
    return accept(s, slot) && kept;
}

struct sum {
    size_t blocks, bytes;
};

KIT_INLINE struct sum live(const struct suite *s)
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
KIT_INLINE bool check_step(struct suite *s)
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

/* Frees all slots: 0 ascending, 1 descending, 2 even then odd, 3 odd then even, else shuffled. */
KIT_INLINE bool drop_all(struct suite *s, size_t count, int order)
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

/* Tests of optional features, and random sequences (suite_alloc_features.c). */
void kit_suite_alloc_features(struct suite *s);
/* Of sizes: unknown ones, resize, zeroed (suite_alloc_sizes.c). */
void kit_suite_alloc_sizes(struct suite *s);
/* Of page sources: what is given back, and what is got (suite_alloc_pages.c). */
void kit_suite_alloc_pages(struct suite *s);
/* Of faces for threads (suite_alloc_faces.c). */
void kit_suite_alloc_faces(struct suite *s);
/* A step of a random sequence: sizes up to an eighth of `capacity`, resized, freed, allocated. */
bool kit_suite_alloc_step(struct suite *s, size_t capacity);

#endif
