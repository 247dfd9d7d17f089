/* SPDX-License-Identifier: MIT */
/* The allocator interface.
 *
 * An allocator manages memory that its opener passes and never asks for more by itself. Callers
 * give size and alignment back on free and realloc, exactly as they asked; components MAY use
 * them instead of a header and MUST NOT need a header for correctness of other components.
 * Not thread safe unless KIT_ALLOC_SHARED is claimed; an allocator for several threads gives each
 * of them a face of its own (KIT_ALLOC_THREADS). Ops are appended, never reordered; an op marked
 * «optional» may be NULL, and then its feature bit is not set. */
#ifndef KIT_ALLOC_ALLOC_H
#define KIT_ALLOC_ALLOC_H

#include <unikit/rt/error.h>
#include <unikit/rt/opt.h>
#include <unikit/rt/types.h>
#include <unikit/rt/x86_64/inside.h>

/* cdef: begin */
struct kit_alloc;

enum {
    KIT_ALLOC_ABI = 1,
    /* features */
    KIT_ALLOC_REUSES = 1,      /* freed blocks are given out again (a bump allocator does not); when
                                * all are free, the largest one of the beginning is there again */
    KIT_ALLOC_BOUNDED = 2,     /* all but check, walk and owns have a constant bound on steps */
    KIT_ALLOC_SHARED = 4,      /* safe from several threads */
    KIT_ALLOC_OWNS = 8,        /* owns() is there */
    KIT_ALLOC_WALK = 16,       /* walk() is there */
    KIT_ALLOC_ADD_REGION = 32, /* add_region() is there */
    KIT_ALLOC_SCOPES = 64,     /* mark() and release() are there */
    KIT_ALLOC_UNSIZED = 128,   /* free, realloc, resize and usable_size take KIT_ALLOC_UNKNOWN for
                                * the size of the block, and then ignore its alignment */
    KIT_ALLOC_THREADS = 256,   /* attach() and detach() are there */
    KIT_ALLOC_PAGES = 512,     /* source(), tick() and trim() are there */
    KIT_ALLOC_RESIZE = 1024,   /* resize() is there */
    KIT_ALLOC_ZEROED = 2048,   /* zeroed() is there: it skips clearing what is known to be zero */
    KIT_ALLOC_LAYER = 4096,    /* stands on another allocator: wrap() instead of open() */
    KIT_ALLOC_SITES = 8192,    /* caller() is there */
    KIT_ALLOC_FAILS = 16384,   /* fail_at() is there */
    KIT_ALLOC_RECORDS = 32768, /* recorded() is there */
    KIT_ALLOC_LEAKS = 65536,   /* live() is there */
    KIT_ALLOC_ALIGN_MIN = 16   /* every block is aligned to this at least */
};

struct kit_alloc_stats {
    size_t capacity;     /* bytes that could be given out if all were free */
    size_t used;         /* bytes given out, rounding and padding included */
    size_t peak;         /* highest `used` so far */
    size_t blocks;       /* blocks given out and not freed */
    size_t largest_free; /* a request of this size and minimal alignment would succeed */
    uint64_t allocations;
    uint64_t frees;
    uint64_t failures; /* requests answered with NULL for lack of memory */
};

/* What stands behind the memory of an allocator, as its opener knows it; see source(). */
struct kit_alloc_pages {
    void *context;
    /* Lets go of what whole pages hold, `start` and `size` being multiples of `page`: they stay
     * part of the heap and read as zero when touched again. Cannot fail. */
    void (*decommit)(void *context, void *start, size_t size);
    /* NULL, or: more memory, zeroed, page-aligned, at least `size` bytes; *got says how many.
     * NULL: there is none. */
    void *(*map)(void *context, size_t size, size_t *got);
    /* NULL, or: gives back exactly what one call of map() returned. */
    void (*unmap)(void *context, void *start, size_t size);
    size_t page;  /* bytes of a page, a power of two */
    size_t fresh; /* nonzero: memory that was never written reads as zero */
    /* NULL, or: makes whole pages of the memory inaccessible, or readable and writable again with
     * what they held. 0; KIT_ENOMEM, KIT_ENOTSUP: they are as they were. */
    int (*protect)(void *context, void *start, size_t size, bool accessible);
};

