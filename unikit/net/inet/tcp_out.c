/* SPDX-License-Identifier: MIT */
/* What to send (RFC 9293, section 3.8; RFC 1122, 4.2.3.4): first what is lost, then what is new, as
 * the congestion window, the peer's window and the segment size allow. A connection speaks at the
 * end of a poll, so an acknowledgment rides on the reply and small writes of one callback share a
 * segment; that is why Nagle's algorithm is off unless asked for. */
#include <unikit/net/inet/calls.h>

enum { FLAG_ECE = 64, FLAG_CWR = 128 };

void inet_tcp_queue(struct inet *m, struct inet_tcp *t)
{
    if (kit_list_empty(&t->output_link))
        kit_list_push_back(&m->output, &t->output_link);
}

void inet_tcp_ack_now(struct inet *m, struct inet_tcp *t)
{
    t->ack_now = true;
    inet_tcp_queue(m, t);
}

INET_COLD static bool out_syn(struct inet *m, struct inet_tcp *t)
{
    bool passive = t->socket.state == KIT_TCP_SYN_RECEIVED;
    uint16_t flags = KIT_TCP_SYN;
    if (!t->syn_due) {
        if (t->ack_now && passive)
            return inet_tcp_segment(m, t, inet_tcp_bare_seq(t), 0, KIT_TCP_ACK);
        return true;
    }
    if (passive)
        flags |= KIT_TCP_ACK | (t->ecn ? FLAG_ECE : 0);
    else if (t->ecn)
        flags |= FLAG_ECE | FLAG_CWR;
    if (!inet_tcp_segment(m, t, t->iss, 0, flags))
        return false;
    t->syn_due = false;
    t->snd_nxt = t->snd_max = t->iss + 1;
    t->sent_us = m->now_us;
    t->base_ns = m->now_ns;
    inet_tcp_arm(m, t);
    return true;
}

static void out_sent(struct inet *m, struct inet_tcp *t, uint32_t count)
{
    t->sent_us = m->now_us;
    if (t->phase != INET_OPEN)
        t->prr.out += count;
}

/* Sends the record at `index` again, or the first segment of it. -1: the interface is busy. */
INET_COLD static int out_repeat(struct inet *m, struct inet_tcp *t, uint32_t index)
{
    struct inet_sent *s = inet_board_at(&t->board, index);
    if (inet_sent_length(s) > t->flow.mss &&
        inet_board_split(&m->memory, &t->board, index, t->flow.mss))
        s = inet_board_at(&t->board, index); /* else the rest counts as sent, until it is missed */
    uint32_t end = t->tx_seq + t->tx.length, count = inet_min(inet_sent_length(s), t->flow.mss + 1);
    bool fin = t->fin_sent && s->start + count == end + 1;
    uint32_t length = inet_min(count - fin, t->flow.mss);
    bool push = length != 0 && s->start + length == end;
    uint16_t flags = (uint16_t)(KIT_TCP_ACK | (push ? KIT_TCP_PSH : 0) | (fin ? KIT_TCP_FIN : 0));
    if (!inet_tcp_segment(m, t, s->start, length, flags))
        return -1;
    if (!t->again) {
        t->again = true;
        t->again_us = m->now_us;
    }
    t->undo_bytes += count;
    t->retransmits++;
    m->stats.retransmits++;
    inet_board_mark_sent(&t->board, s, m->now_us);
    out_sent(m, t, count);
    if (index == 0)
        t->base_ns = m->now_ns;
    inet_tcp_arm(m, t);
    return 1;
}

/* What is lost: 1: sent; 0: nothing may go now; -1: the interface is busy. */
static int out_lost(struct inet *m, struct inet_tcp *t)
{
    uint32_t index, pipe;
    struct inet_sent *s = inet_board_next_lost(&t->board, &index);
    if (s == NULL)
        return 0;
    pipe = inet_tcp_pipe(t);
    if (pipe != 0 && pipe + inet_min(inet_sent_length(s), t->flow.mss) > t->flow.cwnd)
        return 0;
    return out_repeat(m, t, index);
}

