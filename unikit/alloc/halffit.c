/* SPDX-License-Identifier: MIT */
/* Half-fit: constant time and a bound on memory, bought with powers of two.
 * Source: Ogasawara, «An algorithm with constant execution time for dynamic storage allocation»,
 * RTCSA 1995; blocks in powers of two after Herter, «Timing-predictable memory allocation in hard
 * real-time systems», Saarland University 2014.
 *
 * Free blocks hang in one list per power of two, list k holding those of 2^k to 2^(k+1) - 1 bytes;
 * a bitmap says which lists have a block. A request takes a block from the lowest list of which
 * every block fits: no list is ever searched. A block in use has a power of two of bytes, but for
 * aligned ones and what is too small to be split off; free blocks join at once.
 *
 *     b                              b + 16                    b + size
 *     | size of the block before |  size | flags  | payload ...      ... 8 bytes |  size | flags
 *                                                                ^ the next block's first half
 *
 * Invariants: two free blocks never touch; PREVIOUS_FREE tells the truth, and then the first half
 * is right; a list's bit is set exactly if it has a block; heads of empty lists are not
 * initialised. The memory ends in a used block of size 0; it and the first block are laid out by
 * the first request, so that opening touches neither end. Cost: O(1) for all but check, walk and
 * owns (a realloc that moves copies); 8 bytes per block, at least 32. A request is refused if no
 * free block has its power of two: half of the memory may be left. A block freed twice is found as
 * long as its tag has not been given out anew. */
#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

enum { FREE = 1, PREVIOUS_FREE = 2 };
enum { UNIT = KIT_ALLOC_ALIGN_MIN, BLOCK_MIN = 32, TAG = 8 /* bytes used beside the payload */ };
enum { LEAST = 5 /* order of BLOCK_MIN */, ORDERS = 48 };
/* Measured over random and adversarial sequences, a tenth added; see benchmarks/results. */
enum { ALLOC_INSTRUCTIONS = 200, FREE_INSTRUCTIONS = 110 };
#define REQUEST_MAX ((size_t)1 << 45) /* of size and of alignment: their sum does not overflow */
#define COLD __attribute__((cold))

struct block {
    size_t before; /* size of the block before, if that is free */
    size_t tag;    /* size | FREE | PREVIOUS_FREE */
    /* here the payload begins; in a free block: */
    struct block *next;
    struct block **link; /* what points to this block: a head, or the `next` of another */
};

struct halffit {
    struct kit_alloc alloc;
    uint64_t orders; /* bit per list that has a block */
    struct block *first;
    size_t size; /* of all blocks */
    bool begun;  /* they are laid out */
    size_t used, peak;
    uint64_t allocations, frees, failures;
    struct block *heads[ORDERS];
};

static struct halffit *halffit_of(const struct kit_alloc *a)
{
    return (struct halffit *)(uintptr_t)a;
}

static size_t halffit_size(const struct block *block)
{
    return block->tag & ~(size_t)(UNIT - 1);
}

static struct block *halffit_at(const struct block *block, size_t offset)
{
    return (struct block *)((uintptr_t)block + offset);
}

static void *halffit_payload(const struct block *block)
{
    return (void *)((uintptr_t)block + offsetof(struct block, next));
}

/* Least power of two of at least BLOCK_MIN. */
static unsigned halffit_order(size_t size)
{
    return size <= BLOCK_MIN ? LEAST : kit_fls64(size - 1) + 1;
}

/* Bytes of a block for a request of at most REQUEST_MAX bytes; aligned ones are not rounded: they
 * would have to look for twice their size. */
