/* SPDX-License-Identifier: MIT */
/* Two-level segregated fit: constant time, immediate coalescing, good fit.
 * Source: Masmano, Ripoll, Crespo, Real, «TLSF: a new dynamic memory allocator for real-time
 * systems», ECRTS 2004.
 *
 * Free blocks hang in lists, one per size class. A class number counts first-level powers of two
 * and, in its low four bits, sixteen second-level steps of each; below 512 bytes every multiple of
 * 16 has a class of its own. A bitmap says which lists have a block, and a bitmap of its words
 * which words are not zero, so that two find-first-set steps lead to the next larger block.
 *
 * A block's border tag lies in the 16 bytes before its payload; the first half of them belongs to
 * the payload of the block before, unless that one is free:
 *
 *     b                              b + 16                    b + size
 *     | size of the block before |  size | flags  | payload ...      ... 8 bytes |  size | flags
 *                                                                ^ the next block's first half
 *
 * Invariants: two free blocks never touch; PREVIOUS_FREE tells the truth, and then the first half
 * is right; a class's bit is set exactly if its list has a block; list heads of empty classes are
 * not initialised. A region ends in a used block of size 0. Cost: every operation but check, walk
 * and owns is O(1), opening included (a realloc that moves copies); 8 bytes per block, at least 32
 * bytes, and 8 bytes per class that the largest region can need (1.3 KiB for 128 KiB).
 * A block freed twice is found as long as its tag has not been given out anew. */
#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

#ifndef KIT_TLSF_STEP_BITS
#define KIT_TLSF_STEP_BITS 4 /* 2^n second-level steps per power of two */
#endif

enum { OPTION_POOL };
enum { FREE = 1, PREVIOUS_FREE = 2 };
enum { UNIT = KIT_ALLOC_ALIGN_MIN, BLOCK_MIN = 32, TAG = 8 /* bytes used beside the payload */ };
enum { STEPS = 1 << KIT_TLSF_STEP_BITS };
enum { WORDS = (48 - 4 - KIT_TLSF_STEP_BITS + 1) * STEPS / 64 }; /* for blocks below 2^47 bytes */
/* For size: these run rarely. */
#define COLD __attribute__((cold))
#define REQUEST_MAX ((size_t)1 << 45) /* of size and of alignment: their sum does not overflow */

struct block {
    size_t before; /* size of the block before, if that is free */
    size_t tag;    /* size | FREE | PREVIOUS_FREE */
    /* here the payload begins; in a free block: */
    struct block *next;
    struct block **link; /* what points to this block: a head, or the `next` of another */
};

struct region {
    struct region *next;
    size_t size; /* of all its blocks */
    struct block first[];
};

struct tlsf {
    struct kit_alloc alloc;
    uint64_t words; /* bit per word of `map` */
    struct block **heads;
    size_t classes; /* heads */
    size_t used, peak;
    uint64_t allocations, frees;
    uint64_t map[WORDS]; /* bit per class */
    struct region *regions;
    size_t capacity;
    uint64_t failures;
};

static struct tlsf *tlsf_of(const struct kit_alloc *a)
{
    return (struct tlsf *)(uintptr_t)a;
}

static size_t tlsf_size(const struct block *block)
{
    return block->tag & ~(size_t)(UNIT - 1);
}

static struct block *tlsf_at(const struct block *block, size_t offset)
{
    return (struct block *)((uintptr_t)block + offset);
}

static void *tlsf_payload(const struct block *block)
{
    return (void *)((uintptr_t)block + offsetof(struct block, next));
}

/* Block size for a request of at most REQUEST_MAX bytes. */
static size_t tlsf_need(size_t size)
{
    size_t need = kit_align_up(size + TAG, UNIT);
    return need < BLOCK_MIN ? BLOCK_MIN : need;
}

/* The class whose smallest size is the largest one <= size. */
static size_t tlsf_class(size_t size)
{
    size_t units = size / UNIT;
    unsigned power = kit_fls64(units | STEPS) - KIT_TLSF_STEP_BITS;
    return power * STEPS + (units >> power);
}

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

static void tlsf_account(struct tlsf *t, const struct block *block)
{
    t->used += tlsf_size(block) - TAG;
    if (t->peak < t->used)
        t->peak = t->used;
}

/* Gives out the first `need` bytes of a block that was taken out of its list. */
static void *tlsf_use(struct tlsf *t, struct block *block, size_t need)
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

static void *tlsf_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct tlsf *t = tlsf_of(a);
    struct block *block = NULL;
    size_t need = tlsf_need(size);
    if (KIT_LIKELY(size <= REQUEST_MAX && align <= UNIT)) {
        block = tlsf_find(t, need);
        if (KIT_LIKELY(block))
            tlsf_unlink(t, block);
    } else if (size <= REQUEST_MAX && align <= REQUEST_MAX) {
        block = tlsf_take_aligned(t, need, align);
    }
    if (KIT_LIKELY(block))
        return tlsf_use(t, block, need);
    t->failures++;
    return NULL;
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
static void tlsf_trim(struct tlsf *t, struct block *block, size_t need)
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
    tlsf_trim(t, target, need);
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

static void tlsf_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct tlsf *t = tlsf_of(a);
    size_t largest = 0;
    if (t->words) {
        unsigned word = kit_fls64(t->words);
        largest = tlsf_size(t->heads[word * 64 + kit_fls64(t->map[word])]) - TAG;
    }
    *out = (struct kit_alloc_stats){
        .capacity = t->capacity,
        .used = t->used,
        .peak = t->peak,
        .blocks = t->allocations - t->frees,
        .largest_free = largest,
        .allocations = t->allocations,
        .frees = t->frees,
        .failures = t->failures,
    };
}

