/* SPDX-License-Identifier: MIT */
/* Slabs: runs of pages divided into blocks of one class, each owned by one face.
 *
 * Of the slabs of a class one is active: allocation takes its free blocks one by one. Blocks are
 * carved, that is put into the list for the first time, a few at a time, so that memory is touched
 * as it is needed and no step is long. When the active slab has none left it becomes full, and the
 * one that has been partial for longest takes its place; if there is none, a new one.
 *
 *     carve          last block taken         first one freed         last one freed
 *     ACTIVE ------------> FULL ------------------> PARTIAL ------------------> free run
 *        ^_________________________________________/   (and set aside)
 *
 * A free only counts down `due`; what happens at zero depends on the state, so that the quick way
 * has one test for everything: full: enter the queue; partial: no block is in use any more;
 * active: account (practically never).
 * Source: the sharded lists follow Leijen, Zorn, de Moura, «Mimalloc: free list sharding in
 * action», APLAS 2019; the slabs Bonwick, «The slab allocator», USENIX Summer 1994.
 * Cost: all functions O(1), shard_larger and shard_flush O(classes). */
#include <unikit/alloc/shard/shard.h>

enum {
    RECEIVE = 2,         /* batches at each way to new memory, and ... */
    RECEIVE_MORE = 16,   /* before a new slab */
    CARVE_BYTES = 4096,  /* carved at once, ... */
    CARVE_MOST = 32,     /* and not more blocks */
    PAGE = 4096,         /* of the host */
    SLAB_BYTES = 131072, /* of a slab, unless blocks are small or large or memory is short */
    FEW = 8,             /* blocks that it should have */
    SLAB_SHARE = 256     /* a slab takes at most this part of all memory */
};

const struct shard_run shard_no_slab = {.kind = SHARD_NONE};

/* ---- states ------------------------------------------------------------------------------------
 */

static void slab_enqueue(struct shard_bin *bin, struct shard_run *run)
{
    run->next = NULL;
    run->prev = bin->last;
    *(bin->last ? &bin->last->next : &bin->first) = run;
    bin->last = run;
}

static void slab_dequeue(struct shard_bin *bin, struct shard_run *run)
{
    *(run->prev ? &run->prev->next : &bin->first) = run->next;
    *(run->next ? &run->next->prev : &bin->last) = run->prev;
}

static void slab_retire(struct shard_face *face, struct shard_bin *bin, struct shard_run *run)
{
    bin->slabs--;
    shard_lock(face->heap);
    shard_back_free(face->heap, run, SHARD_DIRTY);
    shard_unlock(face->heap);
}

/* Makes the countdown of an active slab right again. */
static void slab_account(struct shard_face *face, struct shard_run *run)
{
    uint32_t used = shard_used(run);
    face->allocations += run->allocs;
    run->allocs = 0;
    run->due = used + SHARD_BIAS;
}

/* Makes an active slab full or partial, or free. */
static void slab_set_aside(struct shard_face *face, unsigned class, struct shard_run *run)
{
    struct shard_bin *bin = &face->bins[class];
    slab_account(face, run);
    uint32_t used = run->due - SHARD_BIAS;
    bin->active = NULL;
    face->active[class] = (struct shard_run *)(uintptr_t)&shard_no_slab;
    if (used == 0) {
        slab_retire(face, bin, run);
    } else if (used == run->capacity) {
        run->state = SHARD_FULL;
        run->due = 1;
    } else {
        run->state = SHARD_PARTIAL;
        run->due = used;
        slab_enqueue(bin, run);
    }
}

static void slab_activate(struct shard_face *face, unsigned class, struct shard_run *run)
{
    run->due = shard_used(run) + SHARD_BIAS;
    run->allocs = 0;
    run->state = SHARD_ACTIVE;
    face->bins[class].active = run;
    if (face->extent)
        face->active[class] = run;
}