static size_t halffit_need(size_t size, size_t align)
{
    if (align <= UNIT)
        return (size_t)1 << halffit_order(size + TAG);
    size_t need = kit_align_up(size + TAG, UNIT);
    return need < BLOCK_MIN ? BLOCK_MIN : need;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static struct block *halffit_find(const struct halffit *h, size_t size)
{
    uint64_t orders = h->orders >> halffit_order(size) << halffit_order(size);
    return orders ? h->heads[kit_ctz64(orders)] : NULL;
}

static void halffit_unlink(struct halffit *h, struct block *block)
{
    struct block *next = block->next;
    *block->link = next;
    if (next) {
        next->link = block->link;
        return;
    }
    size_t index = ((uintptr_t)block->link - (uintptr_t)h->heads) / sizeof *h->heads;
    if (index < ORDERS) /* it was the last of its list */
        h->orders &= ~(UINT64_C(1) << index);
}

/* Makes `size` bytes at `block` a free block; its neighbours are in use. */
static void halffit_put(struct halffit *h, struct block *block, size_t size)
{
    struct block *after = halffit_at(block, size);
    unsigned order = kit_fls64(size);
    struct block **head = &h->heads[order];
    block->tag = size | FREE;
    after->tag |= PREVIOUS_FREE;
    after->before = size;
    block->link = head;
    block->next = NULL;
    if (h->orders >> order & 1) {
        block->next = *head;
        block->next->link = &block->next;
    }
    h->orders |= UINT64_C(1) << order;
    *head = block;
}

/* Makes a block free and joins it with its free neighbours. */
static void halffit_give(struct halffit *h, struct block *block)
{
    size_t size = halffit_size(block);
    struct block *after = halffit_at(block, size);
    if (after->tag & FREE) {
        halffit_unlink(h, after);
        size += halffit_size(after);
    }
    if (block->tag & PREVIOUS_FREE) {
        size += block->before;
        block = halffit_at(block, 0 - block->before);
        halffit_unlink(h, block);
    }
    halffit_put(h, block, size);
}

/* Lays out the one free block that there is at first; false: that was done. */
static COLD bool halffit_begin(struct halffit *h)
{
    if (h->begun)
        return false;
    h->begun = true;
    h->first->tag = 0;
    halffit_at(h->first, h->size)->tag = 0;
    halffit_put(h, h->first, h->size);
    return true;
}

/* ---- allocation ------------------------------------------------------------------------------ */

static void halffit_account(struct halffit *h, const struct block *block)
{
    h->used += halffit_size(block) - TAG;
    if (h->peak < h->used)
        h->peak = h->used;
}

/* Gives out the first `need` bytes of a block that was taken out of its list. */
static void *halffit_use(struct halffit *h, struct block *block, size_t need)
{
    size_t size = halffit_size(block), flag = block->tag & PREVIOUS_FREE;
    if (size - need >= BLOCK_MIN) {
        halffit_put(h, halffit_at(block, need), size - need);
        size = need;
    } else {
        halffit_at(block, size)->tag &= ~(size_t)PREVIOUS_FREE;
    }
    block->tag = size | flag;
    halffit_account(h, block);
    h->allocations++;
    return halffit_payload(block);
}

/* Bytes to leave free before a payload at a multiple of `align`: none, or enough for a block. */
static size_t halffit_gap(const struct block *block, size_t align)
{
    size_t gap = (0 - (uintptr_t)halffit_payload(block)) & (align - 1);
    return gap && gap < BLOCK_MIN ? gap + align : gap;
}

/* A block of at least `need` bytes at the alignment, taken out of its list; what lies before stays
 * free. */
static COLD struct block *halffit_take_aligned(struct halffit *h, size_t need, size_t align)
{
    struct block *block = halffit_find(h, need + align + UNIT);
    if (!block)
        block = halffit_find(h, need);
    if (!block || halffit_gap(block, align) + need > halffit_size(block))
        return NULL;
    halffit_unlink(h, block);
    size_t gap = halffit_gap(block, align);
    if (!gap)
        return block;
    halffit_at(block, gap)->tag = halffit_size(block) - gap;
    halffit_put(h, block, gap);
    return halffit_at(block, gap);
}

static void *halffit_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct halffit *h = halffit_of(a);
    struct block *block = NULL;
    if (KIT_LIKELY(size <= REQUEST_MAX && align <= REQUEST_MAX)) {
        size_t need = halffit_need(size, align);
        if (KIT_LIKELY(align <= UNIT)) {
            block = halffit_find(h, need);
            if (KIT_LIKELY(block))
                halffit_unlink(h, block);
        } else {
            block = halffit_take_aligned(h, need, align);
        }
        if (KIT_LIKELY(block))
            return halffit_use(h, block, need);
        if (halffit_begin(h))
            return halffit_alloc(a, size, align);
    }
    h->failures++;
    return NULL;
}

