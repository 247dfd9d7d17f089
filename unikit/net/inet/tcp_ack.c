/* SPDX-License-Identifier: MIT */
/* Acknowledgments in: the send window (RFC 9293, 3.10.7.4), round trip times (RFC 6298, 7323), the
 * selective blocks (RFC 2018, 2883), space for the writer, and the timer of what is in flight. */
#include <unikit/net/inet/calls.h>

uint64_t inet_tcp_rto_ns(const struct inet_tcp *t)
{
    uint64_t rto = inet_rtt_timeout_us(&t->rtt, INET_RTO_MIN_US) * KIT_NS_PER_US;
    if (t->rtt.smooth == 0 && t->retransmits != 0 && t->socket.state >= KIT_TCP_ESTABLISHED)
        rto = 3 * KIT_NS_PER_S; /* RFC 6298, 5.7 */
    rto <<= t->backoff;
    return rto < INET_RTO_MAX_NS ? rto : INET_RTO_MAX_NS;
}

void inet_tcp_arm(struct inet *m, struct inet_tcp *t)
{
    if (t->snd_una == t->snd_nxt) {
        if (t->waiting < INET_WAIT_WINDOW)
            inet_timer_stop(t, INET_TIMER_SEND);
        return;
    }
    uint64_t deadline = t->base_ns + inet_tcp_rto_ns(t);
    t->waiting = INET_WAIT_RTO;
    /* A probe of the tail comes before the timeout (RFC 8985, section 7.2). */
    if (t->phase == INET_OPEN && t->sack && !t->probing && t->board.sacked == 0 &&
        t->board.lost == 0 && t->rtt.smooth != 0 && t->socket.state >= KIT_TCP_ESTABLISHED) {
        uint64_t wait_us = 2 * (uint64_t)inet_rtt_us(&t->rtt) + INET_PROBE_SLACK_US;
        if (t->snd_nxt - t->snd_una <= t->flow.mss)
            wait_us += INET_PEER_DELAY_US;
        uint64_t probe = m->now_ns + wait_us * KIT_NS_PER_US;
        if (probe < deadline) {
            deadline = probe;
            t->waiting = INET_WAIT_PROBE;
        }
    }
    inet_timer_set(m, t, INET_TIMER_SEND, deadline);
}

/* Twice what may be in flight, so that the window is never waiting for the writer, and no more. */
uint32_t inet_tcp_send_limit(const struct inet *m, const struct inet_tcp *t)
{
    uint32_t wanted =
        inet_max(t->flow.cwnd < UINT32_MAX / 4 ? 2 * t->flow.cwnd : UINT32_MAX, 65536);
    return inet_min(m->send_buffer, wanted);
}

/* Takes what is acknowledged out of the queue; whether that is all, and our FIN too. */
static bool ack_release(struct inet *m, struct inet_tcp *t, uint32_t ack)
{
    bool fin = false;
    if (kit_seq_lt(t->tx_seq, ack)) {
        uint32_t count = inet_min(ack - t->tx_seq, t->tx.length);
        fin = t->fin_sent && ack - t->tx_seq > t->tx.length;
        inet_queue_drop(&m->memory, &t->tx, count);
        t->tx_seq += count;
        if (kit_seq_lt(t->cursor_seq, t->tx_seq) || t->tx.first == NULL)
            t->cursor = NULL;
    }
    return fin;
}

static bool ack_new(struct inet *m, struct inet_tcp *t, uint32_t ack, struct inet_delivery *d)
{
    inet_board_ack(&m->memory, &t->board, &t->rack, ack, d);
    bool fin = ack_release(m, t, ack);
    t->snd_una = ack;
    if (kit_seq_lt(t->snd_nxt, ack)) /* a byte that probed a closed window was taken */
        t->snd_nxt = ack;
    t->retries = 0;
    if (t->waiting != INET_WAIT_WINDOW || t->snd_wnd != 0)
        t->backoff = 0;     /* progress ends it, also where Karn allows no sample */
    t->base_ns = m->now_ns; /* RFC 6298, 5.3 */
    return fin;
}

/* Whether the first block reports a duplicate (RFC 2883, section 4). */
static bool ack_is_report(const struct inet_segment *s)
{
    const struct inet_range *b = s->options.blocks;
    return kit_seq_le(b[0].end, s->ack) ||
           (s->options.block_count > 1 && kit_seq_le(b[1].start, b[0].start) &&
            kit_seq_le(b[0].end, b[1].end));
}

