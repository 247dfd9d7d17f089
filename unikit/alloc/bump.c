/* SPDX-License-Identifier: MIT */
/* Bump allocator: a pointer that only moves up, and down again in LIFO order or scope by scope.
 *
 *     | struct bump | block | block | last block |  free ...            |
 *                   ^start                       ^start + 16 * top      ^start + 16 * limit
 *
 * No headers: the caller's sizes say how long a block is. Freeing the last block takes it back, and
 * the last block grows and shrinks in place; any other free only counts. Memory comes back as a
 * whole by release(mark). Every operation is O(1) (a moving realloc copies); 96 bytes in all.
 * Places are counted in units of 16 bytes in 32 bits, so that a mark can carry both the place and
 * the number of blocks: at most 64 GiB of a region are used. */
#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

enum { UNIT = KIT_ALLOC_ALIGN_MIN };

struct bump {
    struct kit_alloc alloc;
    uintptr_t start;
    uint32_t top; /* units from start: the first free one */
    uint32_t limit;
    uint32_t peak;
    uint32_t blocks;
    uint64_t allocations;
    uint64_t frees;
    uint64_t failures;
};

static struct bump *bump_of(const struct kit_alloc *a)
{
    return (struct bump *)(uintptr_t)a;
}

/* Units that a block of `size` bytes takes; for more than a region can have, one too many. */
static uint64_t bump_units(size_t size)
{
    uint64_t units = size / UNIT + (size % UNIT != 0);
    return units ? units : 1;
}

/* Ends the last block, which starts at unit `first`, after `units`; false: not enough memory. */
static bool bump_extend(struct bump *bump, uint64_t first, uint64_t units)
{
    if (first > bump->limit || units > bump->limit - first) {
        bump->failures++;
        return false;
    }
    bump->top = (uint32_t)(first + units);
    if (bump->peak < bump->top)
        bump->peak = bump->top;
    return true;
}

static void *bump_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct bump *bump = bump_of(a);
    uint64_t first = bump->top;
    if (align > UNIT) {
        uintptr_t place = bump->start + (uintptr_t)bump->top * UNIT;
        first += ((0 - place) & (align - 1)) / UNIT;
    }
    if (!bump_extend(bump, first, bump_units(size)))
        return NULL;
    bump->allocations++;
    bump->blocks++;
    return (void *)(bump->start + first * UNIT);
}

/* The unit at which a block starts; a block outside the part in use is a broken contract. */
static uint64_t bump_place(const struct bump *bump, const void *block)
{
    uint64_t first = ((uintptr_t)block - bump->start) / UNIT;
    if (KIT_UNLIKELY(first >= bump->top))
        kit_panic("alloc.bump: a block that is not in use");
    return first;
}

static void bump_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)align;
    struct bump *bump = bump_of(a);
    if (!block)
        return;
    uint64_t first = bump_place(bump, block);
    if (first + bump_units(size) == bump->top)
        bump->top = (uint32_t)first;
    bump->frees++;
    bump->blocks--;
}

/* Gives a block a new size where it stands: the last one any, others no more than they have. */
static bool bump_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                        size_t align)
{
    (void)align;
    struct bump *bump = bump_of(a);
    uint64_t first = bump_place(bump, block), units = bump_units(new_size);
    if (first + bump_units(old_size) != bump->top)
        return units <= bump_units(old_size);
    return units <= bump->limit - first && bump_extend(bump, first, units);
}

static void *bump_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    struct bump *bump = bump_of(a);
    if (!block)
        return bump_alloc(a, new_size, align);
    uint64_t first = bump_place(bump, block);
    uint64_t units = bump_units(new_size);
    if (first + bump_units(old_size) == bump->top)
        return bump_extend(bump, first, units) ? block : NULL;
    if (units <= bump_units(old_size))
        return block;
    void *fresh = bump_alloc(a, new_size, align);
    if (fresh) {
        memcpy(fresh, block, old_size);
        bump_free(a, block, old_size, align);
    }
    return fresh;
}

static size_t bump_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)a;
    (void)block;
    return (size_t)bump_units(size) * UNIT;
}

static void bump_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct bump *bump = bump_of(a);
    *out = (struct kit_alloc_stats){
        .capacity = (size_t)bump->limit * UNIT,
        .used = (size_t)bump->top * UNIT,
        .peak = (size_t)bump->peak * UNIT,
        .blocks = bump->blocks,
        .largest_free = (size_t)(bump->limit - bump->top) * UNIT,
        .allocations = bump->allocations,
        .frees = bump->frees,
        .failures = bump->failures,
    };
}

static int bump_check(const struct kit_alloc *a)
{
    const struct bump *bump = bump_of(a);
    bool sound = bump->start % UNIT == 0 && bump->top <= bump->peak && bump->peak <= bump->limit &&
                 bump->blocks <= bump->top && bump->frees <= bump->allocations;
    return sound ? 0 : KIT_ECORRUPT;
}

static size_t bump_mark(const struct kit_alloc *a)
{
    const struct bump *bump = bump_of(a);
    return (size_t)bump->blocks << 32 | bump->top;
}

static void bump_release(struct kit_alloc *a, size_t mark)
{
    struct bump *bump = bump_of(a);
    uint32_t top = (uint32_t)mark;
    uint32_t blocks = (uint32_t)(mark >> 32);
    if (top > bump->top) /* the block below the mark was freed, and with it all above */
        return;
    if (blocks > bump->blocks) /* older blocks were freed since the mark */
        blocks = bump->blocks;
    bump->frees += bump->blocks - blocks;
    bump->blocks = blocks;
    bump->top = top;
}

static const struct kit_alloc_ops bump_ops = {
    .alloc = bump_alloc,
    .free = bump_free,
    .realloc = bump_realloc,
    .usable_size = bump_usable_size,
    .stats = bump_stats,
    .check = bump_check,
    .mark = bump_mark,
    .release = bump_release,
    .resize = bump_resize,
};

static int bump_open(const uint64_t *options, void *memory, size_t size, struct kit_alloc **out)
{
    (void)options;
    uintptr_t base = kit_align_up((uintptr_t)memory, UNIT);
    uintptr_t start = kit_align_up(base + sizeof(struct bump), UNIT);
    uintptr_t end = (uintptr_t)memory + size;
    if (start >= end || (end - start) / UNIT == 0)
        return KIT_ENOMEM;
    uint64_t units = (end - start) / UNIT;
    struct bump *bump = (void *)base;
    *bump =
        (struct bump){.start = start, .limit = units < UINT32_MAX ? (uint32_t)units : UINT32_MAX};
    KIT_ALLOC_BIND(&bump->alloc, &bump_ops);
    *out = &bump->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_bump = {
    .id = "alloc.bump",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_BOUNDED | KIT_ALLOC_SCOPES | KIT_ALLOC_RESIZE,
    .ops = &bump_ops,
    .open = bump_open,
};