/* The region with the lowest address above `region` (NULL: the lowest of all). */
static const struct region *tlsf_region_after(const struct tlsf *t, const struct region *region)
{
    const struct region *found = NULL;
    for (const struct region *each = t->regions; each; each = each->next)
        if ((uintptr_t)each > (uintptr_t)region && (!found || (uintptr_t)each < (uintptr_t)found))
            found = each;
    return found;
}

/* Whether a region is sound; adds up its blocks. */
static bool tlsf_check_region(const struct region *region, size_t *free, size_t *used,
                              size_t *bytes)
{
    const struct block *block = region->first;
    const struct block *end = tlsf_at(block, region->size);
    size_t before = 0; /* size of the block before if it is free */
    for (;;) {
        size_t size = tlsf_size(block);
        bool is_free = block->tag & FREE;
        if (!(block->tag & PREVIOUS_FREE) != !before || (before && block->before != before))
            return false;
        if (block == end)
            return size == 0 && !is_free;
        if (size < BLOCK_MIN || size > (uintptr_t)end - (uintptr_t)block || (is_free && before))
            return false;
        *(is_free ? free : used) += 1;
        *bytes += is_free ? 0 : size - TAG;
        before = is_free ? size : 0;
        block = tlsf_at(block, size);
    }
}

/* Whether the lists hold `expected` blocks in all, each in its own class, and the bitmaps agree. */
static bool tlsf_check_lists(const struct tlsf *t, size_t expected)
{
    for (size_t index = 0; index < (size_t)WORDS * 64; index++) {
        uint64_t map = t->map[index / 64];
        if ((t->words >> (index / 64) & 1) != (map != 0))
            return false;
        if (!(map >> (index % 64) & 1))
            continue;
        if (index >= t->classes || !t->heads[index])
            return false;
        struct block **link = &t->heads[index];
        for (struct block *b = *link; b; link = &b->next, b = *link)
            if (expected-- == 0 || b->link != link || !(b->tag & FREE) ||
                tlsf_class(tlsf_size(b)) != index)
                return false;
    }
    return expected == 0;
}

static int tlsf_check(const struct kit_alloc *a)
{
    const struct tlsf *t = tlsf_of(a);
    size_t free = 0, used = 0, bytes = 0;
    for (const struct region *region = t->regions; region; region = region->next)
        if (!tlsf_check_region(region, &free, &used, &bytes))
            return KIT_ECORRUPT;
    bool sound = tlsf_check_lists(t, free) && bytes == t->used && t->used <= t->peak &&
                 used == t->allocations - t->frees && t->peak <= t->capacity;
    return sound ? 0 : KIT_ECORRUPT;
}

static int tlsf_walk(const struct kit_alloc *a,
                     int (*visit)(void *argument, void *block, size_t size, bool used),
                     void *argument)
{
    const struct region *region = NULL;
    while ((region = tlsf_region_after(tlsf_of(a), region)))
        for (struct block *b = tlsf_at(region->first, 0); tlsf_size(b);
             b = tlsf_at(b, tlsf_size(b))) {
            int stop = visit(argument, tlsf_payload(b), tlsf_size(b) - TAG, !(b->tag & FREE));
            if (stop)
                return stop;
        }
    return 0;
}

static int tlsf_is_it(void *argument, void *block, size_t size, bool used)
{
    return (void)size, used && block == argument;
}

static bool tlsf_owns(const struct kit_alloc *a, const void *block)
{
    return tlsf_walk(a, tlsf_is_it, (void *)(uintptr_t)block);
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

static COLD int tlsf_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    struct tlsf *t = tlsf_of(a);
    uintptr_t start = kit_align_up((uintptr_t)memory, UNIT);
    uintptr_t end = kit_align_down((uintptr_t)memory + size, UNIT);
    if (size > REQUEST_MAX)
        return KIT_EINVAL;
    size_t classes = tlsf_class(size) + 1; /* the largest block that it may hold needs no more */
    uintptr_t table = start;
    if (classes > t->classes)
        start = kit_align_up(start + classes * sizeof(struct block *), UNIT);
    if (start >= end || end - start < sizeof(struct region) + BLOCK_MIN + UNIT)
        return KIT_ENOMEM;
    if (classes > t->classes)
        tlsf_move_heads(t, table, classes);
    struct region *region = (void *)start;
    *region = (struct region){t->regions, end - start - sizeof *region - UNIT};
    tlsf_at(region->first, region->size)->tag = 0;
    tlsf_put(t, region->first, region->size);
    t->regions = region;
    t->capacity += region->size - TAG;
    return 0;
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
    .resize = tlsf_resize,
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
    int result = tlsf_add_region(&t->alloc, t + 1, end - (uintptr_t)(t + 1));
    if (result == 0)
        *out = &t->alloc;
    return result;
}

const struct kit_alloc_component kit_alloc_tlsf = {
    .id = "alloc.tlsf",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED | KIT_ALLOC_OWNS | KIT_ALLOC_WALK |
                KIT_ALLOC_ADD_REGION | KIT_ALLOC_UNSIZED | KIT_ALLOC_RESIZE,
    .ops = &tlsf_ops,
    .open = tlsf_open,
};
