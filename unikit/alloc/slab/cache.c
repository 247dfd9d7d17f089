/* SPDX-License-Identifier: MIT */
/* Slabs: objects, and the magazines before them. */
#include <unikit/alloc/slab/slab.h>

/* ---- slabs ----------------------------------------------------------------------------------- */

static void cache_list(struct cache *cache, struct run *slab)
{
    slab->link = &cache->partial;
    slab->next = cache->partial;
    if (slab->next)
        slab->next->link = &slab->next;
    cache->partial = slab;
}

static void cache_unlist(struct run *slab)
{
    *slab->link = slab->next;
    if (slab->next)
        slab->next->link = slab->link;
}

static size_t cache_capacity(const struct slab_heap *h, const struct run *slab)
{
    size_t count = ((size_t)slab->pages << h->shift) / slab_class_size(slab->kind);
    return count < UINT16_MAX ? count : UINT16_MAX;
}

/* Pages of a slab of which at most an eighth is lost, and several objects fit; in a small heap
 * that would be too much for one class. */
static size_t cache_pages(const struct slab_heap *h, size_t size)
{
    size_t pages = 1, most = h->limit / 64 < SLAB_PAGES ? h->limit / 64 : SLAB_PAGES;
    while (pages < most &&
           ((pages << h->shift) < size * 4 || (pages << h->shift) % size > (pages << h->shift) / 8))
        pages++;
    return pages;
}

/* A new slab, a small one if there is no room for another; NULL: there is none. */
static struct run *cache_grow(struct slab_heap *h, unsigned class)
{
    size_t size = slab_class_size(class), page = (size_t)1 << h->shift;
    size_t pages = cache_pages(h, size), least = (size + page - 1) >> h->shift;
    pages = pages > least ? pages : least;
    struct run *slab = slab_run_take(h, pages, page);
    if (!slab && least < pages) {
        pages = least;
        slab = slab_run_take(h, pages, page);
    }
    if (!slab)
        return NULL;
    for (size_t i = 1; i < pages; i++) {
        slab[i].kind = PART;
        slab[i].back = (uint32_t)i;
    }
    slab->kind = (uint8_t) class;
    slab->free = NULL;
    slab->used = slab->cut = 0;
    cache_list(&h->caches[class], slab);
    return slab;
}

void *slab_object_take(struct slab_heap *h, unsigned class)
{
    struct cache *cache = &h->caches[class];
    struct run *slab = cache->partial ? cache->partial : cache_grow(h, class);
    if (!slab)
        return NULL;
    void *object = slab->free;
    if (object)
        memcpy(&slab->free, object, sizeof slab->free);
    else
        object = (void *)(slab_start(h, slab) + slab->cut++ * slab_class_size(class));
    slab->used++;
    if (!slab->free && slab->cut == cache_capacity(h, slab))
        cache_unlist(slab);
    return object;
}

void slab_object_give(struct slab_heap *h, struct run *slab, void *object)
{
    struct cache *cache = &h->caches[slab->kind];
    if (!slab->free && slab->cut == cache_capacity(h, slab))
        cache_list(cache, slab); /* it was full */
    memcpy(object, &slab->free, sizeof slab->free);
    slab->free = object;
    if (--slab->used == 0) {
        cache_unlist(slab);
        slab_run_give(h, slab);
    }
}

void *slab_object_any(struct slab_heap *h, unsigned *class, size_t align)
{
    for (; *class < h->classes; ++*class)
        if (h->caches[*class].partial && slab_class_size(*class) % align == 0)
            return slab_object_take(h, *class);
    return NULL;
}

/* ---- magazines ------------------------------------------------------------------------------- */

static struct run *cache_slab_of(const struct slab_heap *h, const void *object)
{
    struct run *run = h->map + (((uintptr_t)object - h->base) >> h->shift);
    return run - (run->kind == PART ? run->back : 0);
}

/* Puts the previous magazine in the place of the loaded one. */
static struct magazine *cache_swap(struct cache *cache)
{
    struct magazine *loaded = cache->loaded;
    cache->loaded = cache->previous;
    cache->previous = loaded;
    return cache->loaded;
}

static void cache_free_magazine(struct slab_heap *h, struct magazine *magazine)
{
    slab_object_give(h, cache_slab_of(h, magazine), magazine);
}

/* The slow half of a request: another magazine, or an object of a slab. */
static void *cache_reload(struct slab_heap *h, unsigned class)
{
    struct cache *cache = &h->caches[class];
    struct magazine *full = cache->depot;
    if (cache->previous && cache->previous->count) {
        full = cache_swap(cache);
    } else if (full) { /* an empty one for a full one */
        cache->depot = full->next;
        cache->full--;
        if (cache->previous)
            cache_free_magazine(h, cache->previous);
        cache->previous = cache->loaded;
        cache->loaded = full;
    } else {
        return slab_object_take(h, class);
    }
    return full->objects[--full->count];
}

void *slab_cache_take(struct slab_heap *h, unsigned class)
{
    struct magazine *loaded = h->caches[class].loaded;
    if (KIT_LIKELY(loaded && loaded->count))
        return loaded->objects[--loaded->count];
    return cache_reload(h, class);
}

/* Makes room for an object; false: there is no memory for a magazine. */
static bool cache_unload(struct slab_heap *h, unsigned class)
{
    struct cache *cache = &h->caches[class];
    if (cache->previous && cache->previous->count < slab_rounds(class)) {
        cache_swap(cache);
        return true;
    }
    if (cache->full == DEPOT) { /* the oldest go back to their slabs */
        while (cache->previous->count) {
            void *object = cache->previous->objects[--cache->previous->count];
            slab_object_give(h, cache_slab_of(h, object), object);
        }
        cache_swap(cache);
        return true;
    }
    struct magazine *empty = slab_object_take(h, slab_magazine_class(class));
    if (!empty)
        return false;
    empty->count = 0;
    if (cache->previous) {
        cache->previous->next = cache->depot;
        cache->depot = cache->previous;
        cache->full++;
    }
    cache->previous = cache->loaded;
    cache->loaded = empty;
    return true;
}

void slab_cache_give(struct slab_heap *h, struct run *run, void *object)
{
    struct cache *cache = &h->caches[run->kind];
    if (KIT_UNLIKELY(!cache->loaded || cache->loaded->count == slab_rounds(run->kind)) &&
        !cache_unload(h, run->kind)) {
        slab_object_give(h, run, object);
        return;
    }
    cache->loaded->objects[cache->loaded->count++] = object;
}

/* Empties a magazine into the slabs and frees it. */
static bool cache_empty(struct slab_heap *h, struct magazine *magazine)
{
    if (!magazine)
        return false;
    while (magazine->count) {
        void *object = magazine->objects[--magazine->count];
        slab_object_give(h, cache_slab_of(h, object), object);
    }
    cache_free_magazine(h, magazine);
    return true;
}

COLD bool slab_drain(struct slab_heap *h)
{
    bool found = false;
    for (unsigned class = 0; class < h->classes; class ++) {
        struct cache *cache = &h->caches[class];
        found |= cache_empty(h, cache->loaded);
        found |= cache_empty(h, cache->previous);
        while (cache->depot) {
            struct magazine *magazine = cache->depot;
            cache->depot = magazine->next;
            found |= cache_empty(h, magazine);
        }
        cache->loaded = cache->previous = NULL;
        cache->full = 0;
    }
    return found;
}
