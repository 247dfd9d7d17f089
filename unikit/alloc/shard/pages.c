/* SPDX-License-Identifier: MIT */
/* Where the pages of alloc.shard come from and go to: regions, the page source, and giving back by
 * ticks that the opener counts, never by a clock.
 *
 * A free run that was written to waits in a list by age; one that is used again leaves it, and one
 * that grows is young again. A tick gives back the oldest ones, as far as they have lain for
 * WAIT ticks, at most RUNS of them. What lies between a frontier and the highest one ever is
 * treated alike. */
#include <unikit/alloc/shard/shard.h>

enum { WAIT = 128, RUNS = 16, GROWTH = 64 << 20, LEAST = 16 /* pages: fewer are of no use */ };

/* Lays out a region in [start, end): the map, the descriptors, the pages. */
int shard_region_add(struct shard_heap *heap, uintptr_t start, uintptr_t end)
{
    size_t page = shard_page(heap), each = page + sizeof(struct shard_run) + sizeof(void *);
    unsigned index = 0;
    while (index < heap->count && heap->regions[index].pages)
        index++;
    start = kit_align_up(start, sizeof(struct shard_run));
    if (index == SHARD_REGIONS || start >= end)
        return KIT_ENOMEM;
    size_t pages = (end - start) / each;
    uintptr_t map = 0, base = 0;
    for (; pages; pages--) { /* at most twice: alignment costs less than two pages */
        map = start + pages * sizeof(struct shard_run);
        base = kit_align_up(map + pages * sizeof(void *), page);
        if (base <= end && (end - base) >> heap->shift >= pages)
            break;
    }
    if (pages < LEAST || pages >= UINT32_MAX / 2)
        return KIT_ENOMEM;
    heap->regions[index] = (struct shard_region){
        .base = base, .map = (void *)map, .runs = (void *)start, .pages = (uint32_t)pages};
    if (index == heap->count)
        heap->count++;
    heap->capacity += pages << heap->shift;
    return (int)index;
}

/* Asks the page source for a region in which `pages` pages fit. */
SHARD_COLD bool shard_map(struct shard_heap *heap, size_t pages)
{
    const struct kit_alloc_pages *source = heap->pages;
    if (!source || !source->map || pages > SHARD_REQUEST_MAX >> heap->shift)
        return false;
    size_t size = (pages + 2) * (shard_page(heap) + sizeof(struct shard_run) + sizeof(void *));
    size = kit_align_up(size, source->page);
    size_t got = 0;
    void *memory = size < GROWTH ? source->map(source->context, GROWTH, &got) : NULL;
    if (!memory) /* there is no room to grow, or not that much */
        memory = source->map(source->context, size, &got);
    if (!memory)
        return false;
    shard_lock(heap);
    int index = shard_region_add(heap, (uintptr_t)memory, (uintptr_t)memory + got);
    if (index >= 0) {
        heap->regions[index].mapped = memory;
        heap->regions[index].mapped_size = got;
    }
    shard_unlock(heap);
    if (index < 0 && source->unmap)
        source->unmap(source->context, memory, got);
    return index >= 0;
}

SHARD_COLD int shard_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    struct shard_heap *heap = shard_heap_of(a);
    if (size > SHARD_REQUEST_MAX)
        return KIT_EINVAL;
    shard_lock(heap);
    int index = shard_region_add(heap, (uintptr_t)memory, (uintptr_t)memory + size);
    shard_unlock(heap);
    return index < 0 ? index : 0;
}

SHARD_COLD int shard_source(struct kit_alloc *a, const struct kit_alloc_pages *pages)
{
    shard_heap_of(a)->pages = pages;
    return 0;
}

/* ---- giving back ------------------------------------------------------------------------------
 */

/* Gives back what a run holds that is out of its bin, without the lock, and makes it free again,
 * now reading as zero. Bytes given back. */
