/* SPDX-License-Identifier: MIT */
/* A layer that finds out misuse: what was written before, behind or after a block, what was freed
 * twice, never allocated, or given back with another size, and what was never freed at all. It can
 * also refuse the n-th request. Each means is an option of its own:
 *
 *   canary      bytes before and behind each block with a pattern, looked at when it is freed
 *   poison      what was never written and what was freed is filled; a freed block must stay so
 *   quarantine  freed blocks wait before they are used again: so many bytes and blocks of them,
 *               and not longer than GUARD_AGE ticks
 *   patrol      with each call, so many that wait are looked at (their ends)
 *   pages       blocks from this size on have pages of their own and an inaccessible one behind;
 *               freed, they are inaccessible until they leave the quarantine. Needs an opener that
 *               can protect pages (source())
 *
 * A head of 96 bytes stands before each block; its seal tells a block from any other address. The
 * seal is no secret from somebody who reads the memory: this finds mistakes, not attacks. Of two
 * writers into one heap only one is seen. Time: O(size) for poison, O(patrol) for the rest, but
 * for a request that finds no memory until the quarantine is empty. What a panic says stands in
 * report.c; tests/alloc/test_guard.py has each text. */
#include <unikit/alloc/guard/guard.h>

#define GUARD_SITE(g) guard_site(g, (uintptr_t)__builtin_return_address(0))

static struct guard *guard_of(const struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct guard, alloc);
}

static uintptr_t guard_site(struct guard *g, uintptr_t returns_to)
{
    uintptr_t site = g->caller != 0 ? g->caller : returns_to;
    g->caller = 0;
    return site;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Counts a request; false: it is the one to refuse. */
static bool guard_admit(struct guard *g)
{
    guard_patrol(g);
    g->requests++;
    if (g->fail_in == 0 || --g->fail_in != 0)
        return true;
    g->stats.failures++;
    return false;
}

static struct guard_head *guard_take(struct guard *g, size_t size, size_t align, uintptr_t site)
{
    struct guard_head *head = guard_make(g, size, align);
    if (head == NULL)
        return NULL;
    head->site = site;
    head->serial = g->stats.allocations++;
    kit_list_push_back(&g->live, &head->link);
    g->stats.blocks++;
    g->stats.used += head->total - head->lead;
    g->stats.peak = g->stats.used > g->stats.peak ? g->stats.used : g->stats.peak;
    return head;
}

/* The head of a block in use, or a panic that says why it is none. */
static struct guard_head *guard_known(struct guard *g, const void *block, size_t size, size_t align,
                                      uintptr_t site)
{
    struct guard_head *head = guard_find(g, block);
    ptrdiff_t offset;
    if (head == NULL)
        guard_panic_foreign(g, block, site);
    if (head->state == GUARD_WAITING)
        guard_panic(g, "freed twice", head, NULL, site);
    if (guard_damaged(g, head, &offset))
        guard_panic(g, offset < 0 ? "written before it" : "written behind it", head, &offset, site);
    if (head->state != GUARD_LIVE || !guard_linked(g, &head->link))
        guard_panic_head(g, head, site);
    if (size == KIT_ALLOC_UNKNOWN)
        return head;
    if (size != head->size)
        guard_panic_given(g, "size ", size, head->size, head, site);
    if (guard_align_log(align) != head->asked)
        guard_panic_given(g, "alignment ", align, (size_t)1 << head->asked, head, site);
    return head;
}

static void guard_give(struct guard *g, struct guard_head *head, uintptr_t site)
{
    kit_list_remove(&head->link);
    g->stats.blocks--;
    g->stats.used -= head->total - head->lead;
    head->freed = site;
    head->state = GUARD_WAITING;
    guard_bury(g, head);
    if (g->quarantine != 0 && g->quarantine_blocks != 0)
        guard_wait(g, head);
    else
        guard_unmake(g, head);
}

static __attribute__((noinline)) void *guard_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct guard *g = guard_of(a);
    uintptr_t site = GUARD_SITE(g);
    if (!guard_admit(g))
        return NULL;
    struct guard_head *head = guard_take(g, size, align, site);
    g->stats.failures += head == NULL;
    return head != NULL ? head->block : NULL;
}

static __attribute__((noinline)) void guard_free(struct kit_alloc *a, void *block, size_t size,
                                                 size_t align)
{
    struct guard *g = guard_of(a);
    uintptr_t site = GUARD_SITE(g);
    if (block == NULL)
        return;
    struct guard_head *head = guard_known(g, block, size, align, site);
    guard_patrol(g);
    g->stats.frees++;
    guard_give(g, head, site);
}