/* Bytes of new data that may go now, of `left`. */
static uint32_t out_allowed(const struct inet *m, struct inet_tcp *t, uint32_t left)
{
    uint32_t mss = t->flow.mss, most = mss, pipe = inet_tcp_pipe(t);
    uint32_t edge = t->snd_una + t->snd_wnd;
    if ((m->offloads & INET_OFFLOAD_TSO4) != 0 && t->phase == INET_OPEN)
        most = (INET_SUPER - KIT_IPV4_HEADER - 60) / mss * mss;
    uint32_t window = kit_seq_lt(t->snd_nxt, edge) ? edge - t->snd_nxt : 0;
    uint32_t room = t->flow.cwnd > pipe ? t->flow.cwnd - pipe : 0;
    uint32_t length = inet_min(inet_min(left, most), window);
    if (t->frto != INET_FRTO_NEW && length > room) {
        t->limited = true;
        length = room >= mss ? room / mss * mss : 0;
    }
    if (length > mss && length < left)
        length -= length % mss;
    return length;
}

/* Whether a segment of `length` bytes is worth sending (RFC 9293, 3.8.6.2.1; Nagle: 3.7.4). */
static bool out_worthwhile(const struct inet_tcp *t, uint32_t length, bool last)
{
    if (length == 0)
        return false;
    return length >= t->flow.mss ||
           (last && (t->fin_queued || (!t->cork && (!t->nagle || t->snd_una == t->snd_nxt)))) ||
           (length >= t->max_wnd / 2 && !last);
}

/* Nothing is in flight and nothing may go: ask from time to time, or wait for the cork. */
static void out_wait(struct inet *m, struct inet_tcp *t, uint32_t length)
{
    if (t->snd_nxt != t->snd_una || t->timers[INET_TIMER_SEND] != KIT_NEVER)
        return;
    bool cork = t->cork && length != 0;
    t->waiting = cork ? INET_WAIT_CORK : INET_WAIT_WINDOW;
    t->retries = t->backoff = 0;
    inet_timer_set(m, t, INET_TIMER_SEND, m->now_ns + (cork ? INET_CORK_NS : inet_tcp_rto_ns(t)));
}

/* Sends `length` bytes of new data, and the FIN. -1: the interface is busy; 0: no memory. */
static int out_fresh(struct inet *m, struct inet_tcp *t, uint32_t length, bool last, bool fin)
{
    uint16_t flags =
        (uint16_t)(KIT_TCP_ACK | (last && length != 0 ? KIT_TCP_PSH : 0) | (fin ? KIT_TCP_FIN : 0));
    uint32_t end = t->snd_nxt + length + fin;
    if (!inet_board_reserve(&m->memory, &t->board)) {
        t->limited = false;
        return 0; /* two segments can always be in flight: what is there will tell when to go on */
    }
    if (t->ecn_cwr && length != 0) /* RFC 3168, 6.1.2 */
        flags |= FLAG_CWR;
    if (!inet_tcp_segment(m, t, t->snd_nxt, length, flags))
        return -1;
    t->ecn_cwr = t->ecn_cwr && length == 0;
    if (t->snd_nxt == t->snd_una)
        t->base_ns = m->now_ns;
    (void)inet_board_push(&m->memory, &t->board, t->snd_nxt, end, m->now_us);
    out_sent(m, t, length + fin);
    t->snd_nxt = end;
    if (kit_seq_lt(t->snd_max, end))
        t->snd_max = end;
    t->fin_sent |= fin;
    inet_tcp_arm(m, t);
    return 1;
}

/* Sends the next new segment: 1; 0: nothing may go now; -1: the interface is busy. */
static int out_new(struct inet *m, struct inet_tcp *t)
{
    uint32_t offset = t->snd_nxt - t->tx_seq;
    if (offset > t->tx.length || t->fin_sent)
        return 0; /* the FIN is out */
    uint32_t left = t->tx.length - offset, length = out_allowed(m, t, left);
    bool last = length == left, fin = t->fin_queued && last;
    if (!fin && !out_worthwhile(t, length, last)) {
        if (left != 0)
            out_wait(m, t, length);
        return 0;
    }
    return out_fresh(m, t, length, last, fin);
}

