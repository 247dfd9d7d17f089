/* SPDX-License-Identifier: MIT */
/* The timer queue of every scheduler: a hierarchical wheel with exact deadlines.
 * Inner interface of unikit/sched; a component lists timer.c among its sources. */
#ifndef KIT_SCHED_TIMER_H
#define KIT_SCHED_TIMER_H

#include <unikit/sched/sched.h>

enum { TIMER_BITS = 5, TIMER_SLOTS = 1 << TIMER_BITS };
enum { TIMER_LEVELS = (64 + TIMER_BITS - 1) / TIMER_BITS };
enum { TIMER_DUE = TIMER_LEVELS * TIMER_SLOTS }; /* the slot of those that are due in this turn */

struct timer_slot {
    struct kit_timer *last; /* of a circle in order of arming; NULL: empty */
    uint64_t first_ns;      /* the earliest deadline; 0: not known */
};

struct timer_wheel {
    uint32_t levels;               /* bit per level that has a timer */
    uint32_t filled[TIMER_LEVELS]; /* bit per slot */
    struct timer_slot slots[TIMER_DUE + 1];
};

struct timer_queue {
    struct timer_wheel *wheel; /* NULL until the first timer */
    uint64_t now_ns;           /* clock at the last timer_queue_collect() */
    size_t count;
};

/* Makes room for any number of timers. 0 or KIT_ENOMEM. */
int timer_queue_reserve(struct timer_queue *queue, struct kit_alloc *alloc);
void timer_queue_release(struct timer_queue *queue, struct kit_alloc *alloc);
/* (Re)arms; room MUST have been made. O(1). */
void timer_queue_arm(struct timer_queue *queue, struct kit_timer *timer, uint64_t deadline_ns);
/* Disarms; false if it was not armed. O(1). */
bool timer_queue_cancel(struct timer_queue *queue, struct kit_timer *timer);
/* The clock says now_ns: sets the timers that are due aside. Returns whether timer_queue_first()
 * had come. O(timers that are due) amortised: each timer moves at most TIMER_LEVELS times before
 * it is due. */
bool timer_queue_collect(struct timer_queue *queue, uint64_t now_ns);
/* Takes out the next of those set aside, in order of deadlines, then of arming; NULL: none. */
struct kit_timer *timer_queue_due(struct timer_queue *queue);
/* 0 or KIT_ECORRUPT. */
int timer_queue_check(const struct timer_queue *queue);
/* timer_queue_first() for a queue that is not empty. */
uint64_t timer_queue_look(const struct timer_queue *queue);

/* Deadline of the first timer, KIT_NEVER without one. Where that is not known and among too many to
 * look for it: the time when a slot with it begins, which is earlier, and from which on more is
 * known. O(1). */
KIT_INLINE uint64_t timer_queue_first(const struct timer_queue *queue)
{
    return queue->count == 0 ? KIT_NEVER : timer_queue_look(queue);
}

#endif
