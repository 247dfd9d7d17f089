/* SPDX-License-Identifier: MIT */
/* Page sources; see host_pages.h. */
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include <unikit/alloc/host_pages.h>

/* Must not fail: what cannot go back is cleared, since it has to read as zero. */
static void region_decommit(void *context, void *start, size_t size)
{
    (void)context;
    if (madvise(start, size, MADV_DONTNEED) != 0)
        memset(start, 0, size);
}

static void region_lock(struct kit_region_pages *region)
{
    while (__atomic_exchange_n(&region->busy, true, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void region_unlock(struct kit_region_pages *region)
{
    __atomic_store_n(&region->busy, false, __ATOMIC_RELEASE);
}

/* ---- holes, under the lock ------------------------------------------------------------------ */

static void region_forget(struct kit_region_pages *region, size_t index)
{
    struct kit_region_hole *hole = &region->holes[index];
    region->holes_count--;
    memmove(hole, hole + 1, (region->holes_count - index) * sizeof *hole);
}

/* Where `size` bytes may be mapped; 0: nowhere. */
static uintptr_t region_place(struct kit_region_pages *region, size_t size)
{
    for (size_t i = 0; i < region->holes_count; i++) {
        struct kit_region_hole *hole = &region->holes[i];
        if (hole->end - hole->start < size)
            continue;
        uintptr_t start = hole->start;
        hole->start += size;
        if (hole->start == hole->end)
            region_forget(region, i);
        return start;
    }
    if (size > region->limit - region->next)
        return 0;
    uintptr_t start = region->next;
    __atomic_store_n(&region->next, start + size, __ATOMIC_RELEASE);
    return start;
}

/* Notes that nothing is in [start, end) any more. */
static void region_vacate(struct kit_region_pages *region, uintptr_t start, uintptr_t end)
{
    size_t i = 0;
    while (i < region->holes_count && region->holes[i].end < start)
        i++;
    if (i < region->holes_count && region->holes[i].end == start) {
        start = region->holes[i].start;
        region_forget(region, i);
    }
    if (i < region->holes_count && region->holes[i].start == end) {
        end = region->holes[i].end;
        region_forget(region, i);
    }
    if (end == region->next) {
        __atomic_store_n(&region->next, start, __ATOMIC_RELEASE);
    } else if (region->holes_count < KIT_REGION_HOLES) {
        struct kit_region_hole *hole = &region->holes[i];
        memmove(hole + 1, hole, (region->holes_count - i) * sizeof *hole);
        *hole = (struct kit_region_hole){start, end};
        region->holes_count++;
    }
}

/* ---- the source ----------------------------------------------------------------------------- */

/* Leaves [start, start + size) without access, as before it was mapped. */
static void region_unmap(void *context, void *start, size_t size)
{
    struct kit_region_pages *region = context;
    region_lock(region);
    mmap(start, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    region_vacate(region, (uintptr_t)start, (uintptr_t)start + size);
    region_unlock(region);
}

static void *region_map(void *context, size_t size, size_t *got)
{
    struct kit_region_pages *region = context;
    size_t page = region->pages.page;
    if (__builtin_add_overflow(size, page - 1, &size))
        return NULL;
    size &= ~(page - 1);
    region_lock(region);
    uintptr_t start = region_place(region, size);
    region_unlock(region);
    if (!start)
        return NULL;
    void *memory =
        mmap((void *)start, size, PROT_READ | PROT_WRITE, region->flags | MAP_FIXED, -1, 0);
    if (memory == MAP_FAILED) {
        region_unmap(context, (void *)start, size);
        return NULL;
    }
    if (region->transparent)
        madvise(memory, size, MADV_HUGEPAGE);
    *got = size;
    return memory;
}

void kit_region_pages_fill(struct kit_region_pages *region)
{
    region->pages.context = region;
    region->pages.decommit = region_decommit;
    region->pages.map = region->next < region->limit ? region_map : NULL;
    region->pages.unmap = region_unmap;
}

uintptr_t kit_region_pages_next(const struct kit_region_pages *region)
{
    return __atomic_load_n(&region->next, __ATOMIC_ACQUIRE);
}

int kit_heap_source(struct kit_alloc *a, struct kit_region_pages *region)
{
    return kit_alloc_source(a, &region->pages);
}
