/* SPDX-License-Identifier: MIT */
/* What the files of alloc.shard share; the picture of the whole is in shard.c.
 *
 * A region is divided into pages (4 KiB; fewer bytes where the memory is small), and its pages into
 * runs. Each run has a descriptor outside the pages; there are as many as pages, used from the
 * first one on, and those that are free again first. The map leads from a page to the run it
 * belongs to:
 *
 *     | heap, first face | descriptors | map: one pointer per page | pages ...             |
 *                                                                  ^ base        ^ frontier
 *
 * Behind the frontier pages are in no run, and their map entries mean nothing. The map is right for
 * each page of a slab, and for the first and the last page of any other run. */
#ifndef KIT_ALLOC_SHARD_SHARD_H
#define KIT_ALLOC_SHARD_SHARD_H

#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

#ifndef KIT_SHARD_STEP_BITS
#define KIT_SHARD_STEP_BITS 2 /* 2^n size classes per power of two */
#endif
#ifndef KIT_SHARD_SMALL_BITS
#define KIT_SHARD_SMALL_BITS 14 /* blocks above 2^n bytes are runs of their own */
#endif

enum {
    SHARD_PAGE_SHIFT = 12,
    SHARD_UNIT = KIT_ALLOC_ALIGN_MIN,
    SHARD_DIRECT = 1024, /* sizes up to here find their class in a table */
    SHARD_SMALL = 1 << KIT_SHARD_SMALL_BITS,
    SHARD_STEPS = 1 << KIT_SHARD_STEP_BITS,
    SHARD_CLASSES = (KIT_SHARD_SMALL_BITS - 3 - KIT_SHARD_STEP_BITS) * SHARD_STEPS,
    SHARD_BLOCKS = 1024,   /* most blocks of a slab */
    SHARD_SLAB_PAGES = 64, /* most pages of a slab */
    SHARD_BIN_BITS = 4,    /* 2^n bins of free runs per power of two of pages */
    SHARD_BINS = (32 - SHARD_BIN_BITS + 1) << SHARD_BIN_BITS,
    SHARD_REGIONS = 8,
    SHARD_OUT = 16,           /* slabs for which a face gathers blocks of others */
    SHARD_BATCH = 64,         /* blocks that travel together, ... */
    SHARD_HELD = 64,          /* most blocks in the quarantine of a face */
    SHARD_BATCH_BYTES = 8192, /* or so many bytes */
};

/* Sum of a size and an alignment below this never overflows. */
#define SHARD_REQUEST_MAX ((size_t)1 << 44)
/* An active slab's countdown starts so much above its blocks in use that it never ends. */
#define SHARD_BIAS ((uint32_t)1 << 30)
#define SHARD_COLD __attribute__((cold, noinline))
/* What other faces write meanwhile is read as it happens to be. */
#define SHARD_RACY __attribute__((no_sanitize("thread")))

/* What a run is; changes under the lock alone, and not while a block in it is in use. */
enum shard_kind {
    SHARD_NONE, /* not the first page of a run */
    SHARD_FREE, /* a free run: in a bin */
    SHARD_LARGE,
    SHARD_FACE, /* a face lives in it */
    SHARD_SLAB,
};

/* What a slab does; a matter of its owner. */
enum shard_state {
    SHARD_PARTIAL, /* has free blocks; in its face's queue */
    SHARD_FULL,    /* has none; in no list */
    SHARD_ACTIVE,  /* is the one from which its face allocates blocks of the class */
};

/* A freed block. In the first one of a batch `link` leads to the next batch, in the second one to
 * the last block of the batch, whose `next` is the number of blocks. */
struct shard_block {
    struct shard_block *next;
    struct shard_block *link;
};

/* Hardening (hard.c). */
enum {
    SHARD_CHECKS = 1,
    SHARD_LINKS = 2,
    SHARD_CANARY = 4,
    SHARD_POISON = 8,
    SHARD_SHUFFLE = 16,
    SHARD_QUARANTINE = 32,
    SHARD_LIGHT = 64, /* blocks of slabs are neither overwritten nor kept waiting */
    SHARD_SEAL = 8,   /* bytes that a canary takes from each block */
};

/* A freed block that waits, and how many bytes of it were asked for. */
struct shard_held {
    void *block;
    size_t size, whole;
};

/* What a free run holds, in `dirty`. */
#define SHARD_CLEAN 0u         /* it reads as zero */
#define SHARD_GIVEN 1u         /* all whole pages of the source were given back */
#define SHARD_DIRTY UINT32_MAX /* who knows */

struct shard_face;

/* The descriptor of a run. `owner` of a slab does not change while any of its blocks is in use; it
 * is NULL in every other state. */
