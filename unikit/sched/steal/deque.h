/* SPDX-License-Identifier: MIT */
/* The queue of tasks that may run anywhere: one per processor, its owner works at the bottom, other
 * processors steal from the top (Chase, Lev, «Dynamic circular work-stealing deque», SPAA 2005;
 * memory orders after Lê, Pop, Cohen, Zappa Nardelli, «Correct and efficient work-stealing for weak
 * memory models», PPoPP 2013).
 *
 *           top                 bottom
 *     ...... | t | t+1 | ... | b-1 | ........      index modulo the size
 *            thieves ->      <- owner
 *
 * Where theirs has a store and then a full fence, this has an exchange, which is both on x86 and
 * which race detectors understand; and every store to `bottom` releases. The array is bounded and
 * never moves: push() refuses when it is full, and the task goes into a list (overflow.h). So
 * making a task ready never asks for memory, and no thief ever looks at an array that is gone.
 *
 * Invariants: top never falls; top <= bottom except inside deque_take_last; the owner alone writes
 * bottom and slots; whoever moves top from t to t + 1, or finds top < bottom - 1 after lowering
 * bottom, has the task, and nobody else. Indices start at 1, so that bottom - 1 does not wrap.
 * Cost: push two stores; take and steal one locked instruction. */
#ifndef KIT_SCHED_STEAL_DEQUE_H
#define KIT_SCHED_STEAL_DEQUE_H

#include <unikit/sched/sched.h>
#include <unikit/sched/steal/atomic.h>

enum { STEAL_LINE = 64 };

struct steal_deque {
    alignas(STEAL_LINE) uint64_t top;
    alignas(STEAL_LINE) uint64_t bottom;
    uint64_t mask; /* slots - 1 */
    struct kit_task **slots;
};

/* `slots` has `count` elements, a power of two. */
KIT_INLINE void deque_open(struct steal_deque *deque, struct kit_task **slots, uint64_t count)
{
    *deque = (struct steal_deque){.top = 1, .bottom = 1, .mask = count - 1, .slots = slots};
}

/* By its owner alone: false if it is full. */
KIT_INLINE bool deque_push(struct steal_deque *deque, struct kit_task *task)
{
    uint64_t bottom = STEAL_LOAD(&deque->bottom, RELAXED);
    uint64_t top = STEAL_LOAD(&deque->top, ACQUIRE);
    if (bottom - top > deque->mask)
        return false;
    STEAL_STORE(&deque->slots[bottom & deque->mask], task, RELAXED);
    STEAL_STORE(&deque->bottom, bottom + 1, RELEASE);
    return true;
}

/* By its owner alone: the task pushed last; NULL if there is none. */
KIT_INLINE struct kit_task *deque_take_last(struct steal_deque *deque)
{
    uint64_t bottom = STEAL_LOAD(&deque->bottom, RELAXED);
    if (STEAL_LOAD(&deque->top, RELAXED) >= bottom)
        return NULL;
    bottom--;
    (void)STEAL_SWAP(&deque->bottom, bottom, SEQ_CST); /* before top is looked at */
    uint64_t top = STEAL_LOAD(&deque->top, SEQ_CST);
    struct kit_task *task = NULL;
    if (top <= bottom)
        task = STEAL_LOAD(&deque->slots[bottom & deque->mask], RELAXED);
    if (top < bottom)
        return task;
    if (top == bottom && !STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST))
        task = NULL; /* a thief was faster */
    STEAL_STORE(&deque->bottom, bottom + 1, RELEASE);
    return task;
}

/* Takes the oldest task. 1 and *out; 0: there is none; -1: somebody else took it. */
KIT_INLINE int deque_steal(struct steal_deque *deque, struct kit_task **out)
{
    uint64_t top = STEAL_LOAD(&deque->top, SEQ_CST);
    uint64_t bottom = STEAL_LOAD(&deque->bottom, SEQ_CST); /* after top */
    if (top >= bottom)
        return 0;
    /* Before the exchange: afterwards the owner may use the slot again. */
    *out = STEAL_LOAD(&deque->slots[top & deque->mask], RELAXED);
    return STEAL_CAS(&deque->top, &top, top + 1, SEQ_CST) ? 1 : -1;
}

/* By its owner alone: the oldest task; NULL if there is none. Ends when thieves end. */
KIT_INLINE struct kit_task *deque_take_first(struct steal_deque *deque)
{
    struct kit_task *task = NULL;
    int got;
    do
        got = deque_steal(deque, &task);
    while (got < 0);
    return got > 0 ? task : NULL;
}

/* Tasks in it at some moment during the call. */
KIT_INLINE size_t deque_count(const struct steal_deque *deque)
{
    uint64_t top = STEAL_LOAD(&deque->top, SEQ_CST);
    uint64_t bottom = STEAL_LOAD(&deque->bottom, SEQ_CST);
    return bottom > top ? (size_t)(bottom - top) : 0;
}

#endif
