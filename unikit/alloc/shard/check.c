/* SPDX-License-Identifier: MIT */
/* alloc.shard: counters, the walk over all runs and blocks, and the check of every invariant.
 *
 * Counting on the quick ways would cost more than they do, so stats() adds up: the slabs of all
 * faces say how many of their blocks are in use, less those that are on their way home. It costs
 * O(runs) under the lock, and `peak` is the highest sum that was seen by it: a lower bound. While
 * other faces are in use, what they are about to change may be counted wrongly. */
#include <unikit/alloc/shard/shard.h>

enum { WORDS = SHARD_BLOCKS / 64 };

static uint32_t check_run_end(const struct shard_region *region, uint32_t first)
{
    return first + region->map[first]->pages;
}

/* ---- stats -------------------------------------------------------------------------------------
 */

static SHARD_RACY void check_add_runs(const struct shard_heap *heap, struct kit_alloc_stats *out)
{
    for (unsigned i = 0; i < heap->count; i++) {
        const struct shard_region *region = &heap->regions[i];
        for (uint32_t at = 0; at < region->frontier; at = check_run_end(region, at)) {
            const struct shard_run *run = region->map[at];
            if (run->kind == SHARD_LARGE) {
                out->used += (size_t)run->pages << heap->shift;
                out->blocks++;
            } else if (shard_is_slab(run)) {
                uint32_t used = shard_used(run);
                used = used < run->capacity ? used : run->capacity; /* it is being changed */
                out->used += (size_t)used * run->size;
                out->blocks += used;
            }
        }
    }
}

static SHARD_RACY void check_add_faces(const struct shard_heap *heap, struct kit_alloc_stats *out)
{
    uint64_t bytes = 0, blocks = 0;
    for (const struct shard_face *face = &heap->first; face; face = face->next) {
        out->allocations += face->allocations;
        out->failures += face->failures;
        bytes += face->sent_bytes - face->came_bytes + face->held_bytes;
        blocks += face->sent - face->came + face->held_count;
        for (unsigned class = 0; class < SHARD_CLASSES; class ++)
            if (face->bins[class].active)
                out->allocations += face->bins[class].active->allocs;
        for (size_t i = 0; i < SHARD_OUT; i++)
            if (face->out[i].run) {
                bytes += face->out[i].count * face->out[i].run->size;
                blocks += face->out[i].count;
            }
    }
    out->used -= bytes;
    out->blocks -= blocks;
    out->frees = out->allocations - out->blocks;
}

void shard_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    struct shard_face *face = shard_face_of(a);
    struct shard_heap *heap = face->heap;
    shard_hard_flush(face);
    shard_flush(face, false); /* as a request would that finds no memory */
    *out = (struct kit_alloc_stats){.used = 0};
    shard_lock(heap);
    check_add_runs(heap, out);
    check_add_faces(heap, out);
    out->capacity = heap->capacity;
    out->largest_free = shard_back_largest(heap) << heap->shift;
    if (out->largest_free && heap->harden & SHARD_CANARY)
        out->largest_free -= SHARD_SEAL;
    heap->peak = heap->peak > out->used ? heap->peak : out->used;
    out->peak = heap->peak;
    shard_unlock(heap);
}

/* ---- blocks of a slab ---------------------------------------------------------------------------
 */

/* Marks the blocks of a slab that are free; how many, or UINT32_MAX: its list is broken. */
static uint32_t check_mark_free(const struct shard_heap *heap, const struct shard_run *run,
                                uint64_t marks[WORDS])
{
    uintptr_t start = shard_start(heap, run);
    uint32_t count = 0;
    memset(marks, 0, WORDS * sizeof *marks);
    for (uint32_t i = run->carved; i < run->capacity; i++)
        marks[i / 64] |= UINT64_C(1) << (i % 64);
    for (const struct shard_block *block = run->free; block; block = shard_next(heap, block)) {
        size_t offset = (uintptr_t)block - start, index = offset / run->size;
        if (offset % run->size || index >= run->carved || marks[index / 64] >> (index % 64) & 1)
            return UINT32_MAX;
        marks[index / 64] |= UINT64_C(1) << (index % 64);
        count++;
    }
    return count;
}

static int check_walk_slab(const struct shard_heap *heap, const struct shard_run *run,
                           int (*visit)(void *argument, void *block, size_t size, bool used),
                           void *argument)
{
    uint64_t marks[WORDS];
    uintptr_t at = shard_start(heap, run);
    check_mark_free(heap, run, marks);
    for (uint32_t i = 0; i < run->capacity; i++, at += run->size) {
        int stop = visit(argument, (void *)at, run->size, !(marks[i / 64] >> (i % 64) & 1));
        if (stop)
            return stop;
    }
    return 0;
}

/* The region with the lowest base above `base`. */
static const struct shard_region *check_region_after(const struct shard_heap *heap, uintptr_t base)
{
    const struct shard_region *found = NULL;
    for (unsigned i = 0; i < heap->count; i++) {
        const struct shard_region *each = &heap->regions[i];
        if (each->base > base && (!found || each->base < found->base))
            found = each;
    }
    return found;
}

