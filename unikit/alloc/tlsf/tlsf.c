/* SPDX-License-Identifier: MIT */
/* Two-level segregated fit: allocation, freeing, resizing, opening, further regions. */
#include <unikit/alloc/tlsf/tlsf.h>

/* A free block of at least `size` bytes: the head of its own class if that is large enough, else
 * the head of the next class that has one. */
static struct block *tlsf_find(const struct tlsf *t, size_t size)
{
    size_t index = tlsf_class(size);
    size_t word = index / 64;
    uint64_t bits = t->map[word] >> (index % 64);
    if ((bits & 1) && tlsf_size(t->heads[index]) >= size)
        return t->heads[index];
    bits = bits >> 1 << 1 << (index % 64);
    if (!bits) {
        uint64_t words = t->words >> word >> 1;
        if (!words)
            return NULL;
        word += 1 + kit_ctz64(words);
        bits = t->map[word];
    }
    return t->heads[word * 64 + kit_ctz64(bits)];
}

/* Takes a free block out of its list. */
static void tlsf_unlink(struct tlsf *t, struct block *block)
{
    struct block *next = block->next;
    *block->link = next;
    if (KIT_UNLIKELY(block == t->cursor))
        t->cursor = next;
    if (next) {
        next->link = block->link;
        return;
    }
    size_t index = ((uintptr_t)block->link - (uintptr_t)t->heads) / sizeof *t->heads;
    if (index < t->classes) { /* it was the last of its list */
        t->map[index / 64] &= ~(UINT64_C(1) << (index % 64));
        if (!t->map[index / 64])
            t->words &= ~(UINT64_C(1) << (index / 64));
    }
}

/* Makes `size` bytes at `block` a free block; its neighbours are in use. */
static void tlsf_put(struct tlsf *t, struct block *block, size_t size)
{
    struct block *after = tlsf_at(block, size);
    size_t index = tlsf_class(size);
    uint64_t bit = UINT64_C(1) << (index % 64);
    struct block **head = &t->heads[index];
    block->tag = size | FREE;
    after->tag |= PREVIOUS_FREE;
    after->before = size;
    block->link = head;
    block->next = NULL;
    if (t->map[index / 64] & bit) {
        block->next = *head;
        block->next->link = &block->next;
    } else {
        t->map[index / 64] |= bit;
        t->words |= UINT64_C(1) << (index / 64);
    }
    *head = block;
}

/* Makes a block free and joins it with its free neighbours. */
static void tlsf_give(struct tlsf *t, struct block *block)
{
    size_t size = tlsf_size(block);
    struct block *after = tlsf_at(block, size);
    if (after->tag & FREE) {
        tlsf_unlink(t, after);
        size += tlsf_size(after);
    }
    if (block->tag & PREVIOUS_FREE) {
        size += block->before;
        block = tlsf_at(block, 0 - block->before);
        tlsf_unlink(t, block);
    }
    tlsf_put(t, block, size);
}

static COLD void tlsf_rise(struct tlsf *t, uintptr_t end)
{
    if (end <= (uintptr_t)t->end)
        t->high = end;
}

static void tlsf_account(struct tlsf *t, const struct block *block)
{
    uintptr_t end = (uintptr_t)block + tlsf_size(block);
    if (KIT_UNLIKELY(end > t->high))
        tlsf_rise(t, end);
    t->used += tlsf_size(block) - TAG;
    if (t->peak < t->used)
        t->peak = t->used;
}

void *tlsf_use(struct tlsf *t, struct block *block, size_t need)
{
    size_t size = tlsf_size(block), flag = block->tag & PREVIOUS_FREE;
    if (size - need >= BLOCK_MIN) {
        tlsf_put(t, tlsf_at(block, need), size - need);
        size = need;
    } else {
        tlsf_at(block, size)->tag &= ~(size_t)PREVIOUS_FREE;
    }
    block->tag = size | flag;
    tlsf_account(t, block);
    t->allocations++;
    return tlsf_payload(block);
}

/* Bytes to leave free before a payload at a multiple of `align`: none, or enough for a block. */
static size_t tlsf_gap(const struct block *block, size_t align)
{
    size_t gap = (0 - (uintptr_t)tlsf_payload(block)) & (align - 1);
    return gap && gap < BLOCK_MIN ? gap + align : gap;
}

/* A block of at least `need` bytes at the alignment, taken out of its list; what lies before stays
 * free. A block just large enough will do if it happens to lie right. */
static COLD struct block *tlsf_take_aligned(struct tlsf *t, size_t need, size_t align)
{
    struct block *block = tlsf_find(t, need + align + UNIT);
    if (!block)
        block = tlsf_find(t, need);
    if (!block || tlsf_gap(block, align) + need > tlsf_size(block))
        return NULL;
    tlsf_unlink(t, block);
    size_t gap = tlsf_gap(block, align);
    if (!gap)
        return block;
    tlsf_at(block, gap)->tag = tlsf_size(block) - gap;
    tlsf_put(t, block, gap);
    return tlsf_at(block, gap);
}