/* Moves the block always, so that an old pointer to it is found out; only a smaller one for which
 * there is no memory stays where it is. */
static void *guard_move(struct guard *g, struct guard_head *old, size_t size, size_t align,
                        uintptr_t site)
{
    struct guard_head *head = guard_take(g, size, align, site);
    if (head != NULL) {
        memcpy(head->block, old->block, old->size < size ? old->size : size);
        g->stats.frees++;
        guard_give(g, old, site);
        return head->block;
    }
    if (size <= old->size) {
        guard_shrink(g, old, size, align);
        return old->block;
    }
    g->stats.failures++;
    return NULL;
}

/* A block whose size is not said has the minimal alignment afterwards. */
static __attribute__((noinline)) void *guard_realloc(struct kit_alloc *a, void *block,
                                                     size_t old_size, size_t new_size, size_t align)
{
    struct guard *g = guard_of(a);
    uintptr_t site = GUARD_SITE(g);
    struct guard_head *old = block != NULL ? guard_known(g, block, old_size, align, site) : NULL;
    if (!guard_admit(g))
        return NULL;
    if (old != NULL)
        return guard_move(g, old, new_size, old_size == KIT_ALLOC_UNKNOWN ? 0 : align, site);
    struct guard_head *head = guard_take(g, new_size, align, site);
    g->stats.failures += head == NULL;
    return head != NULL ? head->block : NULL;
}

static size_t guard_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)size;
    return guard_known(guard_of(a), block, KIT_ALLOC_UNKNOWN, 0, 0)->size;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* With nothing in use all may be used again, so all that waits is let go: largest_free is then what
 * it was at the beginning. Else it does not count what waits, although a request would get it. */
static void guard_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    struct guard *g = guard_of(a);
    struct kit_alloc_stats inner;
    if (g->stats.blocks == 0)
        guard_let_go(g);
    kit_alloc_stats(g->inner, &inner);
    *out = g->stats;
    out->capacity = inner.capacity;
    out->largest_free = guard_room(g, inner.largest_free);
}

static int guard_check_list(const struct guard *g, const struct kit_list *list, uint32_t state,
                            size_t count)
{
    ptrdiff_t offset;
    size_t seen = 0;
    for (const struct kit_list *at = list->next; at != list; at = at->next) {
        const struct guard_head *head = guard_head_at(at);
        if (seen++ == count || !guard_linked(g, at) || !guard_sealed(g, head) ||
            head->state != state || guard_damaged(g, head, &offset) ||
            (state == GUARD_WAITING && guard_touched(g, head, 0, &offset)))
            return KIT_ECORRUPT;
    }
    return seen == count ? 0 : KIT_ECORRUPT;
}

static int guard_check(const struct kit_alloc *a)
{
    const struct guard *g = guard_of(a);
    int rc = guard_check_list(g, &g->live, GUARD_LIVE, g->stats.blocks);
    if (rc == 0)
        rc = guard_check_list(g, &g->waiting, GUARD_WAITING, g->waiting_blocks);
    return rc == 0 ? kit_alloc_check(g->inner) : rc;
}

static bool guard_owns(const struct kit_alloc *a, const void *block)
{
    const struct guard_head *head = guard_find(guard_of(a), block);
    return head != NULL && head->state == GUARD_LIVE;
}

struct guard_tour {
    const struct guard *g;
    int (*visit)(void *argument, void *block, size_t size, bool used);
    void *argument;
};

static int guard_on_block(void *argument, void *block, size_t size, bool used)
{
    struct guard_tour *tour = argument;
    if (block == tour->g)
        return 0;
    const struct guard_head *head = used ? guard_find_base(tour->g, block) : NULL;
    if (head == NULL)
        return tour->visit(tour->argument, block, size, false);
    return tour->visit(tour->argument, head->block, head->total - head->lead,
                       head->state == GUARD_LIVE);
}

static int guard_walk(const struct kit_alloc *a,
                      int (*visit)(void *argument, void *block, size_t size, bool used),
                      void *argument)
{
    const struct guard *g = guard_of(a);
    struct guard_tour tour = {g, visit, argument};
    return g->below & KIT_ALLOC_WALK ? kit_alloc_walk(g->inner, guard_on_block, &tour)
                                     : KIT_ENOTSUP;
}

static int guard_add_region(struct kit_alloc *a, void *memory, size_t size)
{
    struct guard *g = guard_of(a);
    return g->below & KIT_ALLOC_ADD_REGION ? kit_alloc_add_region(g->inner, memory, size)
                                           : KIT_ENOTSUP;
}

/* ---- pages ----------------------------------------------------------------------------------- */

