/* SPDX-License-Identifier: MIT */
/* Where tasks that may run anywhere wait while the deque of their processor is full: a list under a
 * spin lock, from which its owner and thieves alike take the oldest. Whoever has fewer tasks than
 * his deque has slots never touches the lock.
 *
 * Cost: O(1) each; a look at an empty one is a load. */
#ifndef KIT_SCHED_STEAL_OVERFLOW_H
#define KIT_SCHED_STEAL_OVERFLOW_H

#include <unikit/rt/list.h>
#include <unikit/sched/steal/atomic.h>

struct steal_overflow {
    struct kit_spin lock;
    struct kit_list list; /* under the lock */
    size_t count;         /* shared: written under the lock, in the list */
};

KIT_INLINE void overflow_open(struct steal_overflow *overflow)
{
    *overflow = (struct steal_overflow){.count = 0};
    kit_list_init(&overflow->list);
}

KIT_INLINE size_t overflow_count(const struct steal_overflow *overflow)
{
    return STEAL_LOAD(&overflow->count, SEQ_CST);
}

KIT_INLINE void overflow_put(struct steal_overflow *overflow, struct kit_list *link)
{
    kit_spin_lock(&overflow->lock);
    kit_list_push_back(&overflow->list, link);
    STEAL_STORE(&overflow->count, overflow->count + 1, RELEASE);
    kit_spin_unlock(&overflow->lock);
}

/* The oldest; NULL: there is none. */
KIT_INLINE struct kit_list *overflow_take(struct steal_overflow *overflow)
{
    if (overflow_count(overflow) == 0)
        return NULL;
    kit_spin_lock(&overflow->lock);
    struct kit_list *link = kit_list_pop_front(&overflow->list);
    if (link != NULL)
        STEAL_STORE(&overflow->count, overflow->count - 1, RELEASE);
    kit_spin_unlock(&overflow->lock);
    return link;
}

#endif
