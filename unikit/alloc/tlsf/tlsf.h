/* SPDX-License-Identifier: MIT */
/* alloc.tlsf, inside: two-level segregated fit: constant time, immediate coalescing, good fit.
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
 * not initialised. A region ends in a used block of size 0; the one of the opening is laid out by
 * the first request, so that opening touches neither end of it. Cost: every operation but check,
 * walk and owns is O(1), opening included (a realloc that moves copies); 8 bytes per block, at
 * least 32 bytes, and 8 bytes per class that the largest region can need (1.3 KiB for 128 KiB).
 *
 * With a page source two more things are known. A free block carries AGED once tick has seen it and
 * GIVEN once its whole pages were given back. In the region of the opening, above `high` nothing
 * was in use since the last tick, and above `touched` all whole pages read as zero.
 *
 *   tlsf.c    allocation, freeing, resizing; opening and further regions
 *   pages.c   blocks that read as zero, giving memory back
 *   views.c   what can be seen from outside: statistics, check, walk, owns, bounds
 *
 * A block freed twice is found as long as its tag has not been given out anew. */
#ifndef KIT_ALLOC_TLSF_TLSF_H
#define KIT_ALLOC_TLSF_TLSF_H

#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

#ifndef KIT_TLSF_STEP_BITS
#define KIT_TLSF_STEP_BITS 4 /* 2^n second-level steps per power of two */
#endif

enum { OPTION_POOL };
enum { FREE = 1, PREVIOUS_FREE = 2, AGED = 4, GIVEN = 8 };
enum { UNIT = KIT_ALLOC_ALIGN_MIN, BLOCK_MIN = 32, TAG = 8 /* bytes used beside the payload */ };
enum { STEPS = 1 << KIT_TLSF_STEP_BITS };
enum { WORDS = (48 - 4 - KIT_TLSF_STEP_BITS + 1) * STEPS / 64 }; /* for blocks below 2^47 bytes */
/* For size: these run rarely. */
#define COLD __attribute__((cold))
#define REQUEST_MAX ((size_t)1 << 45) /* of size and of alignment: their sum does not overflow */

struct block {
    size_t before; /* size of the block before, if that is free */
    size_t tag;    /* size | FREE | PREVIOUS_FREE | AGED | GIVEN */
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
    uintptr_t
        high; /* ends of blocks in use since the last tick; without pages: the highest number */
    struct block *cursor; /* the free block that tick looks at next, or NULL */
    uint64_t allocations, frees;
    uint64_t map[WORDS]; /* bit per class */
    struct region *regions;
    size_t capacity;
    uint64_t failures;
    uintptr_t start, limit; /* of the memory of the opening, while that is not laid out */
    const struct kit_alloc_pages *pages;
    /* tlsf_grow, once there is a source: an image without one does not carry it. */
    bool (*grow)(struct tlsf *t, size_t size);
    struct block *end;   /* of the region of the opening */
    uintptr_t touched;   /* there whole pages read as zero from a header's size above this on */
    size_t cursor_class; /* class of the cursor, or the one to go on with */
};

KIT_INLINE struct tlsf *tlsf_of(const struct kit_alloc *a)
{
    return (struct tlsf *)(uintptr_t)a;
}

KIT_INLINE size_t tlsf_size(const struct block *block)
{
    return block->tag & ~(size_t)(UNIT - 1);
}

KIT_INLINE struct block *tlsf_at(const struct block *block, size_t offset)
{
    return (struct block *)((uintptr_t)block + offset);
}

KIT_INLINE void *tlsf_payload(const struct block *block)
{
    return (void *)((uintptr_t)block + offsetof(struct block, next));
}

/* Block size for a request of at most REQUEST_MAX bytes. */
KIT_INLINE size_t tlsf_need(size_t size)
{
    size_t need = kit_align_up(size + TAG, UNIT);
    return need < BLOCK_MIN ? BLOCK_MIN : need;
}

/* The class whose smallest size is the largest one <= size. */
KIT_INLINE size_t tlsf_class(size_t size)
{
    size_t units = size / UNIT;
    unsigned power = kit_fls64(units | STEPS) - KIT_TLSF_STEP_BITS;
    return power * STEPS + (units >> power);
}

/* First of the classes from `index` on that has a block; t->classes: there is none. */
KIT_INLINE size_t tlsf_next_class(const struct tlsf *t, size_t index)
{
    size_t word = index / 64;
    if (index >= t->classes)
        return t->classes;
    uint64_t bits = t->map[word] >> (index % 64) << (index % 64);
    if (!bits) {
        uint64_t words = t->words >> word >> 1;
        if (!words)
            return t->classes;
        word += 1 + kit_ctz64(words);
        bits = t->map[word];
    }
    return word * 64 + kit_ctz64(bits);
}

/* tlsf.c */
/* Lays out the memory of the opening; false: that was done. */
bool tlsf_begin(struct tlsf *t);
/* Takes a free block for such a request out of its list; NULL: there is none. */
struct block *tlsf_take(struct tlsf *t, size_t size, size_t align);
/* Gives out the first `need` bytes of a block that was taken out of its list. */
void *tlsf_use(struct tlsf *t, struct block *block, size_t need);

/* pages.c */
void *tlsf_zeroed(struct kit_alloc *a, size_t size, size_t align);
int tlsf_source(struct kit_alloc *a, const struct kit_alloc_pages *pages);
/* Begins to know what is zero, when there are both a source and a region. */
void tlsf_watch(struct tlsf *t);
size_t tlsf_tick(struct kit_alloc *a);
size_t tlsf_trim(struct kit_alloc *a, size_t keep);
/* Gets room for `size` bytes from the page source, as a further region; false: it has none. */
bool tlsf_grow(struct tlsf *t, size_t size);

/* views.c */
void tlsf_stats(const struct kit_alloc *a, struct kit_alloc_stats *out);
int tlsf_check(const struct kit_alloc *a);
int tlsf_walk(const struct kit_alloc *a,
              int (*visit)(void *argument, void *block, size_t size, bool used), void *argument);
bool tlsf_owns(const struct kit_alloc *a, const void *block);
void tlsf_bounds(const uint64_t *options, size_t live, size_t largest,
                 struct kit_alloc_bounds *out);

#endif
