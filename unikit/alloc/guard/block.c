/* SPDX-License-Identifier: MIT */
/* alloc.guard: layout of a block, canaries and poison. */
#include <unikit/alloc/guard/guard.h>

static size_t round_up(size_t size, size_t to)
{
    return (size + to - 1) & ~(to - 1);
}

/* ---- heads ----------------------------------------------------------------------------------- */

static uint64_t seal_of(const struct guard *g, const struct guard_head *head)
{
    uint64_t word = g->secret ^ (uintptr_t)head;
    word = (word ^ (uintptr_t)head->block) * UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 29 ^ head->size) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 32 ^ head->lead ^ head->below) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31 ^ head->total;
}

bool guard_sealed(const struct guard *g, const struct guard_head *head)
{
    return head->seal == seal_of(g, head);
}

static bool within(const struct guard *g, const void *start, size_t size)
{
    return (uintptr_t)start >= g->low && (uintptr_t)start <= g->high &&
           g->high - (uintptr_t)start >= size;
}

bool guard_plausible(const struct guard *g, const struct kit_list *link)
{
    return link == &g->live || link == &g->waiting ||
           ((uintptr_t)link % alignof(struct guard_head) == 0 &&
            within(g, link, sizeof(struct guard_head)));
}

bool guard_linked(const struct guard *g, const struct kit_list *link)
{
    return guard_plausible(g, link->next) && guard_plausible(g, link->prev) &&
           link->next->prev == link && link->prev->next == link;
}

/* Heads of blocks with pages of their own stand at the end of the page before. That place is looked
 * at first, because what is before any other block may be looked at, but the pages of a freed one
 * may not. */
struct guard_head *guard_find(const struct guard *g, const void *block)
{
    size_t before[2] = {0, sizeof(struct guard_head) + g->front};
    if ((uintptr_t)block % KIT_ALLOC_ALIGN_MIN != 0)
        return NULL;
    if (g->pages != NULL && g->pages_from != 0)
        before[0] = ((uintptr_t)block & (g->pages->page - 1)) + sizeof(struct guard_head);
    for (unsigned i = before[0] == 0; i < 2; i++) {
        struct guard_head *head = (struct guard_head *)((uintptr_t)block - before[i]);
        if (within(g, head, before[i]) && guard_sealed(g, head) && head->block == block)
            return head;
    }
    return NULL;
}

struct guard_head *guard_find_base(const struct guard *g, void *base)
{
    struct guard_head *head = base;
    size_t offset = *(size_t *)base;
    if (within(g, head, sizeof *head) && guard_sealed(g, head))
        return head;
    head = (struct guard_head *)((uintptr_t)base + offset);
    if (offset % KIT_ALLOC_ALIGN_MIN == 0 && offset < g->high - g->low &&
        within(g, head, sizeof *head) && guard_sealed(g, head))
        return head;
    return NULL;
}

/* ---- making ---------------------------------------------------------------------------------- */

struct place {
    size_t head, lead, total; /* distances from the base */
    bool paged;
};

/* Where the parts of a request lie; false: no memory is large enough. */
static bool lay_out(const struct guard *g, size_t size, size_t align, struct place *out)
{
    const size_t most = SIZE_MAX / 8, own = sizeof(struct guard_head) + g->front;
    size_t page = g->pages != NULL ? g->pages->page : 0;
    if (size > most || align > most)
        return false;
    if (g->pages_from != 0 && page > own && size >= g->pages_from && align <= page) {
        size_t body = round_up(size, align), room = round_up(body, page);
        *out = (struct place){.head = page - sizeof(struct guard_head),
                              .lead = page + room - body,
                              .total = page + room + 2 * page,
                              .paged = true};
        return true;
    }
    size_t lead = round_up(own, align), rest = size + g->canary;
    *out = (struct place){.head = lead - own,
                          .lead = lead,
                          .total = lead + round_up(rest + (rest == 0), KIT_ALLOC_ALIGN_MIN)};
    return true;
}

static char *base_of(const struct guard_head *head)
{
    return head->block - head->lead;
}

/* Where what may be touched ends: the block below, or the inaccessible page in it. */
static char *end_of(const struct guard *g, const struct guard_head *head)
{
    return base_of(head) + head->total - (head->paged ? 2 * g->pages->page : 0);
}

/* Takes the access to a block's own pages (`own`) and the one behind them, or gives it. */
static bool protect(const struct guard *g, const struct guard_head *head, bool own, bool access)
{
    char *end = end_of(g, head), *from = own ? base_of(head) + g->pages->page : end;
    size_t size = (size_t)(end - from) + (own && !access ? 0 : g->pages->page);
    return g->pages->protect(g->pages->context, from, size, access) == 0;
}

