/* SPDX-License-Identifier: MIT */
/* Runs of pages: the back of alloc.shard, shared by all faces under one lock.
 *
 * Two-level segregated fit (Masmano et al., ECRTS 2004) over runs instead of bytes: free runs hang
 * in bins by their number of pages, one bin per number below 2^SHARD_BIN_BITS * 2, then so many
 * steps per power of two; bitmaps lead to the next bin that has one. Neighbours are found through
 * the page map, so nothing is written into free memory and what was given back to the host stays
 * untouched. What lies behind the frontier of a region is taken last and in no bin.
 *
 * Invariants: two free runs never touch, and none touches the frontier; a bin's bit is set exactly
 * if its list has a run; a dirty free run is in the list by age exactly if there is a page source.
 * Cost: every function is O(1). */
#include <unikit/alloc/shard/shard.h>

enum { TRIES = 4 }; /* runs that are looked at in the one bin that may hold too small ones */

unsigned shard_back_bin(const struct shard_heap *heap, size_t pages)
{
    unsigned power = kit_fls64(pages | ((2u << SHARD_BIN_BITS) - 1)) - SHARD_BIN_BITS;
    unsigned bin = (power << SHARD_BIN_BITS) + (unsigned)(pages >> power);
    return bin < heap->bins ? bin : heap->bins - 1;
}

static void back_unlink(struct shard_heap *heap, struct shard_run *run)
{
    unsigned bin = shard_back_bin(heap, run->pages);
    if (run->next)
        run->next->prev = run->prev;
    if (run->prev) {
        run->prev->next = run->next;
    } else {
        heap->heads[bin] = run->next;
        if (!run->next) {
            heap->bits[bin / 64] &= ~(UINT64_C(1) << (bin % 64));
            if (!heap->bits[bin / 64])
                heap->words &= ~(UINT64_C(1) << (bin / 64));
        }
    }
    if (run->dirty != SHARD_DIRTY || !heap->pages)
        return;
    *(run->older ? &run->older->newer : &heap->oldest) = run->newer;
    *(run->newer ? &run->newer->older : &heap->newest) = run->older;
}

/* Makes `pages` pages from `first` on a free run; its neighbours are in use. */
static void back_link(struct shard_heap *heap, unsigned index, uint32_t first, uint32_t pages,
                      uint32_t dirty)
{
    struct shard_region *region = &heap->regions[index];
    struct shard_run *run = &region->runs[first];
    unsigned bin = shard_back_bin(heap, pages);
    uint64_t bit = UINT64_C(1) << (bin % 64);
    *run = (struct shard_run){.kind = SHARD_FREE, .region = (uint8_t)index, .pages = pages};
    region->map[first] = region->map[first + pages - 1] = run;
    if (heap->bits[bin / 64] & bit) {
        run->next = heap->heads[bin];
        run->next->prev = run;
    }
    heap->heads[bin] = run;
    heap->bits[bin / 64] |= bit;
    heap->words |= UINT64_C(1) << (bin / 64);
    run->dirty = dirty;
    if (dirty != SHARD_DIRTY || !heap->pages)
        return;
    run->stamp = heap->tick;
    run->older = heap->newest;
    *(heap->newest ? &heap->newest->newer : &heap->oldest) = run;
    heap->newest = run;
}

/* A free run of at least `pages` pages: from the bin of that number if one of its first ones is
 * large enough, else the first one of the next bin that has any. */
static struct shard_run *back_find(const struct shard_heap *heap, size_t pages)
{
    unsigned bin = shard_back_bin(heap, pages), word = bin / 64;
    uint64_t bits = heap->bits[word] >> (bin % 64);
    if (bits & 1) {
        struct shard_run *run = heap->heads[bin];
        for (int i = 0; run && i < TRIES; i++, run = run->next)
            if (run->pages >= pages)
                return run;
    }
    bits = bits >> 1 << 1 << (bin % 64);
    if (!bits) {
        uint64_t words = heap->words >> word >> 1;
        if (!words)
            return NULL;
        word += 1 + kit_ctz64(words);
        bits = heap->bits[word];
    }
    return heap->heads[word * 64 + kit_ctz64(bits)];
}

/* Takes a free run out of its bin and keeps the `pages` pages from `skip` on. */
struct shard_run *shard_back_take(struct shard_heap *heap, struct shard_run *run, size_t skip,
                                  size_t pages)
{
    struct shard_region *region = &heap->regions[run->region];
    uint32_t first = shard_first(region, run),
             dirty = run->dirty == SHARD_CLEAN ? SHARD_CLEAN : SHARD_DIRTY;
    size_t rest = run->pages - skip - pages;
    unsigned index = run->region;
    back_unlink(heap, run);
    if (skip)
        back_link(heap, index, first, (uint32_t)skip, dirty);
    if (rest)
        back_link(heap, index, first + (uint32_t)(skip + pages), (uint32_t)rest, dirty);
    run += skip;
    *run = (struct shard_run){.region = (uint8_t)index, .pages = (uint32_t)pages, .dirty = dirty};
    region->map[first + skip] = region->map[first + skip + pages - 1] = run;
    return run;
}