struct shard_run {
    struct shard_face *owner;
    union {
        struct shard_block *free; /* slab: its free blocks */
        struct shard_run *older;  /* free and dirty: by the time at which they were freed */
    };
    union {
        struct {
            uint32_t due;    /* slab: frees until something must be done about it */
            uint32_t allocs; /* active slab: blocks given out since they were last accounted */
        };
        struct shard_run *newer;
    };
    union {
        uint32_t carved; /* slab: blocks that have been in a list so far */
        uint32_t stamp;  /* free and dirty: the tick in which it was freed */
    };
    uint32_t capacity; /* slab: blocks */
    union {
        uint32_t size;  /* slab: bytes of a block */
        uint32_t dirty; /* large: the pages from this one on read as zero; free: see below */
    };
    uint8_t kind, state, class, region;
    uint32_t pages, first;
    struct shard_run *next, *prev;
};
_Static_assert(sizeof(struct shard_run) == 64, "a descriptor is one cache line");

/* Slabs of one class of one face. */
struct shard_bin {
    struct shard_run *active;
    struct shard_run *first, *last; /* partial ones, oldest first */
    uint32_t slabs;                 /* all of them */
};

/* Blocks of another face's slab on their way to it. */
struct shard_out {
    struct shard_run *run;
    struct shard_block *first, *last;
    size_t count;
};

struct shard_face {
    struct kit_alloc alloc;
    /* What the quick ways need: the first region, and the slabs. For memory that is small or
     * hardened they find extent 0 and no slabs, and so always take the other way. */
    uintptr_t base;
    size_t extent;
    struct shard_run *const *map;
    struct shard_heap *heap;
    struct shard_run *active[SHARD_CLASSES]; /* never NULL: shard_no_slab has no free blocks */
    uint8_t class_of[SHARD_DIRECT + 8];      /* by size */
    struct shard_bin bins[SHARD_CLASSES];
    uint64_t allocations; /* without those that active slabs have not accounted */
    uint64_t failures;
    uint64_t sent, sent_bytes; /* blocks of other faces' slabs freed here, ... */
    uint64_t came, came_bytes; /* and blocks that came from there */
    uint32_t larges;           /* calls of alloc for large blocks since the last tick */
    bool attached;
    struct shard_face *next;     /* all faces */
    struct shard_block *batches; /* taken from the inbox, not yet joined to their slabs */
    struct shard_out out[SHARD_OUT];
    struct shard_held *held; /* a ring, if there is a quarantine */
    uint32_t held_at, held_count;
    size_t held_bytes;
    _Alignas(64) _Atomic(struct shard_block *) inbox;
};

struct shard_region {
    uintptr_t base;
    struct shard_run **map;
    struct shard_run *runs;
    struct shard_run *spare; /* descriptors that are free again */
    uint32_t described;      /* those before were used */
    uint32_t pages, frontier;
    uint32_t high;  /* the highest frontier so far: nobody wrote behind it */
    uint32_t stamp; /* the tick in which the frontier last moved */
    void *mapped;   /* what to unmap, if it came from the page source */
    size_t mapped_size;
};

struct shard_heap {
    struct shard_face first; /* at the start: the two share a page */
    atomic_flag lock;
    uint8_t shift;      /* of a page */
    bool quick;         /* whether the quick ways may be taken */
    uint8_t harden;     /* SHARD_CHECKS ... */
    bool swift;         /* whether the quick ways of hard.h may be taken */
    uint8_t quarantine; /* blocks that wait in each face */
    uintptr_t key;      /* of links; 0 where they are plain */
    uintptr_t secret;   /* of seals and of the order of blocks */
    uint32_t count;     /* regions, gaps included */
    uint32_t bins;
    uint64_t words; /* bit per word of `bits` */
    uint64_t bits[(SHARD_BINS + 63) / 64];
    struct shard_run **heads;          /* of the bins; that of an empty one is not initialised */
    struct shard_run *oldest, *newest; /* dirty free runs */
    const struct kit_alloc_pages *pages;
    uint32_t tick;
    size_t capacity, peak;
    struct shard_region regions[SHARD_REGIONS];
};

_Static_assert(sizeof(struct shard_heap) <= 4096 - 64, "opening writes a page");

extern const struct shard_run shard_no_slab;

/* ---- sizes and classes ----------------------------------------------------------------------- */

/* The class of blocks of `size` bytes, 0 < size <= SHARD_SMALL. */
KIT_INLINE unsigned shard_class(size_t size)
{
    size_t units = (size - 1) / SHARD_UNIT;
    unsigned power = kit_fls64(units | (2 * SHARD_STEPS - 1)) - KIT_SHARD_STEP_BITS;
    return power * SHARD_STEPS + (unsigned)(units >> power);
}