/* A block in use and who asked for it; see live(). */
struct kit_alloc_live {
    void *block;
    size_t size;     /* as asked for */
    size_t align;    /* as asked for, KIT_ALLOC_ALIGN_MIN at least */
    uintptr_t site;  /* return address of the call, or what caller() said */
    uint64_t serial; /* how many requests had been answered before */
};

/* What an allocator promises for the worst case; zero: nothing. */
struct kit_alloc_bounds {
    uint64_t alloc_instructions; /* most that one alloc executes */
    uint64_t free_instructions;  /* most that one free executes */
    size_t memory; /* a region of so many bytes refuses no sequence of alloc, of minimal alignment,
                    * and free that keeps the limits asked about; what is made smaller where it
                    * stands is not in the promise: it pins the rest */
};

struct kit_alloc_ops {
    /* `size` bytes at a multiple of `align` (a power of two; 0 means KIT_ALLOC_ALIGN_MIN), with
     * undefined contents; NULL: not enough memory. size 0 gives a unique block of minimal size.
     * The block is the caller's until freed. */
    void *(*alloc)(struct kit_alloc *a, size_t size, size_t align);
    /* Gives a block back; NULL is a no-op. `size` and `align` MUST be those of the request. */
    void (*free)(struct kit_alloc *a, void *block, size_t size, size_t align);
    /* Moves the block to one of new_size bytes and the same alignment, contents kept up to the
     * smaller size, in place where possible. NULL: not enough memory, and the old block stays.
     * block NULL means alloc(new_size, align). */
    void *(*realloc)(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                     size_t align);
    /* Bytes of the block that may be used; at least `size`. */
    size_t (*usable_size)(const struct kit_alloc *a, const void *block, size_t size);
    /* O(1) except largest_free, which may cost what a failing alloc costs. A component with THREADS
     * may add up its slabs instead, and `peak` then be the highest `used` that stats() has seen. */
    void (*stats)(const struct kit_alloc *a, struct kit_alloc_stats *out);
    /* Verifies every invariant; 0 or KIT_ECORRUPT. May be O(heap). */
    int (*check)(const struct kit_alloc *a);
    /* optional: whether `block` is one that was given out and not freed. */
    bool (*owns)(const struct kit_alloc *a, const void *block);
    /* optional: calls `visit` for each block in address order, free ones too, until it returns
     * nonzero, and returns that, or 0. The sizes of the blocks in use add up to `used`. The heap
     * MUST NOT change meanwhile. */
    int (*walk)(const struct kit_alloc *a,
                int (*visit)(void *argument, void *block, size_t size, bool used), void *argument);
    /* optional: manages a further region as well, which MUST NOT overlap what it has. 0;
     * KIT_ENOMEM: too small to be of use, or no table entry left; KIT_EINVAL. */
    int (*add_region)(struct kit_alloc *a, void *memory, size_t size);
    /* optional: a mark of the present state ... */
    size_t (*mark)(const struct kit_alloc *a);
    /* optional: ... to which release returns, freeing all that was allocated since, in O(1). Does
     * nothing if less is in use than at the mark. */
    void (*release)(struct kit_alloc *a, size_t mark);
    /* optional: as alloc, and all `size` bytes read as zero. */
    void *(*zeroed)(struct kit_alloc *a, size_t size, size_t align);
    /* optional: makes the block new_size bytes without moving it; false: it is as before. */
    bool (*resize)(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                   size_t align);
    /* optional: a face of the same allocator for one more thread (or CPU). Each face, `a` itself
     * being the first, is used by one thread at a time, different ones by different threads at
     * once; a block may be freed through any of them. stats, owns, check and walk see the whole
     * allocator, and the last two demand that no other face is in use meanwhile. 0 and *out;
     * KIT_ENOMEM. */
    int (*attach)(struct kit_alloc *a, struct kit_alloc **out);
    /* optional: gives a face from attach() back: its blocks stay, its free memory is for others. */
    void (*detach)(struct kit_alloc *face);
    /* optional: says what stands behind the memory; called at most once, before the first alloc.
     * `pages` MUST live as long as the allocator. Without it nothing is given back. */
    int (*source)(struct kit_alloc *a, const struct kit_alloc_pages *pages);
    /* optional: lets a unit of time pass, of a length that the caller chooses; memory that lay
     * free for some ticks is given back, in bounded steps. Returns bytes given back. */
    size_t (*tick)(struct kit_alloc *a);
    /* optional: gives back all free memory but `keep` bytes, at any cost. Returns bytes. */
    size_t (*trim)(struct kit_alloc *a, size_t keep);
    /* optional, beside attach: NULL where faces share no lock. `on`: takes every lock that faces
     * share, waiting for those that are held; !on: lets go of them. Between the two no face may be
     * used. For fork(): whatever is locked then is locked in the child for ever, by a thread that
     * is not there; what the locks protect must be sound in it. */
    void (*hold)(struct kit_alloc *a, bool on);
    /* optional: says who is behind the next call, as its call site; 0: whoever makes it. For
     * wrappers, which would otherwise be the call site of everything. */
    void (*caller)(struct kit_alloc *a, uintptr_t site);
    /* optional: calls `visit` for each block in use, oldest first, until it returns nonzero, and
     * returns that, or 0. The heap MUST NOT change meanwhile. */
    int (*live)(const struct kit_alloc *a,
                int (*visit)(void *argument, const struct kit_alloc_live *block), void *argument);
    /* optional: refuses the n-th request from now on (alloc, zeroed, realloc), once; 0: none.
     * Returns how many requests there were since the last such call. */
    uint64_t (*fail_at)(struct kit_alloc *a, uint64_t n);
    /* optional: what was asked so far, as a trace (unikit/alloc/lab/trace.h). Returns its bytes,
     * which stay where *start says until the next call. */
    size_t (*recorded)(struct kit_alloc *a, const void **start);
};

