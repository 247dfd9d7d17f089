/* SPDX-License-Identifier: MIT */
/* Timers of connections: one binary heap, a connection in it at most once, keyed by a time not
 * later than its earliest timer. A timer that moves away, as a retransmission timer does with
 * every acknowledgment, leaves the key alone: O(1). The key is put right when it comes up. */
#include <unikit/net/mini/mini.h>

static void heap_set(struct mini *m, size_t position, struct mini_tcp *t)
{
    m->heap[position] = t;
    t->heap_position = position;
}

static void heap_up(struct mini *m, struct mini_tcp *t)
{
    size_t at = t->heap_position;
    for (; at > 1 && m->heap[at / 2]->heap_deadline > t->heap_deadline; at /= 2)
        heap_set(m, at, m->heap[at / 2]);
    heap_set(m, at, t);
}

static void heap_down(struct mini *m, struct mini_tcp *t)
{
    size_t at = t->heap_position;
    for (;;) {
        size_t child = at * 2;
        if (child > m->heap_count)
            break;
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

MINI_COLD void mini_timer_forget(struct mini *m, struct mini_tcp *t)
{
    size_t at = t->heap_position;
    if (at == 0)
        return;
    struct mini_tcp *last = m->heap[m->heap_count--];
    t->heap_position = 0;
    if (last == t)
        return;
    heap_set(m, at, last);
    heap_up(m, last);
    heap_down(m, last);
}

void mini_timer_set(struct mini *m, struct mini_tcp *t, unsigned timer, uint64_t deadline_ns)
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

void mini_timer_stop(struct mini_tcp *t, unsigned timer)
{
    t->timers[timer] = KIT_NEVER;
}

MINI_COLD static void timer_back_off(struct mini *m, struct mini_tcp *t)
{
    t->rto_ns = t->rto_ns * 2 < MINI_RTO_MAX_NS ? t->rto_ns * 2 : MINI_RTO_MAX_NS;
    t->retries++;
    mini_timer_set(m, t, MINI_TIMER_SEND, m->now_ns + t->rto_ns);
}

MINI_COLD static void timer_probe(struct mini *m, struct mini_tcp *t)
{
    if (t->retries >= MINI_RETRIES || (t->socket.orphan && t->probes >= MINI_ORPHAN_PROBES)) {
        mini_tcp_send_reset(m, t);
        mini_tcp_end(m, t, KIT_ETIMEDOUT);
        return;
    }
    if (t->probes < UINT8_MAX)
        t->probes++;
    timer_back_off(m, t);
    mini_tcp_probe(m, t);
}

/* RFC 6298, section 5.4 to 5.7; RFC 5681, section 3.1, equation 4. */
MINI_COLD static void timer_retransmit(struct mini *m, struct mini_tcp *t)
{
    bool opening = t->socket.state == KIT_TCP_SYN_SENT || t->socket.state == KIT_TCP_SYN_RECEIVED;
    if (t->retries >= (opening ? MINI_SYN_RETRIES : MINI_RETRIES)) {
        if (!opening)
            mini_tcp_send_reset(m, t);
        mini_tcp_end(m, t, KIT_ETIMEDOUT);
        return;
    }
    if (t->retries == 0)
        t->ssthresh = mini_max(mini_flight(t) / 2, 2u * t->mss);
    t->cwnd = t->mss;
    t->recovering = false;
    t->dupacks = 0;
    t->recover = t->snd_max;
    t->rtt_start_ns = 0; /* Karn: a segment sent twice tells nothing */
    t->snd_nxt = t->snd_una;
    t->retransmits++;
    m->stats.retransmits++;
    timer_back_off(m, t);
    mini_tcp_queue(m, t);
}

MINI_COLD static void timer_fire(struct mini *m, struct mini_tcp *t)
{
    if (t->timers[MINI_TIMER_ACK] <= m->now_ns) {
        mini_timer_stop(t, MINI_TIMER_ACK);
        mini_tcp_ack_now(m, t);
    }
    if (t->timers[MINI_TIMER_LINGER] <= m->now_ns) {
        mini_tcp_end(m, t, 0);
        return;
    }
    if (t->timers[MINI_TIMER_SEND] <= m->now_ns) {
        mini_timer_stop(t, MINI_TIMER_SEND);
        if (t->persist)
            timer_probe(m, t);
        else
            timer_retransmit(m, t);
    }
}

bool mini_timers_run(struct mini *m)
{
    bool any = false;
    while (m->heap_count != 0 && m->heap[1]->heap_deadline <= m->now_ns) {
        struct mini_tcp *t = m->heap[1];
        uint64_t next = KIT_NEVER;
        for (unsigned i = 0; i < MINI_TIMERS; i++) {
            if (t->timers[i] < next)
                next = t->timers[i];
        }
        if (next == KIT_NEVER) {
            mini_timer_forget(m, t);
        } else if (next > m->now_ns) {
            t->heap_deadline = next;
            heap_down(m, t);
        } else {
            any = true;
            timer_fire(m, t);
            mini_reap(m);
        }
    }
    return any;
}