/* After a pause the network may have changed: start as at the beginning (RFC 5681, 4.1). */
static void out_restart(struct inet *m, struct inet_tcp *t)
{
    if (t->snd_una != t->snd_nxt || m->now_us - t->sent_us <= inet_tcp_rto_ns(t) / KIT_NS_PER_US ||
        t->flow.cwnd <= inet_flow_initial(t->flow.mss))
        return;
    t->flow.cwnd = inet_flow_initial(t->flow.mss);
    m->congestion->idle(&t->flow);
}

/* RFC 5682, step 2b: two new segments, before anything else is sent again. */
INET_COLD static int out_doubt(struct inet *m, struct inet_tcp *t)
{
    int first = out_new(m, t), second = first > 0 ? out_new(m, t) : 0;
    t->frto = first > 0 ? INET_FRTO_SENT : INET_FRTO_OFF;
    return first < 0 || second < 0 ? -1 : first;
}

bool inet_tcp_output(struct inet *m, struct inet_tcp *t)
{
    if (t->socket.state == KIT_TCP_SYN_SENT || t->socket.state == KIT_TCP_SYN_RECEIVED)
        return out_syn(m, t);
    int rc = 0;
    out_restart(m, t);
    t->limited = false;
    if (t->frto == INET_FRTO_NEW)
        rc = out_doubt(m, t);
    if (rc == 0 && t->board.lost != t->board.out) {
        while ((rc = out_lost(m, t)) > 0)
            ;
    }
    if (rc == 0 && t->board.lost == t->board.out) {
        while ((rc = out_new(m, t)) > 0)
            ;
    }
    if (rc >= 0 && t->ack_now && !inet_tcp_segment(m, t, inet_tcp_bare_seq(t), 0, KIT_TCP_ACK))
        rc = -1;
    return rc >= 0;
}

INET_COLD bool inet_tcp_tail_probe(struct inet *m, struct inet_tcp *t)
{
    uint32_t offset = t->snd_nxt - t->tx_seq, left = 0, edge = t->snd_una + t->snd_wnd;
    int rc;
    if (offset < t->tx.length && kit_seq_lt(t->snd_nxt, edge))
        left = inet_min(inet_min(t->tx.length - offset, t->flow.mss), edge - t->snd_nxt);
    if (left != 0) {
        bool last = left == t->tx.length - offset;
        rc = out_fresh(m, t, left, last, last && t->fin_queued);
        t->probe_again = false;
    } else {
        uint32_t index = t->board.count - 1;
        struct inet_sent *s = inet_board_at(&t->board, index);
        if (inet_sent_length(s) > t->flow.mss &&
            inet_board_split(&m->memory, &t->board, index, inet_sent_length(s) - t->flow.mss))
            index++;
        bool again = t->again;
        rc = out_repeat(m, t, index);
        t->again = again; /* a probe is no repair */
        t->probe_again = true;
    }
    t->probing = rc > 0;
    t->probe_end = t->snd_nxt;
    return rc > 0;
}

INET_COLD void inet_tcp_window_probe(struct inet *m, struct inet_tcp *t)
{
    uint32_t offset = t->snd_nxt - t->tx_seq;
    if (offset >= t->tx.length)
        return;
    uint32_t length =
        inet_min(inet_min(t->tx.length - offset, t->flow.mss), inet_max(t->snd_wnd, 1));
    if (inet_tcp_segment(m, t, t->snd_nxt, length, KIT_TCP_ACK | KIT_TCP_PSH) &&
        kit_seq_lt(t->snd_max, t->snd_nxt + length))
        t->snd_max = t->snd_nxt + length;
}

INET_COLD void inet_tcp_keep_alive(struct inet *m, struct inet_tcp *t)
{
    (void)inet_tcp_segment(m, t, t->snd_una - 1, 0, KIT_TCP_ACK); /* RFC 9293, 3.8.4 */
}