KIT_INLINE size_t shard_class_size(unsigned class)
{
    unsigned power = class < 2 * SHARD_STEPS ? 0 : class / SHARD_STEPS - 1;
    return (size_t)(class - power * SHARD_STEPS + 1) << power << 4;
}

KIT_INLINE struct shard_face *shard_face_of(const struct kit_alloc *a)
{
    return (struct shard_face *)(uintptr_t)a;
}

KIT_INLINE struct shard_heap *shard_heap_of(const struct kit_alloc *a)
{
    return shard_face_of(a)->heap;
}

KIT_INLINE size_t shard_page(const struct shard_heap *heap)
{
    return (size_t)1 << heap->shift;
}

KIT_INLINE size_t shard_pages_of(const struct shard_heap *heap, size_t size)
{
    return (size + !size + shard_page(heap) - 1) >> heap->shift;
}

KIT_INLINE bool shard_is_slab(const struct shard_run *run)
{
    return run->kind == SHARD_SLAB;
}

KIT_INLINE uintptr_t shard_start(const struct shard_heap *heap, const struct shard_run *run)
{
    const struct shard_region *region = &heap->regions[run->region];
    return region->base + ((uintptr_t)run->first << heap->shift);
}

/* Bytes of a block that lies in this run. */
KIT_INLINE size_t shard_block_size(const struct shard_heap *heap, const struct shard_run *run)
{
    return shard_is_slab(run) ? run->size : (size_t)run->pages << heap->shift;
}

/* Blocks of a slab that are given out, as its face sees it; for others an estimate. */
KIT_INLINE SHARD_RACY uint32_t shard_used(const struct shard_run *run)
{
    if (run->state == SHARD_ACTIVE)
        return run->due - SHARD_BIAS + run->allocs;
    return run->state == SHARD_FULL ? run->carved : run->due;
}

/* The links of free blocks, encoded where the heap is hardened. */
KIT_INLINE void shard_set_next(const struct shard_heap *heap, struct shard_block *block,
                               struct shard_block *next)
{
    block->next = (struct shard_block *)((uintptr_t)next ^ heap->key);
}

KIT_INLINE struct shard_block *shard_next(const struct shard_heap *heap,
                                          const struct shard_block *block)
{
    return (struct shard_block *)((uintptr_t)block->next ^ heap->key);
}

/* ---- the lock of all that faces share ----------------------------------------------------------
 */

KIT_INLINE void shard_lock(struct shard_heap *heap)
{
    for (unsigned wait = 1; /* and longer each time, so that whoever holds it is not disturbed */
         KIT_UNLIKELY(atomic_flag_test_and_set_explicit(&heap->lock, memory_order_acquire));
         wait += wait < 64 ? wait : 0)
        for (unsigned i = 0; i < wait; i++)
            __builtin_ia32_pause();
}

KIT_INLINE void shard_unlock(struct shard_heap *heap)
{
    atomic_flag_clear_explicit(&heap->lock, memory_order_release);
}

/* Whether there may be blocks that others have freed. */
KIT_INLINE bool shard_has_mail(const struct shard_face *face)
{
    return face->batches || atomic_load_explicit(&face->inbox, memory_order_relaxed);
}

/* ---- back.c: runs of pages; all under the lock ------------------------------------------------
 */

/* A run whose first page is a multiple of `align` bytes, its kind still to be set. */
struct shard_run *shard_back_alloc(struct shard_heap *heap, size_t pages, size_t align);
/* Its steps: the `pages` pages from `skip` on of a free run, or of what lies behind a frontier. */
struct shard_run *shard_back_take(struct shard_heap *heap, struct shard_run *run, size_t skip,
                                  size_t pages);
struct shard_run *shard_back_advance(struct shard_heap *heap, unsigned index, size_t skip,
                                     size_t pages);
/* Makes a run free that holds what `dirty` says, and joins it with what is free around it. */
void shard_back_free(struct shard_heap *heap, struct shard_run *run, uint32_t dirty);
/* Makes a run longer where it stands. */
bool shard_back_grow(struct shard_heap *heap, struct shard_run *run, size_t pages);
void shard_back_shrink(struct shard_heap *heap, struct shard_run *run, size_t pages);
size_t shard_back_largest(const struct shard_heap *heap); /* in pages */
unsigned shard_back_bin(const struct shard_heap *heap, size_t pages);

/* ---- pages.c: where memory comes from and goes to ----------------------------------------------
 */

