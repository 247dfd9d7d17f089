/* SPDX-License-Identifier: MIT */
/* What every scheduler has besides its tasks: deferred work, timers, counters. Inner interface of
 * unikit/sched; a component lists events.c and timer.c among its sources and starts its own state
 * with a struct events, so that the functions that take a struct kit_sched are ops as they are. */
#ifndef KIT_SCHED_EVENTS_H
#define KIT_SCHED_EVENTS_H

#include <unikit/sched/timer.h>

struct events {
    struct kit_sched base;
    runtime_environment_t *env;
    struct kit_alloc *alloc;
    struct timer_queue timers;
    struct kit_list work;  /* for the next turn */
    struct kit_list batch; /* of this turn, not yet run */
    size_t queued;         /* in both */
    /* Set by events_reserve: an image that never calls it does not carry the timer queue. */
    bool (*run_timers)(struct events *events);
    bool turning;
    struct kit_sched_stats stats; /* what is counted, not what is looked up */
};

void events_open(struct events *events, runtime_environment_t *env, struct kit_alloc *alloc);
void events_close(struct events *events);
/* A turn begins: what is queued now is what it runs. Panics inside another turn. */
void events_begin(struct events *events);
/* Runs the timers that are due and the work of this turn; whether there was any. */
bool events_run(struct events *events);
/* A turn ends; `any`: it found something to do. Returns it. */
bool events_end(struct events *events, bool any);
/* When there is something to do: 0, a deadline or KIT_NEVER. */
uint64_t events_deadline_ns(const struct events *events);
/* Makes room for any number of timers, so that a task can always sleep. 0 or KIT_ENOMEM. O(1). */
int events_reserve(struct events *events);
int events_check(const struct events *events);

void events_post(struct kit_sched *s, struct kit_work *work);
bool events_cancel_work(struct kit_sched *s, struct kit_work *work);
int events_arm(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns);
bool events_cancel(struct kit_sched *s, struct kit_timer *timer);

KIT_INLINE struct events *events_of(struct kit_sched *s)
{
    return KIT_CONTAINER_OF(s, struct events, base);
}

#endif
