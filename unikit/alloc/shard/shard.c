/* SPDX-License-Identifier: MIT */
/* alloc.shard: a general-purpose allocator that is quick on average and bounded in the worst case.
 *
 *     face of each thread or CPU            heap, one lock
 *     class -> active slab -> free blocks   bins of free runs of pages, frontier   (back.c)
 *              queue of partial slabs       page map: address -> run
 *              outboxes, inbox   (face.c)   regions, page source                   (pages.c)
 *
 * Small blocks (up to SHARD_SMALL) come from slabs, which belong to faces: allocation pops from the
 * active slab of the class, a free pushes onto the slab that the page map names. Neither looks at
 * a header, takes a lock or walks a list. Everything else is a step of bounded length: the next
 * slab, a new one, blocks carved a few at a time (slab.c), batches of blocks that other faces freed
 * (face.c), and runs of pages from bins that bitmaps lead to (back.c). Large blocks are runs.
 *
 * Descriptors lie outside the pages, so that neither an overflow nor memory given back to the host
 * touches them: 72 bytes per page, of which only those of first pages of runs are ever written, and
 * 8 for each page of a slab. Opening writes the heap with its first face, less than a page,
 * whatever the size of the memory.
 *
 * Where memory is short, a request takes fewer pages for a slab, then flushes the empty slabs of
 * its face, then takes a run of just its pages, a block of a larger class, or one of an idle face.
 *
 * Counters. Blocks and bytes in use are exact when no other face is in use meanwhile, and lag
 * behind by what those are about to change otherwise; so do allocations and frees. They are added
 * up by stats(), which takes O(runs) under the lock and not O(1), because the quick ways count
 * nothing but blocks of their slab. So `peak` is a lower bound: the highest sum that a stats() has
 * seen.
 *
 * Not noticed unless hardened: a pointer that is not a block of this allocator's (except where it
 * leaves the memory), and blocks freed twice. */
#include <unikit/alloc/shard/hard.h>

enum {
    OPTION_POOL,
    OPTION_HARDENED,
    OPTION_FULL,
    OPTION_CHECKS,
    OPTION_LINKS,
    OPTION_CANARY,
    OPTION_POISON,
    OPTION_SHUFFLE,
    OPTION_QUARANTINE,
    QUARANTINE = 8, /* of a hardened heap, unless another number is given */
};

/* ---- the other ways
 * ------------------------------------------------------------------------------
 */

/* Memory for a slab is short. */
static SHARD_COLD void *shard_scarce(struct shard_face *face, unsigned class, size_t size,
                                     size_t align)
{
    void *block = NULL;
    if (shard_map(face->heap, SHARD_SLAB_PAGES))
        block = shard_refill(face, class);
    if (!block) {
        shard_hard_flush(face);
        shard_send(face);
        shard_receive(face, SIZE_MAX);
        shard_flush(face, true);
        block = shard_refill(face, class);
    }
    if (!block)
        block = shard_large(face, size, align);
    if (block || align > SHARD_UNIT) /* blocks of larger classes are aligned to no more */
        return block;
    block = shard_larger(face, class);
    return block ? block : shard_borrow(face, class);
}

/* Classes whose size is a multiple of `align` have blocks aligned to it: slabs start at pages. */
static unsigned shard_aligned_class(size_t size, size_t align)
{
    unsigned class = shard_class(size < align ? align : size);
    while (shard_class_size(class) & (align - 1))
        class ++;
    return class;
}

void *shard_plain_alloc(struct shard_face *face, size_t size, size_t align)
{
    void *block;
    unsigned class;
    if (size > SHARD_SMALL || align > shard_page(face->heap) || align > SHARD_SMALL) {
        block = shard_large(face, size, align);
    } else {
        if (KIT_LIKELY(size <= SHARD_DIRECT && align <= SHARD_UNIT))
            class = face->class_of[size];
        else if (align <= SHARD_UNIT)
            class = shard_class(size);
        else
            class = shard_aligned_class(size, align);
        struct shard_run *run = face->bins[class].active;
        if (run && run->free)
            return shard_take(face->heap, run);
        block = shard_refill(face, class);
        if (KIT_UNLIKELY(!block))
            block = shard_scarce(face, class, size, align);
    }
    if (KIT_UNLIKELY(!block))
        face->failures++;
    return block;
}

void shard_plain_free(struct shard_face *face, void *block)
{
    struct shard_run *run = shard_run_of(face->heap, block);
    if (!shard_is_slab(run))
        shard_large_free(face->heap, run);
    else if (run->owner == face)
        shard_put(face, run, block);
    else
        shard_free_remote(face, run, block);
}

static __attribute__((noinline)) void *shard_alloc_otherwise(struct shard_face *face, size_t size,
                                                             size_t align)
{
    if (face->heap->swift)
        return shard_swift_alloc(face, size, align);
    if (KIT_UNLIKELY(face->heap->harden))
        return shard_hard_alloc(face, size, align);
    return shard_plain_alloc(face, size, align);
}

static __attribute__((noinline)) void shard_free_otherwise(struct shard_face *face, void *block)
{
    if (!block)
        return;
    if (face->heap->swift)
        shard_swift_free(face, block);
    else if (KIT_UNLIKELY(face->heap->harden))
        shard_hard_free(face, block);
    else
        shard_plain_free(face, block);
}

/* ---- the quick ways
 * ------------------------------------------------------------------------------
 */