int shard_walk(const struct kit_alloc *a,
               int (*visit)(void *argument, void *block, size_t size, bool used), void *argument)
{
    struct shard_heap *heap = shard_heap_of(a);
    const struct shard_region *region = NULL;
    shard_settle(heap);
    while ((region = check_region_after(heap, region ? region->base : 0))) {
        uint32_t at = 0;
        for (int stop; at < region->frontier; at = check_run_end(region, at)) {
            const struct shard_run *run = region->map[at];
            if (shard_is_slab(run))
                stop = check_walk_slab(heap, run, visit, argument);
            else if (run->kind == SHARD_FACE)
                continue;
            else
                stop = visit(argument, (void *)shard_start(heap, run),
                             (size_t)run->pages << heap->shift, run->kind == SHARD_LARGE);
            if (stop)
                return stop;
        }
        uintptr_t end = region->base + ((uintptr_t)at << heap->shift);
        int stop = at < region->pages ? visit(argument, (void *)end,
                                              (size_t)(region->pages - at) << heap->shift, false)
                                      : 0;
        if (stop)
            return stop;
    }
    return 0;
}

static int check_is_it(void *argument, void *block, size_t size, bool used)
{
    return (void)size, used && block == argument;
}

bool shard_owns(const struct kit_alloc *a, const void *block)
{
    return shard_walk(a, check_is_it, (void *)(uintptr_t)block);
}

/* ---- check
 * ---------------------------------------------------------------------------------------
 */

static bool check_slab(const struct shard_heap *heap, const struct shard_region *region,
                       const struct shard_run *run)
{
    uint64_t marks[WORDS];
    uint32_t free = check_mark_free(heap, run, marks), used = shard_used(run);
    const struct shard_face *face = run->owner;
    if (free == UINT32_MAX || !face || run->class >= SHARD_CLASSES ||
        run->size != shard_class_size(run->class) || run->carved > run->capacity ||
        (size_t)run->capacity * run->size > (size_t)run->pages << heap->shift ||
        used + free != run->carved)
        return false;
    for (uint32_t i = 0; i < run->pages; i++)
        if (region->map[run->first + i] != run)
            return false;
    const struct shard_bin *bin = &face->bins[run->class];
    if (run->state == SHARD_ACTIVE)
        return bin->active == run;
    if (run->state == SHARD_FULL)
        return used == run->capacity && run->due == 1;
    return used > 0 && used < run->capacity && (run->prev ? run->prev->next : bin->first) == run &&
           (run->next ? run->next->prev : bin->last) == run;
}

/* Whether a region is sound; adds up what it has. */
static bool check_region(const struct shard_heap *heap, const struct shard_region *region,
                         size_t *free, size_t *slabs)
{
    bool was_free = false;
    uint32_t at = 0, end = 0, described = region->described;
    for (const struct shard_run *run = region->spare; run; run = run->next)
        if (run->kind != SHARD_NONE || described-- == 0)
            return false;
    for (; at < region->frontier; at = end) {
        const struct shard_run *run = region->map[at];
        if (run->first != at || run->kind == SHARD_NONE || run->kind > SHARD_SLAB || !run->pages ||
            run->pages > region->frontier - at || &heap->regions[run->region] != region)
            return false;
        end = check_run_end(region, at);
        if (region->map[end - 1] != run || described-- == 0)
            return false;
        bool is_free = run->kind == SHARD_FREE;
        if ((is_free && was_free) ||
            (shard_is_slab(run) ? !check_slab(heap, region, run) : run->owner != NULL))
            return false;
        was_free = is_free;
        *free += is_free;
        *slabs += shard_is_slab(run);
    }
    return at == region->frontier && described == 0 && !was_free &&
           region->frontier <= region->high && region->high <= region->pages;
}

/* Whether the bins hold `expected` runs in all, each in its own one, and the bitmaps agree. */
static bool check_bins(const struct shard_heap *heap, size_t expected)
{
    for (unsigned bin = 0; bin < SHARD_BINS; bin++) {
        uint64_t bits = heap->bits[bin / 64];
        if ((heap->words >> (bin / 64) & 1) != (bits != 0))
            return false;
        if (!(bits >> (bin % 64) & 1))
            continue;
        const struct shard_run *before = NULL;
        if (bin >= heap->bins || !heap->heads[bin])
            return false;
        for (const struct shard_run *run = heap->heads[bin]; run; before = run, run = run->next)
            if (expected-- == 0 || run->prev != before || run->kind != SHARD_FREE ||
                shard_back_bin(heap, run->pages) != bin)
                return false;
    }
    return expected == 0;
}

/* Whether the list by age holds the dirty free runs, oldest first. */
static bool check_ages(const struct shard_heap *heap, size_t most)
{
    const struct shard_run *before = NULL;
    for (const struct shard_run *run = heap->oldest; run; before = run, run = run->newer)
        if (most-- == 0 || run->kind != SHARD_FREE || !run->dirty || run->older != before ||
            (before && (int32_t)(run->stamp - before->stamp) < 0))
            return false;
    return heap->newest == before;
}

static bool check_face(const struct shard_face *face, size_t *slabs)
{
    for (unsigned class = 0; class < SHARD_CLASSES; class ++) {
        const struct shard_bin *bin = &face->bins[class];
        const struct shard_run *quick = face->active[class];
        if (quick != &shard_no_slab && quick != bin->active)
            return false;
        if (bin->active && (bin->active->owner != face || bin->active->state != SHARD_ACTIVE))
            return false;
        *slabs += bin->slabs;
    }
    return true;
}

int shard_check(const struct kit_alloc *a)
{
    struct shard_heap *heap = shard_heap_of(a);
    size_t free = 0, slabs = 0, expected = 0;
    bool sound = true;
    shard_settle(heap);
    for (unsigned i = 0; sound && i < heap->count; i++)
        sound = check_region(heap, &heap->regions[i], &free, &slabs);
    for (const struct shard_face *face = &heap->first; sound && face; face = face->next)
        sound = check_face(face, &expected);
    return sound && slabs == expected && check_bins(heap, free) && check_ages(heap, free)
               ? 0
               : KIT_ECORRUPT;
}
