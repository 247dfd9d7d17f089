/* SPDX-License-Identifier: MIT */
/* One binary heap of connections by their earliest deadline. A timer that moves later leaves the
 * heap alone: the entry is put right when it comes up. O(log connections) otherwise. */
#include <unikit/net/inet/calls.h>

enum { HEAP_FIRST = 64 };

INET_COLD bool inet_timer_reserve(struct inet *m)
{
    if (m->open + 1 < m->heap_capacity)
        return true;
    uint32_t capacity = m->heap_capacity == 0 ? HEAP_FIRST : m->heap_capacity * 2;
    struct inet_tcp **heap = inet_take(&m->memory, sizeof(*heap) * capacity);
    if (heap == NULL)
        return false;
    if (m->heap_capacity != 0) {
        memcpy(heap, m->heap, sizeof(*heap) * m->heap_capacity);
        inet_give(&m->memory, m->heap, sizeof(*heap) * m->heap_capacity);
    }
    m->heap = heap;
    m->heap_capacity = capacity;
    return true;
}

INET_COLD void inet_timer_close(struct inet *m)
{
    inet_give(&m->memory, m->heap, sizeof(*m->heap) * m->heap_capacity);
    m->heap = NULL;
    m->heap_capacity = m->heap_count = 0;
}

static void heap_set(struct inet *m, uint32_t at, struct inet_tcp *t)
{
    m->heap[at] = t;
    t->heap_position = at;
}

static void heap_up(struct inet *m, struct inet_tcp *t)
{
    uint32_t at = t->heap_position;
    while (at > 1 && m->heap[at / 2]->heap_deadline > t->heap_deadline) {
        heap_set(m, at, m->heap[at / 2]);
        at /= 2;
    }
    heap_set(m, at, t);
}

static void heap_down(struct inet *m, struct inet_tcp *t)
{
    uint32_t at = t->heap_position, child;
    while ((child = at * 2) <= m->heap_count) {
        if (child < m->heap_count &&
            m->heap[child + 1]->heap_deadline < m->heap[child]->heap_deadline)
            child++;
        if (m->heap[child]->heap_deadline >= t->heap_deadline)
            break;
        heap_set(m, at, m->heap[child]);
        at = child;
    }
    heap_set(m, at, t);
}

void inet_timer_forget(struct inet *m, struct inet_tcp *t)
{
    uint32_t at = t->heap_position;
    if (at == 0)
        return;
    struct inet_tcp *last = m->heap[m->heap_count--];
    t->heap_position = 0;
    if (last == t)
        return;
    heap_set(m, at, last);
    heap_up(m, last);
    heap_down(m, last);
}

void inet_timer_set(struct inet *m, struct inet_tcp *t, unsigned timer, uint64_t deadline_ns)
{
    t->timers[timer] = deadline_ns;
    if (t->heap_position == 0) {
        t->heap_position = ++m->heap_count;
        t->heap_deadline = deadline_ns;
        heap_up(m, t);
    } else if (deadline_ns < t->heap_deadline) {
        t->heap_deadline = deadline_ns;
        heap_up(m, t);
    }
}

void inet_timer_stop(struct inet_tcp *t, unsigned timer)
{
    t->timers[timer] = KIT_NEVER;
}

struct inet_tcp *inet_timer_next(struct inet *m)
{
    while (m->heap_count != 0 && m->heap[1]->heap_deadline <= m->now_ns) {
        struct inet_tcp *t = m->heap[1];
        uint64_t next = KIT_NEVER;
        for (unsigned i = 0; i < INET_TIMERS; i++) {
            if (t->timers[i] < next)
                next = t->timers[i];
        }
        if (next <= m->now_ns)
            return t;
        if (next == KIT_NEVER) {
            inet_timer_forget(m, t);
        } else {
            t->heap_deadline = next;
            heap_down(m, t);
        }
    }
    return NULL;
}