/* Whether a duplicate was reported. */
static bool ack_blocks(struct inet *m, struct inet_tcp *t, const struct inet_segment *s,
                       struct inet_delivery *d)
{
    const struct inet_range *blocks = s->options.blocks;
    bool reported = false;
    for (unsigned i = 0; i < s->options.block_count; i++) {
        const struct inet_range *b = &blocks[i];
        if (!kit_seq_lt(b->start, b->end) || kit_seq_lt(t->snd_nxt, b->end))
            continue;
        if (i == 0 && ack_is_report(s)) {
            reported = true;
            m->counts[INET_DUPLICATES_REPORTED]++;
            inet_loss_duplicate(m, t, b->end - b->start);
        } else if (kit_seq_lt(t->snd_una, b->start)) {
            inet_board_sack(&m->memory, &t->board, &t->rack, b->start, b->end, d);
        }
    }
    return reported;
}

/* The send window (RFC 9293, 3.10.7.4). Whether it changed. */
static bool ack_window(struct inet_tcp *t, const struct inet_segment *s)
{
    if (!kit_seq_lt(t->snd_wl1, s->seq) &&
        (t->snd_wl1 != s->seq || !kit_seq_le(t->snd_wl2, s->ack)))
        return false;
    bool moved = s->window != t->snd_wnd;
    t->snd_wnd = s->window;
    t->max_wnd = inet_max(t->max_wnd, s->window);
    t->snd_wl1 = s->seq;
    t->snd_wl2 = s->ack;
    return moved;
}

/* The round trip: of a segment sent once, else by the timestamp that came back (Karn's rule). */
static void ack_round_trip(struct inet *m, struct inet_tcp *t, const struct inet_delivery *d,
                           uint32_t flight)
{
    uint32_t rtt = d->rtt_us;
    if (rtt == 0 && d->acked != 0 && d->slack_us != 0)
        rtt = m->now_us - d->echo_us;
    if (rtt == 0 || (int32_t)rtt < 0)
        return;
    uint32_t samples = flight / (2 * t->flow.mss); /* RFC 7323, section 4.2 */
    inet_rtt_sample(&t->rtt, rtt, samples == 0 ? 1 : samples);
}

static void ack_echo(const struct inet *m, const struct inet_tcp *t, const struct inet_segment *s,
                     struct inet_delivery *d)
{
    if (!t->timestamps || !s->options.timestamps || s->options.ts_echo == 0)
        return;
    uint32_t age_ms = m->now_ms - (s->options.ts_echo - t->ts_offset);
    if (age_ms > 1000000) /* none of ours */
        return;
    d->echo_us = (uint32_t)((m->now_ns / KIT_NS_PER_MS - age_ms) * 1000);
    d->slack_us = 1000;
}

static void ack_writer(struct inet *m, struct inet_tcp *t)
{
    uint32_t limit = inet_tcp_send_limit(m, t);
    if (!t->want_write || t->fin_queued || t->tx.length > limit - limit / 4)
        return;
    t->want_write = false;
    inet_event(m, &t->socket, KIT_NET_WRITABLE);
}

bool inet_tcp_ack(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    struct inet_delivery d = {.now_us = m->now_us, .limit = t->recover};
    uint32_t flight = t->snd_nxt - t->snd_una, before = t->snd_una;
    bool fin = false, reported = false, moved = ack_window(t, s);
    bool closed = t->waiting == INET_WAIT_WINDOW && t->timers[INET_TIMER_SEND] != KIT_NEVER;
    bool duplicate = s->ack == before && s->length == 0 && (s->flags & KIT_TCP_FIN) == 0 &&
                     !moved && flight != 0;
    ack_echo(m, t, s, &d);
    if (kit_seq_lt(before, s->ack))
        fin = ack_new(m, t, s->ack, &d);
    if (s->options.block_count != 0 && t->sack)
        reported = ack_blocks(m, t, s, &d);
    if (closed || t->snd_wnd == 0)
        t->retries = 0; /* the peer is alive (RFC 9293, 3.8.6.1) */
    if (closed && t->snd_wnd != 0) {
        t->probes = 0;
        inet_timer_stop(t, INET_TIMER_SEND);
        t->backoff = 0;
    }
    if (flight != 0) {
        ack_round_trip(m, t, &d, flight);
        inet_loss_acked(m, t, s, &d, duplicate, reported, flight);
        if (before != t->snd_una && d.acked + d.sacked == 0)
            inet_tcp_arm(m, t); /* our SYN */
    }
    ack_writer(m, t);
    return fin;
}
