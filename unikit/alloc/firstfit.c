/* SPDX-License-Identifier: MIT */
/* First fit over a table of blocks, as in the basic unikernel framework; with free, coalescing,
 * alignment and further regions.
 *
 *     table (address order)   { start, size | used }  { start, size | used }  ...
 *     memory                  |  block               |  block               | ...
 *
 * The descriptors lie apart from the blocks: nothing that an application writes beyond its block
 * damages the table, and a free or realloc of anything that is not a block in use is found.
 * Invariants: starts ascend, blocks do not overlap, no two free blocks touch, sizes are multiples
 * of 16. Cost: O(table) for each operation, O(log table) for owns; 16 bytes per descriptor.
 * When the table is full a block is given out unsplit, or the request fails though memory is left:
 * the option `blocks` is the limit. */
#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

enum { OPTION_BLOCKS };
enum { UNIT = KIT_ALLOC_ALIGN_MIN, USED = 1 };

struct block {
    uintptr_t start;
    size_t tag; /* size | USED */
};

struct firstfit {
    struct kit_alloc alloc;
    size_t count; /* descriptors in use */
    size_t table_size;
    size_t capacity;
    size_t used;
    size_t peak;
    uint64_t allocations;
    uint64_t frees;
    uint64_t failures;
    struct block table[];
};

static struct firstfit *firstfit_of(const struct kit_alloc *a)
{
    return (struct firstfit *)(uintptr_t)a;
}

static size_t firstfit_size(const struct block *block)
{
    return block->tag & ~(size_t)USED;
}

static uintptr_t firstfit_end(const struct block *block)
{
    return block->start + firstfit_size(block);
}

static bool firstfit_is_used(const struct block *block)
{
    return block->tag & USED;
}

static size_t firstfit_round(size_t size)
{
    return size ? kit_align_up(size, UNIT) : UNIT;
}

/* Index of the first block that starts at or after `start`. */
static size_t firstfit_search(const struct firstfit *ff, uintptr_t start)
{
    size_t low = 0, high = ff->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ff->table[middle].start < start)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool firstfit_insert(struct firstfit *ff, size_t index, uintptr_t start, size_t tag)
{
    if (ff->count == ff->table_size)
        return false;
    memmove(&ff->table[index + 1], &ff->table[index], (ff->count - index) * sizeof(struct block));
    ff->table[index] = (struct block){start, tag};
    ff->count++;
    return true;
}

static void firstfit_remove(struct firstfit *ff, size_t index)
{
    ff->count--;
    memmove(&ff->table[index], &ff->table[index + 1], (ff->count - index) * sizeof(struct block));
}

/* Whether block `index` is free and the one after it is free and touches it. */
static bool firstfit_may_join(const struct firstfit *ff, size_t index)
{
    const struct block *block = &ff->table[index];
    return index + 1 < ff->count && !firstfit_is_used(block) && !firstfit_is_used(block + 1) &&
           firstfit_end(block) == block[1].start;
}

static void firstfit_coalesce(struct firstfit *ff, size_t index)
{
    if (firstfit_may_join(ff, index)) {
        ff->table[index].tag += ff->table[index + 1].tag;
        firstfit_remove(ff, index + 1);
    }
    if (index > 0 && firstfit_may_join(ff, index - 1)) {
        ff->table[index - 1].tag += ff->table[index].tag;
        firstfit_remove(ff, index);
    }
}

static void firstfit_account(struct firstfit *ff, size_t before, size_t after)
{
    ff->used = ff->used - before + after;
    if (ff->peak < ff->used)
        ff->peak = ff->used;
}

/* Bytes of free memory right after block `index`. */
static size_t firstfit_room_after(const struct firstfit *ff, size_t index)
{
    const struct block *block = &ff->table[index];
    bool free_follows = index + 1 < ff->count && !firstfit_is_used(block + 1) &&
                        firstfit_end(block) == block[1].start;
    return free_follows ? firstfit_size(block + 1) : 0;
}

/* Gives the used block `index` the size `size` (<= its own plus the room after it) by moving the
 * border to the free block that follows, or making one; keeps the rest if the table is full. */
static void firstfit_cut(struct firstfit *ff, size_t index, size_t size)
{
    struct block *block = &ff->table[index];
    size_t room = firstfit_room_after(ff, index);
    size_t before = firstfit_size(block);
    size_t rest = before + room - size;
    if (room && rest)
        block[1] = (struct block){block->start + size, rest};
    else if (room)
        firstfit_remove(ff, index + 1);
    else if (rest && !firstfit_insert(ff, index + 1, block->start + size, rest))
        size = before;
    block->tag = size | USED;
}