static int guard_source(struct kit_alloc *a, const struct kit_alloc_pages *pages)
{
    struct guard *g = guard_of(a);
    g->pages = pages->protect != NULL ? pages : NULL;
    return g->below & KIT_ALLOC_PAGES ? kit_alloc_source(g->inner, pages) : KIT_ENOTSUP;
}

static size_t guard_tick(struct kit_alloc *a)
{
    struct guard *g = guard_of(a);
    guard_age(g);
    return g->below & KIT_ALLOC_PAGES ? kit_alloc_tick(g->inner) : 0;
}

static size_t guard_trim(struct kit_alloc *a, size_t keep)
{
    struct guard *g = guard_of(a);
    guard_let_go(g);
    return g->below & KIT_ALLOC_PAGES ? kit_alloc_trim(g->inner, keep) : 0;
}

/* ---- who asked, and who shall not get ---------------------------------------------------------
 */

static void guard_caller(struct kit_alloc *a, uintptr_t site)
{
    guard_of(a)->caller = site;
}

static int guard_live(const struct kit_alloc *a,
                      int (*visit)(void *argument, const struct kit_alloc_live *block),
                      void *argument)
{
    const struct guard *g = guard_of(a);
    int rc = 0;
    for (const struct kit_list *at = g->live.next; at != &g->live && rc == 0; at = at->next) {
        const struct guard_head *head = guard_head_at(at);
        struct kit_alloc_live block = {head->block, head->size, (size_t)1 << head->asked,
                                       head->site, head->serial};
        rc = guard_linked(g, at) ? visit(argument, &block) : KIT_ECORRUPT;
    }
    return rc;
}

static uint64_t guard_fail_at(struct kit_alloc *a, uint64_t n)
{
    struct guard *g = guard_of(a);
    uint64_t requests = g->requests;
    g->requests = 0;
    g->fail_in = n;
    return requests;
}

static const struct kit_alloc_ops guard_ops = {
    .alloc = guard_alloc,
    .free = guard_free,
    .realloc = guard_realloc,
    .usable_size = guard_usable_size,
    .stats = guard_stats,
    .check = guard_check,
    .owns = guard_owns,
    .walk = guard_walk,
    .add_region = guard_add_region,
    .source = guard_source,
    .tick = guard_tick,
    .trim = guard_trim,
    .caller = guard_caller,
    .live = guard_live,
    .fail_at = guard_fail_at,
};

static int guard_wrap(const uint64_t *options, const struct kit_alloc_component *below,
                      struct kit_alloc *inner, struct kit_alloc **out)
{
    if (options[GUARD_OPTION_CANARY] > 4096 || options[GUARD_OPTION_QUARANTINE] > SIZE_MAX / 8)
        return KIT_EINVAL;
    struct guard *g = kit_alloc_alloc(inner, sizeof *g, alignof(struct guard));
    if (g == NULL)
        return KIT_ENOMEM;
    *g = (struct guard){.inner = inner,
                        .below = below->features,
                        .canary = (size_t)options[GUARD_OPTION_CANARY],
                        .poison = options[GUARD_OPTION_POISON] != 0,
                        .quarantine = (size_t)options[GUARD_OPTION_QUARANTINE],
                        .quarantine_blocks = (size_t)options[GUARD_OPTION_QUARANTINE_BLOCKS],
                        .patrol = (size_t)options[GUARD_OPTION_PATROL],
                        .pages_from = (size_t)options[GUARD_OPTION_PAGES],
                        .fail_in = options[GUARD_OPTION_FAIL_AT],
                        .low = UINTPTR_MAX};
    g->front = (g->canary + KIT_ALLOC_ALIGN_MIN - 1) & ~(size_t)(KIT_ALLOC_ALIGN_MIN - 1);
    g->secret = ((uintptr_t)g ^ UINT64_C(0x5bf03635f0c6a5d1)) * UINT64_C(0x9e3779b97f4a7c15);
    kit_list_init(&g->live);
    kit_list_init(&g->waiting);
    g->beat = &g->waiting;
    KIT_ALLOC_BIND(&g->alloc, &guard_ops);
    *out = &g->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_guard = {
    .id = "alloc.guard",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_LAYER | KIT_ALLOC_REUSES | KIT_ALLOC_OWNS | KIT_ALLOC_WALK |
                KIT_ALLOC_ADD_REGION | KIT_ALLOC_UNSIZED | KIT_ALLOC_PAGES | KIT_ALLOC_SITES |
                KIT_ALLOC_FAILS | KIT_ALLOC_LEAKS,
    .ops = &guard_ops,
    .wrap = guard_wrap,
};
