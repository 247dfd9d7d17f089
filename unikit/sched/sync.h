/* SPDX-License-Identifier: MIT */
/* Synchronisation of tasks with stacks, over block() and wake() of any scheduler: mutex, condition,
 * semaphore, event, once, bounded queue, reader/writer lock, and waiting for any of several.
 * Objects are the caller's memory; zero is their initial state, except for a semaphore's count and
 * for queues. Each has a lock of its own, so they serve several processors. Waiters are served in
 * order of arrival. Deadlines by env->now_ns; KIT_NEVER: none. Every wait returns 0,
 * KIT_ETIMEDOUT, or KIT_ENOTSUP outside a task, if nothing else is said. */
#ifndef KIT_SCHED_SYNC_H
#define KIT_SCHED_SYNC_H

#include <unikit/rt/x86_64/spin.h>
#include <unikit/sched/sched.h>

/* cdef: begin */
struct kit_waiter;

struct kit_waiters {
    struct kit_waiter *first;
    struct kit_waiter *last;
};

struct kit_mutex {
    struct kit_task *owner;
    struct kit_waiters waiters;
    struct kit_spin spin;
};

struct kit_condition {
    struct kit_waiters waiters;
    struct kit_spin spin;
};

struct kit_semaphore {
    size_t count;
    struct kit_waiters waiters;
    struct kit_spin spin;
};

struct kit_event {
    struct kit_waiters waiters;
    struct kit_spin spin;
    bool set;
    bool automatic; /* one wait takes it back; else it stays until kit_event_clear */
};

struct kit_once {
    struct kit_task *runner;
    struct kit_waiters waiters;
    struct kit_spin spin;
    uint32_t state;
};

struct kit_queue {
    uint8_t *items;
    size_t item_size;
    size_t capacity;
    size_t first; /* index of the oldest item */
    size_t count;
    struct kit_waiters receivers;
    struct kit_waiters senders;
    struct kit_spin spin;
    bool closed;
};

struct kit_rwlock {
    struct kit_task *writer;
    size_t readers;
    struct kit_waiters waiters;
    struct kit_spin spin;
};

enum kit_wait_kind {
    KIT_WAIT_EVENT,
    KIT_WAIT_SEMAPHORE,
    KIT_WAIT_RECEIVE, /* object: a queue, item: where to */
    KIT_WAIT_SEND,    /* object: a queue, item: what */
    KIT_WAIT_TASK,    /* object: a task, until it has ended; MUST be joined afterwards */
    /* the rest are for reports alone, not for kit_wait_any */
    KIT_WAIT_MUTEX,
    KIT_WAIT_CONDITION,
    KIT_WAIT_ONCE,
    KIT_WAIT_READ,
    KIT_WAIT_WRITE
};

struct kit_waiter {
    struct kit_waiter *next;
    struct kit_waiter *previous;
    struct kit_wait *wait;
    bool queued;
};

/* One of the things that a task waits for. */
struct kit_choice {
    uint32_t kind; /* enum kit_wait_kind */
    int rc;        /* of the one that happened: 0, or KIT_ECLOSED of a queue */
    void *object;
    void *item;
    struct kit_waiter waiter; /* inner */
};

/* What a task waits for: what kit_sched_note tells. */
struct kit_wait {
    struct kit_task *task;
    struct kit_choice *choices;
    uint32_t count;
    int32_t chosen; /* inner */
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

int kit_event_wait(struct kit_sched *s, struct kit_event *event, uint64_t deadline_ns);
/* From anywhere. Wakes everybody; an automatic event one, or the next to come. */
void kit_event_set(struct kit_sched *s, struct kit_event *event);
void kit_event_clear(struct kit_sched *s, struct kit_event *event);

/* Calls function(argument) in the first call for this object; the others return when it has
 * returned. 0, or KIT_ENOTSUP: another one runs it, and the caller cannot wait. */
int kit_once_run(struct kit_sched *s, struct kit_once *once, void (*function)(void *argument),
                 void *argument);

/* `memory` has room for `capacity` >= 1 items of `item_size` bytes, and stays the caller's. */
void kit_queue_open(struct kit_queue *queue, void *memory, size_t item_size, size_t capacity);
/* Copy one item in or out, in order. A deadline of 0 does not wait. KIT_ECLOSED: closed, and for
 * receive: also empty. Outside a task as with a deadline of 0, but KIT_ENOTSUP. */
int kit_queue_send(struct kit_sched *s, struct kit_queue *queue, const void *item,
                   uint64_t deadline_ns);
int kit_queue_receive(struct kit_sched *s, struct kit_queue *queue, void *item,
                      uint64_t deadline_ns);
/* Ends all waits for it with KIT_ECLOSED. What is in it can still be received. */
void kit_queue_close(struct kit_sched *s, struct kit_queue *queue);

/* Any number of readers or one writer; who comes behind a waiting writer waits, too. */
int kit_rwlock_read(struct kit_sched *s, struct kit_rwlock *lock, uint64_t deadline_ns);
int kit_rwlock_write(struct kit_sched *s, struct kit_rwlock *lock, uint64_t deadline_ns);
void kit_rwlock_unlock(struct kit_sched *s, struct kit_rwlock *lock);

/* Waits until one of the choices can be had, and takes that one alone: the first in the array if
 * there are several. Its index (its rc says how it ended); KIT_ETIMEDOUT; KIT_ENOTSUP outside a
 * task if none can be had at once. A deadline of 0 does not wait. The rest of a choice is the
 * wait's until it returns. O(count). */
int kit_wait_any(struct kit_sched *s, struct kit_choice *choices, uint32_t count,
                 uint64_t deadline_ns);

#endif
