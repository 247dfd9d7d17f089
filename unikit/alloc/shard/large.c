/* SPDX-License-Identifier: MIT */
/* alloc.shard: blocks that are runs of their own, and changing the size of any block. A run grows
 * into the free run behind it or past the frontier, and shrinks where it stands; contents move only
 * if neither is possible. Cost: O(1), beside copying and clearing. */
#include <unikit/alloc/shard/shard.h>

struct shard_run *shard_run_of(const struct shard_heap *heap, const void *block)
{
    for (unsigned i = 0; i < heap->count; i++) {
        const struct shard_region *region = &heap->regions[i];
        size_t offset = (uintptr_t)block - region->base;
        if (KIT_LIKELY(offset < (size_t)region->pages << heap->shift))
            return region->map[offset >> heap->shift];
    }
    kit_panic("alloc.shard: not a block of this allocator");
}

static void *large_run(struct shard_face *face, size_t pages, size_t align)
{
    struct shard_heap *heap = face->heap;
    shard_lock(heap);
    struct shard_run *run = shard_back_alloc(heap, pages, align);
    if (run)
        run->kind = SHARD_LARGE;
    shard_unlock(heap);
    if (!run)
        return NULL;
    face->allocations++;
    return (void *)shard_start(heap, run);
}

void *shard_large(struct shard_face *face, size_t size, size_t align)
{
    struct shard_heap *heap = face->heap;
    if (size > SHARD_REQUEST_MAX || align > SHARD_REQUEST_MAX)
        return NULL;
    size_t pages = shard_pages_of(heap, size);
    void *block = large_run(face, pages, align);
    if (KIT_LIKELY(block))
        return block;
    if (shard_map(heap, pages + (align >> heap->shift)))
        block = large_run(face, pages, align);
    if (!block) {
        shard_hard_flush(face);
        shard_send(face);
        shard_receive(face, SIZE_MAX);
        shard_flush(face, true);
        block = large_run(face, pages, align);
    }
    return block;
}

void shard_large_free(struct shard_heap *heap, struct shard_run *run)
{
    if (run->kind != SHARD_LARGE)
        kit_panic("alloc.shard: not a block in use");
    shard_lock(heap);
    shard_back_free(heap, run, SHARD_DIRTY);
    shard_unlock(heap);
}

size_t shard_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    const struct shard_heap *heap = shard_heap_of(a);
    (void)size;
    if (KIT_UNLIKELY(heap->harden))
        return shard_hard_size(heap, (void *)(uintptr_t)block);
    return shard_block_size(heap, shard_run_of(heap, block));
}

bool shard_fits(struct shard_heap *heap, struct shard_run *run, size_t new_size)
{
    if (shard_is_slab(run))
        return new_size <= run->size;
    if (new_size > SHARD_REQUEST_MAX)
        return false;
    size_t pages = shard_pages_of(heap, new_size);
    bool fits = true;
    if (pages == run->pages)
        return true;
    shard_lock(heap);
    if (pages > run->pages)
        fits = shard_back_grow(heap, run, pages);
    else
        shard_back_shrink(heap, run, pages);
    shard_unlock(heap);
    return fits;
}

bool shard_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size, size_t align)
{
    struct shard_heap *heap = shard_heap_of(a);
    (void)old_size, (void)align;
    if (KIT_UNLIKELY(heap->harden))
        return shard_hard_resize(heap, block, new_size);
    return shard_fits(heap, shard_run_of(heap, block), new_size);
}

void *shard_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                    size_t align)
{
    if (!block)
        return shard_alloc(a, new_size, align);
    struct shard_heap *heap = shard_heap_of(a);
    size_t usable = shard_usable_size(a, block, KIT_ALLOC_UNKNOWN);
    bool wasteful = new_size < usable / 2 && usable > 4 * SHARD_UNIT &&
                    shard_is_slab(shard_run_of(heap, block));
    if (!wasteful && shard_resize(a, block, old_size, new_size, align))
        return block;
    void *fresh = shard_alloc(a, new_size, old_size == KIT_ALLOC_UNKNOWN ? 0 : align);
    if (!fresh && wasteful) { /* it stays: that is no failure */
        shard_face_of(a)->failures--;
        shard_resize(a, block, old_size, new_size, align);
        return block;
    }
    if (!fresh)
        return NULL;
    if (old_size > usable)
        old_size = usable;
    memcpy(fresh, block, old_size < new_size ? old_size : new_size);
    shard_free(a, block, KIT_ALLOC_UNKNOWN, 0);
    return fresh;
}

void *shard_zeroed(struct kit_alloc *a, size_t size, size_t align)
{
    struct shard_heap *heap = shard_heap_of(a);
    void *block = shard_alloc(a, size, align);
    if (!block)
        return NULL;
    size_t dirty = size;
    if (size > SHARD_SMALL) {
        const struct shard_run *run = shard_run_of(heap, block);
        size_t known = run->dirty == UINT32_MAX ? SIZE_MAX : (size_t)run->dirty << heap->shift;
        dirty = known < size && run->kind == SHARD_LARGE ? known : size;
    }
    memset(block, 0, dirty);
    return block;
}
