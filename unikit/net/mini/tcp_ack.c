/* SPDX-License-Identifier: MIT */
/* Acknowledgments: the send window, round trip times (RFC 6298, with Karn's rule), and Reno
 * congestion control with appropriate byte counting, limited transmit and NewReno recovery
 * (RFC 5681, 3465, 3042, 6582, 6928). */
#include <unikit/net/mini/mini.h>

MINI_COLD static uint32_t ack_initial_window(const struct mini_tcp *t)
{
    if (t->retransmits != 0)
        return t->mss; /* the SYN was lost (RFC 5681, 3.1) */
    return mini_min(10u * t->mss, mini_max(2u * t->mss, 14600));
}

MINI_COLD void mini_tcp_start_sending(struct mini_tcp *t)
{
    t->cwnd = ack_initial_window(t);
    t->ssthresh = UINT32_MAX;
    t->recover = t->iss;
    if (t->retransmits != 0 && t->srtt_us == 0)
        t->rto_ns = 3 * KIT_NS_PER_S; /* RFC 6298, 5.7 */
    t->retries = 0;
}

MINI_COLD void mini_tcp_restart(struct mini_tcp *t)
{
    t->cwnd = mini_min(t->cwnd, ack_initial_window(t));
}

void mini_tcp_compute_rto(struct mini_tcp *t)
{
    if (t->srtt_us == 0) {
        t->rto_ns = MINI_RTO_FIRST_NS;
        return;
    }
    uint64_t variation = mini_max(4 * t->rttvar_us, 1000); /* at least one tick of ours: 1 ms */
    uint64_t rto = (t->srtt_us + variation) * KIT_NS_PER_US;
    t->rto_ns = rto < MINI_RTO_MIN_NS   ? MINI_RTO_MIN_NS
                : rto > MINI_RTO_MAX_NS ? MINI_RTO_MAX_NS
                                        : rto;
}

/* RFC 6298, section 2. */
static void ack_sample(struct mini_tcp *t, uint64_t rtt_ns)
{
    uint64_t us = rtt_ns / KIT_NS_PER_US;
    uint32_t rtt = us < 1 ? 1 : us > 60000000 ? 60000000 : (uint32_t)us;
    if (t->srtt_us == 0) {
        t->srtt_us = rtt;
        t->rttvar_us = rtt / 2;
    } else {
        uint32_t error = rtt > t->srtt_us ? rtt - t->srtt_us : t->srtt_us - rtt;
        t->rttvar_us = (3 * t->rttvar_us + error) / 4;
        t->srtt_us = mini_max((uint32_t)((7 * (uint64_t)t->srtt_us + rtt) / 8), 1);
    }
    mini_tcp_compute_rto(t);
}

/* RFC 5681, 3.1, counting bytes (RFC 3465, L = 2). */
static void ack_grow(const struct mini *m, struct mini_tcp *t, uint32_t acked)
{
    if (t->cwnd >= 2 * m->send_buffer)
        return; /* wider than we can ever fill */
    if (t->cwnd < t->ssthresh) {
        t->cwnd += mini_min(acked, 2u * t->mss);
        return;
    }
    t->bytes_acked += acked;
    if (t->bytes_acked >= t->cwnd) {
        t->bytes_acked -= t->cwnd;
        t->cwnd += t->mss;
    }
}

/* RFC 6582, 3.2, step 3. */
MINI_COLD static void ack_recover(struct mini *m, struct mini_tcp *t, uint32_t acked)
{
    if (!kit_seq_lt(t->snd_una, t->recover)) {
        t->cwnd = mini_min(t->ssthresh, mini_max(mini_flight(t), t->mss) + t->mss);
        t->recovering = false;
        t->dupacks = 0;
        return;
    }
    mini_tcp_retransmit(m, t); /* a partial one: the next hole */
    t->cwnd = t->cwnd > acked ? t->cwnd - acked : 0;
    t->cwnd += acked >= t->mss ? t->mss : 0;
    t->cwnd = mini_max(t->cwnd, t->mss);
}