/* The rare requests: aligned ones, and those for which memory must be had first. */
static COLD struct block *tlsf_take_rare(struct tlsf *t, size_t size, size_t align)
{
    struct block *block = NULL;
    if (size <= REQUEST_MAX && align <= REQUEST_MAX) {
        if (tlsf_begin(t))
            return tlsf_take(t, size, align);
        size_t need = tlsf_need(size);
        if (align > UNIT)
            block = tlsf_take_aligned(t, need, align);
        if (!block && t->grow && t->grow(t, need + align + UNIT))
            block = tlsf_take_aligned(t, need, align > UNIT ? align : UNIT);
    }
    if (!block)
        t->failures++;
    return block;
}

struct block *tlsf_take(struct tlsf *t, size_t size, size_t align)
{
    struct block *block = NULL;
    if (KIT_LIKELY(size <= REQUEST_MAX && align <= UNIT)) {
        block = tlsf_find(t, tlsf_need(size));
        if (KIT_LIKELY(block)) {
            tlsf_unlink(t, block);
            return block;
        }
    }
    return tlsf_take_rare(t, size, align);
}

static void *tlsf_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct block *block = tlsf_take(tlsf_of(a), size, align);
    return KIT_LIKELY(block) ? tlsf_use(tlsf_of(a), block, tlsf_need(size)) : NULL;
}

/* The block of a payload in use. */
static struct block *tlsf_used(const void *payload)
{
    struct block *block = (void *)((uintptr_t)payload - offsetof(struct block, next));
    if (KIT_UNLIKELY(block->tag & FREE))
        kit_panic("alloc.tlsf: not a block in use");
    return block;
}

static void tlsf_free(struct kit_alloc *a, void *payload, size_t size, size_t align)
{
    (void)size, (void)align;
    if (!payload)
        return;
    struct tlsf *t = tlsf_of(a);
    struct block *block = tlsf_used(payload);
    t->used -= tlsf_size(block) - TAG;
    t->frees++;
    block->tag |= FREE; /* stays behind when it is joined to the block before */
    tlsf_give(t, block);
}

/* Frees what a used block has beyond `need` bytes. */
static void tlsf_cut(struct tlsf *t, struct block *block, size_t need)
{
    size_t rest = tlsf_size(block) - need;
    if (rest >= BLOCK_MIN) {
        block->tag -= rest;
        tlsf_at(block, need)->tag = rest;
        tlsf_give(t, tlsf_at(block, need));
    }
    tlsf_account(t, block);
}

/* Gives a used block `need` bytes where it stands, or if it `may_move` from where the free block
 * before it starts. NULL: there is no room around it. */
static void *tlsf_fit(struct tlsf *t, struct block *block, size_t old_size, size_t need,
                      size_t align, bool may_move)
{
    size_t size = tlsf_size(block), before = block->tag & PREVIOUS_FREE ? block->before : 0;
    struct block *target = block, *after = tlsf_at(block, size);
    size_t room = size + (after->tag & FREE ? tlsf_size(after) : 0);
    if (need > room) {
        target = tlsf_at(block, 0 - before);
        if (!may_move || need > room + before ||
            (align > UNIT && (uintptr_t)tlsf_payload(target) & (align - 1)))
            return NULL;
    }
    t->used -= size - TAG;
    if (need > size) {
        if (room > size)
            tlsf_unlink(t, after);
        tlsf_at(block, room)->tag &= ~(size_t)PREVIOUS_FREE;
        block->tag += room - size;
    }
    if (target != block) {
        tlsf_unlink(t, target);
        memmove(tlsf_payload(target), tlsf_payload(block), old_size);
        target->tag = room + before; /* nothing free touches a free block */
    }
    tlsf_cut(t, target, need);
    return tlsf_payload(target);
}

static void *tlsf_realloc(struct kit_alloc *a, void *payload, size_t old_size, size_t new_size,
                          size_t align)
{
    struct tlsf *t = tlsf_of(a);
    if (!payload)
        return tlsf_alloc(a, new_size, align);
    struct block *block = tlsf_used(payload);
    if (old_size == KIT_ALLOC_UNKNOWN) {
        old_size = tlsf_size(block) - TAG;
        align = 0;
    }
    if (new_size <= REQUEST_MAX) {
        size_t kept = old_size < new_size ? old_size : new_size;
        void *resized = tlsf_fit(t, block, kept, tlsf_need(new_size), align, true);
        if (resized)
            return resized;
    }
    void *fresh = tlsf_alloc(a, new_size, align);
    if (fresh) {
        memcpy(fresh, payload, old_size); /* it did not fit where it is: it grows */
        tlsf_free(a, payload, old_size, align);
    }
    return fresh;
}

static bool tlsf_resize(struct kit_alloc *a, void *payload, size_t old_size, size_t new_size,
                        size_t align)
{
    return new_size <= REQUEST_MAX &&
           tlsf_fit(tlsf_of(a), tlsf_used(payload), old_size, tlsf_need(new_size), align, false);
}

