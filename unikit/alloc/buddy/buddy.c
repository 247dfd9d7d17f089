/* SPDX-License-Identifier: MIT */
/* Binary buddies: slots, blocks, resizing, opening. */
#include <unikit/alloc/buddy/buddy.h>

/* ---- free slots ------------------------------------------------------------------------------ */

static void buddy_put(struct buddy *b, uintptr_t address, unsigned order)
{
    struct slot *slot = slot_at(address);
    struct slot **head = &b->heads[order];
    uint64_t bit = UINT64_C(1) << order;
    struct word *word = buddy_word(b, address);
    if (order >= STRETCH_BITS)
        *word = (struct word){0, 1};
    else
        word->free |= grain_bit(address);
    *slot = (struct slot){b->orders & bit ? *head : NULL, head, order};
    if (slot->next)
        slot->next->link = &slot->next;
    b->orders |= bit;
    *head = slot;
}

static void buddy_unlink(struct buddy *b, struct slot *slot)
{
    buddy_word(b, (uintptr_t)slot)->free &= ~grain_bit((uintptr_t)slot);
    *slot->link = slot->next;
    if (slot->next)
        slot->next->link = slot->link;
    else if (slot->link == &b->heads[slot->order])
        b->orders &= ~(UINT64_C(1) << slot->order);
}

/* Moves the frontier down to a free lower slot that touches it, and on over those below. */
static void buddy_retreat(struct buddy *b, uintptr_t address)
{
    for (;;) {
        b->frontier = address;
        unsigned order = kit_ctz64(address);
        uintptr_t below = address - ((size_t)1 << order);
        if (order >= ORDERS || below > address || !buddy_has(b, below, order))
            return;
        buddy_unlink(b, slot_at(below));
        address = below;
    }
}

/* Frees a slot and joins it with its buddies. */
static void buddy_join(struct buddy *b, uintptr_t address, unsigned order)
{
    for (;;) {
        uintptr_t other = address ^ (size_t)1 << order;
        if (other > address && other == b->frontier) {
            buddy_retreat(b, address);
            return;
        }
        if (!buddy_has(b, other, order))
            break;
        buddy_unlink(b, slot_at(other));
        address &= other;
        order++;
    }
    buddy_put(b, address, order);
}

/* The first slot of free memory start ... end. */
static unsigned first_order(uintptr_t start, uintptr_t end)
{
    unsigned fits = kit_fls64(end - start), lies = kit_ctz64(start);
    return fits < lies ? fits : lies;
}

/* Frees memory that was part of a block. First the map words of all its slots are made good to
 * read, for each may be another's buddy; those of slots that share one are good. */
static void buddy_give(struct buddy *b, uintptr_t start, uintptr_t end)
{
    for (uintptr_t at = start; at < end; at += (size_t)1 << first_order(at, end))
        if (first_order(at, end) >= STRETCH_BITS)
            *buddy_word(b, at) = (struct word){0, 0};
    while (start < end) {
        unsigned order = first_order(start, end);
        buddy_join(b, start, order);
        start += (size_t)1 << order;
    }
}

/* ---- used blocks ----------------------------------------------------------------------------- */

/* Marks a used block whose first map word is good to read. */
static void buddy_mark(const struct buddy *b, struct place block)
{
    size_t size = block.end - block.start;
    struct word *word = buddy_word(b, block.start);
    if (size > STRETCH)
        *word = (struct word){1, (uint64_t)(size >> GRAIN_BITS) << 1 | 1};
    else if (word->used & word->free & grain_bit(block.start)) /* it was larger */
        *word = (struct word){1, 0};
    else
        word->used |= grain_bit(block.start);
}

/* Puts what follows a used block up to `end` into free slots, and makes good to read the map words
 * inside the block at which buddies of slots behind it would start. */
static void buddy_edge(struct buddy *b, struct place block, uintptr_t end)
{
    for (uintptr_t at = block.end;;) {
        unsigned order = kit_ctz64(at);
        uintptr_t other = at - ((size_t)1 << order);
        bool inside = other > block.start && other < at;
        if (!inside && at >= end)
            return;
        if (inside && order >= STRETCH_BITS && !same_stretch(other, block.end))
            *buddy_word(b, other) = (struct word){0, 0};
        if (at < end)
            buddy_put(b, at, order);
        at += (size_t)1 << order;
    }
}