MINI_COLD static void ack_duplicate(struct mini *m, struct mini_tcp *t)
{
    if (t->recovering) {
        if (t->cwnd < 2 * m->send_buffer)
            t->cwnd += t->mss;
        return;
    }
    if (t->dupacks < UINT8_MAX)
        t->dupacks++;
    if (t->dupacks != 3 || kit_seq_le(t->snd_una, t->recover))
        return; /* the first two let a new segment go each (RFC 3042) */
    /* what limited transmit sent beyond the window does not count (RFC 5681, 3.2, step 2) */
    t->ssthresh = mini_max(mini_min(mini_flight(t), t->cwnd) / 2, 2u * t->mss);
    t->recover = t->snd_max;
    t->recovering = true;
    t->rtt_start_ns = 0;
    t->cwnd = t->ssthresh + 3u * t->mss;
    mini_tcp_retransmit(m, t);
}

/* Takes what is acknowledged out of the ring; whether that is all, and our FIN too. */
static bool ack_release(struct mini *m, struct mini_tcp *t, uint32_t ack)
{
    bool fin = false;
    if (kit_seq_lt(t->tx_seq, ack)) {
        uint32_t count = mini_min(ack - t->tx_seq, t->tx.length);
        fin = t->fin_sent && ack - t->tx_seq > t->tx.length;
        mini_ring_drop(&t->tx, count);
        t->tx_seq += count;
        if (t->tx.length == 0)
            t->tx.head = 0;
    }
    if (t->want_write && !t->fin_queued && m->send_buffer - t->tx.length >= m->send_buffer / 4) {
        t->want_write = false;
        mini_event(m, &t->socket, KIT_NET_WRITABLE);
    }
    return fin;
}

static bool ack_new(struct mini *m, struct mini_tcp *t, uint32_t ack)
{
    uint32_t acked = ack - t->snd_una;
    if (t->rtt_start_ns != 0 && kit_seq_lt(t->rtt_seq, ack)) {
        ack_sample(t, m->now_ns - t->rtt_start_ns);
        t->rtt_start_ns = 0;
    }
    if (t->retries != 0) { /* progress ends the back-off, also where Karn allows no sample */
        t->retries = 0;
        mini_tcp_compute_rto(t);
    }
    bool fin = ack_release(m, t, ack);
    t->snd_una = ack;
    if (kit_seq_lt(t->snd_nxt, ack))
        t->snd_nxt = ack;
    if (t->recovering) {
        ack_recover(m, t, acked);
    } else {
        t->dupacks = 0;
        if (kit_seq_lt(t->recover, ack))
            t->recover = ack - 1; /* keep it near, sequence numbers wrap */
        ack_grow(m, t, acked);
    }
    if (t->persist)
        return fin;
    if (t->snd_una == t->snd_max)
        mini_timer_stop(t, MINI_TIMER_SEND);
    else
        mini_timer_set(m, t, MINI_TIMER_SEND, m->now_ns + t->rto_ns); /* RFC 6298, 5.3 */
    return fin;
}

bool mini_tcp_ack(struct mini *m, struct mini_tcp *t, const struct mini_segment *s)
{
    bool fin = false, moved = false;
    if (kit_seq_lt(t->snd_wl1, s->seq) ||
        (t->snd_wl1 == s->seq && kit_seq_le(t->snd_wl2, s->ack))) {
        moved = s->window != t->snd_wnd;
        t->snd_wnd = s->window;
        t->max_wnd = mini_max(t->max_wnd, s->window);
        t->snd_wl1 = s->seq;
        t->snd_wl2 = s->ack;
    }
    if (kit_seq_lt(t->snd_una, s->ack))
        fin = ack_new(m, t, s->ack);
    else if (s->ack == t->snd_una && s->length == 0 && (s->flags & KIT_TCP_FIN) == 0 && !moved &&
             t->snd_una != t->snd_max && !t->persist)
        ack_duplicate(m, t);
    if (t->persist) {
        t->retries = 0; /* the peer is alive */
        if (t->snd_wnd != 0) {
            t->persist = false;
            if (t->snd_una == t->snd_max)
                mini_timer_stop(t, MINI_TIMER_SEND);
            else /* the interface may be busy when it goes again: what is in flight has a timer */
                mini_timer_set(m, t, MINI_TIMER_SEND, m->now_ns + t->rto_ns);
            t->snd_nxt = t->snd_una;
        }
    }
    return fin;
}
