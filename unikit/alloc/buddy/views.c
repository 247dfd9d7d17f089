/* SPDX-License-Identifier: MIT */
/* Binary buddies: what can be seen from outside, and what is promised. */
#include <unikit/alloc/buddy/buddy.h>

/* Measured in a heap of 1 GiB, with room for the deepest splits and joins of larger ones; see
 * benchmarks/results. */
enum { ALLOC_INSTRUCTIONS = 2500, FREE_INSTRUCTIONS = 4000 };

void buddy_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    const struct buddy *b = buddy_of(a);
    size_t largest = b->orders ? (size_t)1 << kit_fls64(b->orders) : 0;
    for (unsigned order = GRAIN_BITS; order < ORDERS; order++) {
        size_t slot = (size_t)1 << order;
        uintptr_t start = kit_align_up(b->frontier, slot);
        size_t room = start < b->frontier || start > b->limit ? 0 : b->limit - start;
        size_t most = slot < room ? slot : room;
        largest = largest > most ? largest : most;
    }
    *out = (struct kit_alloc_stats){
        .capacity = b->limit - b->start,
        .used = b->used,
        .peak = b->peak,
        .blocks = (size_t)(b->allocations - b->frees),
        .largest_free = largest,
        .allocations = b->allocations,
        .frees = b->frees,
        .failures = b->failures,
    };
}

/* Whether a free slot is as it must be. */
static bool buddy_check_slot(const struct buddy *b, uintptr_t at)
{
    const struct slot *slot = slot_at(at);
    if (slot->order < GRAIN_BITS || slot->order >= ORDERS || !(b->orders >> slot->order & 1) ||
        *slot->link != slot || (slot->next && slot->next->link != &slot->next))
        return false;
    size_t size = (size_t)1 << slot->order;
    uintptr_t other = at ^ size;
    return !(at & (size - 1)) && size <= b->frontier - at && other != b->frontier &&
           !buddy_has(b, other, (unsigned)slot->order);
}

static bool buddy_check_lists(const struct buddy *b, size_t expected)
{
    for (unsigned order = 0; order < ORDERS; order++) {
        if (!(b->orders >> order & 1))
            continue;
        if (!b->heads[order] || b->heads[order]->link != &b->heads[order])
            return false;
        for (const struct slot *slot = b->heads[order]; slot; slot = slot->next)
            if (expected-- == 0 || slot->order != order)
                return false;
    }
    return expected == 0;
}

int buddy_check(const struct kit_alloc *a)
{
    const struct buddy *b = buddy_of(a);
    size_t blocks = 0, bytes = 0, slots = 0, size;
    for (uintptr_t at = b->start; at != b->frontier; at += size) {
        if (at > b->frontier)
            return KIT_ECORRUPT;
        if (buddy_is_free(b, at)) {
            if (!buddy_check_slot(b, at))
                return KIT_ECORRUPT;
            size = (size_t)1 << slot_at(at)->order;
            slots++;
            continue;
        }
        if (!(buddy_word(b, at)->used & grain_bit(at)))
            return KIT_ECORRUPT;
        size = buddy_size(b, at);
        if (!size || size % GRAIN || at & (((size_t)1 << order_of(size)) - 1))
            return KIT_ECORRUPT;
        blocks++;
        bytes += size;
    }
    bool sound = buddy_check_lists(b, slots) && bytes == b->used && b->used <= b->peak &&
                 blocks == b->allocations - b->frees && b->frontier <= b->limit;
    return sound ? 0 : KIT_ECORRUPT;
}

int buddy_walk(const struct kit_alloc *a,
               int (*visit)(void *argument, void *block, size_t size, bool used), void *argument)
{
    const struct buddy *b = buddy_of(a);
    for (uintptr_t at = b->start; at < b->frontier;) {
        bool is_free = buddy_is_free(b, at);
        size_t size = is_free ? (size_t)1 << slot_at(at)->order : buddy_size(b, at);
        int stop = visit(argument, (void *)at, size, !is_free);
        if (stop)
            return stop;
        at += size;
    }
    size_t rest = b->limit - b->frontier;
    return rest ? visit(argument, (void *)b->frontier, rest, false) : 0;
}

static int buddy_is_it(void *argument, void *block, size_t size, bool used)
{
    return (void)size, used && block == argument;
}

bool buddy_owns(const struct kit_alloc *a, const void *block)
{
    return buddy_walk(a, buddy_is_it, (void *)(uintptr_t)block);
}

/* Let m be the bytes of all slots in use at most, at most twice what was asked for, and call a slot
 * of 2^j taken if anything in it is in use. A request of 2^i breaks into a wholly free slot of 2^j,
 * i < j, only if there is no free slot between the two sizes, so that all slots of 2^i within taken
 * slots of 2^j are taken: then those that hold only smaller blocks are no more than the most slots
 * of 2^(j-1) ever taken. With those in use by blocks of 2^j and more, the most of 2^j is the most
 * of 2^(j-1) and m and one slot; for the largest of 2^k, m (k - 4) + 2^(k+1) in all, and when one
 * is refused all are taken. Besides, a slot may be lost at either end, and one is asked for. */
void buddy_bounds(const uint64_t *options, size_t live, size_t largest,
                  struct kit_alloc_bounds *out)
{
    *out = (struct kit_alloc_bounds){.alloc_instructions = ALLOC_INSTRUCTIONS,
                                     .free_instructions = FREE_INSTRUCTIONS};
    size_t memory, slots;
    if (options[OPTION_EXACT] || largest > REQUEST_MAX / 16)
        return;
    unsigned order = order_of(round_to_grains(largest));
    slots = (size_t)5 << order;
    if (kit_mul_overflow(live, (size_t)2 * (order - GRAIN_BITS + 1), &memory) ||
        kit_add_overflow(memory, slots, &memory) || memory > REQUEST_MAX)
        return;
    out->memory = memory + (memory / STRETCH + 4) * sizeof(struct word) + sizeof(struct buddy) +
                  (size_t)2 * STRETCH;
}
