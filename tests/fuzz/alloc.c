/* SPDX-License-Identifier: MIT */
/* An allocator under a program made of random bytes. The first three bytes choose size and
 * alignment of the memory; after that each operation takes one byte and its operands. Everything
 * the component claims is used; every block is filled, compared, kept apart from the others, and
 * check() is asked as often as time allows. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/alloc/alloc.h>

#include "driver.h"

extern const struct kit_alloc_component COMPONENT;

#ifndef OPTIONS
#define OPTIONS 0
#endif

enum { SLOTS = 64, FACES = 4, SPARE = 1 << 16, MEMORY = 1 << 21, PAGE = 4096, SHOWN = 2048 };

struct slot {
    uint8_t *block;
    size_t size, align;
    uint32_t serial;
};

static _Alignas(PAGE) uint8_t memory[MEMORY + PAGE], spare[SPARE];
static const uint8_t *input, *input_end;
static struct kit_alloc *faces[FACES];
static struct slot slots[SLOTS];
static uint32_t serial;
static size_t heap_size;
static bool spare_added;
static uint64_t done[16], gone_back; /* operations by kind; bytes decommitted */

static bool has(uint32_t feature)
{
    return (COMPONENT.features & feature) == feature;
}

static void must(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s: %s\n", COMPONENT.id, what);
        abort();
    }
}

static uint8_t byte(void)
{
    return input < input_end ? *input++ : 0;
}

static size_t operand_size(void)
{
    uint8_t kind = byte(), value = byte();
    switch (kind % 8) {
    case 0:
        return value;
    case 1:
    case 2:
        return (size_t)value * 8 + kind / 8;
    case 3:
        return (size_t)1 << value % 20;
    case 4:
        return ((size_t)1 << value % 20) - 1 + kind / 8 % 3;
    case 5:
        return (size_t)value << 12;
    case 6:
        return (size_t)value * 600 + kind;
    default:
        return SIZE_MAX >> value % 64;
    }
}

static size_t operand_align(void)
{
    uint8_t value = byte();
    return value < 128 ? 0 : value < 250 ? (size_t)1 << value % 14 : (size_t)1 << value % 62;
}

/* ---- contents: the first and last bytes of a block tell whose it is -------------------------- */

static uint8_t mark_of(const struct slot *s, size_t at)
{
    return (uint8_t)(s->serial * 37 + at * 11);
}

static size_t shown(const struct slot *s)
{
    return s->size < SHOWN ? s->size : SHOWN / 2;
}

static void fill(struct slot *s)
{
    s->serial = ++serial;
    for (size_t i = 0; i < shown(s); i++) {
        s->block[i] = mark_of(s, i);
        s->block[s->size - 1 - i] = mark_of(s, s->size - 1 - i);
    }
}

static void verify(const struct slot *s, const uint8_t *block, size_t size)
{
    for (size_t i = 0; i < s->size && i < size && i < shown(s); i++)
        must(block[i] == mark_of(s, i), "the contents of a block changed");
    for (size_t i = s->size - shown(s); i < s->size && i < size; i++)
        must(block[i] == mark_of(s, i), "the end of a block changed");
}

static bool inside(const uint8_t *block, size_t size)
{
    return (block >= memory && block + size <= memory + sizeof memory && size <= sizeof memory) ||
           (spare_added && block >= spare && block + size <= spare + SPARE && size <= SPARE);
}

static void settle(struct slot *s)
{
    must(inside(s->block, s->size), "a block leaves the memory");
    must((uintptr_t)s->block % (s->align > 16 ? s->align : 16) == 0, "a block is not aligned");
    for (const struct slot *other = slots; other < slots + SLOTS; other++)
        must(other == s || other->block == NULL || other->block + other->size <= s->block ||
                 s->block + (s->size ? s->size : 1) <= other->block,
             "two blocks overlap");
    fill(s);
}

/* ---- operations ------------------------------------------------------------------------------ */

static struct kit_alloc *face(void)
{
    struct kit_alloc *f = faces[byte() % FACES];
    return f ? f : faces[0];
}

