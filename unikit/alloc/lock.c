/* SPDX-License-Identifier: MIT */
/* A layer that lets several processors or threads use any allocator: a spin lock (rt/x86_64/spin.h)
 * around each call.
 *
 * All faces are the layer itself: there is nothing that one of them could have of its own. Call
 * sites that the allocator below wants to know are return addresses, said under the same lock; the
 * layer has no caller(), whose word could meet another thread's call. Time: two stores and an
 * exchange beside the allocator below, and the wait for others, which has no bound; space: one
 * block of it. In an image with one processor the lock is compiled away. */
#include <unikit/alloc/alloc.h>
#include <unikit/rt/x86_64/spin.h>

#define LOCK_NOINLINE __attribute__((noinline))
#define LOCK_ENTER(a) lock_enter(a, (uintptr_t)__builtin_return_address(0))

struct lock {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    struct kit_spin spin;
    uint32_t below; /* features of the allocator below */
    size_t own;     /* what this takes of the allocator below */
};

static struct lock *lock_of(const struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct lock, alloc);
}

/* The allocator below, for this caller alone until lock_leave(). */
static struct kit_alloc *lock_take(const struct kit_alloc *a)
{
    struct lock *l = lock_of(a);
    kit_spin_lock(&l->spin);
    return l->inner;
}

static struct kit_alloc *lock_enter(struct kit_alloc *a, uintptr_t site)
{
    struct kit_alloc *inner = lock_take(a);
    if (lock_of(a)->below & KIT_ALLOC_SITES)
        kit_alloc_caller(inner, site);
    return inner;
}

static void lock_leave(const struct kit_alloc *a)
{
    kit_spin_unlock(&lock_of(a)->spin);
}

static bool lock_below(const struct kit_alloc *a, uint32_t feature)
{
    return lock_of(a)->below & feature;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static LOCK_NOINLINE void *lock_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    void *block = kit_alloc_alloc(LOCK_ENTER(a), size, align);
    lock_leave(a);
    return block;
}

static LOCK_NOINLINE void lock_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    kit_alloc_free(LOCK_ENTER(a), block, size, align);
    lock_leave(a);
}

static LOCK_NOINLINE void *lock_realloc(struct kit_alloc *a, void *block, size_t old_size,
                                        size_t new_size, size_t align)
{
    void *moved = kit_alloc_realloc(LOCK_ENTER(a), block, old_size, new_size, align);
    lock_leave(a);
    return moved;
}

static LOCK_NOINLINE void *lock_zeroed(struct kit_alloc *a, size_t size, size_t align)
{
    struct kit_alloc *inner = LOCK_ENTER(a);
    bool able = lock_below(a, KIT_ALLOC_ZEROED);
    void *block = able ? kit_alloc_zeroed(inner, size, align) : kit_alloc_alloc(inner, size, align);
    lock_leave(a);
    if (block != NULL && !able) /* the block is the caller's: no need to keep others waiting */
        memset(block, 0, size);
    return block;
}

static LOCK_NOINLINE bool lock_resize(struct kit_alloc *a, void *block, size_t old_size,
                                      size_t new_size, size_t align)
{
    if (!lock_below(a, KIT_ALLOC_RESIZE))
        return false;
    bool done = kit_alloc_resize(LOCK_ENTER(a), block, old_size, new_size, align);
    lock_leave(a);
    return done;
}

static size_t lock_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    size_t usable = kit_alloc_usable_size(lock_take(a), block, size);
    lock_leave(a);
    return usable;
}

/* ---- looking --------------------------------------------------------------------------------- */

/* The layer's own block is not part of the heap that its user sees. */
static void lock_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    size_t own = lock_of(a)->own;
    kit_alloc_stats(lock_take(a), out);
    lock_leave(a);
    out->capacity -= own;
    out->used -= own;
    out->peak -= own;
    out->blocks--;
    out->allocations--;
}

static int lock_check(const struct kit_alloc *a)
{
    int result = kit_alloc_check(lock_take(a));
    lock_leave(a);
    return result;
}

static bool lock_owns(const struct kit_alloc *a, const void *block)
{
    if (!lock_below(a, KIT_ALLOC_OWNS) || block == lock_of(a))
        return false;
    bool found = kit_alloc_owns(lock_take(a), block);
    lock_leave(a);
    return found;
}

/* Passed through a visitor that leaves the layer's own block out. */
struct lock_tour {
    const struct lock *own;
    int (*visit)(void *argument, void *block, size_t size, bool used);
    int (*visit_live)(void *argument, const struct kit_alloc_live *block);
    void *argument;
};

static int lock_on_block(void *argument, void *block, size_t size, bool used)
{
    struct lock_tour *tour = argument;
    return block == tour->own ? 0 : tour->visit(tour->argument, block, size, used);
}

