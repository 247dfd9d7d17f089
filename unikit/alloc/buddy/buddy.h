/* SPDX-License-Identifier: MIT */
/* alloc.buddy, inside: binary buddies with a byte-granular front.
 * Source: Knowlton, «A fast storage allocator», CACM 8(10), 1965; Peterson, Norman, «Buddy
 * systems», CACM 20(6), 1977.
 *
 * A request is answered from a free slot of 2^k bytes at a multiple of 2^k, the smallest k that has
 * one; what the request does not need of the slot is given back at once in smaller slots, to grains
 * of 32 bytes (option `exact`), so nothing is lost to powers of two. A freed block falls into the
 * slots that it consists of, and each is joined with its buddy as long as that is free.
 *
 *     | slots ...              | never touched ...   ... map of 2 KiB no. 1 | no. 0 | struct buddy
 * | ^start                   ^frontier             ^limit
 *
 * Nothing is laid out when opening: memory above the frontier has no slots and no map. The frontier
 * moves up when no free slot is large enough, and down again when a free slot that is the lower one
 * of two touches it. So when all is free the heap can give out what it could when opened.
 *
 * The map has two bits per grain: a used block starts here, a free slot starts here. A used block
 * above 2 KiB owns the whole map word of its first 2 KiB, sets both bits of its first grain there,
 * and keeps its size in the others. Inside a block larger than 2 KiB map words hold anything: only
 * where a slot, a block or a possible buddy starts are they written, so no operation depends on the
 * size of a block. Order and links of a free slot lie in the slot itself.
 *
 * Invariants: slots and blocks tile start ... frontier; a free slot's buddy is no free slot of the
 * same size; no free lower slot touches the frontier. Cost: O(log memory) for each operation but
 * check, walk and owns; 1/128 of the memory. With exact off blocks are whole slots, and bounds()
 * promises memory: see buddy_bounds. Frees of anything but a block in use are found, unless they
 * point into a block above 2 KiB. */
#ifndef KIT_ALLOC_BUDDY_BUDDY_H
#define KIT_ALLOC_BUDDY_BUDDY_H

#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

enum { OPTION_EXACT };
enum { GRAIN_BITS = 5, STRETCH_BITS = 11, ORDERS = 48 };
enum { GRAIN = 1 << GRAIN_BITS, STRETCH = 1 << STRETCH_BITS }; /* a stretch has one map word */
#define REQUEST_MAX ((size_t)1 << 46) /* of size and alignment: sums do not overflow */
#define COLD __attribute__((cold))

struct word {
    uint64_t used, free; /* bit per grain */
};

struct slot {
    struct slot *next;
    struct slot **link; /* what points to this slot */
    size_t order;
};

struct buddy {
    struct kit_alloc alloc;
    uint64_t orders; /* bit per order: there is a free slot */
    uintptr_t start, frontier, limit;
    bool exact;
    size_t used, peak;
    uint64_t allocations, frees, failures;
    struct slot *heads[ORDERS]; /* valid where a bit of `orders` is set */
};

/* Where a block lies and what belongs to it. */
struct place {
    uintptr_t start, end;
};

KIT_INLINE struct buddy *buddy_of(const struct kit_alloc *a)
{
    return (struct buddy *)(uintptr_t)a;
}

KIT_INLINE struct slot *slot_at(uintptr_t address)
{
    return (struct slot *)address;
}

/* The map grows downwards from the state. */
KIT_INLINE struct word *buddy_word(const struct buddy *b, uintptr_t address)
{
    size_t index = (address >> STRETCH_BITS) - (b->start >> STRETCH_BITS);
    return (struct word *)(uintptr_t)b - 1 - index;
}

KIT_INLINE uint64_t grain_bit(uintptr_t address)
{
    return UINT64_C(1) << (address >> GRAIN_BITS & 63);
}

KIT_INLINE bool same_stretch(uintptr_t one, uintptr_t other)
{
    return one >> STRETCH_BITS == other >> STRETCH_BITS;
}

KIT_INLINE bool mid_stretch(uintptr_t address)
{
    return address & (STRETCH - 1);
}

/* Smallest order of at least `size` bytes; size > 1. */
KIT_INLINE unsigned order_of(size_t size)
{
    return kit_fls64(size - 1) + 1;
}

KIT_INLINE size_t round_to_grains(size_t size)
{
    return size ? kit_align_up(size, GRAIN) : GRAIN;
}

/* Whether a free slot starts at a border between blocks; its order is then readable. */
KIT_INLINE bool buddy_is_free(const struct buddy *b, uintptr_t address)
{
    const struct word *word = buddy_word(b, address);
    return word->free & ~word->used & grain_bit(address);
}

/* Whether exactly that slot is free. A buddy's map word is always good to read. */
KIT_INLINE bool buddy_has(const struct buddy *b, uintptr_t address, unsigned order)
{
    return address >= b->start && address < b->frontier && buddy_is_free(b, address) &&
           slot_at(address)->order == order;
}

KIT_INLINE size_t buddy_size(const struct buddy *b, uintptr_t address)
{
    const struct word *word = buddy_word(b, address);
    uint64_t bit = grain_bit(address);
    if (word->used & word->free & bit)
        return (size_t)(word->free >> 1) << GRAIN_BITS;
    uint64_t after = (word->used | word->free) & ~(bit | (bit - 1));
    uintptr_t end = kit_align_down(address, STRETCH) +
                    (after ? (size_t)kit_ctz64(after) << GRAIN_BITS : STRETCH);
    return (end < b->frontier ? end : b->frontier) - address;
}

/* views.c */
void buddy_stats(const struct kit_alloc *a, struct kit_alloc_stats *out);
int buddy_check(const struct kit_alloc *a);
int buddy_walk(const struct kit_alloc *a,
               int (*visit)(void *argument, void *block, size_t size, bool used), void *argument);
bool buddy_owns(const struct kit_alloc *a, const void *block);
void buddy_bounds(const uint64_t *options, size_t live, size_t largest,
                  struct kit_alloc_bounds *out);

#endif
