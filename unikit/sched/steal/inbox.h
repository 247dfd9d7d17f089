/* SPDX-License-Identifier: MIT */
/* What processors send one: a list that many put into and one empties as a whole (R. K. Treiber,
 * «Systems programming: coping with parallelism», IBM RJ 5118, 1986). Nobody takes a single element
 * out, so an element that comes back at once does no harm (no ABA).
 *
 * Cost: put one locked instruction and a retry for each that came in between; take one, or a load
 * if it is empty, plus O(elements) to turn them round: they come out in order of arrival. */
#ifndef KIT_SCHED_STEAL_INBOX_H
#define KIT_SCHED_STEAL_INBOX_H

#include <unikit/sched/steal/atomic.h>

/* First member of nothing in particular: an element carries one of these. */
struct steal_letter {
    struct steal_letter *next;
};

struct steal_inbox {
    struct steal_letter *last;
};

KIT_INLINE void inbox_put(struct steal_inbox *inbox, struct steal_letter *letter)
{
    struct steal_letter *last = STEAL_LOAD(&inbox->last, RELAXED);
    do
        letter->next = last;
    while (!STEAL_CAS(&inbox->last, &last, letter, ACQ_REL));
}

KIT_INLINE bool inbox_empty(const struct steal_inbox *inbox)
{
    return STEAL_LOAD(&inbox->last, SEQ_CST) == NULL;
}

/* Everything in it, the first to arrive first; NULL if there is nothing. */
KIT_INLINE struct steal_letter *inbox_take(struct steal_inbox *inbox)
{
    struct steal_letter *first = NULL;
    if (inbox_empty(inbox))
        return NULL;
    for (struct steal_letter *at = STEAL_SWAP(&inbox->last, NULL, ACQ_REL), *next; at; at = next) {
        next = at->next;
        at->next = first;
        first = at;
    }
    return first;
}

#endif