static size_t tlsf_usable_size(const struct kit_alloc *a, const void *payload, size_t size)
{
    (void)a, (void)size;
    return tlsf_size(tlsf_used(payload)) - TAG;
}

/* Moves the list heads to a larger table at `place`. */
static COLD void tlsf_move_heads(struct tlsf *t, uintptr_t place, size_t classes)
{
    struct block **heads = (void *)place;
    for (size_t index = 0; index < t->classes; index++)
        if (t->map[index / 64] >> (index % 64) & 1) {
            heads[index] = t->heads[index];
            heads[index]->link = &heads[index];
        }
    t->heads = heads;
    t->classes = classes;
}

/* The first block's place in a region from `start` on, behind a larger table of heads if it needs
 * one; 0: the region is too small. */
static uintptr_t tlsf_first(const struct tlsf *t, uintptr_t start, uintptr_t end, size_t classes)
{
    if (classes > t->classes)
        start = kit_align_up(start + classes * sizeof(struct block *), UNIT);
    return start < end && end - start >= sizeof(struct region) + BLOCK_MIN + UNIT ? start : 0;
}

/* Classes for the largest block that so much memory may hold. */
static size_t tlsf_classes(size_t size)
{
    return tlsf_class(size) + 1;
}

static COLD int tlsf_lay(struct tlsf *t, uintptr_t memory, size_t size)
{
    uintptr_t table = kit_align_up(memory, UNIT), end = kit_align_down(memory + size, UNIT);
    size_t classes = tlsf_classes(size);
    uintptr_t start = tlsf_first(t, table, end, classes);
    if (!start)
        return KIT_ENOMEM;
    if (classes > t->classes)
        tlsf_move_heads(t, table, classes);
    struct region *region = (void *)start;
    *region = (struct region){t->regions, end - start - sizeof *region - UNIT};
    tlsf_at(region->first, region->size)->tag = 0;
    tlsf_put(t, region->first, region->size);
    t->regions = region;
    return 0;
}

static size_t tlsf_capacity(uintptr_t start, uintptr_t end)
{
    return kit_align_down(end, UNIT) - start - sizeof(struct region) - UNIT - TAG;
}

COLD bool tlsf_begin(struct tlsf *t)
{
    uintptr_t start = t->start;
    if (!start)
        return false;
    t->start = 0;
    tlsf_lay(t, start, t->limit - start);
    t->end = tlsf_at(t->regions->first, t->regions->size);
    if (t->pages)
        tlsf_watch(t);
    return true;
}

static COLD int tlsf_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    struct tlsf *t = tlsf_of(a);
    if (size > REQUEST_MAX)
        return KIT_EINVAL;
    tlsf_begin(t);
    int result = tlsf_lay(t, (uintptr_t)memory, size);
    if (result == 0)
        t->capacity += t->regions->size - TAG;
    return result;
}

static const struct kit_alloc_ops tlsf_ops = {
    .alloc = tlsf_alloc,
    .free = tlsf_free,
    .realloc = tlsf_realloc,
    .usable_size = tlsf_usable_size,
    .stats = tlsf_stats,
    .check = tlsf_check,
    .owns = tlsf_owns,
    .walk = tlsf_walk,
    .add_region = tlsf_add_region,
    .zeroed = tlsf_zeroed,
    .resize = tlsf_resize,
    .source = tlsf_source,
    .tick = tlsf_tick,
    .trim = tlsf_trim,
};

static COLD int tlsf_open(const uint64_t *options, void *memory, size_t size,
                          struct kit_alloc **out)
{
    uintptr_t base = kit_align_up((uintptr_t)memory, UNIT);
    uintptr_t end = (uintptr_t)memory + size;
    if (options[OPTION_POOL]) {
        if (options[OPTION_POOL] > size)
            return KIT_ENOMEM;
        end = (uintptr_t)memory + options[OPTION_POOL];
    }
    if (base + sizeof(struct tlsf) > end)
        return KIT_ENOMEM;
    struct tlsf *t = (void *)base;
    *t = (struct tlsf){.words = 0};
    KIT_ALLOC_BIND(&t->alloc, &tlsf_ops);
    uintptr_t start = (uintptr_t)(t + 1);
    if (end - start > REQUEST_MAX)
        return KIT_EINVAL;
    uintptr_t first = tlsf_first(t, kit_align_up(start, UNIT), kit_align_down(end, UNIT),
                                 tlsf_classes(end - start));
    if (!first)
        return KIT_ENOMEM;
    t->start = start;
    t->limit = end;
    t->high = UINTPTR_MAX;
    t->capacity = tlsf_capacity(first, end);
    *out = &t->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_tlsf = {
    .id = "alloc.tlsf",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED | KIT_ALLOC_OWNS | KIT_ALLOC_WALK |
                KIT_ALLOC_ADD_REGION | KIT_ALLOC_UNSIZED | KIT_ALLOC_RESIZE | KIT_ALLOC_PAGES |
                KIT_ALLOC_ZEROED,
    .ops = &tlsf_ops,
    .open = tlsf_open,
    .bounds = tlsf_bounds,
};
