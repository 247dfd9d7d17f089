/* SPDX-License-Identifier: MIT */
/* What acknowledgments, and their absence, say about losses, and what to do about it.
 *
 *   OPEN --loss--> RECOVERY --recover acknowledged--> OPEN      RACK (RFC 8985) finds losses, PRR
 *   OPEN --mark--> CWR ----------"-----------------> OPEN       (RFC 6937) paces the repair
 *   any --timeout-> LOSS --------"-----------------> OPEN       F-RTO (RFC 5682) doubts timeouts
 *
 * Without SACK, duplicate acknowledgments stand for segments that arrived (RFC 5681, 6582). What
 * turns out to have been no loss, by F-RTO, by timestamps (RFC 3522) or by reported duplicates (RFC
 * 3708), is undone. */
#include <unikit/net/inet/calls.h>

enum { FLAG_ECE = 64 };

uint32_t inet_tcp_pipe(const struct inet_tcp *t)
{
    uint32_t pipe = inet_board_pipe(&t->board, t->snd_nxt - t->snd_una);
    return pipe > t->dupacks ? pipe - t->dupacks : 0;
}

static uint32_t loss_reduce(struct inet *m, struct inet_tcp *t)
{
    return m->congestion->reduce(&t->flow, inet_tcp_pipe(t));
}

static void loss_begin_episode(struct inet_tcp *t, uint8_t phase)
{
    t->phase = phase;
    t->recover = t->snd_nxt;
    t->prr = (struct inet_prr){.flight = t->snd_nxt - t->snd_una};
    t->frto = INET_FRTO_OFF;
    t->again = false;
    t->undo_bytes = 0;
}

INET_COLD void inet_loss_slow_down(struct inet *m, struct inet_tcp *t)
{
    if (t->phase != INET_OPEN)
        return;
    loss_begin_episode(t, INET_CWR);
    t->undoable = false;
    t->flow.ssthresh = loss_reduce(m, t);
    t->ecn_cwr = t->ecn;
    if (t->snd_nxt == t->snd_una) {
        t->phase = INET_OPEN;
        t->flow.cwnd = inet_min(t->flow.cwnd, t->flow.ssthresh);
    }
}

INET_COLD static void loss_begin(struct inet *m, struct inet_tcp *t)
{
    bool reduced = t->phase == INET_CWR;
    m->counts[INET_FAST_RECOVERIES]++;
    t->undo_cwnd = t->flow.cwnd;
    t->undo_ssthresh = t->flow.ssthresh;
    loss_begin_episode(t, INET_RECOVERY);
    /* What an earlier episode sent again and is still out would look like what was sent once. */
    t->undoable = !reduced && t->board.out == 0;
    t->probing = false;
    if (!reduced)
        t->flow.ssthresh = loss_reduce(m, t);
    t->ecn_cwr = t->ecn;
}

INET_COLD static void loss_end(struct inet_tcp *t)
{
    if (t->phase != INET_LOSS)
        t->flow.cwnd = t->flow.ssthresh; /* RFC 6937, section 3 */
    if (t->phase == INET_RECOVERY)
        inet_rack_recovered(&t->rack);
    t->phase = INET_OPEN;
    t->frto = INET_FRTO_OFF;
    t->dupacks = 0;
}

/* There was no loss: all is as before. */
INET_COLD static void loss_undo(struct inet *m, struct inet_tcp *t)
{
    m->counts[INET_UNDONE]++;
    t->flow.cwnd = inet_max(t->flow.cwnd, t->undo_cwnd);
    t->flow.ssthresh = inet_max(t->flow.ssthresh, t->undo_ssthresh);
    m->congestion->undo(&t->flow);
    inet_board_undo(&t->board);
    t->phase = INET_OPEN;
    t->frto = INET_FRTO_OFF;
    t->undoable = false;
    t->ecn_cwr = false;
    t->dupacks = 0;
}

INET_COLD void inet_loss_duplicate(struct inet *m, struct inet_tcp *t, uint32_t bytes)
{
    inet_rack_duplicate(&t->rack, t->snd_una, t->snd_nxt);
    if (!t->undoable || !t->again)
        return;
    t->undo_bytes -= inet_min(bytes, t->undo_bytes);
    if (t->undo_bytes == 0 && t->board.out == 0)
        loss_undo(m, t);
}

/* The first segment in flight is lost: without SACK that is all one can know. */
INET_COLD static void loss_mark_first(struct inet *m, struct inet_tcp *t)
{
    struct inet_sent *s = t->board.count == 0 ? NULL : inet_board_at(&t->board, 0);
    if (s == NULL || (s->flags & INET_SENT_LOST) != 0)
        return;
    if (inet_sent_length(s) > t->flow.mss)
        (void)inet_board_split(&m->memory, &t->board, 0, t->flow.mss);
    inet_board_mark_lost(&t->board, inet_board_at(&t->board, 0));
}