struct kit_alloc {
    const struct kit_alloc_ops *ops;
};

struct kit_alloc_component {
    const char *id; /* «alloc.tlsf» */
    uint32_t abi;   /* KIT_ALLOC_ABI */
    uint32_t features;
    const struct kit_alloc_ops *ops;
    /* Builds the allocator inside memory[0 ... size), at any alignment, its own state included.
     * 0 and *out; KIT_EINVAL: an option; KIT_ENOMEM: `size` is too small to be of use. */
    int (*open)(const uint64_t *options, void *memory, size_t size, struct kit_alloc **out);
    /* Instead of open for a layer: builds it over `inner`, an instance of `below`, and takes its
     * own state from there. Afterwards only the layer may use `inner`. A layer claims what it can
     * do over an allocator that can do it too; over another one such an op refuses or does what
     * its absence means. 0 and *out; KIT_EINVAL: an option; KIT_ENOMEM. */
    int (*wrap)(const uint64_t *options, const struct kit_alloc_component *below,
                struct kit_alloc *inner, struct kit_alloc **out);
    /* NULL, or: the promises for programs that have at most `live` bytes requested and not freed,
     * in requests of at most `largest` bytes. Requests count in multiples of KIT_ALLOC_ALIGN_MIN,
     * one at least. */
    void (*bounds)(const uint64_t *options, size_t live, size_t largest,
                   struct kit_alloc_bounds *out);
};

/* A choice of an allocator. An array of them is one allocator with its layers, from the outside in:
 * every one but the last is a layer, which stands on the one behind it. */
struct kit_alloc_choice {
    const struct kit_alloc_component *component;
    const uint64_t *options;
};
/* cdef: end */

/* Sole-component dispatch: with -DKIT_SOLE_ALLOC=kit_alloc_NAME a call is direct and ops that
 * nobody calls are not linked in. Only for a program that has this one and no layer. */
#ifdef KIT_SOLE_ALLOC
extern const struct kit_alloc_component KIT_SOLE_ALLOC;
#define KIT_ALLOC_OPS(a) ((void)(a), KIT_SOLE_ALLOC.ops)
#define KIT_ALLOC_BIND(a, table) ((void)(a), (void)(table))
#else
#define KIT_ALLOC_OPS(a) ((a)->ops)
#define KIT_ALLOC_BIND(a, table) ((void)((a)->ops = (table)))
#endif

/* The size of a block whose owner does not know it (KIT_ALLOC_UNSIZED). */
#define KIT_ALLOC_UNKNOWN SIZE_MAX

/* cdef: begin */
KIT_INLINE void *kit_alloc_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->alloc(a, size, align);
}

