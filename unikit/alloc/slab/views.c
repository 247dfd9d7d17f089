/* SPDX-License-Identifier: MIT */
/* Slabs: what can be seen from outside. */
#include <unikit/alloc/slab/slab.h>

/* The largest object that is free, in a slab or in a magazine. */
static size_t views_largest_object(const struct slab_heap *h)
{
    for (unsigned class = h->classes; class -- > 0;) {
        const struct cache *cache = &h->caches[class];
        if (cache->partial || cache->depot || (cache->loaded && cache->loaded->count) ||
            (cache->previous && cache->previous->count))
            return slab_class_size(class);
    }
    return 0;
}

void slab_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct slab_heap *h = slab_of(a);
    size_t whole = (size_t)h->limit << h->shift, runs = slab_run_largest(h);
    size_t objects = views_largest_object(h), largest = runs > objects ? runs : objects;
    *out = (struct kit_alloc_stats){
        .capacity = whole,
        .used = h->used,
        .peak = h->peak,
        .blocks = (size_t)(h->allocations - h->frees),
        .largest_free = h->used ? largest : whole, /* all that magazines hold can be had */
        .allocations = h->allocations,
        .frees = h->frees,
        .failures = h->failures,
    };
}

/* What the slabs have, by class. */
struct census {
    size_t used[CLASSES], partial[CLASSES];
    size_t large, free;
};

static bool views_check_slab(const struct slab_heap *h, const struct run *slab,
                             struct census *census)
{
    size_t size = slab_class_size(slab->kind), count = 0;
    size_t capacity = ((size_t)slab->pages << h->shift) / size;
    uintptr_t start = slab_start(h, slab);
    if (slab->kind >= h->classes || slab->cut > capacity || slab->used == 0)
        return false;
    for (uint32_t i = 1; i < slab->pages; i++)
        if (slab[i].kind != PART || slab[i].back != i)
            return false;
    for (void *object = slab->free; object; memcpy(&object, object, sizeof object)) {
        uintptr_t offset = (uintptr_t)object - start;
        if (offset % size || offset / size >= slab->cut || ++count > slab->cut)
            return false;
    }
    census->used[slab->kind] += slab->used;
    census->partial[slab->kind] += count || slab->cut < capacity;
    return slab->used + count == slab->cut;
}

static bool views_check_runs(const struct slab_heap *h, struct census *census)
{
    bool after_free = false;
    const struct run *end = h->map + h->frontier;
    for (const struct run *run = h->map; run != end; run += run->pages) {
        if (run->pages == 0 || run->pages > (size_t)(end - run) || run->back)
            return false;
        bool is_free = run->kind == FREE;
        if (is_free && (after_free || *run->link != run || run + run->pages == end))
            return false;
        if (run->kind >= FREE && run[run->pages - 1].back != run->pages - 1)
            return false;
        census->free += is_free;
        census->large += run->kind == LARGE ? run->pages : 0;
        if (run->kind < PART && !views_check_slab(h, run, census))
            return false;
        after_free = is_free;
    }
    return true;
}

static bool views_check_bins(const struct slab_heap *h, size_t expected)
{
    for (unsigned bin = 0; bin < BINS; bin++) {
        if (!(h->bins >> bin & 1))
            continue;
        if (!h->free[bin])
            return false;
        for (const struct run *run = h->free[bin]; run; run = run->next)
            if (expected-- == 0 || run->kind != FREE || kit_fls64(run->pages) != bin)
                return false;
    }
    return expected == 0;
}

/* Counts what a magazine holds, and the magazine. */
static bool views_count(const struct magazine *magazine, unsigned class, size_t held[CLASSES])
{
    if (!magazine)
        return true;
    held[class] += magazine->count;
    held[slab_magazine_class(class)]++;
    return magazine->count <= slab_rounds(class);
}

static bool views_check_caches(const struct slab_heap *h, const struct census *census)
{
    size_t held[CLASSES] = {0}, bytes = census->large << h->shift;
    for (unsigned class = 0; class < h->classes; class ++) {
        const struct cache *cache = &h->caches[class];
        size_t slabs = 0, full = 0;
        for (const struct run *slab = cache->partial; slab; slab = slab->next)
            if (slab->kind != class || ++slabs > census->partial[class])
                return false;
        for (const struct magazine *each = cache->depot; each; each = each->next)
            if (++full > cache->full || !views_count(each, class, held))
                return false;
        if (slabs != census->partial[class] || full != cache->full ||
            !views_count(cache->loaded, class, held) || !views_count(cache->previous, class, held))
            return false;
        bytes += cache->live * slab_class_size(class);
    }
    for (unsigned class = 0; class < h->classes; class ++)
        if (census->used[class] != h->caches[class].live + held[class])
            return false;
    return bytes == h->used;
}

int slab_check(const struct kit_alloc *a)
{
    const struct slab_heap *h = slab_of(a);
    struct census census = {0};
    bool sound = h->frontier <= h->limit && views_check_runs(h, &census) &&
                 views_check_bins(h, census.free) && views_check_caches(h, &census) &&
                 h->used <= h->peak && h->peak <= (size_t)h->limit << h->shift;
    return sound ? 0 : KIT_ECORRUPT;
}