static struct slot *operand_slot(void)
{
    return &slots[byte() % SLOTS];
}

static void refused(size_t size, size_t align)
{
    struct kit_alloc_stats stats;
    kit_alloc_stats(faces[0], &stats);
    must(align > 16 || has(KIT_ALLOC_THREADS) || (size ? size : 1) > stats.largest_free,
         "a request was refused that largest_free promises");
}

static void drop(struct slot *s, bool unsized)
{
    if (s->block == NULL)
        return;
    verify(s, s->block, s->size);
    uint8_t *block = s->block;
    s->block = NULL;
    bool unknown = unsized && has(KIT_ALLOC_UNSIZED);
    kit_alloc_free(face(), block, unknown ? KIT_ALLOC_UNKNOWN : s->size, s->align);
}

static void obtain(struct slot *s, bool zeroed)
{
    size_t size = operand_size(), align = operand_align();
    drop(s, false);
    uint8_t *block =
        zeroed ? kit_alloc_zeroed(face(), size, align) : kit_alloc_alloc(face(), size, align);
    if (block == NULL) {
        refused(size, align);
        return;
    }
    for (size_t i = 0; zeroed && i < size; i++)
        must(block[i] == 0, "zeroed() gave memory that is not zero");
    *s = (struct slot){block, size, align, 0};
    settle(s);
}

static void change(struct slot *s, bool unsized)
{
    size_t size = operand_size();
    if (s->block == NULL)
        return;
    size_t old = unsized && has(KIT_ALLOC_UNSIZED) && s->align <= 16 ? KIT_ALLOC_UNKNOWN : s->size;
    uint8_t *block = kit_alloc_realloc(face(), s->block, old, size, s->align);
    if (block == NULL) {
        verify(s, s->block, s->size);
        return;
    }
    verify(s, block, size);
    s->block = block;
    s->size = size;
    settle(s);
}

static void resize(struct slot *s)
{
    size_t size = operand_size();
    if (s->block == NULL || !has(KIT_ALLOC_RESIZE))
        return;
    if (kit_alloc_resize(face(), s->block, s->size, size, s->align)) {
        verify(s, s->block, size);
        s->size = size;
        settle(s);
    }
}

static void give_back(bool all)
{
    if (has(KIT_ALLOC_PAGES)) {
        size_t bytes =
            all ? kit_alloc_trim(faces[0], (size_t)byte() << 12) : kit_alloc_tick(face());
        must(bytes <= heap_size + SPARE, "more was given back than there is");
    }
}

static void change_faces(void)
{
    uint8_t which = 1 + byte() % (FACES - 1);
    if (!has(KIT_ALLOC_THREADS))
        return;
    if (faces[which] != NULL) {
        kit_alloc_detach(faces[which]);
        faces[which] = NULL;
    } else if (kit_alloc_attach(faces[0], &faces[which]) != 0) {
        faces[which] = NULL;
    }
}

static void add_spare(void)
{
    if (!spare_added && has(KIT_ALLOC_ADD_REGION))
        spare_added = kit_alloc_add_region(faces[0], spare + byte() % 64, SPARE - 64) == 0;
}

/* Frees what was allocated since a mark, all at once. */
static void scope(void)
{
    if (!has(KIT_ALLOC_SCOPES))
        return;
    size_t mark = kit_alloc_mark(faces[0]);
    for (size_t count = byte() % 8; count; count--) {
        size_t size = operand_size() % 4096;
        uint8_t *block = kit_alloc_alloc(faces[0], size, 0);
        must(block == NULL || inside(block, size), "a block leaves the memory");
        if (block != NULL)
            memset(block, 0x77, size);
    }
    kit_alloc_release(faces[0], mark);
}

static void views(const struct slot *s)
{
    if (s->block == NULL)
        return;
    must(!has(KIT_ALLOC_OWNS) || kit_alloc_owns(face(), s->block), "a block in use is not owned");
    must(!has(KIT_ALLOC_OWNS) || !kit_alloc_owns(face(), s->block + 8), "its inside is owned");
    must(kit_alloc_usable_size(face(), s->block, s->size) >= s->size, "usable_size is too small");
}

