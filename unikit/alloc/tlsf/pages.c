/* SPDX-License-Identifier: MIT */
/* Two-level segregated fit: what a page source is good for. Memory that reads as zero is not
 * cleared anew; memory that lay free is given back: by tick what nobody touched between two visits,
 * a bounded number of blocks each time, by trim everything.
 *
 * Of a free block the whole pages behind its header are given back and reads of them give zeros. In
 * the region of the opening the free memory at the upper end changes with nearly every operation;
 * there tick gives back what lies above the highest block in use since the tick before. */
#include <unikit/alloc/tlsf/tlsf.h>

enum { VISITS = 32 /* blocks that one tick looks at */, LARGE = 16 /* pages: tick leaves less */ };
enum { GROWTH = 1 << 20 /* at least so much is asked of the source at once */ };
enum { HEADER = sizeof(struct block) };

struct span {
    uintptr_t start, end; /* nothing if start >= end */
};

/* The whole pages of a free block that hold nothing of ours. */
static struct span tlsf_pages(const struct tlsf *t, const struct block *block)
{
    size_t page = t->pages->page;
    return (struct span){kit_align_up((uintptr_t)block + HEADER, page),
                         kit_align_down((uintptr_t)block + tlsf_size(block), page)};
}

static size_t tlsf_decommit(const struct tlsf *t, struct span span)
{
    if (span.start >= span.end)
        return 0;
    t->pages->decommit(t->pages->context, (void *)span.start, span.end - span.start);
    return span.end - span.start;
}

/* The free block at the upper end of the first region, or NULL. */
static struct block *tlsf_top(const struct tlsf *t)
{
    return t->end->tag & PREVIOUS_FREE ? tlsf_at(t->end, 0 - t->end->before) : NULL;
}

/* Of the block at the top, the pages above `from` that may hold something. */
static struct span tlsf_top_pages(const struct tlsf *t, const struct block *top, uintptr_t from)
{
    size_t page = t->pages->page;
    uintptr_t end = kit_align_down((uintptr_t)t->end, page);
    uintptr_t touched = kit_align_up(t->touched + HEADER, page);
    from = from > (uintptr_t)top ? from : (uintptr_t)top;
    return (struct span){kit_align_up(from + HEADER, page), touched < end ? touched : end};
}

static void tlsf_touch(struct tlsf *t)
{
    if (t->touched < t->high)
        t->touched = t->high;
}

/* Gives back the pages of a span at the top from `start` on; nothing is known above any more but
 * zeros. */
static size_t tlsf_lower(struct tlsf *t, struct span span)
{
    if (span.start < span.end)
        t->touched = span.start - HEADER;
    return tlsf_decommit(t, span);
}

void tlsf_watch(struct tlsf *t)
{
    t->high = (uintptr_t)tlsf_at(t->end, 0 - t->end->before);
    t->touched = t->pages->fresh ? t->high : (uintptr_t)t->end;
}

int tlsf_source(struct kit_alloc *a, const struct kit_alloc_pages *pages)
{
    tlsf_of(a)->pages = pages;
    tlsf_of(a)->grow = tlsf_grow;
    if (!tlsf_of(a)->start)
        tlsf_watch(tlsf_of(a));
    return 0;
}

COLD bool tlsf_grow(struct tlsf *t, size_t size)
{
    const struct kit_alloc_pages *pages = t->pages;
    if (!pages->map)
        return false;
    size_t got = 0, table = (tlsf_class(size * 2) + 1) * sizeof(struct block *);
    size += table + sizeof(struct region) + (size_t)4 * UNIT;
    void *memory = pages->map(pages->context, size > GROWTH ? size : GROWTH, &got);
    return memory && kit_alloc_add_region(&t->alloc, memory, got) == 0;
}

/* Clears `size` bytes at `at` but for a span that reads as zero. */
static void tlsf_clear(void *at, size_t size, struct span zero)
{
    uintptr_t start = (uintptr_t)at, end = start + size;
    if (zero.start < start)
        zero.start = start;
    if (zero.end > end)
        zero.end = end;
    if (zero.start >= zero.end)
        zero.start = zero.end = end;
    memset(at, 0, zero.start - start);
    memset((void *)zero.end, 0, end - zero.end);
}