/* The index of the new region; KIT_ENOMEM. */
int shard_region_add(struct shard_heap *heap, uintptr_t start, uintptr_t end);
bool shard_map(struct shard_heap *heap, size_t pages);
int shard_add_region(struct kit_alloc *a, void *memory, size_t size);
int shard_source(struct kit_alloc *a, const struct kit_alloc_pages *pages);
size_t shard_tick(struct kit_alloc *a);
size_t shard_trim(struct kit_alloc *a, size_t keep);

/* ---- slab.c: slabs of one face --------------------------------------------------------------- */

/* A block of a class whose active slab has none; NULL: there is no memory for a slab. */
void *shard_refill(struct shard_face *face, unsigned class);
/* A block of any larger class, where there is memory for nothing else. */
void *shard_larger(struct shard_face *face, unsigned class);
/* Pages for a slab of a class. Memory that is never carved is never touched, so slabs are as large
 * as the heap can bear: an active one per class shall take no more than a small part of it. */
size_t shard_slab_pages(size_t capacity, size_t size, size_t page);
/* The first free block of an active slab that has one. */
void *shard_take(const struct shard_heap *heap, struct shard_run *run);
/* What is due when as many blocks of an own slab were freed as it waited for. */
void shard_due(struct shard_face *face, struct shard_run *run);
/* Gives a block of an own slab back. */
void shard_put(struct shard_face *face, struct shard_run *run, struct shard_block *block);
/* Joins `count` chained blocks to an own slab. */
void shard_join(struct shard_face *face, struct shard_run *run, struct shard_block *first,
                struct shard_block *last, uint32_t count);
/* Gives back the slabs without blocks in use; `all`: also puts the active ones aside. */
void shard_flush(struct shard_face *face, bool all);

/* ---- face.c: faces, and blocks that were freed through another one -----------------------------
 */

void shard_face_init(struct shard_face *face, struct shard_heap *heap, struct shard_held *held);
void shard_free_remote(struct shard_face *face, struct shard_run *run, struct shard_block *block);
/* Takes in up to `batches` batches of blocks that others have freed. */
void shard_receive(struct shard_face *face, size_t batches);
void shard_send(struct shard_face *face);
int shard_attach(struct kit_alloc *a, struct kit_alloc **out);
void shard_detach(struct kit_alloc *a);
void shard_hold(struct kit_alloc *a, bool on);
/* A block of a face that nobody uses. */
void *shard_borrow(struct shard_face *face, unsigned class);
/* Brings all blocks that are on their way home; no other face may be in use. */
void shard_settle(struct shard_heap *heap);

/* ---- large.c -----------------------------------------------------------------------------------
 */

struct shard_run *shard_run_of(const struct shard_heap *heap, const void *block);
void *shard_large(struct shard_face *face, size_t size, size_t align);
void shard_large_free(struct shard_heap *heap, struct shard_run *run);
/* Whether the block's run has, or now gets, room for exactly this size. */
bool shard_fits(struct shard_heap *heap, struct shard_run *run, size_t size);
void *shard_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                    size_t align);
bool shard_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size, size_t align);
void *shard_zeroed(struct kit_alloc *a, size_t size, size_t align);
size_t shard_usable_size(const struct kit_alloc *a, const void *block, size_t size);

/* ---- shard.c -----------------------------------------------------------------------------------
 */

void *shard_alloc(struct kit_alloc *a, size_t size, size_t align);
void shard_free(struct kit_alloc *a, void *block, size_t size, size_t align);

/* The same without hardening, and without what the quick ways do. */
void *shard_plain_alloc(struct shard_face *face, size_t size, size_t align);
void shard_plain_free(struct shard_face *face, void *block);

/* ---- hard.c ------------------------------------------------------------------------------------
 */

void *shard_hard_alloc(struct shard_face *face, size_t size, size_t align);
void shard_hard_free(struct shard_face *face, void *block);
size_t shard_hard_size(const struct shard_heap *heap, void *block);
bool shard_hard_resize(struct shard_heap *heap, void *block, size_t new_size);
void shard_hard_flush(struct shard_face *face); /* frees all that waits */
/* Whether a link may stand in a free block of this slab. */
bool shard_hard_links(const struct shard_heap *heap, const struct shard_run *run,
                      const struct shard_block *next);

/* ---- bounds.c ----------------------------------------------------------------------------------
 */

void shard_bounds(const uint64_t *options, size_t live, size_t largest,
                  struct kit_alloc_bounds *out);

/* ---- check.c -----------------------------------------------------------------------------------
 */

void shard_stats(const struct kit_alloc *a, struct kit_alloc_stats *out);
int shard_check(const struct kit_alloc *a);
bool shard_owns(const struct kit_alloc *a, const void *block);
int shard_walk(const struct kit_alloc *a,
               int (*visit)(void *argument, void *block, size_t size, bool used), void *argument);

#endif