/* The block of a payload in use. */
static struct block *halffit_used(const void *payload)
{
    struct block *block = (void *)((uintptr_t)payload - offsetof(struct block, next));
    if (KIT_UNLIKELY(block->tag & FREE))
        kit_panic("alloc.halffit: not a block in use");
    return block;
}

static void halffit_free(struct kit_alloc *a, void *payload, size_t size, size_t align)
{
    (void)size, (void)align;
    if (!payload)
        return;
    struct halffit *h = halffit_of(a);
    struct block *block = halffit_used(payload);
    h->used -= halffit_size(block) - TAG;
    h->frees++;
    block->tag |= FREE; /* stays behind when it is joined to the block before */
    halffit_give(h, block);
}

/* ---- resizing -------------------------------------------------------------------------------- */

/* Gives a used block `need` bytes where it stands; false: there is no room behind it. */
static bool halffit_fit(struct halffit *h, struct block *block, size_t need)
{
    size_t size = halffit_size(block);
    struct block *after = halffit_at(block, size);
    size_t room = size + (after->tag & FREE ? halffit_size(after) : 0);
    if (need > room)
        return false;
    h->used -= size - TAG;
    if (need > size) {
        halffit_unlink(h, after);
        halffit_at(block, room)->tag &= ~(size_t)PREVIOUS_FREE;
        block->tag += room - size;
    }
    size_t rest = halffit_size(block) - need;
    if (rest >= BLOCK_MIN) {
        block->tag -= rest;
        halffit_at(block, need)->tag = rest;
        halffit_give(h, halffit_at(block, need));
    }
    halffit_account(h, block);
    return true;
}

static bool halffit_resize(struct kit_alloc *a, void *payload, size_t old_size, size_t new_size,
                           size_t align)
{
    if (new_size > REQUEST_MAX)
        return false;
    struct block *block = halffit_used(payload);
    size_t need = halffit_need(new_size, old_size == KIT_ALLOC_UNKNOWN ? 0 : align);
    size_t plain = halffit_need(new_size, 2 * UNIT); /* it has enough, if not its power of two */
    if (need > halffit_size(block) && plain <= halffit_size(block))
        return true;
    return halffit_fit(halffit_of(a), block, need);
}

static void *halffit_realloc(struct kit_alloc *a, void *payload, size_t old_size, size_t new_size,
                             size_t align)
{
    if (!payload)
        return halffit_alloc(a, new_size, align);
    if (halffit_resize(a, payload, old_size, new_size, align))
        return payload;
    if (old_size == KIT_ALLOC_UNKNOWN) {
        old_size = halffit_size(halffit_used(payload)) - TAG;
        align = 0;
    }
    void *fresh = halffit_alloc(a, new_size, align);
    if (fresh) {
        memcpy(fresh, payload, old_size < new_size ? old_size : new_size);
        halffit_free(a, payload, old_size, align);
    }
    return fresh;
}

static size_t halffit_usable_size(const struct kit_alloc *a, const void *payload, size_t size)
{
    (void)a, (void)size;
    return halffit_size(halffit_used(payload)) - TAG;
}

/* ---- views ----------------------------------------------------------------------------------- */

static void halffit_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct halffit *h = halffit_of(a);
    size_t largest = h->orders ? (size_t)1 << kit_fls64(h->orders) : TAG;
    if (!h->begun)
        largest = (size_t)1 << kit_fls64(h->size);
    *out = (struct kit_alloc_stats){
        .capacity = h->size - TAG,
        .used = h->used,
        .peak = h->peak,
        .blocks = (size_t)(h->allocations - h->frees),
        .largest_free = largest - TAG,
        .allocations = h->allocations,
        .frees = h->frees,
        .failures = h->failures,
    };
}

/* Whether the blocks are sound; counts them. */
static bool halffit_check_blocks(const struct halffit *h, size_t *free, size_t *used, size_t *bytes)
{
    const struct block *block = h->first, *end = halffit_at(block, h->size);
    size_t before = 0; /* size of the block before if it is free */
    for (;;) {
        size_t size = halffit_size(block);
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
        block = halffit_at(block, size);
    }
}

static bool halffit_check_lists(const struct halffit *h, size_t expected)
{
    for (unsigned order = 0; order < ORDERS; order++) {
        if (!(h->orders >> order & 1))
            continue;
        struct block *const *link = &h->heads[order];
        if (!*link)
            return false;
        for (const struct block *b = *link; b; link = &b->next, b = *link)
            if (expected-- == 0 || b->link != link || !(b->tag & FREE) ||
                kit_fls64(halffit_size(b)) != order)
                return false;
    }
    return expected == 0;
}