/* Turns the free block `index` into a used one of `size` bytes that starts `gap` bytes into it. */
static bool firstfit_take(struct firstfit *ff, size_t index, size_t gap, size_t size)
{
    struct block *block = &ff->table[index];
    if (gap) {
        if (!firstfit_insert(ff, index + 1, block->start + gap, firstfit_size(block) - gap))
            return false;
        (block++)->tag = gap;
        index++;
    }
    block->tag |= USED;
    firstfit_cut(ff, index, size);
    firstfit_account(ff, 0, firstfit_size(block));
    return true;
}

static void *firstfit_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct firstfit *ff = firstfit_of(a);
    align = align > UNIT ? align : UNIT;
    if (size <= ff->capacity) {
        size = firstfit_round(size);
        for (size_t i = 0; i < ff->count; i++) {
            struct block *block = &ff->table[i];
            size_t gap = (0 - block->start) & (align - 1);
            if (firstfit_is_used(block) || gap >= firstfit_size(block) ||
                size > firstfit_size(block) - gap)
                continue;
            uintptr_t start = block->start + gap;
            if (firstfit_take(ff, i, gap, size)) {
                ff->allocations++;
                return (void *)start;
            }
        }
    }
    ff->failures++;
    return NULL;
}

/* The index of a block in use; anything else is a broken contract. */
static size_t firstfit_find(const struct firstfit *ff, const void *block, size_t size)
{
    size_t index = firstfit_search(ff, (uintptr_t)block);
    if (index == ff->count || ff->table[index].start != (uintptr_t)block ||
        !firstfit_is_used(&ff->table[index]))
        kit_panic("alloc.firstfit: not a block in use");
    if (size != KIT_ALLOC_UNKNOWN && size > firstfit_size(&ff->table[index]))
        kit_panic("alloc.firstfit: a size larger than the block");
    return index;
}

static void firstfit_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)align;
    struct firstfit *ff = firstfit_of(a);
    if (!block)
        return;
    size_t index = firstfit_find(ff, block, size);
    ff->table[index].tag &= ~(size_t)USED;
    firstfit_account(ff, ff->table[index].tag, 0);
    firstfit_coalesce(ff, index);
    ff->frees++;
}

/* Gives block `index` a new size where it stands; false: there is no room behind it. */
static bool firstfit_fit(struct firstfit *ff, size_t index, size_t new_size)
{
    size_t size = firstfit_size(&ff->table[index]);
    if (new_size > size + firstfit_room_after(ff, index))
        return false;
    firstfit_cut(ff, index, firstfit_round(new_size));
    firstfit_account(ff, size, firstfit_size(&ff->table[index]));
    return true;
}

static void *firstfit_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                              size_t align)
{
    struct firstfit *ff = firstfit_of(a);
    if (!block)
        return firstfit_alloc(a, new_size, align);
    size_t index = firstfit_find(ff, block, old_size);
    if (firstfit_fit(ff, index, new_size))
        return block;
    if (old_size == KIT_ALLOC_UNKNOWN) {
        old_size = firstfit_size(&ff->table[index]);
        align = 0;
    }
    void *fresh = firstfit_alloc(a, new_size, align);
    if (fresh) {
        memcpy(fresh, block, old_size);
        firstfit_free(a, block, old_size, align);
    }
    return fresh;
}

static bool firstfit_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                            size_t align)
{
    (void)align;
    struct firstfit *ff = firstfit_of(a);
    return firstfit_fit(ff, firstfit_find(ff, block, old_size), new_size);
}

static size_t firstfit_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    const struct firstfit *ff = firstfit_of(a);
    return firstfit_size(&ff->table[firstfit_find(ff, block, size)]);
}

static void firstfit_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct firstfit *ff = firstfit_of(a);
    size_t largest = 0;
    for (size_t i = 0; i < ff->count; i++) {
        const struct block *block = &ff->table[i];
        if (!firstfit_is_used(block) && largest < firstfit_size(block))
            largest = firstfit_size(block);
    }
    *out = (struct kit_alloc_stats){
        .capacity = ff->capacity,
        .used = ff->used,
        .peak = ff->peak,
        .blocks = (size_t)(ff->allocations - ff->frees),
        .largest_free = largest,
        .allocations = ff->allocations,
        .frees = ff->frees,
        .failures = ff->failures,
    };
}

