/* SPDX-License-Identifier: MIT */
/* Timers in a 4-ary heap (D. B. Johnson, «Priority queues with update and finding minimum spanning
 * trees», 1975: d-heaps). Four children of 24 bytes share two cache lines, so a heap of 100,000
 * timers is nine levels deep; keys lie in the heap, and only a timer that moves is touched.
 *
 * Invariants: no slot is before its parent by (deadline_ns, order); slots[i].timer->position is
 * i + 1. Equal deadlines fire in order of arming. A deadline that has passed counts as the clock of
 * the last turn: a timer that arms itself again for the past comes behind all that are due, and
 * cannot starve them.
 *
 * Cost: arm and cancel O(log n), first O(1); 24 bytes per timer, taken by doubling and kept until
 * close. */
#include <unikit/rt/assert.h>
#include <unikit/rt/bits.h>
#include <unikit/sched/timer.h>

enum { TIMER_CHILDREN = 4, TIMER_FIRST_CAPACITY = 16 };

int timer_queue_reserve(struct timer_queue *queue, struct kit_alloc *alloc, size_t spare)
{
    size_t capacity = queue->capacity != 0 ? queue->capacity : TIMER_FIRST_CAPACITY;
    size_t bytes;
    if (spare <= queue->capacity - queue->count)
        return 0;
    while (capacity - queue->count < spare)
        if (kit_mul_overflow(capacity, 2, &capacity))
            return KIT_ENOMEM;
    if (kit_mul_overflow(capacity, sizeof(struct timer_slot), &bytes))
        return KIT_ENOMEM;
    struct timer_slot *slots =
        kit_alloc_realloc(alloc, queue->slots, queue->capacity * sizeof(struct timer_slot), bytes,
                          alignof(struct timer_slot));
    if (slots == NULL)
        return KIT_ENOMEM;
    queue->slots = slots;
    queue->capacity = capacity;
    return 0;
}

void timer_queue_release(struct timer_queue *queue, struct kit_alloc *alloc)
{
    kit_alloc_free(alloc, queue->slots, queue->capacity * sizeof(struct timer_slot),
                   alignof(struct timer_slot));
}

static bool timer_before(const struct timer_slot *a, const struct timer_slot *b)
{
    return a->deadline_ns < b->deadline_ns ||
           (a->deadline_ns == b->deadline_ns && a->order < b->order);
}

static void timer_put(struct timer_queue *queue, size_t index, struct timer_slot slot)
{
    queue->slots[index] = slot;
    slot.timer->position = index + 1;
}

static void timer_sift_up(struct timer_queue *queue, size_t index, struct timer_slot slot)
{
    while (index > 0) {
        size_t parent = (index - 1) / TIMER_CHILDREN;
        if (!timer_before(&slot, &queue->slots[parent]))
            break;
        timer_put(queue, index, queue->slots[parent]);
        index = parent;
    }
    timer_put(queue, index, slot);
}

static void timer_sift_down(struct timer_queue *queue, size_t index, struct timer_slot slot)
{
    for (;;) {
        size_t child = index * TIMER_CHILDREN + 1;
        size_t end = child + TIMER_CHILDREN < queue->count ? child + TIMER_CHILDREN : queue->count;
        size_t best = child;
        if (child >= queue->count)
            break;
        for (size_t other = child + 1; other < end; other++)
            if (timer_before(&queue->slots[other], &queue->slots[best]))
                best = other;
        if (!timer_before(&queue->slots[best], &slot))
            break;
        timer_put(queue, index, queue->slots[best]);
        index = best;
    }
    timer_put(queue, index, slot);
}

/* Puts a slot where its key belongs, starting from a free place. */
static void timer_settle(struct timer_queue *queue, size_t index, struct timer_slot slot)
{
    if (index > 0 && timer_before(&slot, &queue->slots[(index - 1) / TIMER_CHILDREN]))
        timer_sift_up(queue, index, slot);
    else
        timer_sift_down(queue, index, slot);
}

void timer_queue_arm(struct timer_queue *queue, struct kit_timer *timer, uint64_t deadline_ns)
{
    struct timer_slot slot = {deadline_ns > queue->now_ns ? deadline_ns : queue->now_ns,
                              queue->order++, timer};
    timer->deadline_ns = deadline_ns;
    if (timer->position != 0) {
        timer_settle(queue, timer->position - 1, slot);
        return;
    }
    KIT_ASSERT(queue->count < queue->capacity);
    timer_sift_up(queue, queue->count++, slot);
}

bool timer_queue_cancel(struct timer_queue *queue, struct kit_timer *timer)
{
    if (timer->position == 0)
        return false;
    size_t index = timer->position - 1;
    KIT_ASSERT(index < queue->count && queue->slots[index].timer == timer);
    timer->position = 0;
    queue->count--;
    if (index != queue->count)
        timer_settle(queue, index, queue->slots[queue->count]);
    return true;
}

struct kit_timer *timer_queue_due(struct timer_queue *queue, uint64_t now_ns, uint64_t order)
{
    queue->now_ns = now_ns;
    if (queue->count == 0 || queue->slots[0].deadline_ns > now_ns || queue->slots[0].order >= order)
        return NULL;
    struct kit_timer *timer = queue->slots[0].timer;
    timer_queue_cancel(queue, timer);
    return timer;
}

int timer_queue_check(const struct timer_queue *queue)
{
    if (queue->count > queue->capacity)
        return KIT_ECORRUPT;
    for (size_t i = 0; i < queue->count; i++) {
        const struct timer_slot *slot = &queue->slots[i];
        if (slot->timer == NULL || slot->timer->position != i + 1 || slot->order >= queue->order ||
            slot->deadline_ns < slot->timer->deadline_ns)
            return KIT_ECORRUPT;
        if (i > 0 && timer_before(slot, &queue->slots[(i - 1) / TIMER_CHILDREN]))
            return KIT_ECORRUPT;
    }
    return 0;
}