void *shard_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct shard_face *face = shard_face_of(a);
    if (KIT_SHARD_HARDENED)
        return shard_swift_alloc(face, size, align);
    if (KIT_LIKELY(size <= SHARD_DIRECT && align <= SHARD_UNIT)) {
        struct shard_run *run = face->active[face->class_of[size]];
        struct shard_block *block = run->free;
        if (KIT_LIKELY(block)) {
            run->free = block->next;
            run->allocs++;
            return block;
        }
    }
    return shard_alloc_otherwise(face, size, align);
}

void shard_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    struct shard_face *face = shard_face_of(a);
    size_t offset = (uintptr_t)block - face->base;
    (void)size, (void)align;
    if (KIT_SHARD_HARDENED) {
        shard_swift_free(face, block);
        return;
    }
    if (KIT_LIKELY(offset < face->extent)) {
        struct shard_run *run = face->map[offset >> SHARD_PAGE_SHIFT];
        if (KIT_LIKELY(run->owner == face)) {
            struct shard_block *freed = block;
            freed->next = run->free;
            run->free = freed;
            if (KIT_UNLIKELY(--run->due == 0))
                shard_due(face, run);
            return;
        }
        if (run->owner) {
            shard_free_remote(face, run, block);
            return;
        }
    }
    shard_free_otherwise(face, block);
}

/* ---- opening
 * --------------------------------------------------------------------------------------
 */

static const struct kit_alloc_ops shard_ops = {
    .alloc = shard_alloc,
    .free = shard_free,
    .realloc = shard_realloc,
    .usable_size = shard_usable_size,
    .stats = shard_stats,
    .check = shard_check,
    .owns = shard_owns,
    .walk = shard_walk,
    .add_region = shard_add_region,
    .zeroed = shard_zeroed,
    .resize = shard_resize,
    .attach = shard_attach,
    .detach = shard_detach,
    .source = shard_source,
    .tick = shard_tick,
    .trim = shard_trim,
    .hold = shard_hold,
};

/* Pages of 4 KiB where there are enough of them; smaller ones than 512 bytes serve nobody. */
static uint8_t shard_shift(size_t size)
{
    return size < (48 << 10) ? 9 : size < (192 << 10) ? 10 : SHARD_PAGE_SHIFT;
}

static void shard_harden(struct shard_heap *heap, const uint64_t *options)
{
    uint64_t all = options[OPTION_FULL], wait = options[OPTION_QUARANTINE];
    for (unsigned i = 0; i < OPTION_QUARANTINE - OPTION_CHECKS; i++)
        heap->harden |= (uint8_t)((all | options[OPTION_CHECKS + i]) << i);
    if (options[OPTION_HARDENED] && !(heap->harden & SHARD_POISON) && !wait)
        heap->harden |= SHARD_LIGHT;
    if (options[OPTION_HARDENED])
        heap->harden |= SHARD_CHECKS | SHARD_LINKS | SHARD_CANARY;
    wait = wait ? wait : (all | options[OPTION_HARDENED]) * QUARANTINE;
    heap->quarantine = (uint8_t)(wait < SHARD_HELD ? wait : SHARD_HELD);
    heap->harden |= heap->quarantine ? SHARD_QUARANTINE : 0;
    /* Where the memory lies is all the chance there is. */
    heap->secret = ((uintptr_t)heap * UINT64_C(0xd1342543de82ef95)) ^ (uintptr_t)heap >> 12;
    heap->key = heap->harden & SHARD_LINKS ? heap->secret | 1 : 0;
    heap->swift = heap->quick && heap->harden & SHARD_LIGHT;
    heap->quick = heap->quick && !heap->harden;
}

static SHARD_COLD int shard_open(const uint64_t *options, void *memory, size_t size,
                                 struct kit_alloc **out)
{
    if (options[OPTION_POOL] > size)
        return KIT_ENOMEM;
    uintptr_t start = kit_align_up((uintptr_t)memory, sizeof(struct shard_run));
    uintptr_t end = (uintptr_t)memory + (options[OPTION_POOL] ? options[OPTION_POOL] : size);
    if (start >= end || end - start < sizeof(struct shard_heap))
        return KIT_ENOMEM;
    struct shard_heap *heap = (void *)start;
    size_t skip = offsetof(struct shard_heap, lock);
    memset((char *)heap + skip, 0, sizeof *heap - skip);
    atomic_flag_clear(&heap->lock);
    heap->shift = shard_shift(end - start);
    heap->quick = heap->shift == SHARD_PAGE_SHIFT;
    shard_harden(heap, options);
    if (KIT_SHARD_HARDENED && !heap->swift)
        return KIT_EINVAL;
    struct shard_held *held = (void *)(heap + 1);
    heap->heads = (void *)(held + (heap->quarantine ? SHARD_HELD : 0));
    heap->bins = SHARD_BINS;
    if (heap->shift !=
        SHARD_PAGE_SHIFT) /* regions that are added may be larger; they share the last bin */
        heap->bins = shard_back_bin(heap, (end - start) >> (heap->shift - 4)) + 1;
    int result = shard_region_add(heap, (uintptr_t)(heap->heads + heap->bins), end);
    if (result < 0)
        return result;
    KIT_ALLOC_BIND(&heap->first.alloc, &shard_ops);
    shard_face_init(&heap->first, heap, held);
    *out = &heap->first.alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_shard = {
    .id = "alloc.shard",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED | KIT_ALLOC_OWNS | KIT_ALLOC_WALK |
                KIT_ALLOC_ADD_REGION | KIT_ALLOC_UNSIZED | KIT_ALLOC_THREADS | KIT_ALLOC_PAGES |
                KIT_ALLOC_RESIZE | KIT_ALLOC_ZEROED,
    .ops = &shard_ops,
    .open = shard_open,
    .bounds = shard_bounds,
};