static int count_used(void *argument, void *block, size_t size, bool used)
{
    size_t *blocks = argument;
    must(inside(block, size), "walk leaves the memory");
    *blocks += used;
    return 0;
}

static void inspect(void)
{
    struct kit_alloc_stats stats;
    size_t expected = 0, walked = 0;
    for (const struct slot *s = slots; s < slots + SLOTS; s++)
        expected += s->block != NULL;
    must(kit_alloc_check(faces[0]) == 0, "check() finds the heap corrupt");
    kit_alloc_stats(faces[0], &stats);
    must(stats.blocks == expected, "stats count other blocks than are in use");
    must(stats.used <= stats.capacity && stats.used <= stats.peak, "stats contradict themselves");
    if (has(KIT_ALLOC_WALK)) {
        kit_alloc_walk(faces[0], count_used, &walked);
        must(walked == expected, "walk shows other blocks than are in use");
    }
}

/* ---- one input ------------------------------------------------------------------------------- */

static void decommit(void *context, void *start, size_t size)
{
    (void)context;
    must((uintptr_t)start % PAGE == 0 && size % PAGE == 0 && size > 0, "no whole pages");
    must(inside(start, size), "pages that are not the heap's");
    for (const struct slot *s = slots; s < slots + SLOTS; s++)
        must(s->block == NULL || s->block + s->size <= (uint8_t *)start ||
                 (uint8_t *)start + size <= s->block,
             "memory in use is given back");
    memset(start, 0, size);
    gone_back += size;
}

static bool start(void)
{
    static const struct kit_alloc_pages pages = {.decommit = decommit, .page = PAGE};
    static const uint64_t options[] = {OPTIONS, 0};
    static const size_t limits[] = {4 << 10, 24 << 10, 100 << 10, 300 << 10, MEMORY};
    size_t offset = byte();
    heap_size = limits[byte() % 5] - (size_t)byte() * 8;
    memset(memory, 0xDB,
           heap_size + offset + 64 < sizeof memory ? heap_size + offset + 64 : sizeof memory);
    memset(slots, 0, sizeof slots);
    memset(faces, 0, sizeof faces);
    spare_added = false;
    if (COMPONENT.open(options, memory + offset, heap_size, &faces[0]) != 0)
        return false;
    if (has(KIT_ALLOC_PAGES) && byte() % 2)
        must(kit_alloc_source(faces[0], &pages) == 0, "a page source is refused");
    return true;
}

static void step(void)
{
    uint8_t code = byte();
    done[code % 16]++;
    switch (code % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        obtain(operand_slot(), false);
        break;
    case 4:
        obtain(operand_slot(), has(KIT_ALLOC_ZEROED));
        break;
    case 5:
    case 6:
        drop(operand_slot(), false);
        break;
    case 7:
    case 8:
        drop(operand_slot(), true);
        break;
    case 9:
        change(operand_slot(), false);
        break;
    case 10:
        change(operand_slot(), true);
        break;
    case 11:
        resize(operand_slot());
        break;
    case 12:
        give_back(code & 16);
        break;
    case 13:
        change_faces();
        break;
    case 14:
        code & 16 ? add_spare() : scope();
        break;
    default:
        views(operand_slot());
        break;
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    input = data;
    input_end = data + size;
    serial = 0;
    if (!start())
        return;
    for (size_t steps = 0; input < input_end; steps++) {
        step();
        if (heap_size <= 24 << 10 || steps % 8 == 7)
            inspect();
    }
    for (struct slot *s = slots; s < slots + SLOTS; s++)
        drop(s, false);
    inspect();
}

void fuzz_summary(void)
{
    for (size_t i = 0; i < 16; i++)
        printf("%llu ", (unsigned long long)done[i]);
    printf("operations, %llu bytes given back\n", (unsigned long long)gone_back);
}