KIT_INLINE void kit_alloc_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    KIT_FROM_APPLICATION;
    KIT_ALLOC_OPS(a)->free(a, block, size, align);
}

KIT_INLINE void *kit_alloc_realloc(struct kit_alloc *a, void *block, size_t old_size,
                                   size_t new_size, size_t align)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->realloc(a, block, old_size, new_size, align);
}

KIT_INLINE size_t kit_alloc_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->usable_size(a, block, size);
}

KIT_INLINE void kit_alloc_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    KIT_FROM_APPLICATION;
    KIT_ALLOC_OPS(a)->stats(a, out);
}

KIT_INLINE int kit_alloc_check(const struct kit_alloc *a)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->check(a);
}

KIT_INLINE bool kit_alloc_owns(const struct kit_alloc *a, const void *block)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->owns(a, block);
}

KIT_INLINE int kit_alloc_walk(const struct kit_alloc *a,
                              int (*visit)(void *argument, void *block, size_t size, bool used),
                              void *argument)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->walk(a, visit, argument);
}

KIT_INLINE int kit_alloc_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->add_region(a, memory, size);
}

KIT_INLINE size_t kit_alloc_mark(const struct kit_alloc *a)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->mark(a);
}

KIT_INLINE void kit_alloc_release(struct kit_alloc *a, size_t mark)
{
    KIT_FROM_APPLICATION;
    KIT_ALLOC_OPS(a)->release(a, mark);
}

KIT_INLINE void *kit_alloc_zeroed(struct kit_alloc *a, size_t size, size_t align)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->zeroed(a, size, align);
}

KIT_INLINE bool kit_alloc_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                                 size_t align)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->resize(a, block, old_size, new_size, align);
}

KIT_INLINE int kit_alloc_attach(struct kit_alloc *a, struct kit_alloc **out)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->attach(a, out);
}

KIT_INLINE void kit_alloc_detach(struct kit_alloc *face)
{
    KIT_FROM_APPLICATION;
    KIT_ALLOC_OPS(face)->detach(face);
}

KIT_INLINE int kit_alloc_source(struct kit_alloc *a, const struct kit_alloc_pages *pages)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->source(a, pages);
}

KIT_INLINE size_t kit_alloc_tick(struct kit_alloc *a)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->tick(a);
}

KIT_INLINE size_t kit_alloc_trim(struct kit_alloc *a, size_t keep)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->trim(a, keep);
}

KIT_INLINE void kit_alloc_hold(struct kit_alloc *a, bool on)
{
    KIT_FROM_APPLICATION;
    KIT_ALLOC_OPS(a)->hold(a, on);
}

KIT_INLINE void kit_alloc_caller(struct kit_alloc *a, uintptr_t site)
{
    KIT_FROM_APPLICATION;
    KIT_ALLOC_OPS(a)->caller(a, site);
}

KIT_INLINE int kit_alloc_live(const struct kit_alloc *a,
                              int (*visit)(void *argument, const struct kit_alloc_live *block),
                              void *argument)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->live(a, visit, argument);
}

KIT_INLINE uint64_t kit_alloc_fail_at(struct kit_alloc *a, uint64_t n)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->fail_at(a, n);
}

KIT_INLINE size_t kit_alloc_recorded(struct kit_alloc *a, const void **start)
{
    KIT_FROM_APPLICATION;
    return KIT_ALLOC_OPS(a)->recorded(a, start);
}

/* Opens what `choices` describe: the innermost in memory[0 ... size), then each layer over it. 0
 * and *out, which is the outermost; or the code of the one that refused, and *at is its index. */
KIT_INLINE int kit_alloc_compose(const struct kit_alloc_choice *choices, size_t count, void *memory,
                                 size_t size, struct kit_alloc **out, size_t *at)
{
    struct kit_alloc *made = NULL;
    *at = count - 1;
    int rc = choices[*at].component->open(choices[*at].options, memory, size, &made);
    while (rc == 0 && *at > 0) {
        struct kit_alloc *inner = made;
        *at -= 1;
        rc = choices[*at].component->wrap(choices[*at].options, choices[*at + 1].component, inner,
                                          &made);
    }
    if (rc == 0)
        *out = made;
    return rc;
}
/* cdef: end */

#endif
