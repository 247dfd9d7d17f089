/* SPDX-License-Identifier: MIT */
/* alloc.shard: what it promises for the worst case, with one face and nothing hardened.
 *
 * Memory. A slab of class c is added only when all others of c are full of live blocks, each of at
 * least r(c) bytes, one unit more than the class before has. With at most L bytes live and n(c)
 * blocks to a slab of s(c) bytes, there are never more slabs of c than
 *
 *     k(c) = L / (r(c) * n(c)) + 1
 *
 * and since each may stay behind with a single block, the classes add up. Larger blocks take their
 * pages. A run of p pages is refused only if each of the gaps between the R runs in use is smaller,
 * a sixteenth being lost to the steps of the bins from 32 pages on. So no request is refused in
 *
 *     W + (R + 1) * p * 17/16,   W = sum of k(c) * s(c) + larger blocks,   R = sum of k(c) + their
 *     number,   p = pages of the largest slab or block
 *
 * bytes, which holds for any way to choose among gaps. It takes slabs of full size, which a heap
 * has from LEAST bytes on; in less memory they are smaller, and nothing is promised. Source:
 * Robson, «Worst case fragmentation of first fit and best fit storage allocation strategies»,
 * Computer Journal 20, 1977, for the sequences that come near it.
 *
 * Instructions. The longest way is that of a request when memory is short: all classes are
 * flushed, and each flush joins runs twice. Counted generously. */
#include <unikit/alloc/shard/shard.h>

enum { ALLOC_INSTRUCTIONS = 16384, FREE_INSTRUCTIONS = 1024 };
enum { PAGE = 1 << SHARD_PAGE_SHIFT, LEAST = 36 << 20 };

struct need {
    size_t bytes, runs, pages; /* W, R, p */
    bool over;
};

static void bounds_add(struct need *need, size_t *to, size_t count, size_t each)
{
    size_t product;
    need->over |= kit_mul_overflow(count, each, &product) || kit_add_overflow(*to, product, to);
}

static void bounds_class(struct need *need, unsigned class, size_t live)
{
    size_t size = shard_class_size(class), slab = shard_slab_pages(LEAST, size, PAGE) * PAGE;
    size_t fit = slab / size < SHARD_BLOCKS ? slab / size : SHARD_BLOCKS;
    size_t smallest = (class ? shard_class_size(class - 1) : 0) + SHARD_UNIT;
    size_t slabs = live / (smallest * fit) + 1;
    bounds_add(need, &need->bytes, slabs, slab);
    need->runs += slabs;
    need->pages = need->pages > slab / PAGE ? need->pages : slab / PAGE;
}

static void bounds_large(struct need *need, size_t live, size_t largest)
{
    size_t count = live / SHARD_SMALL, pages = (largest + PAGE - 1) / PAGE;
    bounds_add(need, &need->bytes, 1, live);
    bounds_add(need, &need->bytes, count, PAGE);
    need->runs += count;
    need->pages = need->pages > pages ? need->pages : pages;
}

void shard_bounds(const uint64_t *options, size_t live, size_t largest,
                  struct kit_alloc_bounds *out)
{
    size_t small = largest < SHARD_SMALL ? largest + !largest : SHARD_SMALL;
    struct need need = {.over = live > SHARD_REQUEST_MAX || largest > SHARD_REQUEST_MAX};
    (void)options;
    *out = (struct kit_alloc_bounds){.alloc_instructions = ALLOC_INSTRUCTIONS,
                                     .free_instructions = FREE_INSTRUCTIONS};
    if (need.over)
        return;
    for (unsigned class = 0; class <= shard_class(small); class ++)
        bounds_class(&need, class, live);
    if (largest > SHARD_SMALL)
        bounds_large(&need, live, largest);
    size_t pages = need.bytes / PAGE + 1, memory = sizeof(struct shard_heap);
    size_t gap = need.pages < (2 << SHARD_BIN_BITS) ? need.pages : need.pages / 16 * 17 + 17;
    bounds_add(&need, &pages, need.runs + 1, gap);
    bounds_add(&need, &memory, SHARD_BINS, sizeof(void *));
    bounds_add(&need, &memory, pages + 2, PAGE + sizeof(struct shard_run) + sizeof(void *));
    if (!need.over)
        out->memory = memory > LEAST ? memory : LEAST;
}