static int halffit_check(const struct kit_alloc *a)
{
    const struct halffit *h = halffit_of(a);
    size_t free = 0, used = 0, bytes = 0;
    if (!h->begun)
        return h->allocations || h->orders ? KIT_ECORRUPT : 0;
    bool sound = halffit_check_blocks(h, &free, &used, &bytes) && halffit_check_lists(h, free) &&
                 bytes == h->used && h->used <= h->peak && h->peak <= h->size &&
                 used == h->allocations - h->frees;
    return sound ? 0 : KIT_ECORRUPT;
}

static int halffit_walk(const struct kit_alloc *a,
                        int (*visit)(void *argument, void *block, size_t size, bool used),
                        void *argument)
{
    if (!halffit_of(a)->begun)
        return visit(argument, halffit_payload(halffit_of(a)->first), halffit_of(a)->size - TAG,
                     false);
    for (struct block *b = halffit_of(a)->first; halffit_size(b);
         b = halffit_at(b, halffit_size(b))) {
        int stop = visit(argument, halffit_payload(b), halffit_size(b) - TAG, !(b->tag & FREE));
        if (stop)
            return stop;
    }
    return 0;
}

static int halffit_is_it(void *argument, void *block, size_t size, bool used)
{
    return (void)size, used && block == argument;
}

static bool halffit_owns(const struct kit_alloc *a, const void *block)
{
    return halffit_walk(a, halffit_is_it, (void *)(uintptr_t)block);
}

/* ---- opening, promises ----------------------------------------------------------------------- */

static const struct kit_alloc_ops halffit_ops = {
    .alloc = halffit_alloc,
    .free = halffit_free,
    .realloc = halffit_realloc,
    .usable_size = halffit_usable_size,
    .stats = halffit_stats,
    .check = halffit_check,
    .owns = halffit_owns,
    .walk = halffit_walk,
    .resize = halffit_resize,
};

static COLD int halffit_open(const uint64_t *options, void *memory, size_t size,
                             struct kit_alloc **out)
{
    (void)options;
    uintptr_t base = kit_align_up((uintptr_t)memory, UNIT);
    uintptr_t end = kit_align_down((uintptr_t)memory + size, UNIT);
    uintptr_t start = kit_align_up(base + sizeof(struct halffit), UNIT);
    if (size > REQUEST_MAX)
        size = REQUEST_MAX, end = kit_align_down((uintptr_t)memory + size, UNIT);
    if (start >= end || end - start < BLOCK_MIN + UNIT)
        return KIT_ENOMEM;
    struct halffit *h = (void *)base;
    *h = (struct halffit){.first = (void *)start, .size = end - start - UNIT};
    KIT_ALLOC_BIND(&h->alloc, &halffit_ops);
    *out = &h->alloc;
    return 0;
}

/* For blocks of powers of two up to n times the smallest, of m bytes in all at most, Herter (2014)
 * gives m (1 + log2 n). A request of s bytes, a multiple of UNIT, takes at most 2 s. */
static void halffit_bounds(const uint64_t *options, size_t live, size_t largest,
                           struct kit_alloc_bounds *out)
{
    (void)options;
    *out = (struct kit_alloc_bounds){.alloc_instructions = ALLOC_INSTRUCTIONS,
                                     .free_instructions = FREE_INSTRUCTIONS};
    size_t memory;
    if (largest > REQUEST_MAX / 4)
        return;
    unsigned order = halffit_order(largest + TAG);
    if (kit_mul_overflow(live, (size_t)2 * (order - LEAST + 1), &memory) ||
        memory > REQUEST_MAX / 2)
        return;
    out->memory = memory + ((size_t)1 << order) + sizeof(struct halffit) + (size_t)3 * UNIT;
}

const struct kit_alloc_component kit_alloc_halffit = {
    .id = "alloc.halffit",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED | KIT_ALLOC_OWNS | KIT_ALLOC_WALK |
                KIT_ALLOC_UNSIZED | KIT_ALLOC_RESIZE,
    .ops = &halffit_ops,
    .open = halffit_open,
    .bounds = halffit_bounds,
};