static void buddy_account(struct buddy *b, size_t before, size_t after)
{
    b->used += after - before;
    if (b->peak < b->used)
        b->peak = b->used;
}

/* ---- allocation ------------------------------------------------------------------------------ */

/* Raises the frontier for a block of `size` bytes at a multiple of 2^order. */
static struct place buddy_advance(struct buddy *b, size_t size, unsigned order)
{
    uintptr_t start = kit_align_up(b->frontier, (size_t)1 << order);
    if (start < b->frontier || start > b->limit || size > b->limit - start)
        return (struct place){0, 0};
    size_t slot = (size_t)1 << order, room = b->limit - start;
    if (!b->exact)
        size = slot < room ? slot : room;
    for (uintptr_t at = b->frontier; at < start; at += (size_t)1 << kit_ctz64(at))
        buddy_put(b, at, kit_ctz64(at));
    b->frontier = start + size;
    if (!mid_stretch(start))
        *buddy_word(b, start) = (struct word){0, 0};
    return (struct place){start, start + size};
}

static void *buddy_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct buddy *b = buddy_of(a);
    struct place block = {0, 0};
    if (KIT_LIKELY(size <= REQUEST_MAX && align <= REQUEST_MAX)) {
        size = round_to_grains(size);
        unsigned order = order_of(size > align ? size : align);
        uint64_t orders = b->orders >> order << order;
        uintptr_t end = 0;
        if (orders) {
            struct slot *slot = b->heads[kit_ctz64(orders)];
            buddy_unlink(b, slot);
            block.start = (uintptr_t)slot;
            block.end = block.start + (b->exact ? size : (size_t)1 << order);
            end = block.start + ((size_t)1 << slot->order);
        } else {
            block = buddy_advance(b, size, order);
            end = block.end;
        }
        if (block.start) {
            if (mid_stretch(block.end) && !same_stretch(block.start, block.end))
                *buddy_word(b, block.end) = (struct word){0, 0};
            buddy_mark(b, block);
            buddy_edge(b, block, end);
            buddy_account(b, 0, block.end - block.start);
            b->allocations++;
            return (void *)block.start;
        }
    }
    b->failures++;
    return NULL;
}

/* The block of an address; anything but a block in use is a broken contract. */
static struct place buddy_find(const struct buddy *b, const void *block)
{
    uintptr_t start = (uintptr_t)block;
    if (KIT_UNLIKELY(start < b->start || start >= b->frontier || start & (GRAIN - 1) ||
                     !(buddy_word(b, start)->used & grain_bit(start))))
        kit_panic("alloc.buddy: not a block in use");
    return (struct place){start, start + buddy_size(b, start)};
}

static void buddy_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)size, (void)align;
    struct buddy *b = buddy_of(a);
    if (!block)
        return;
    struct place place = buddy_find(b, block);
    struct word *word = buddy_word(b, place.start);
    if (place.end - place.start > STRETCH)
        *word = (struct word){0, 0};
    else
        word->used &= ~grain_bit(place.start);
    b->used -= place.end - place.start;
    b->frees++;
    buddy_give(b, place.start, place.end);
}

/* ---- resizing -------------------------------------------------------------------------------- */

static void buddy_shrink(struct buddy *b, struct place block, uintptr_t end)
{
    uintptr_t old_end = block.end;
    if (end == old_end)
        return;
    block.end = end;
    if (mid_stretch(end) && !same_stretch(end, old_end) && !same_stretch(end, block.start))
        *buddy_word(b, end) = (struct word){0, 0};
    buddy_mark(b, block);
    buddy_edge(b, block, end);
    buddy_give(b, end, old_end);
}

/* End of the free slots from the end of a block on that reach `end`; 0: they do not. */
static uintptr_t buddy_reach(const struct buddy *b, uintptr_t at, uintptr_t end)
{
    while (at < end) {
        if (at == b->frontier)
            return end <= b->limit ? end : 0;
        if (!buddy_is_free(b, at))
            return 0;
        at += (size_t)1 << slot_at(at)->order;
    }
    return at;
}

