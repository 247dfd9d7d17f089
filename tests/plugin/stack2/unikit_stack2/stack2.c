/* SPDX-License-Identifier: MIT */
/* Two stacks that grow towards each other; all is free again when the last block is.
 *
 *     | struct stack2 | small | small |  ->    free    <-  | large | large |
 *                     ^start          ^low                 ^high           ^end */
#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>

enum { OPTION_LARGE }; /* in the order of the Python record's fields */

struct stack2 {
    struct kit_alloc alloc; /* first: a kit_alloc * is a struct stack2 * */
    uintptr_t start, low, high, end;
    size_t large, peak;
    uint64_t allocations, frees, failures;
};

static size_t stack2_round(size_t size)
{
    return size ? kit_align_up(size, KIT_ALLOC_ALIGN_MIN) : KIT_ALLOC_ALIGN_MIN;
}

static void *stack2_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct stack2 *s = (struct stack2 *)a;
    align = align > KIT_ALLOC_ALIGN_MIN ? align : KIT_ALLOC_ALIGN_MIN;
    bool above = size >= s->large;
    size_t room = s->high - s->low;
    if (size <= room) {
        size = stack2_round(size);
        size_t below_gap = (0 - s->low) & (align - 1), above_gap = (s->high - size) & (align - 1);
        size_t gap = above ? above_gap : below_gap;
        if (gap <= room && size <= room - gap) {
            uintptr_t block = above ? s->high - size - gap : s->low + gap;
            if (above)
                s->high = block;
            else
                s->low = block + size;
            size_t used = s->low - s->start + (s->end - s->high);
            s->peak = s->peak > used ? s->peak : used;
            s->allocations++;
            return (void *)block;
        }
    }
    s->failures++;
    return NULL;
}

static void stack2_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)align;
    struct stack2 *s = (struct stack2 *)a;
    uintptr_t place = (uintptr_t)block;
    if (!block)
        return;
    s->frees++;
    if (s->frees == s->allocations) { /* the last one: both stacks are empty */
        s->low = s->start;
        s->high = s->end;
    } else if (place == s->high) {
        s->high += stack2_round(size);
    } else if (place + stack2_round(size) == s->low) {
        s->low = place;
    }
}

static void *stack2_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                            size_t align)
{
    size_t room = stack2_round(old_size);
    if (block && new_size <= room && stack2_round(new_size) == room)
        return block;
    void *fresh = stack2_alloc(a, new_size, align);
    if (fresh && block) {
        memcpy(fresh, block, old_size < new_size ? old_size : new_size);
        stack2_free(a, block, old_size, align);
    }
    return fresh;
}

static size_t stack2_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)a, (void)block;
    return stack2_round(size);
}

static void stack2_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct stack2 *s = (const struct stack2 *)a;
    *out = (struct kit_alloc_stats){
        .capacity = s->end - s->start,
        .used = s->low - s->start + (s->end - s->high),
        .peak = s->peak,
        .blocks = s->allocations - s->frees,
        .largest_free = s->high - s->low,
        .allocations = s->allocations,
        .frees = s->frees,
        .failures = s->failures,
    };
}

static int stack2_check(const struct kit_alloc *a)
{
    const struct stack2 *s = (const struct stack2 *)a;
    bool sound = s->start <= s->low && s->low <= s->high && s->high <= s->end &&
                 s->frees <= s->allocations && s->peak <= s->end - s->start;
    return sound ? 0 : KIT_ECORRUPT;
}

static const struct kit_alloc_ops stack2_ops = {
    .alloc = stack2_alloc,
    .free = stack2_free,
    .realloc = stack2_realloc,
    .usable_size = stack2_usable_size,
    .stats = stack2_stats,
    .check = stack2_check,
};

static int stack2_open(const uint64_t *options, void *memory, size_t size, struct kit_alloc **out)
{
    uintptr_t base = kit_align_up((uintptr_t)memory, KIT_ALLOC_ALIGN_MIN);
    uintptr_t start = kit_align_up(base + sizeof(struct stack2), KIT_ALLOC_ALIGN_MIN);
    uintptr_t end = kit_align_down((uintptr_t)memory + size, KIT_ALLOC_ALIGN_MIN);
    if (start >= end)
        return KIT_ENOMEM;
    struct stack2 *s = (void *)base;
    *s = (struct stack2){
        .start = start, .low = start, .high = end, .end = end, .large = options[OPTION_LARGE]};
    KIT_ALLOC_BIND(&s->alloc, &stack2_ops);
    *out = &s->alloc;
    return 0;
}

const struct kit_alloc_component kit_alloc_stack2 = {
    .id = "alloc.stack2",
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED,
    .ops = &stack2_ops,
    .open = stack2_open,
};
