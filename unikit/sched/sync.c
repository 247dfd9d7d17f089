/* SPDX-License-Identifier: MIT */
/* Mutex, condition and semaphore over block() and wake() alone, so they work on any scheduler with
 * threads. A waiter lives on its task's stack, in the object's FIFO. Whoever serves it takes it out
 * of the queue and marks it `served` before the wake: what was given can neither be lost nor taken
 * by a task that comes later, and a waiter whose deadline passes takes itself out.
 *
 * block() may return for a wake that was meant for something else; so every wait looks at `served`.
 * Who waits for a mutex depends on its owner (sched.h), so a policy with priorities inherits them.
 * Cost: every operation O(1), a broadcast O(waiters), and so an unlock under a policy that
 * inherits; no memory but 32 bytes of stack per waiter.
 */
#include <unikit/rt/assert.h>
#include <unikit/sched/sync.h>

struct kit_waiter {
    struct kit_waiter *next;
    struct kit_waiter *previous;
    struct kit_task *task;
    bool served;
};

static void waiters_add(struct kit_waiters *waiters, struct kit_waiter *waiter)
{
    waiter->next = NULL;
    waiter->previous = waiters->last;
    if (waiters->last != NULL)
        waiters->last->next = waiter;
    else
        waiters->first = waiter;
    waiters->last = waiter;
}

static void waiters_remove(struct kit_waiters *waiters, struct kit_waiter *waiter)
{
    if (waiter->previous != NULL)
        waiter->previous->next = waiter->next;
    else
        waiters->first = waiter->next;
    if (waiter->next != NULL)
        waiter->next->previous = waiter->previous;
    else
        waiters->last = waiter->previous;
}

/* Serves the first waiter; its task, or NULL if there is none. */
static struct kit_task *waiters_serve(struct kit_sched *s, struct kit_waiters *waiters)
{
    struct kit_waiter *waiter = waiters->first;
    if (waiter == NULL)
        return NULL;
    struct kit_task *task = waiter->task; /* the waiter may be gone after the wake */
    waiters_remove(waiters, waiter);
    waiter->served = true;
    kit_sched_wake(s, task);
    return task;
}

/* Sleeps until `waiter`, which is in the queue, is served. 0 or block()'s error. */
static int waiters_sleep(struct kit_sched *s, struct kit_waiters *waiters,
                         struct kit_waiter *waiter, uint64_t deadline_ns)
{
    int rc = 0;
    while (!waiter->served && rc == 0)
        rc = kit_sched_block(s, deadline_ns);
    if (waiter->served)
        return 0;
    waiters_remove(waiters, waiter);
    return rc;
}

static int waiters_wait(struct kit_sched *s, struct kit_waiters *waiters, struct kit_task *self,
                        uint64_t deadline_ns)
{
    struct kit_waiter waiter = {.task = self};
    waiters_add(waiters, &waiter);
    return waiters_sleep(s, waiters, &waiter, deadline_ns);
}

int kit_mutex_lock(struct kit_sched *s, struct kit_mutex *mutex, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    KIT_ASSERT(mutex->owner != self);
    if (mutex->owner != NULL) {
        kit_sched_depend(s, self, mutex->owner);
        int rc = waiters_wait(s, &mutex->waiters, self, deadline_ns);
        if (rc != 0)
            kit_sched_depend(s, self, NULL);
        return rc;
    }
    mutex->owner = self;
    return 0;
}

int kit_mutex_trylock(struct kit_sched *s, struct kit_mutex *mutex)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    if (mutex->owner != NULL)
        return KIT_EAGAIN;
    mutex->owner = self;
    return 0;
}

void kit_mutex_unlock(struct kit_sched *s, struct kit_mutex *mutex)
{
    KIT_INSIDE;
    KIT_ASSERT(mutex->owner != NULL && mutex->owner == kit_sched_current(s));
    struct kit_task *next = waiters_serve(s, &mutex->waiters);
    mutex->owner = next;
    if (next == NULL)
        return;
    kit_sched_depend(s, next, NULL); /* it waits no longer; the others now wait for it */
    for (struct kit_waiter *waiter = mutex->waiters.first; waiter; waiter = waiter->next)
        kit_sched_depend(s, waiter->task, next);
}

int kit_condition_wait(struct kit_sched *s, struct kit_condition *condition,
                       struct kit_mutex *mutex, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_waiter waiter = {.task = kit_sched_current(s)};
    if (waiter.task == NULL)
        return KIT_ENOTSUP;
    waiters_add(&condition->waiters, &waiter); /* before the unlock: no signal in between is lost */
    kit_mutex_unlock(s, mutex);
    int rc = waiters_sleep(s, &condition->waiters, &waiter, deadline_ns);
    int locked = kit_mutex_lock(s, mutex, KIT_NEVER);
    KIT_ASSERT(locked == 0);
    return rc;
}

void kit_condition_signal(struct kit_sched *s, struct kit_condition *condition)
{
    KIT_INSIDE;
    waiters_serve(s, &condition->waiters);
}

void kit_condition_broadcast(struct kit_sched *s, struct kit_condition *condition)
{
    KIT_INSIDE;
    while (waiters_serve(s, &condition->waiters) != NULL) {
    }
}

int kit_semaphore_wait(struct kit_sched *s, struct kit_semaphore *semaphore, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    if (semaphore->count == 0)
        return waiters_wait(s, &semaphore->waiters, self, deadline_ns);
    semaphore->count--;
    return 0;
}

void kit_semaphore_post(struct kit_sched *s, struct kit_semaphore *semaphore)
{
    KIT_INSIDE;
    if (waiters_serve(s, &semaphore->waiters) == NULL)
        semaphore->count++;
}
