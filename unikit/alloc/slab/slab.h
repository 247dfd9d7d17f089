/* SPDX-License-Identifier: MIT */
/* alloc.slab, inside: object caches with magazines, as a general allocator.
 * Source: Bonwick, «The slab allocator: an object-caching kernel memory allocator», USENIX Summer
 * 1994; Bonwick, Adams, «Magazines and Vmem», USENIX 2001.
 *
 * There is a cache for each size class, four classes per doubling. A cache cuts runs of pages, its
 * slabs, into objects of its size. Before it stand two magazines, arrays of free objects: a request
 * takes from the loaded one, a free puts into it, and when it is empty (full) the previous one
 * takes its place, or one from the cache's depot of full magazines (from the empty ones). Only then
 * is a slab touched. Larger requests are runs of pages of their own.
 *
 *     | struct slab_heap | a run's descriptor per page ... | page 0 | page 1 | ...  | never touched
 *
 *   slab.c     requests: which cache, which run; opening
 *   cache.c    objects, slabs, magazines
 *   runs.c     the page back-end: runs that split and join, and a frontier
 *   views.c    statistics and check
 *
 * Descriptors lie apart from the pages; that of a slab's every page, and of the first and the last
 * page of any other run, is valid. Objects need no header: their page tells. Invariants: two free
 * runs never touch, none touches the frontier; a slab with a free object is in its cache's list,
 * one without any used object is no slab any more. What magazines hold counts as used in slabs and
 * as free in the statistics; when pages run out all magazines are emptied. Cost: O(1) while there
 * are partial slabs; then O(free runs of the size). 40 bytes per page, and nothing is laid out at
 * opening. A free of what is no block panics if its page is none of a block. */
#ifndef KIT_ALLOC_SLAB_SLAB_H
#define KIT_ALLOC_SLAB_SLAB_H

#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

enum { CLASSES = 32, LARGE = 255 /* the class of a run of its own */, FREE = 254, PART = 253 };
enum { BINS = 33 }; /* of free runs, by the power of two of their pages */
enum { ROUNDS_SMALL = 30, ROUNDS_LARGE = 6, DEPOT = 4 /* full magazines that a cache keeps */ };
enum { SLAB_PAGES = 8 };
#define REQUEST_MAX ((size_t)1 << 45)
#define COLD __attribute__((cold))

struct run {
    struct run *next;
    struct run **link;  /* what points to this run: a list's head, or the `next` of another */
    void *free;         /* a slab's free objects, each points to the next one */
    uint32_t pages;     /* of the run; in its first and last page */
    uint32_t back;      /* pages to the first one of the run */
    uint16_t used, cut; /* objects in use and in magazines; objects that were ever cut */
    uint8_t kind;       /* class of a slab; LARGE, FREE; PART: a page within a slab */
};

struct magazine {
    struct magazine *next; /* in the depot */
    size_t count;
    void *objects[];
};

struct cache {
    struct run *partial; /* slabs with free objects */
    struct magazine *loaded, *previous, *depot;
    size_t live;   /* objects given out */
    uint32_t full; /* magazines in the depot */
};

struct slab_heap {
    struct kit_alloc alloc;
    struct run *map;
    uintptr_t base;
    unsigned shift; /* of a page */
    unsigned classes;
    uint32_t frontier, limit; /* pages */
    uint64_t bins;            /* bit per bin that has a run */
    size_t used, peak;
    uint64_t allocations, frees, failures;
    struct cache caches[CLASSES];
    struct run *free[BINS];
};

KIT_INLINE struct slab_heap *slab_of(const struct kit_alloc *a)
{
    return (struct slab_heap *)(uintptr_t)a;
}

/* Sizes 16, 32, 48, 64, then four per doubling. */
KIT_INLINE unsigned slab_class(size_t size)
{
    if (size <= 64)
        return size ? (unsigned)((size - 1) / 16) : 0;
    unsigned power = kit_fls64(size - 1);
    return (power - 6) * 4 + (unsigned)((size - 1) >> (power - 2) & 3) + 4;
}

KIT_INLINE size_t slab_class_size(unsigned class)
{
    if (class < 4)
        return (size_t)(class + 1) * 16;
    return (size_t)(class % 4 + 5) << (class / 4 + 3);
}

KIT_INLINE uintptr_t slab_start(const struct slab_heap *h, const struct run *run)
{
    return h->base + ((uintptr_t)(run - h->map) << h->shift);
}

/* Rounds of a magazine for objects of that class, and the class that magazines come from. */
KIT_INLINE size_t slab_rounds(unsigned class)
{
    return class < 20 ? ROUNDS_SMALL : ROUNDS_LARGE;
}

KIT_INLINE unsigned slab_magazine_class(unsigned class)
{
    return slab_class(sizeof(struct magazine) + slab_rounds(class) * sizeof(void *));
}

/* runs.c */
/* A run of `pages` pages whose start is a multiple of `align`; NULL: there is none. */
struct run *slab_run_take(struct slab_heap *h, size_t pages, size_t align);
void slab_run_give(struct slab_heap *h, struct run *run);
/* Makes a run in use larger or smaller where it stands; false: no room. */
bool slab_run_resize(struct slab_heap *h, struct run *run, size_t pages);
size_t slab_run_largest(const struct slab_heap *h);

/* cache.c */
void *slab_object_take(struct slab_heap *h, unsigned class);
/* As slab_object_take, from any class on whose objects lie at multiples of `align`, without new
 * slabs; *class says which. */
void *slab_object_any(struct slab_heap *h, unsigned *class, size_t align);
void slab_object_give(struct slab_heap *h, struct run *run, void *object);
/* Objects by way of the magazines. */
void *slab_cache_take(struct slab_heap *h, unsigned class);
void slab_cache_give(struct slab_heap *h, struct run *run, void *object);
/* Empties all magazines; false: they were empty. */
bool slab_drain(struct slab_heap *h);

/* views.c */
void slab_stats(const struct kit_alloc *a, struct kit_alloc_stats *out);
int slab_check(const struct kit_alloc *a);

#endif