/* RFC 5681, 3.2 and RFC 6582, 3.2. */
INET_COLD static void loss_without_sack(struct inet *m, struct inet_tcp *t,
                                        const struct inet_delivery *d, bool duplicate)
{
    uint32_t flight = t->snd_nxt - t->snd_una, mss = t->flow.mss;
    if (d->acked != 0) {
        uint32_t over = d->acked > mss ? d->acked - mss : 0;
        t->dupacks -= inet_min(t->dupacks, t->phase == INET_OPEN ? t->dupacks : over);
        if (t->phase == INET_RECOVERY && kit_seq_lt(t->snd_una, t->recover))
            loss_mark_first(m, t); /* a partial one: the next hole */
    } else if (duplicate && t->dupacks + mss < flight) {
        t->dupacks += mss;
    } else if (duplicate && t->dupacks < 3 * mss) {
        t->dupacks += mss;
    }
    t->dupacks = inet_min(t->dupacks, flight);
    if (t->phase < INET_RECOVERY && t->dupacks >= 3 * mss && !kit_seq_le(t->snd_una, t->recover))
        loss_mark_first(m, t);
}

/* RFC 8985, section 7.4.2: what became of the tail loss probe. */
static void loss_probe(struct inet *m, struct inet_tcp *t, const struct inet_segment *s,
                       bool duplicate, bool reported)
{
    if (kit_seq_lt(s->ack, t->probe_end))
        return;
    if (!t->probe_again || reported || (duplicate && s->options.block_count == 0)) {
        t->probing = false;
    } else if (kit_seq_lt(t->probe_end, s->ack)) {
        t->probing = false; /* it repaired a loss, which calls for an answer */
        inet_loss_slow_down(m, t);
    }
}

uint32_t inet_loss_detect(struct inet *m, struct inet_tcp *t, uint32_t *lost)
{
    *lost = 0;
    if (!t->sack)
        return 0;
    bool threshold = t->board.sacked >= 3 * t->flow.mss; /* section 6.2, step 4 */
    uint32_t window =
        inet_rack_window(&t->rack, inet_rtt_us(&t->rtt), t->phase >= INET_RECOVERY, threshold);
    return inet_rack_detect(&t->rack, &t->board, m->now_us, window, lost);
}

/* RFC 3522: the acknowledgment was caused by a segment sent before anything was sent again. */
static bool loss_was_none(const struct inet_tcp *t, const struct inet_delivery *d)
{
    return t->undoable && t->again && t->phase != INET_OPEN && d->slack_us != 0 && d->acked != 0 &&
           kit_seq_lt(d->echo_us + d->slack_us, t->again_us);
}

/* RFC 5682, section 3: was the timeout a mistake? */
INET_COLD static void loss_doubt(struct inet *m, struct inet_tcp *t, const struct inet_delivery *d,
                                 bool duplicate)
{
    if (d->original != 0 && t->undoable) { /* step 3b: what was not sent again has arrived */
        loss_undo(m, t);
    } else if (kit_seq_lt(t->recover, t->snd_nxt)) {
        if (d->sacked != 0 || duplicate)
            t->frto = INET_FRTO_OFF; /* step 3a */
    } else if (d->acked != 0) {      /* step 2b: two new segments will tell */
        t->recover = t->snd_nxt;
        t->frto = INET_FRTO_NEW;
    } else {
        t->frto = INET_FRTO_OFF;
    }
}

/* Sets the window after an acknowledgment. */
static void loss_window(struct inet *m, struct inet_tcp *t, const struct inet_delivery *d,
                        uint32_t lost, uint32_t flight)
{
    struct inet_flow *f = &t->flow;
    if (t->phase == INET_CWR || t->phase == INET_RECOVERY) {
        uint32_t pipe = inet_tcp_pipe(t), delivered = d->acked + d->sacked;
        if (!t->sack && d->acked == 0)
            delivered = f->mss;
        uint32_t allow = inet_prr_allow(&t->prr, pipe, f->ssthresh, f->mss, delivered,
                                        d->acked != 0 && lost == 0);
        if (t->phase == INET_RECOVERY && t->prr.out == 0)
            allow = inet_max(allow, f->mss); /* the first retransmission always goes */
        f->cwnd = inet_max(pipe + allow, f->mss);
        return;
    }
    bool limited = t->limited || (f->cwnd < f->ssthresh && flight > f->cwnd / 2);
    if (d->acked == 0 || !limited || t->frto != INET_FRTO_OFF || f->cwnd >= 2 * m->send_buffer)
        return;
    inet_flow_grow(f, m->congestion, d->acked, m->now_ms, inet_rtt_us(&t->rtt));
}