static bool buddy_grow(struct buddy *b, struct place block, uintptr_t end)
{
    uintptr_t reach = buddy_reach(b, block.end, end), at = block.end;
    if (!reach || block.start & (((size_t)1 << order_of(end - block.start)) - 1))
        return false;
    bool fresh = false; /* the map word at `end` is not good to read yet */
    while (at < end && at != b->frontier) {
        struct slot *slot = slot_at(at);
        fresh = slot->order >= STRETCH_BITS;
        at += (size_t)1 << slot->order;
        buddy_unlink(b, slot);
    }
    if (at < end) {
        fresh = !same_stretch(b->frontier, end) || !mid_stretch(b->frontier);
        b->frontier = end;
    }
    block.end = end;
    if (fresh && mid_stretch(end))
        *buddy_word(b, end) = (struct word){0, 0};
    buddy_mark(b, block);
    buddy_edge(b, block, reach);
    return true;
}

/* Gives a block another size where it stands; false: it does not fit there. */
static bool buddy_fit(struct buddy *b, struct place block, size_t new_size)
{
    size_t size = block.end - block.start;
    if (new_size > REQUEST_MAX)
        return false;
    size_t need = round_to_grains(new_size);
    if (!b->exact) {
        size_t whole = (size_t)1 << order_of(need);
        need = whole < size || need > size ? whole : size; /* at the limit a slot may be cut */
    }
    if (need > size && !buddy_grow(b, block, block.start + need))
        return false;
    if (need < size)
        buddy_shrink(b, block, block.start + need);
    buddy_account(b, size, need);
    return true;
}

static bool buddy_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                         size_t align)
{
    (void)old_size, (void)align;
    return buddy_fit(buddy_of(a), buddy_find(buddy_of(a), block), new_size);
}

static void *buddy_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                           size_t align)
{
    if (!block)
        return buddy_alloc(a, new_size, align);
    struct place place = buddy_find(buddy_of(a), block);
    if (buddy_fit(buddy_of(a), place, new_size))
        return block;
    if (old_size == KIT_ALLOC_UNKNOWN) {
        old_size = place.end - place.start;
        align = 0;
    }
    void *fresh = buddy_alloc(a, new_size, align);
    if (fresh) {
        memcpy(fresh, block, old_size < new_size ? old_size : new_size);
        buddy_free(a, block, old_size, align);
    }
    return fresh;
}

static size_t buddy_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)size;
    struct place place = buddy_find(buddy_of(a), block);
    return place.end - place.start;
}

/* ---- opening --------------------------------------------------------------------------------- */

static const struct kit_alloc_ops buddy_ops = {
    .alloc = buddy_alloc,
    .free = buddy_free,
    .realloc = buddy_realloc,
    .usable_size = buddy_usable_size,
    .stats = buddy_stats,
    .check = buddy_check,
    .owns = buddy_owns,
    .walk = buddy_walk,
    .resize = buddy_resize,
};

static COLD int buddy_open(const uint64_t *options, void *memory, size_t size,
                           struct kit_alloc **out)
{
    uintptr_t start = kit_align_up((uintptr_t)memory, GRAIN);
    uintptr_t end = kit_align_down((uintptr_t)memory + size, KIT_ALLOC_ALIGN_MIN);
    if (start > end || end - start < sizeof(struct buddy))
        return KIT_ENOMEM;
    struct buddy *b = (void *)kit_align_down(end - sizeof(struct buddy), KIT_ALLOC_ALIGN_MIN);
    size_t room = (uintptr_t)b - start;
    size_t map = (room / (STRETCH + sizeof(struct word)) + 2) * sizeof(struct word);
    if ((uintptr_t)b < start || room < map + GRAIN)
        return KIT_ENOMEM;
    *b = (struct buddy){.start = start,
                        .frontier = start,
                        .limit = kit_align_down((uintptr_t)b - map, GRAIN),
                        .exact = options[OPTION_EXACT]};
    if (b->limit <= start)
        return KIT_ENOMEM;
    KIT_ALLOC_BIND(&b->alloc, &buddy_ops);
    *buddy_word(b, start) = (struct word){0, 0};
    *out = &b->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_buddy = {
    .id = "alloc.buddy",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED | KIT_ALLOC_OWNS | KIT_ALLOC_WALK |
                KIT_ALLOC_UNSIZED | KIT_ALLOC_RESIZE,
    .ops = &buddy_ops,
    .open = buddy_open,
    .bounds = buddy_bounds,
};