/* A full or partial slab that has `used` blocks in use now. */
static void slab_emptied(struct shard_face *face, struct shard_run *run, uint32_t used)
{
    struct shard_bin *bin = &face->bins[run->class];
    if (used == 0) {
        if (run->state == SHARD_PARTIAL)
            slab_dequeue(bin, run);
        slab_retire(face, bin, run);
        return;
    }
    if (run->state == SHARD_FULL)
        slab_enqueue(bin, run);
    run->state = SHARD_PARTIAL;
    run->due = used;
}

void shard_due(struct shard_face *face, struct shard_run *run)
{
    if (run->state == SHARD_ACTIVE)
        slab_account(face, run);
    else
        slab_emptied(face, run, run->state == SHARD_FULL ? run->carved - 1 : 0);
}

void shard_put(struct shard_face *face, struct shard_run *run, struct shard_block *block)
{
    shard_set_next(face->heap, block, run->free);
    run->free = block;
    if (--run->due == 0)
        shard_due(face, run);
}

void shard_join(struct shard_face *face, struct shard_run *run, struct shard_block *first,
                struct shard_block *last, uint32_t count)
{
    shard_set_next(face->heap, last, run->free);
    run->free = first;
    if (run->state == SHARD_ACTIVE)
        run->due -= count;
    else
        slab_emptied(face, run, shard_used(run) - count);
}

/* ---- blocks -------------------------------------------------------------------------------------
 */

/* Turns a list of `count` blocks around at a place that nobody can foretell. */
static void slab_shuffle(const struct shard_heap *heap, struct shard_run *run, uint32_t count)
{
    uint64_t random = ((uintptr_t)run->free ^ heap->secret) * UINT64_C(0x9e3779b97f4a7c15);
    struct shard_block *first = run->free, *last = first, *cut;
    for (uint32_t at = (uint32_t)(random >> 33) % count; at; at--)
        last = shard_next(heap, last);
    cut = shard_next(heap, last);
    shard_set_next(heap, last, NULL);
    if (!cut)
        return;
    run->free = cut;
    while ((last = shard_next(heap, cut)))
        cut = last;
    shard_set_next(heap, cut, first);
}

/* Takes a block of a slab whose list is empty, and puts the next few into the list, but only those
 * that start in a page of which a block was given out before: this one is not touched, and the
 * first touch of a page, which may be a page fault or at least costs the way to its translation, is
 * left to whoever asked for the block. */
static void *slab_carve(const struct shard_heap *heap, struct shard_run *run)
{
    size_t size = run->size;
    uintptr_t at = shard_start(heap, run) + run->carved * size;
    struct shard_block *taken = (void *)at, *next = (void *)(at + size);
    uint32_t rest = run->capacity - run->carved;
    size_t room = (0 - at) & (PAGE - 1);
    room = room < CARVE_BYTES ? room : CARVE_BYTES;
    rest = rest < CARVE_MOST ? rest : CARVE_MOST;
    run->allocs++;
    uint32_t count = 1;
    if (size < room && rest > 1) {
        run->free = next;
        for (count = 2; count * size < room && count < rest; count++) {
            struct shard_block *block = next;
            next = (void *)((uintptr_t)block + size);
            shard_set_next(heap, block, next);
        }
        shard_set_next(heap, next, NULL);
        if (heap->harden & SHARD_SHUFFLE)
            slab_shuffle(heap, run, count - 1);
    }
    run->carved += count;
    return taken;
}

void *shard_take(const struct shard_heap *heap, struct shard_run *run)
{
    struct shard_block *block = run->free, *next = shard_next(heap, block);
    if (KIT_UNLIKELY(heap->harden & SHARD_LINKS) && !shard_hard_links(heap, run, next))
        kit_panic("alloc.shard: written to after it was freed");
    run->free = next;
    run->allocs++;
    return block;
}

/* ---- new slabs
 * -----------------------------------------------------------------------------------
 */

