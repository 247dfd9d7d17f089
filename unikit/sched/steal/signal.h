/* SPDX-License-Identifier: MIT */
/* How a task waits for an event and is found by whoever has it: one word per task.
 *
 * A task that is going to wait still stands on its stack, and nobody may run it before it has left.
 * So it does not say that it waits; the processor that it left says so, from its next context
 * (signal_wait), when everything is saved. What came meanwhile lies in the word, and then the task
 * does not wait at all. Each of send, expire and wait is one exchange of the word, and exactly one
 * of them finds the task waiting: that one, and nobody else, makes it ready.
 *
 * An event stays until the task takes it: a wake that comes before its block is a permit for it.
 * signal_send writes the word even if the event is there already: what the sender wrote before must
 * be seen by the task that takes the event afterwards, and a mere look would not order that. */
#ifndef KIT_SCHED_STEAL_SIGNAL_H
#define KIT_SCHED_STEAL_SIGNAL_H

#include <unikit/sched/steal/atomic.h>

enum {
    SIGNAL_WAKE = 1,    /* wake() */
    SIGNAL_END = 2,     /* the task that it joins has ended */
    SIGNAL_EXPIRED = 4, /* its deadline has passed */
    SIGNAL_WAITS = 3    /* an event, shifted left by this: the task waits for it */
};

/* Whether the task waited for the event, and is now the caller's to make ready. */
KIT_INLINE bool signal_send(uint32_t *word, uint32_t event)
{
    uint32_t waits = event << SIGNAL_WAITS;
    uint32_t old = STEAL_LOAD(word, RELAXED);
    while (!STEAL_CAS(word, &old, (old | event) & ~waits, ACQ_REL)) {
    }
    return (old & waits) != 0;
}

/* The same for its deadline, which ends any wait. */
KIT_INLINE bool signal_expire(uint32_t *word)
{
    uint32_t waits = (SIGNAL_WAKE | SIGNAL_END) << SIGNAL_WAITS;
    uint32_t old = STEAL_LOAD(word, RELAXED);
    while (!STEAL_CAS(word, &old, (old | SIGNAL_EXPIRED) & ~waits, ACQ_REL)) {
    }
    return (old & waits) != 0;
}

/* By the processor that the task has left: it waits from now on; false: what it waits for is there,
 * and it is the caller's to make ready. */
KIT_INLINE bool signal_wait(uint32_t *word, uint32_t event)
{
    uint32_t old = STEAL_LOAD(word, RELAXED);
    do
        if (old & (event | SIGNAL_EXPIRED))
            return false;
    while (!STEAL_CAS(word, &old, old | event << SIGNAL_WAITS, ACQ_REL));
    return true;
}

/* By the task itself. */
KIT_INLINE bool signal_there(const uint32_t *word, uint32_t event)
{
    return (STEAL_LOAD(word, RELAXED) & event) != 0;
}

/* By the task itself, when it runs again and no timer of it is armed: takes the event if it is
 * there, and forgets the deadline. */
KIT_INLINE bool signal_take(uint32_t *word, uint32_t event)
{
    return (STEAL_AND(word, ~(event | SIGNAL_EXPIRED), ACQ_REL) & event) != 0;
}

#endif