void inet_loss_acked(struct inet *m, struct inet_tcp *t, const struct inet_segment *s,
                     struct inet_delivery *d, bool duplicate, bool reported, uint32_t flight)
{
    uint32_t lost = 0, again_us = 0;
    t->proven |= d->largest >= t->flow.mss;
    if (!t->sack)
        loss_without_sack(m, t, d, duplicate);
    if (t->probing)
        loss_probe(m, t, s, duplicate, reported);
    if (d->acked + d->sacked != 0)
        again_us = inet_loss_detect(m, t, &lost);
    if (loss_was_none(t, d))
        loss_undo(m, t);
    if (t->phase != INET_OPEN && !kit_seq_lt(t->snd_una, t->recover))
        loss_end(t);
    if ((s->flags & FLAG_ECE) != 0 && t->ecn && d->acked != 0)
        inet_loss_slow_down(m, t); /* RFC 3168, 6.1.2: once per window */
    if (t->phase == INET_LOSS && t->frto != INET_FRTO_OFF)
        loss_doubt(m, t, d, duplicate);
    else if (t->phase < INET_RECOVERY && t->board.lost != 0)
        loss_begin(m, t);
    loss_window(m, t, d, lost, flight);
    if (again_us != 0) {
        uint64_t rto = t->base_ns + inet_tcp_rto_ns(t);
        uint64_t look = m->now_ns + again_us * KIT_NS_PER_US;
        t->waiting = look < rto ? INET_WAIT_REORDER : INET_WAIT_RTO;
        inet_timer_set(m, t, INET_TIMER_SEND, look < rto ? look : rto);
    } else if (d->acked + d->sacked != 0) {
        inet_tcp_arm(m, t);
    }
}

INET_COLD void inet_loss_reordered(struct inet *m, struct inet_tcp *t)
{
    uint32_t lost, again_us = inet_loss_detect(m, t, &lost);
    if (t->board.lost != 0 && t->phase < INET_RECOVERY) {
        loss_begin(m, t);
        t->flow.cwnd = inet_max(inet_tcp_pipe(t) + t->flow.mss, t->flow.mss);
    }
    inet_tcp_arm(m, t);
    uint64_t look = m->now_ns + again_us * KIT_NS_PER_US;
    if (again_us != 0 && look < t->timers[INET_TIMER_SEND]) {
        t->waiting = INET_WAIT_REORDER;
        inet_timer_set(m, t, INET_TIMER_SEND, look);
    }
    inet_tcp_queue(m, t);
}

/* The path, or our segment size, became smaller: what was sent in larger pieces goes again. */
INET_COLD void inet_tcp_resize(struct inet *m, struct inet_tcp *t)
{
    struct inet_route route;
    if (inet_route(m, &t->tuple.remote, &route) == 0)
        t->flow.mss = inet_min(t->flow.mss, (uint32_t)route.mtu - KIT_IPV4_HEADER - KIT_TCP_HEADER -
                                                inet_tcp_options_length(t));
    for (uint32_t i = 0; i < t->board.count; i++) {
        struct inet_sent *s = inet_board_at(&t->board, i);
        if (inet_sent_length(s) > t->flow.mss && (s->flags & INET_SENT_SACKED) == 0)
            inet_board_mark_lost(&t->board, s);
    }
    t->flow.cwnd = inet_max(t->flow.cwnd, t->flow.mss);
    inet_tcp_queue(m, t);
}

/* Large segments may vanish without a word (RFC 4821): where none ever got through, smaller ones
 * are tried. */
INET_COLD static void loss_shrink(struct inet *m, struct inet_tcp *t)
{
    if (t->proven || t->flow.mss <= INET_MSS_BASE || t->board.count == 0 ||
        inet_sent_length(inet_board_at(&t->board, 0)) < t->flow.mss)
        return;
    m->counts[INET_PATH_SHRUNK]++;
    t->flow.mss = t->flow.mss > 1200 ? 1200 : INET_MSS_BASE;
    inet_tcp_resize(m, t);
}

/* RFC 5681, 3.1, equation 4; RFC 6298, 5.4 to 5.7; RFC 8985, 6.3. */
INET_COLD void inet_loss_timeout(struct inet *m, struct inet_tcp *t)
{
    bool fresh = t->phase == INET_OPEN;
    uint32_t age = 0; /* without RACK all is lost */
    m->counts[INET_TIMEOUTS]++;
    if (fresh) {
        t->undo_cwnd = t->flow.cwnd;
        t->undo_ssthresh = t->flow.ssthresh;
        t->flow.ssthresh = loss_reduce(m, t);
    }
    loss_begin_episode(t, INET_LOSS);
    t->undoable = fresh && t->board.out == 0;
    t->probing = false;
    t->dupacks = 0;
    if (t->sack && t->rack.valid)
        age = t->rack.rtt_us + inet_rack_window(&t->rack, inet_rtt_us(&t->rtt), false, false);
    inet_board_timeout(&t->board, m->now_us, age);
    if (t->retries >= 3)
        loss_shrink(m, t);
    t->flow.cwnd = inet_tcp_pipe(t) + t->flow.mss;
    t->frto = fresh && t->retries == 0 && t->sack ? INET_FRTO_SENT : INET_FRTO_OFF;
    t->ecn_cwr = t->ecn;
    t->base_ns = m->now_ns;
    inet_tcp_queue(m, t);
}
