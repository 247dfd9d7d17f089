/* SPDX-License-Identifier: MIT */
/* Two-level segregated fit: what can be seen from outside. */
#include <unikit/alloc/tlsf/tlsf.h>

/* Measured over random and adversarial sequences, a tenth added; see benchmarks/results. */
enum { ALLOC_INSTRUCTIONS = 380, FREE_INSTRUCTIONS = 160 };

void tlsf_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct tlsf *t = tlsf_of(a);
    size_t largest = t->start ? t->capacity : 0;
    if (t->words) {
        unsigned word = kit_fls64(t->words);
        largest = tlsf_size(t->heads[word * 64 + kit_fls64(t->map[word])]) - TAG;
    }
    *out = (struct kit_alloc_stats){
        .capacity = t->capacity,
        .used = t->used,
        .peak = t->peak,
        .blocks = t->allocations - t->frees,
        .largest_free = largest,
        .allocations = t->allocations,
        .frees = t->frees,
        .failures = t->failures,
    };
}

/* The region with the lowest address above `region` (NULL: the lowest of all). */
static const struct region *tlsf_region_after(const struct tlsf *t, const struct region *region)
{
    const struct region *found = NULL;
    for (const struct region *each = t->regions; each; each = each->next)
        if ((uintptr_t)each > (uintptr_t)region && (!found || (uintptr_t)each < (uintptr_t)found))
            found = each;
    return found;
}

/* Whether a region is sound; adds up its blocks. */
static bool tlsf_check_region(const struct region *region, size_t *free, size_t *used,
                              size_t *bytes)
{
    const struct block *block = region->first;
    const struct block *end = tlsf_at(block, region->size);
    size_t before = 0; /* size of the block before if it is free */
    for (;;) {
        size_t size = tlsf_size(block);
        bool is_free = block->tag & FREE;
        if (!(block->tag & PREVIOUS_FREE) != !before || (before && block->before != before))
            return false;
        if (block == end)
            return size == 0 && !is_free;
        if (size < BLOCK_MIN || size > (uintptr_t)end - (uintptr_t)block || (is_free && before))
            return false;
        *(is_free ? free : used) += 1;
        *bytes += is_free ? 0 : size - TAG;
        before = is_free ? size : 0;
        block = tlsf_at(block, size);
    }
}

/* Whether the lists hold `expected` blocks in all, each in its own class, and the bitmaps agree. */
static bool tlsf_check_lists(const struct tlsf *t, size_t expected)
{
    for (size_t index = 0; index < (size_t)WORDS * 64; index++) {
        uint64_t map = t->map[index / 64];
        if ((t->words >> (index / 64) & 1) != (map != 0))
            return false;
        if (!(map >> (index % 64) & 1))
            continue;
        if (index >= t->classes || !t->heads[index])
            return false;
        struct block **link = &t->heads[index];
        for (struct block *b = *link; b; link = &b->next, b = *link)
            if (expected-- == 0 || b->link != link || !(b->tag & FREE) ||
                tlsf_class(tlsf_size(b)) != index)
                return false;
    }
    return expected == 0;
}

int tlsf_check(const struct kit_alloc *a)
{
    const struct tlsf *t = tlsf_of(a);
    size_t free = 0, used = 0, bytes = 0;
    for (const struct region *region = t->regions; region; region = region->next)
        if (!tlsf_check_region(region, &free, &used, &bytes))
            return KIT_ECORRUPT;
    bool sound = tlsf_check_lists(t, free) && bytes == t->used && t->used <= t->peak &&
                 used == t->allocations - t->frees && t->peak <= t->capacity;
    return sound ? 0 : KIT_ECORRUPT;
}

int tlsf_walk(const struct kit_alloc *a,
              int (*visit)(void *argument, void *block, size_t size, bool used), void *argument)
{
    const struct region *region = NULL;
    if (tlsf_of(a)->start) { /* nothing is laid out yet: where it will be */
        size_t size = tlsf_of(a)->capacity;
        uintptr_t end = kit_align_down(tlsf_of(a)->limit, UNIT) - UNIT;
        return visit(argument, (void *)(end - size + TAG), size, false);
    }
    while ((region = tlsf_region_after(tlsf_of(a), region)))
        for (struct block *b = tlsf_at(region->first, 0); tlsf_size(b);
             b = tlsf_at(b, tlsf_size(b))) {
            int stop = visit(argument, tlsf_payload(b), tlsf_size(b) - TAG, !(b->tag & FREE));
            if (stop)
                return stop;
        }
    return 0;
}

static int tlsf_is_it(void *argument, void *block, size_t size, bool used)
{
    return (void)size, used && block == argument;
}

bool tlsf_owns(const struct kit_alloc *a, const void *block)
{
    return tlsf_walk(a, tlsf_is_it, (void *)(uintptr_t)block);
}

void tlsf_bounds(const uint64_t *options, size_t live, size_t largest, struct kit_alloc_bounds *out)
{
    (void)options;
    /* When a request is refused, each free block is of the request's class or a lower one, and a
     * block in use lies between any two of them. A request of n bytes, rounded up to units, takes
     * at most n + UNIT; so what holds the most memory is `live` in blocks of one unit each, with
     * the largest free block that is refused before each and behind the last. */
    size_t blocks = live / UNIT + 1, used, memory;
    *out = (struct kit_alloc_bounds){.alloc_instructions = ALLOC_INSTRUCTIONS,
                                     .free_instructions = FREE_INSTRUCTIONS};
    if (largest > REQUEST_MAX || kit_mul_overflow(blocks, (size_t)2 * UNIT, &used))
        return;
    size_t units = tlsf_need(largest) / UNIT;
    size_t step = (size_t)1 << (kit_fls64(units | STEPS) - KIT_TLSF_STEP_BITS);
    size_t refused = ((units & ~(step - 1)) + step) * UNIT;
    if (kit_mul_overflow(blocks, refused, &memory) || kit_add_overflow(memory, used, &memory) ||
        memory > REQUEST_MAX)
        return;
    out->memory = memory + refused + sizeof(struct tlsf) + sizeof(struct region) +
                  (size_t)4 * UNIT + (tlsf_class(memory * 2) + 1) * sizeof(struct block *);
}
