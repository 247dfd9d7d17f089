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

/* ---- descriptors: a stack of free ones, and those never used yet --------------------------------
 */

static struct shard_run *back_describe(struct shard_heap *heap, unsigned index, uint32_t first,
                                       uint32_t pages, uint32_t dirty)
{
    struct shard_region *region = &heap->regions[index];
    struct shard_run *run = region->spare;
    if (run)
        region->spare = run->next;
    else
        run = &region->runs[region->described++];
    *run = (struct shard_run){
        .region = (uint8_t)index, .first = first, .pages = pages, .dirty = dirty};
    region->map[first] = region->map[first + pages - 1] = run;
    return run;
}

static void back_forget(struct shard_heap *heap, struct shard_run *run)
{
    struct shard_region *region = &heap->regions[run->region];
    run->kind = SHARD_NONE;
    run->owner = NULL;
    run->next = region->spare;
    region->spare = run;
}

/* ---- bins
 * ---------------------------------------------------------------------------------------- */

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

/* Makes a run free whose neighbours are in use. */
static void back_link(struct shard_heap *heap, struct shard_run *run)
{
    unsigned bin = shard_back_bin(heap, run->pages);
    uint64_t bit = UINT64_C(1) << (bin % 64);
    run->kind = SHARD_FREE;
    run->next = run->prev = NULL;
    if (heap->bits[bin / 64] & bit) {
        run->next = heap->heads[bin];
        run->next->prev = run;
    }
    heap->heads[bin] = run;
    heap->bits[bin / 64] |= bit;
    heap->words |= UINT64_C(1) << (bin / 64);
    if (run->dirty != SHARD_DIRTY || !heap->pages)
        return;
    run->stamp = heap->tick;
    run->newer = NULL;
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

struct shard_run *shard_back_take(struct shard_heap *heap, struct shard_run *run, size_t skip,
                                  size_t pages)
{
    struct shard_region *region = &heap->regions[run->region];
    uint32_t first = run->first + (uint32_t)skip, end = run->first + run->pages;
    uint32_t rest = end - first - (uint32_t)pages;
    back_unlink(heap, run);
    if (skip)
        back_link(heap, back_describe(heap, run->region, run->first, (uint32_t)skip, run->dirty));
    if (rest)
        back_link(heap, back_describe(heap, run->region, end - rest, rest, run->dirty));
    run->kind = SHARD_NONE;
    run->first = first;
    run->pages = (uint32_t)pages;
    run->dirty = run->dirty == SHARD_CLEAN ? SHARD_CLEAN : SHARD_DIRTY;
    region->map[first] = region->map[first + pages - 1] = run;
    return run;
}

struct shard_run *shard_back_advance(struct shard_heap *heap, unsigned index, size_t skip,
                                     size_t pages)
{
    struct shard_region *region = &heap->regions[index];
    uint32_t first = region->frontier + (uint32_t)skip;
    uint32_t dirty = region->high > first ? region->high - first : 0;
    if (!heap->pages || !heap->pages->fresh)
        dirty = SHARD_DIRTY;
    if (skip)
        back_link(heap, back_describe(heap, index, region->frontier, (uint32_t)skip, SHARD_DIRTY));
    region->frontier = first + (uint32_t)pages;
    region->stamp = heap->tick;
    if (region->high < region->frontier)
        region->high = region->frontier;
    return back_describe(heap, index, first, (uint32_t)pages, dirty);
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

/* Joins a run with the free one before or behind it, whose descriptor goes. */
static void back_join(struct shard_heap *heap, struct shard_run *run, struct shard_run *other)
{
    back_unlink(heap, other);
    run->first = run->first < other->first ? run->first : other->first;
    run->pages += other->pages;
    run->dirty |= other->dirty;
    back_forget(heap, other);
}

void shard_back_free(struct shard_heap *heap, struct shard_run *run, uint32_t dirty)
{
    struct shard_region *region = &heap->regions[run->region];
    uint32_t first = run->first, end = first + run->pages;
    run->owner = NULL;
    run->dirty = dirty;
    if (dirty == SHARD_CLEAN && end == region->high)
        region->high = first; /* it is the frontier, too */
    if (end < region->frontier && region->map[end]->kind == SHARD_FREE)
        back_join(heap, run, region->map[end]);
    if (first > 0 && region->map[first - 1]->kind == SHARD_FREE)
        back_join(heap, run, region->map[first - 1]);
    first = run->first;
    end = first + run->pages;
    if (end < region->frontier) {
        region->map[first] = region->map[end - 1] = run;
        back_link(heap, run);
        return;
    }
    region->frontier = first;
    region->stamp = heap->tick;
    back_forget(heap, run);
}

bool shard_back_grow(struct shard_heap *heap, struct shard_run *run, size_t pages)
{
    struct shard_region *region = &heap->regions[run->region];
    uint32_t end = run->first + run->pages;
    size_t more = pages - run->pages;
    struct shard_run *after;
    if (end == region->frontier) {
        if (more > region->pages - end)
            return false;
        after = shard_back_advance(heap, run->region, 0, more);
    } else {
        after = region->map[end];
        if (after->kind != SHARD_FREE || after->pages < more)
            return false;
        after = shard_back_take(heap, after, 0, more);
    }
    back_forget(heap, after);
    run->pages = (uint32_t)pages;
    run->dirty = SHARD_DIRTY;
    region->map[end + more - 1] = run;
    return true;
}

void shard_back_shrink(struct shard_heap *heap, struct shard_run *run, size_t pages)
{
    uint32_t rest = run->pages - (uint32_t)pages, from = run->first + (uint32_t)pages;
    if (!rest)
        return;
    run->pages = (uint32_t)pages;
    heap->regions[run->region].map[from - 1] = run;
    shard_back_free(heap, back_describe(heap, run->region, from, rest, SHARD_DIRTY), SHARD_DIRTY);
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