size_t shard_slab_pages(size_t capacity, size_t size, size_t page)
{
    size_t least = (size + page - 1) / page, share = capacity / SLAB_SHARE;
    size_t bytes = size * FEW < SLAB_BYTES ? SLAB_BYTES : size * FEW;
    bytes = bytes < share ? bytes : share;
    bytes = bytes < size * SHARD_BLOCKS ? bytes : size * SHARD_BLOCKS;
    return bytes / page > least ? bytes / page : least;
}

/* Makes a run an active slab. */
static void slab_make(struct shard_face *face, unsigned class, struct shard_run *run)
{
    struct shard_heap *heap = face->heap;
    struct shard_region *region = &heap->regions[run->region];
    struct shard_run **map = &region->map[run->first];
    size_t size = shard_class_size(class), count = ((size_t)run->pages << heap->shift) / size;
    for (uint32_t i = 1; i + 1 < run->pages; i++)
        map[i] = run;
    run->free = NULL;
    run->carved = 0;
    run->capacity = (uint32_t)(count < SHARD_BLOCKS ? count : SHARD_BLOCKS);
    run->size = (uint32_t)size;
    run->class = (uint8_t) class;
    run->state = SHARD_FULL; /* of none that were carved */
    slab_activate(face, class, run);
    run->owner = face;
    face->bins[class].slabs++;
}

/* Pages for a slab: as many as wished for, or as few as are of use. */
static struct shard_run *slab_run(struct shard_face *face, unsigned class)
{
    struct shard_heap *heap = face->heap;
    size_t size = shard_class_size(class), least = shard_pages_of(heap, size);
    shard_lock(heap);
    size_t wish = shard_slab_pages(heap->capacity, size, shard_page(heap));
    struct shard_run *run = shard_back_alloc(heap, wish, 0);
    if (!run && least < wish)
        run = shard_back_alloc(heap, least, 0);
    if (run)
        run->kind = SHARD_SLAB;
    shard_unlock(heap);
    return run;
}

/* Another slab for a class whose active one has neither free nor uncarved blocks; false: no memory.
 */
static bool slab_exchange(struct shard_face *face, unsigned class)
{
    struct shard_bin *bin = &face->bins[class];
    struct shard_run *run = bin->active, *next = bin->first;
    if (next)
        slab_dequeue(bin, next);
    else if (!(next = slab_run(face, class)))
        return false;
    if (run)
        slab_set_aside(face, class, run);
    if (next->owner)
        slab_activate(face, class, next);
    else
        slab_make(face, class, next);
    return true;
}

void *shard_refill(struct shard_face *face, unsigned class)
{
    struct shard_bin *bin = &face->bins[class];
    if (shard_has_mail(face))
        shard_receive(face, RECEIVE);
    struct shard_run *run = bin->active;
    bool spent = !run || (!run->free && (bin->first || run->carved == run->capacity));
    if (spent && !bin->first && shard_has_mail(face)) {
        shard_receive(face, RECEIVE_MORE); /* better than new memory is what others have freed */
        spent = !run || (!run->free && (bin->first || run->carved == run->capacity));
    }
    if (spent && !slab_exchange(face, class))
        return NULL;
    run = bin->active;
    return run->free ? shard_take(face->heap, run) : slab_carve(face->heap, run);
}

SHARD_COLD void *shard_larger(struct shard_face *face, unsigned class)
{
    for (unsigned i = class; i < SHARD_CLASSES; i++) {
        const struct shard_bin *bin = &face->bins[i];
        const struct shard_run *run = bin->active;
        if (bin->first || (run && (run->free || run->carved < run->capacity)))
            return shard_refill(face, i);
    }
    return NULL;
}

SHARD_COLD void shard_flush(struct shard_face *face, bool all)
{
    for (unsigned class = 0; class < SHARD_CLASSES; class ++) {
        struct shard_run *run = face->bins[class].active;
        if (run && (all || shard_used(run) == 0))
            slab_set_aside(face, class, run);
    }
}