void *tlsf_zeroed(struct kit_alloc *a, size_t size, size_t align)
{
    struct tlsf *t = tlsf_of(a);
    struct block *block = tlsf_take(t, size, align);
    struct span zero = {0, 0};
    if (!block)
        return NULL;
    if (t->pages) {
        tlsf_touch(t);
        if (block->tag & GIVEN)
            zero = tlsf_pages(t, block);
        else if (tlsf_at(block, tlsf_size(block)) == t->end)
            zero = (struct span){t->touched + HEADER,
                                 kit_align_down((uintptr_t)t->end, t->pages->page)};
    }
    void *payload = tlsf_use(t, block, tlsf_need(size));
    tlsf_clear(payload, size, zero);
    return payload;
}

/* What tick does with a block that it meets. */
static size_t tlsf_visit(struct tlsf *t, struct block *block)
{
    if (block->tag & GIVEN || tlsf_at(block, tlsf_size(block)) == t->end)
        return 0;
    if (!(block->tag & AGED)) {
        block->tag |= AGED;
        return 0;
    }
    block->tag |= GIVEN;
    return tlsf_decommit(t, tlsf_pages(t, block));
}

size_t tlsf_tick(struct kit_alloc *a)
{
    struct tlsf *t = tlsf_of(a);
    size_t given = 0;
    if (!t->pages || t->start)
        return 0;
    tlsf_touch(t);
    struct block *top = tlsf_top(t);
    if (top)
        given = tlsf_lower(t, tlsf_top_pages(t, top, t->high));
    t->high = (uintptr_t)(top ? top : t->end);
    for (int visits = 0; visits < VISITS; visits++) {
        struct block *block = t->cursor;
        if (!block) {
            t->cursor_class = tlsf_next_class(t, t->cursor_class);
            if (t->cursor_class == t->classes) { /* once around */
                t->cursor_class = tlsf_class(LARGE * t->pages->page);
                break;
            }
            block = t->heads[t->cursor_class];
        }
        given += tlsf_visit(t, block);
        t->cursor = block->next;
        t->cursor_class += !t->cursor;
    }
    return given;
}

/* Gives back up to `most` bytes of a block; returns how many. */
static size_t tlsf_trim_block(struct tlsf *t, struct block *block, size_t most)
{
    bool at_top = tlsf_at(block, tlsf_size(block)) == t->end;
    struct span span = at_top ? tlsf_top_pages(t, block, 0) : tlsf_pages(t, block);
    if (span.start >= span.end || (block->tag & GIVEN && !at_top))
        return 0;
    most = kit_align_down(most, t->pages->page);
    bool whole = most >= span.end - span.start;
    if (!whole)
        span.start = span.end - most;
    if (at_top)
        return tlsf_lower(t, span);
    block->tag |= whole ? GIVEN : 0;
    return tlsf_decommit(t, span);
}

/* Bytes that trim could give back. */
static size_t tlsf_spare(const struct tlsf *t)
{
    size_t bytes = 0;
    for (size_t index = tlsf_class(t->pages->page); index < t->classes; index++) {
        index = tlsf_next_class(t, index);
        for (struct block *b = index < t->classes ? t->heads[index] : NULL; b; b = b->next) {
            bool at_top = tlsf_at(b, tlsf_size(b)) == t->end;
            struct span span = at_top ? tlsf_top_pages(t, b, 0) : tlsf_pages(t, b);
            if (span.start < span.end && (at_top || !(b->tag & GIVEN)))
                bytes += span.end - span.start;
        }
    }
    return bytes;
}

size_t tlsf_trim(struct kit_alloc *a, size_t keep)
{
    struct tlsf *t = tlsf_of(a);
    size_t given = 0;
    if (!t->pages || t->start)
        return 0;
    tlsf_touch(t);
    size_t spare = tlsf_spare(t), most = spare > keep ? spare - keep : 0;
    for (size_t index = t->classes; index-- > tlsf_class(t->pages->page);)
        if (t->map[index / 64] >> (index % 64) & 1)
            for (struct block *b = t->heads[index]; b; b = b->next)
                given += tlsf_trim_block(t, b, most - given);
    t->high = tlsf_top(t) ? (uintptr_t)tlsf_top(t) : t->high;
    return given;
}