static size_t pages_purge(struct shard_heap *heap, struct shard_run *run)
{
    const struct kit_alloc_pages *source = heap->pages;
    uintptr_t start = shard_start(heap, run), end = start + ((uintptr_t)run->pages << heap->shift);
    uintptr_t from = kit_align_up(start, source->page), to = kit_align_down(end, source->page);
    run->kind = SHARD_LARGE;
    shard_unlock(heap);
    if (from < to)
        source->decommit(source->context, (void *)from, to - from);
    shard_lock(heap);
    shard_back_free(heap, run, from == start && to == end ? SHARD_CLEAN : SHARD_GIVEN);
    return from < to ? to - from : 0;
}

/* Purges the highest `most` of the pages that lie dirty behind the frontier of a region. */
static size_t pages_purge_top(struct shard_heap *heap, unsigned index, size_t most)
{
    const struct shard_region *region = &heap->regions[index];
    size_t pages = region->high > region->frontier ? region->high - region->frontier : 0;
    size_t skip = pages > most ? pages - most : 0;
    if (pages == skip)
        return 0;
    return pages_purge(heap, shard_back_advance(heap, index, skip, pages - skip));
}

SHARD_COLD size_t shard_tick(struct kit_alloc *a)
{
    struct shard_face *face = shard_face_of(a);
    struct shard_heap *heap = face->heap;
    size_t given = 0;
    shard_hard_flush(face);
    shard_send(face);
    shard_receive(face, RUNS);
    if (!heap->pages)
        return 0;
    shard_lock(heap);
    heap->tick++;
    for (int i = 0; i < RUNS && heap->oldest && heap->tick - heap->oldest->stamp >= WAIT; i++) {
        struct shard_run *run = heap->oldest;
        given += pages_purge(heap, shard_back_take(heap, run, 0, run->pages));
    }
    for (unsigned i = 0; i < heap->count; i++)
        if (heap->tick - heap->regions[i].stamp >= WAIT)
            given += pages_purge_top(heap, i, SIZE_MAX);
    shard_unlock(heap);
    return given;
}

/* Gives a region that is wholly free back to where it came from. */
static size_t pages_unmap(struct shard_heap *heap, struct shard_region *region)
{
    size_t size = region->mapped_size;
    if (!region->mapped || region->frontier || !heap->pages->unmap)
        return 0;
    void *memory = region->mapped;
    heap->capacity -= (size_t)region->pages << heap->shift;
    *region = (struct shard_region){.pages = 0};
    heap->pages->unmap(heap->pages->context, memory, size);
    return size;
}

/* Pages that could be purged. */
static size_t pages_dirty(const struct shard_heap *heap)
{
    size_t pages = 0;
    for (const struct shard_run *run = heap->oldest; run; run = run->newer)
        pages += run->pages;
    for (unsigned i = 0; i < heap->count; i++)
        if (heap->regions[i].high > heap->regions[i].frontier)
            pages += heap->regions[i].high - heap->regions[i].frontier;
    return pages;
}

SHARD_COLD size_t shard_trim(struct kit_alloc *a, size_t keep)
{
    struct shard_face *face = shard_face_of(a);
    struct shard_heap *heap = face->heap;
    size_t given = 0;
    shard_hard_flush(face);
    shard_send(face);
    shard_receive(face, SIZE_MAX);
    shard_flush(face, true);
    if (!heap->pages)
        return 0;
    shard_lock(heap);
    size_t dirty = pages_dirty(heap), goal = keep >> heap->shift;
    size_t most = dirty > goal ? dirty - goal : 0; /* pages to purge */
    for (unsigned i = heap->count; i-- > 0 && most;) {
        size_t before = heap->regions[i].high;
        given += pages_purge_top(heap, i, most);
        most -= before > heap->regions[i].high ? before - heap->regions[i].high : 0;
    }
    while (heap->oldest && most) {
        struct shard_run *run = heap->oldest;
        size_t pages = run->pages < most ? run->pages : most;
        given += pages_purge(heap, shard_back_take(heap, run, run->pages - pages, pages));
        most -= pages;
    }
    for (unsigned i = 1; i < heap->count && keep == 0; i++)
        given += pages_unmap(heap, &heap->regions[i]);
    shard_unlock(heap);
    return given;
}
