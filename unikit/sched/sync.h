/* SPDX-License-Identifier: MIT */
/* Mutex, condition and semaphore for tasks with stacks, over block() and wake() of any scheduler.
 * Objects are the caller's memory, zero is their initial state except for a semaphore's count.
 * Waiters are served in order of arrival. Deadlines by env->now_ns; KIT_NEVER: none. Every wait
 * returns 0, KIT_ETIMEDOUT, or KIT_ENOTSUP outside a task. */
#ifndef KIT_SCHED_SYNC_H
#define KIT_SCHED_SYNC_H

#include <unikit/sched/sched.h>

/* cdef: begin */
struct kit_waiters {
    struct kit_waiter *first;
    struct kit_waiter *last;
};

struct kit_mutex {
    struct kit_task *owner;
    struct kit_waiters waiters;
};

struct kit_condition {
    struct kit_waiters waiters;
};

struct kit_semaphore {
    size_t count;
    struct kit_waiters waiters;
};
/* cdef: end */

/* MUST NOT be called by the owner. */
int kit_mutex_lock(struct kit_sched *s, struct kit_mutex *mutex, uint64_t deadline_ns);
/* 0, KIT_EAGAIN, or KIT_ENOTSUP outside a task. */
int kit_mutex_trylock(struct kit_sched *s, struct kit_mutex *mutex);
/* By the owner; hands the mutex to the first waiter. */
void kit_mutex_unlock(struct kit_sched *s, struct kit_mutex *mutex);
/* Unlocks, waits for a signal, locks again (also after a timeout). */
int kit_condition_wait(struct kit_sched *s, struct kit_condition *condition,
                       struct kit_mutex *mutex, uint64_t deadline_ns);
void kit_condition_signal(struct kit_sched *s, struct kit_condition *condition);
void kit_condition_broadcast(struct kit_sched *s, struct kit_condition *condition);
int kit_semaphore_wait(struct kit_sched *s, struct kit_semaphore *semaphore, uint64_t deadline_ns);
/* From a task, work, a timer or a callback. */
void kit_semaphore_post(struct kit_sched *s, struct kit_semaphore *semaphore);

#endif