/* Takes pages behind a frontier. */
struct shard_run *shard_back_advance(struct shard_heap *heap, unsigned index, size_t skip,
                                     size_t pages)
{
    struct shard_region *region = &heap->regions[index];
    uint32_t first = region->frontier + (uint32_t)skip;
    uint32_t fresh = region->high > first ? region->high - first : 0;
    struct shard_run *run = &region->runs[first];
    if (skip)
        back_link(heap, index, region->frontier, (uint32_t)skip, SHARD_DIRTY);
    if (!heap->pages || !heap->pages->fresh)
        fresh = SHARD_DIRTY;
    *run = (struct shard_run){.region = (uint8_t)index, .pages = (uint32_t)pages, .dirty = fresh};
    region->map[first] = region->map[first + pages - 1] = run;
    region->frontier = first + (uint32_t)pages;
    region->stamp = heap->tick;
    if (region->high < region->frontier)
        region->high = region->frontier;
    return run;
}

/* Pages from `start` to the next multiple of `align`. */
static size_t back_skip(const struct shard_heap *heap, uintptr_t start, size_t align)
{
    return align <= shard_page(heap) ? 0 : ((0 - start) & (align - 1)) >> heap->shift;
}

struct shard_run *shard_back_alloc(struct shard_heap *heap, size_t pages, size_t align)
{
    size_t most = align <= shard_page(heap) ? 0 : (align >> heap->shift) - 1;
    if (pages + most > UINT32_MAX / 2)
        return NULL;
    struct shard_run *run = back_find(heap, pages + most);
    if (!run && most) /* one that is just large enough will do if it lies right */
        run = back_find(heap, pages);
    if (run) {
        size_t skip = back_skip(heap, shard_start(heap, run), align);
        if (skip + pages <= run->pages)
            return shard_back_take(heap, run, skip, pages);
    }
    for (unsigned i = 0; i < heap->count; i++) {
        const struct shard_region *region = &heap->regions[i];
        uintptr_t start = region->base + ((uintptr_t)region->frontier << heap->shift);
        size_t skip = back_skip(heap, start, align);
        if (skip + pages <= region->pages - region->frontier)
            return shard_back_advance(heap, i, skip, pages);
    }
    return NULL;
}

/* Makes pages that are in no run free, and joins them with what is free around them. */
void shard_back_give(struct shard_heap *heap, unsigned index, uint32_t first, uint32_t pages,
                     uint32_t dirty)
{
    struct shard_region *region = &heap->regions[index];
    if (dirty == SHARD_CLEAN && first + pages == region->high)
        region->high = first; /* it is the frontier, too */
    if (first + pages < region->frontier) {
        struct shard_run *after = region->map[first + pages];
        if (after->kind == SHARD_FREE) {
            back_unlink(heap, after);
            after->kind = SHARD_NONE;
            pages += after->pages;
            dirty |= after->dirty;
        }
    }
    if (first > 0) {
        struct shard_run *before = region->map[first - 1];
        if (before->kind == SHARD_FREE) {
            back_unlink(heap, before);
            before->kind = SHARD_NONE;
            first -= before->pages;
            pages += before->pages;
            dirty |= before->dirty;
        }
    }
    if (first + pages < region->frontier) {
        back_link(heap, index, first, pages, dirty);
        return;
    }
    region->frontier = first;
    region->stamp = heap->tick;
}

void shard_back_free(struct shard_heap *heap, struct shard_run *run)
{
    run->owner = NULL;
    run->kind = SHARD_NONE;
    shard_back_give(heap, run->region, shard_first(&heap->regions[run->region], run), run->pages,
                    SHARD_DIRTY);
}

bool shard_back_grow(struct shard_heap *heap, struct shard_run *run, size_t pages)
{
    struct shard_region *region = &heap->regions[run->region];
    uint32_t end = shard_first(region, run) + run->pages;
    size_t more = pages - run->pages;
    if (end == region->frontier) {
        if (more > region->pages - end)
            return false;
        shard_back_advance(heap, run->region, 0, more)->kind = SHARD_NONE;
    } else {
        struct shard_run *after = region->map[end];
        if (after->kind != SHARD_FREE || after->pages < more)
            return false;
        shard_back_take(heap, after, 0, more)->kind = SHARD_NONE;
    }
    run->pages = (uint32_t)pages;
    run->dirty = SHARD_DIRTY;
    region->map[end + more - 1] = run;
    return true;
}

void shard_back_shrink(struct shard_heap *heap, struct shard_run *run, size_t pages)
{
    struct shard_region *region = &heap->regions[run->region];
    uint32_t first = shard_first(region, run), rest = run->pages - (uint32_t)pages;
    if (!rest)
        return;
    run->pages = (uint32_t)pages;
    region->map[first + pages - 1] = run;
    shard_back_give(heap, run->region, first + (uint32_t)pages, rest, SHARD_DIRTY);
}

size_t shard_back_largest(const struct shard_heap *heap)
{
    size_t largest = 0;
    for (unsigned i = 0; i < heap->count; i++) {
        size_t rest = heap->regions[i].pages - heap->regions[i].frontier;
        largest = rest > largest ? rest : largest;
    }
    if (heap->words) {
        unsigned word = kit_fls64(heap->words);
        size_t first = heap->heads[word * 64 + kit_fls64(heap->bits[word])]->pages;
        largest = first > largest ? first : largest;
    }
    return largest;
}