static char canary_at(const struct guard *g, const char *at)
{
    return (char)(g->secret >> ((uintptr_t)at % 8 * 8));
}

static void paint(const struct guard *g, char *from, const char *to)
{
    for (; from < to; from++)
        *from = canary_at(g, from);
}

static const char *unpainted(const struct guard *g, const char *from, const char *to)
{
    while (from < to && *from == canary_at(g, from))
        from++;
    return from < to ? from : NULL;
}

static void paint_behind(const struct guard *g, struct guard_head *head)
{
    if (g->canary != 0)
        paint(g, head->block + head->size, end_of(g, head));
}

struct guard_head *guard_make(struct guard *g, size_t size, size_t align)
{
    struct place place;
    align = align > KIT_ALLOC_ALIGN_MIN ? align : KIT_ALLOC_ALIGN_MIN;
    if (!lay_out(g, size, align, &place))
        return NULL;
    size_t below = place.paged ? g->pages->page : align;
    char *base = kit_alloc_alloc(g->inner, place.total, below);
    if (base == NULL && g->waiting_blocks != 0) {
        guard_let_go(g);
        base = kit_alloc_alloc(g->inner, place.total, below);
    }
    if (base == NULL)
        return NULL;
    struct guard_head *head = (struct guard_head *)(void *)(base + place.head);
    if (place.head != 0)
        *(size_t *)(void *)base = place.head;
    *head = (struct guard_head){.block = base + place.lead,
                                .size = size,
                                .lead = place.lead,
                                .total = place.total,
                                .state = GUARD_LIVE,
                                .paged = place.paged,
                                .asked = guard_align_log(align),
                                .below = guard_align_log(below)};
    head->seal = seal_of(g, head);
    g->low = (uintptr_t)base < g->low ? (uintptr_t)base : g->low;
    g->high = (uintptr_t)base + place.total > g->high ? (uintptr_t)base + place.total : g->high;
    if (g->poison)
        memset(head->block, GUARD_FRESH, size);
    if (g->canary != 0)
        paint(g, (char *)(head + 1), head->block);
    paint_behind(g, head);
    head->guarded = place.paged && protect(g, head, false, false);
    return head;
}

void guard_shrink(struct guard *g, struct guard_head *head, size_t size, size_t align)
{
    head->asked = guard_align_log(align);
    head->size = size;
    head->seal = seal_of(g, head);
    paint_behind(g, head);
}

void guard_bury(struct guard *g, struct guard_head *head)
{
    if (head->guarded)
        head->locked = protect(g, head, true, false);
    else if (g->poison)
        memset(head->block, GUARD_FREED, head->size);
}

void guard_unmake(struct guard *g, struct guard_head *head)
{
    void *base = base_of(head);
    size_t total = head->total, align = (size_t)1 << head->below;
    if (head->guarded)
        protect(g, head, head->locked, true);
    head->seal = ~head->seal; /* freed once more it is no block any longer */
    kit_alloc_free(g->inner, base, total, align);
}

size_t guard_room(const struct guard *g, size_t largest)
{
    size_t own = sizeof(struct guard_head) + g->front + g->canary;
    size_t whole = largest & ~(size_t)(KIT_ALLOC_ALIGN_MIN - 1);
    return whole > own ? whole - own : 0;
}

/* ---- looking -------------------------------------------------------------------------------- */

bool guard_damaged(const struct guard *g, const struct guard_head *head, ptrdiff_t *offset)
{
    if (g->canary == 0)
        return false;
    const char *at = head->locked ? NULL : unpainted(g, (const char *)(head + 1), head->block);
    if (at == NULL && !head->locked)
        at = unpainted(g, head->block + head->size, end_of(g, head));
    if (at != NULL)
        *offset = at - head->block;
    return at != NULL;
}

bool guard_touched(const struct guard *g, const struct guard_head *head, size_t edge,
                   ptrdiff_t *offset)
{
    if (guard_damaged(g, head, offset))
        return true;
    if (!g->poison || head->locked || head->guarded)
        return false;
    for (size_t i = 0; i < head->size; i++) {
        if (edge != 0 && i == edge && head->size > 2 * edge)
            i = head->size - edge;
        if ((uint8_t)head->block[i] != GUARD_FREED) {
            *offset = (ptrdiff_t)i;
            return true;
        }
    }
    return false;
}
