/* SPDX-License-Identifier: MIT */
/* Slabs: runs of pages. Free ones hang in bins by the power of two of their size; a request looks
 * through its own bin and takes the first of a higher one. */
#include <unikit/alloc/slab/slab.h>

/* Sets the descriptors of a run's ends. */
static void runs_mark(struct run *run, size_t pages, uint8_t kind)
{
    struct run *last = run + (pages - 1);
    last->kind = kind;
    last->back = (uint32_t)(pages - 1);
    last->pages = (uint32_t)pages;
    run->kind = kind;
    run->back = 0;
    run->pages = (uint32_t)pages;
}

static void runs_put(struct slab_heap *h, struct run *run, size_t pages)
{
    unsigned bin = kit_fls64(pages);
    runs_mark(run, pages, FREE);
    if (!(h->bins >> bin & 1))
        h->free[bin] = NULL;
    h->bins |= UINT64_C(1) << bin;
    run->link = &h->free[bin];
    run->next = h->free[bin];
    if (run->next)
        run->next->link = &run->next;
    h->free[bin] = run;
}

static void runs_unlink(struct slab_heap *h, struct run *run)
{
    unsigned bin = kit_fls64(run->pages);
    *run->link = run->next;
    if (run->next)
        run->next->link = run->link;
    if (!h->free[bin])
        h->bins &= ~(UINT64_C(1) << bin);
}

/* Pages to skip from a page on to reach a multiple of `align`. */
static size_t runs_gap(const struct slab_heap *h, const struct run *run, size_t align)
{
    return align >> h->shift ? ((0 - slab_start(h, run)) & (align - 1)) >> h->shift : 0;
}

static struct run *runs_find(const struct slab_heap *h, size_t pages, size_t align)
{
    for (uint64_t bins = h->bins >> kit_fls64(pages) << kit_fls64(pages); bins; bins &= bins - 1)
        for (struct run *run = h->free[kit_ctz64(bins)]; run; run = run->next)
            if (run->pages >= runs_gap(h, run, align) + pages)
                return run;
    return NULL;
}

struct run *slab_run_take(struct slab_heap *h, size_t pages, size_t align)
{
    struct run *run = runs_find(h, pages, align);
    if (run) {
        size_t gap = runs_gap(h, run, align), rest = run->pages - gap - pages;
        runs_unlink(h, run);
        if (rest)
            runs_put(h, run + gap + pages, rest);
        if (gap)
            runs_put(h, run, gap);
        run += gap;
    } else {
        run = h->map + h->frontier;
        size_t room = h->limit - h->frontier, gap = runs_gap(h, run, align);
        if (gap > room || pages > room - gap)
            return NULL;
        if (gap)
            runs_put(h, run, gap);
        run += gap;
        h->frontier += (uint32_t)(gap + pages);
    }
    runs_mark(run, pages, LARGE);
    return run;
}

/* Frees `pages` pages: joins them with free neighbours, or with what was never touched. */
static void runs_release(struct slab_heap *h, struct run *run, size_t pages)
{
    struct run *after = run + pages, *end = h->map + h->frontier;
    if (after != end && after->kind == FREE) {
        runs_unlink(h, after);
        pages += after->pages;
        after += after->pages;
    }
    if (run > h->map && run[-1].kind == FREE) {
        run -= run[-1].pages;
        pages += run->pages;
        runs_unlink(h, run);
    }
    if (after == end)
        h->frontier = (uint32_t)(run - h->map);
    else
        runs_put(h, run, pages);
}

void slab_run_give(struct slab_heap *h, struct run *run)
{
    runs_release(h, run, run->pages);
}

bool slab_run_resize(struct slab_heap *h, struct run *run, size_t pages)
{
    size_t old = run->pages;
    struct run *after = run + old, *end = h->map + h->frontier;
    if (pages < old) {
        runs_mark(run, pages, LARGE);
        runs_release(h, run + pages, old - pages);
    } else if (pages > old && after == end) {
        if (pages - old > h->limit - h->frontier)
            return false;
        h->frontier += (uint32_t)(pages - old);
        runs_mark(run, pages, LARGE);
    } else if (pages > old) {
        if (after->kind != FREE || after->pages < pages - old)
            return false;
        size_t rest = after->pages - (pages - old);
        runs_unlink(h, after);
        if (rest)
            runs_put(h, run + pages, rest);
        runs_mark(run, pages, LARGE);
    }
    return true;
}

size_t slab_run_largest(const struct slab_heap *h)
{
    size_t pages = h->limit - h->frontier;
    if (h->bins)
        for (const struct run *run = h->free[kit_fls64(h->bins)]; run; run = run->next)
            pages = pages > run->pages ? pages : run->pages;
    return pages << h->shift;
}
