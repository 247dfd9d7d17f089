/* SPDX-License-Identifier: MIT */
/* The timer queue of every scheduler: a 4-ary heap ordered by (deadline, order of arming).
 * Inner interface of unikit/sched; a component lists timer.c among its sources. */
#ifndef KIT_SCHED_TIMER_H
#define KIT_SCHED_TIMER_H

#include <unikit/sched/sched.h>

struct timer_slot {
    uint64_t deadline_ns; /* as armed, but not before `now_ns` of the queue at that moment */
    uint64_t order;
    struct kit_timer *timer; /* timer->position is the slot's index + 1 */
};

struct timer_queue {
    struct timer_slot *slots;
    size_t count;
    size_t capacity;
    uint64_t order;  /* of the next timer */
    uint64_t now_ns; /* clock at the last timer_queue_due() */
};

/* Makes room for `spare` more timers. 0 or KIT_ENOMEM. Amortised O(1) per timer. */
int timer_queue_reserve(struct timer_queue *queue, struct kit_alloc *alloc, size_t spare);
void timer_queue_release(struct timer_queue *queue, struct kit_alloc *alloc);
/* (Re)arms; there MUST be room if the timer is not armed. O(log n), O(1) on average for deadlines
 * later than most. */
void timer_queue_arm(struct timer_queue *queue, struct kit_timer *timer, uint64_t deadline_ns);
/* Disarms; false if it was not armed. O(log n). */
bool timer_queue_cancel(struct timer_queue *queue, struct kit_timer *timer);
/* Takes out the first timer that is due at now_ns and was armed before `order`; NULL: none. */
struct kit_timer *timer_queue_due(struct timer_queue *queue, uint64_t now_ns, uint64_t order);
/* 0 or KIT_ECORRUPT. */
int timer_queue_check(const struct timer_queue *queue);

/* Deadline of the first timer, KIT_NEVER without one. O(1). */
KIT_INLINE uint64_t timer_queue_first(const struct timer_queue *queue)
{
    return queue->count == 0 ? KIT_NEVER : queue->slots[0].deadline_ns;
}

#endif
