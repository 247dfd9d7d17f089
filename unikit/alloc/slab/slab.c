/* SPDX-License-Identifier: MIT */
/* Slabs: requests, and opening. */
#include <unikit/alloc/slab/slab.h>

enum { OPTION_PAGE };
enum { PAGE_MIN = 512, PAGE_MAX = 32768 };

/* ---- requests -------------------------------------------------------------------------------- */

static void slab_account(struct slab_heap *h, size_t before, size_t after)
{
    h->used += after - before;
    if (h->peak < h->used)
        h->peak = h->used;
}

static size_t slab_pages(const struct slab_heap *h, size_t size)
{
    return (size + ((size_t)1 << h->shift) - 1) >> h->shift;
}

/* A block of an object, or of pages if no cache has such objects; NULL: there is no memory. Objects
 * lie at multiples of their size from a page's start: a power of two has its alignment. */
static void *slab_block(struct slab_heap *h, size_t size, size_t align, unsigned *class)
{
    size_t page = (size_t)1 << h->shift, whole = size;
    if (align > KIT_ALLOC_ALIGN_MIN && align <= page)
        whole = (size_t)1 << (kit_fls64((size > align ? size : align) - 1) + 1);
    *class = slab_class(whole);
    if (whole > page * 2 || align > page)
        *class = LARGE;
    if (KIT_LIKELY(*class != LARGE))
        return slab_cache_take(h, *class);
    struct run *run = slab_run_take(h, slab_pages(h, size + !size), align);
    return run ? (void *)slab_start(h, run) : NULL;
}

/* What is left to try: what magazines hold, and larger objects. */
static COLD void *slab_block_anyhow(struct slab_heap *h, size_t size, size_t align, unsigned *class)
{
    void *block = slab_drain(h) ? slab_block(h, size, align, class) : NULL;
    if (block || *class == LARGE)
        return block;
    return slab_object_any(h, class, align > KIT_ALLOC_ALIGN_MIN ? align : 1);
}

static void *slab_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct slab_heap *h = slab_of(a);
    if (KIT_LIKELY(size <= REQUEST_MAX && align <= REQUEST_MAX)) {
        unsigned class;
        void *block = slab_block(h, size, align, &class);
        if (KIT_UNLIKELY(!block))
            block = slab_block_anyhow(h, size, align, &class);
        if (KIT_LIKELY(block)) {
            size_t bytes = slab_pages(h, size + !size) << h->shift;
            if (class != LARGE) {
                bytes = slab_class_size(class);
                h->caches[class].live++;
            }
            slab_account(h, 0, bytes);
            h->allocations++;
            return block;
        }
    }
    h->failures++;
    return NULL;
}

/* The run that a block in use belongs to; anything else is a broken contract. */
static struct run *slab_find(const struct slab_heap *h, const void *block)
{
    size_t index = ((uintptr_t)block - h->base) >> h->shift;
    if (KIT_UNLIKELY((uintptr_t)block < h->base || index >= h->frontier))
        kit_panic("alloc.slab: not a block in use");
    struct run *run = h->map + index;
    if (run->kind == PART)
        run -= run->back;
    if (KIT_UNLIKELY(run->kind == FREE || (run->kind != LARGE && run->used == 0)))
        kit_panic("alloc.slab: not a block in use");
    return run;
}

static size_t slab_bytes(const struct slab_heap *h, const struct run *run)
{
    return run->kind == LARGE ? (size_t)run->pages << h->shift : slab_class_size(run->kind);
}

static void slab_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)size, (void)align;
    struct slab_heap *h = slab_of(a);
    if (!block)
        return;
    struct run *run = slab_find(h, block);
    h->used -= slab_bytes(h, run);
    h->frees++;
    if (run->kind == LARGE) {
        slab_run_give(h, run);
    } else {
        h->caches[run->kind].live--;
        slab_cache_give(h, run, block);
    }
}

static size_t slab_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)size;
    return slab_bytes(slab_of(a), slab_find(slab_of(a), block));
}

/* ---- resizing -------------------------------------------------------------------------------- */

static bool slab_resize(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                        size_t align)
{
    (void)old_size, (void)align;
    struct slab_heap *h = slab_of(a);
    struct run *run = slab_find(h, block);
    size_t bytes = slab_bytes(h, run);
    if (run->kind != LARGE || new_size > REQUEST_MAX)
        return new_size <= bytes;
    size_t pages = slab_pages(h, new_size + !new_size);
    if (!slab_run_resize(h, run, pages))
        return false;
    slab_account(h, bytes, pages << h->shift);
    return true;
}

static void *slab_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    if (!block)
        return slab_alloc(a, new_size, align);
    size_t bytes = slab_usable_size(a, block, old_size);
    bool wasteful = bytes > 64 && new_size < bytes / 4;
    if (!wasteful && slab_resize(a, block, old_size, new_size, align))
        return block;
    if (old_size == KIT_ALLOC_UNKNOWN) {
        old_size = bytes;
        align = 0;
    }
    void *fresh = slab_alloc(a, new_size, align);
    if (fresh) {
        memcpy(fresh, block, old_size < new_size ? old_size : new_size);
        slab_free(a, block, old_size, align);
    } else if (wasteful && slab_resize(a, block, old_size, new_size, align)) {
        slab_of(a)->failures--; /* it need not move */
        return block;
    }
    return fresh;
}

/* ---- opening --------------------------------------------------------------------------------- */

static const struct kit_alloc_ops slab_ops = {
    .alloc = slab_alloc,
    .free = slab_free,
    .realloc = slab_realloc,
    .usable_size = slab_usable_size,
    .stats = slab_stats,
    .check = slab_check,
    .resize = slab_resize,
};

static COLD int slab_open(const uint64_t *options, void *memory, size_t size,
                          struct kit_alloc **out)
{
    size_t page = options[OPTION_PAGE];
    if (!page)
        page = size < (size_t)64 << 10 ? PAGE_MIN : size < (size_t)512 << 10 ? 1024 : 4096;
    if (!kit_is_power_of_two(page) || page < PAGE_MIN || page > PAGE_MAX)
        return KIT_EINVAL;
    uintptr_t start = kit_align_up((uintptr_t)memory, KIT_ALLOC_ALIGN_MIN);
    uintptr_t end = (uintptr_t)memory + size, map = start + sizeof(struct slab_heap);
    if (map + page + sizeof(struct run) > end)
        return KIT_ENOMEM;
    size_t pages = (end - map) / (page + sizeof(struct run));
    uintptr_t base = kit_align_up(map + pages * sizeof(struct run), page);
    if (base + page > end)
        return KIT_ENOMEM;
    if (pages > (end - base) / page)
        pages = (end - base) / page;
    struct slab_heap *h = (void *)start;
    *h = (struct slab_heap){.map = (void *)map,
                            .base = base,
                            .shift = kit_ctz64(page),
                            .classes = slab_class(page * 2) + 1,
                            .limit = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX};
    KIT_ALLOC_BIND(&h->alloc, &slab_ops);
    *out = &h->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_slab = {
    .id = "alloc.slab",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_UNSIZED | KIT_ALLOC_RESIZE,
    .ops = &slab_ops,
    .open = slab_open,
};