static int firstfit_check(const struct kit_alloc *a)
{
    const struct firstfit *ff = firstfit_of(a);
    size_t used = 0, total = 0, blocks = 0;
    if (ff->count > ff->table_size)
        return KIT_ECORRUPT;
    for (size_t i = 0; i < ff->count; i++) {
        const struct block *block = &ff->table[i];
        size_t size = firstfit_size(block);
        if (block->start % UNIT || size % UNIT || size == 0 || size > ff->capacity)
            return KIT_ECORRUPT;
        if (i + 1 < ff->count && firstfit_end(block) > block[1].start)
            return KIT_ECORRUPT;
        if (firstfit_may_join(ff, i))
            return KIT_ECORRUPT;
        total += size;
        used += firstfit_is_used(block) ? size : 0;
        blocks += firstfit_is_used(block);
    }
    bool sound = total == ff->capacity && used == ff->used && used <= ff->peak &&
                 blocks == ff->allocations - ff->frees;
    return sound ? 0 : KIT_ECORRUPT;
}

static bool firstfit_owns(const struct kit_alloc *a, const void *block)
{
    const struct firstfit *ff = firstfit_of(a);
    size_t index = firstfit_search(ff, (uintptr_t)block);
    return index < ff->count && ff->table[index].start == (uintptr_t)block &&
           firstfit_is_used(&ff->table[index]);
}

static int firstfit_walk(const struct kit_alloc *a,
                         int (*visit)(void *argument, void *block, size_t size, bool used),
                         void *argument)
{
    const struct firstfit *ff = firstfit_of(a);
    for (size_t i = 0; i < ff->count; i++) {
        const struct block *block = &ff->table[i];
        int stop =
            visit(argument, (void *)block->start, firstfit_size(block), firstfit_is_used(block));
        if (stop)
            return stop;
    }
    return 0;
}

static int firstfit_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    struct firstfit *ff = firstfit_of(a);
    uintptr_t start = kit_align_up((uintptr_t)memory, UNIT);
    uintptr_t end = kit_align_down((uintptr_t)memory + size, UNIT);
    if (start >= end)
        return KIT_ENOMEM;
    size_t index = firstfit_search(ff, start);
    bool overlaps = (index > 0 && firstfit_end(&ff->table[index - 1]) > start) ||
                    (index < ff->count && ff->table[index].start < end);
    if (overlaps)
        return KIT_EINVAL;
    if (!firstfit_insert(ff, index, start, end - start))
        return KIT_ENOMEM;
    ff->capacity += end - start;
    firstfit_coalesce(ff, index);
    return 0;
}

static const struct kit_alloc_ops firstfit_ops = {
    .alloc = firstfit_alloc,
    .free = firstfit_free,
    .realloc = firstfit_realloc,
    .usable_size = firstfit_usable_size,
    .stats = firstfit_stats,
    .check = firstfit_check,
    .owns = firstfit_owns,
    .walk = firstfit_walk,
    .add_region = firstfit_add_region,
    .resize = firstfit_resize,
};

static int firstfit_open(const uint64_t *options, void *memory, size_t size, struct kit_alloc **out)
{
    uintptr_t base = kit_align_up((uintptr_t)memory, UNIT);
    uintptr_t end = (uintptr_t)memory + size;
    size_t blocks = options[OPTION_BLOCKS];
    if (blocks == 0)
        return KIT_EINVAL;
    if (base > end || end - base < sizeof(struct firstfit) ||
        (end - base - sizeof(struct firstfit)) / sizeof(struct block) <= blocks)
        return KIT_ENOMEM;
    struct firstfit *ff = (void *)base;
    *ff = (struct firstfit){.table_size = blocks};
    KIT_ALLOC_BIND(&ff->alloc, &firstfit_ops);
    int result =
        firstfit_add_region(&ff->alloc, &ff->table[blocks], end - (uintptr_t)&ff->table[blocks]);
    if (result == 0)
        *out = &ff->alloc;
    return result;
}

const struct kit_alloc_component kit_alloc_firstfit = {
    .id = "alloc.firstfit",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_OWNS | KIT_ALLOC_WALK | KIT_ALLOC_ADD_REGION |
                KIT_ALLOC_UNSIZED | KIT_ALLOC_RESIZE,
    .ops = &firstfit_ops,
    .open = firstfit_open,
};