/* The heap may not change meanwhile, so the lock is not taken: `visit` may ask for sizes. */
static int lock_walk(const struct kit_alloc *a,
                     int (*visit)(void *argument, void *block, size_t size, bool used),
                     void *argument)
{
    struct lock_tour tour = {lock_of(a), visit, NULL, argument};
    return lock_below(a, KIT_ALLOC_WALK) ? kit_alloc_walk(lock_of(a)->inner, lock_on_block, &tour)
                                         : KIT_ENOTSUP;
}

static int lock_on_live(void *argument, const struct kit_alloc_live *block)
{
    struct lock_tour *tour = argument;
    return block->block == tour->own ? 0 : tour->visit_live(tour->argument, block);
}

static int lock_live(const struct kit_alloc *a,
                     int (*visit)(void *argument, const struct kit_alloc_live *block),
                     void *argument)
{
    struct lock_tour tour = {lock_of(a), NULL, visit, argument};
    return lock_below(a, KIT_ALLOC_LEAKS) ? kit_alloc_live(lock_of(a)->inner, lock_on_live, &tour)
                                          : KIT_ENOTSUP;
}

static size_t lock_recorded(struct kit_alloc *a, const void **start)
{
    *start = NULL;
    if (!lock_below(a, KIT_ALLOC_RECORDS))
        return 0;
    size_t size = kit_alloc_recorded(lock_take(a), start);
    lock_leave(a);
    return size;
}

/* ---- memory behind it ------------------------------------------------------------------------ */

static int lock_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    if (!lock_below(a, KIT_ALLOC_ADD_REGION))
        return KIT_ENOTSUP;
    int result = kit_alloc_add_region(lock_take(a), memory, size);
    lock_leave(a);
    return result;
}

static int lock_source(struct kit_alloc *a, const struct kit_alloc_pages *pages)
{
    return lock_below(a, KIT_ALLOC_PAGES) ? kit_alloc_source(lock_of(a)->inner, pages)
                                          : KIT_ENOTSUP;
}

static size_t lock_tick(struct kit_alloc *a)
{
    if (!lock_below(a, KIT_ALLOC_PAGES))
        return 0;
    size_t given = kit_alloc_tick(lock_take(a));
    lock_leave(a);
    return given;
}

static size_t lock_trim(struct kit_alloc *a, size_t keep)
{
    if (!lock_below(a, KIT_ALLOC_PAGES))
        return 0;
    size_t given = kit_alloc_trim(lock_take(a), keep);
    lock_leave(a);
    return given;
}

static uint64_t lock_fail_at(struct kit_alloc *a, uint64_t n)
{
    if (!lock_below(a, KIT_ALLOC_FAILS))
        return 0;
    uint64_t asked = kit_alloc_fail_at(lock_take(a), n);
    lock_leave(a);
    return asked;
}

/* ---- faces ----------------------------------------------------------------------------------- */

static int lock_attach(struct kit_alloc *a, struct kit_alloc **out)
{
    *out = a;
    return 0;
}

static void lock_detach(struct kit_alloc *face)
{
    (void)face;
}

static void lock_hold(struct kit_alloc *a, bool on)
{
    if (on)
        lock_take(a);
    else
        lock_leave(a);
}

static const struct kit_alloc_ops lock_ops = {
    .alloc = lock_alloc,
    .free = lock_free,
    .realloc = lock_realloc,
    .usable_size = lock_usable_size,
    .stats = lock_stats,
    .check = lock_check,
    .owns = lock_owns,
    .walk = lock_walk,
    .add_region = lock_add_region,
    .zeroed = lock_zeroed,
    .resize = lock_resize,
    .attach = lock_attach,
    .detach = lock_detach,
    .source = lock_source,
    .tick = lock_tick,
    .trim = lock_trim,
    .hold = lock_hold,
    .live = lock_live,
    .fail_at = lock_fail_at,
    .recorded = lock_recorded,
};

static int lock_wrap(const uint64_t *options, const struct kit_alloc_component *below,
                     struct kit_alloc *inner, struct kit_alloc **out)
{
    struct kit_alloc_stats before, after;
    (void)options;
    kit_alloc_stats(inner, &before);
    struct lock *l = kit_alloc_alloc(inner, sizeof *l, alignof(struct lock));
    if (l == NULL)
        return KIT_ENOMEM;
    kit_alloc_stats(inner, &after);
    *l = (struct lock){.inner = inner, .below = below->features, .own = after.used - before.used};
    KIT_ALLOC_BIND(&l->alloc, &lock_ops);
    *out = &l->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_lock = {
    .id = "alloc.lock",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_LAYER | KIT_ALLOC_REUSES | KIT_ALLOC_SHARED | KIT_ALLOC_OWNS |
                KIT_ALLOC_WALK | KIT_ALLOC_ADD_REGION | KIT_ALLOC_UNSIZED | KIT_ALLOC_THREADS |
                KIT_ALLOC_PAGES | KIT_ALLOC_RESIZE | KIT_ALLOC_ZEROED | KIT_ALLOC_FAILS |
                KIT_ALLOC_RECORDS | KIT_ALLOC_LEAKS,
    .ops = &lock_ops,
    .wrap = lock_wrap,
};
