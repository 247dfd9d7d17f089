/* SPDX-License-Identifier: MIT */
/* TCP segments out (RFC 9293, section 3.8; RFC 1122, 4.2.3.4). A connection speaks at the end of a
 * poll, so an acknowledgment rides on the reply and small writes of one callback share a segment;
 * that is why Nagle's algorithm is off unless asked for. Only duplicate ACKs, resets and fast
 * retransmissions leave at once. */
#include <unikit/net/mini/mini.h>

uint16_t mini_our_mss(const struct mini *m)
{
    return (uint16_t)(m->mtu - KIT_IPV4_HEADER - KIT_TCP_HEADER);
}

uint32_t mini_receive_space(const struct mini *m, const struct mini_tcp *t)
{
    return m->receive_buffer - t->rx.length;
}

void mini_tcp_queue(struct mini *m, struct mini_tcp *t)
{
    if (kit_list_empty(&t->output_link))
        kit_list_push_back(&m->output, &t->output_link);
}

void mini_tcp_ack_now(struct mini *m, struct mini_tcp *t)
{
    t->ack_now = true;
    mini_tcp_queue(m, t);
}

/* The window to advertise, already in units of the scale; remembers its right edge. It opens in
 * steps worth a segment only (RFC 9293, 3.8.6.2.2) and never closes from the right. */
static uint16_t out_window(struct mini *m, struct mini_tcp *t, bool syn)
{
    uint32_t space = mini_receive_space(m, t), granted = t->rcv_adv - t->rcv_nxt;
    uint32_t step = mini_min(m->receive_buffer / 2, t->mss);
    uint32_t window = space >= granted + step ? space : granted;
    unsigned shift = syn ? 0 : t->rcv_shift;
    uint32_t field = mini_min(window >> shift, UINT16_MAX);
    if (field << shift > granted)
        t->rcv_adv = t->rcv_nxt + (field << shift);
    return (uint16_t)field;
}

MINI_COLD static size_t out_options(const struct mini *m, const struct mini_tcp *t, uint8_t flags,
                                    uint8_t *at)
{
    if ((flags & KIT_TCP_SYN) == 0)
        return 0;
    at[0] = KIT_TCP_OPTION_MSS;
    at[1] = 4;
    kit_store16(at + 2, mini_our_mss(m));
    if ((flags & KIT_TCP_ACK) != 0 && !t->scale_offered)
        return 4;
    at[4] = KIT_TCP_OPTION_NOP;
    at[5] = KIT_TCP_OPTION_SCALE;
    at[6] = 3;
    at[7] = t->rcv_shift;
    return 8;
}

static void out_header(uint8_t *tcp, uint16_t source, uint16_t destination, uint32_t seq,
                       uint32_t ack, uint8_t flags, uint16_t window, size_t header)
{
    kit_store16(tcp + KIT_TCP_SOURCE, source);
    kit_store16(tcp + KIT_TCP_DESTINATION, destination);
    kit_store32(tcp + KIT_TCP_SEQUENCE, seq);
    kit_store32(tcp + KIT_TCP_ACKNOWLEDGMENT, ack);
    tcp[KIT_TCP_OFFSET] = (uint8_t)(header / 4 << 4);
    tcp[KIT_TCP_FLAGS] = flags;
    kit_store16(tcp + KIT_TCP_WINDOW, window);
    kit_store32(tcp + KIT_TCP_CHECKSUM, 0); /* and no urgent pointer */
}

static void out_finish(struct mini *m, uint8_t *frame, uint32_t source, uint32_t destination,
                       size_t length)
{
    uint8_t *tcp = frame + MINI_PAYLOAD;
    uint64_t sum = kit_checksum_pseudo(source, destination, KIT_IPV4_TCP, (uint16_t)length);
    kit_store16(tcp + KIT_TCP_CHECKSUM, kit_checksum_end(mini_sum(sum, tcp, length)));
    /* Without a way to the neighbour it is lost, as it could be later on. */
    (void)mini_ipv4_send(m, frame, source, destination, KIT_IPV4_TCP, length);
}

/* Builds and sends one segment with `length` bytes of the ring; false: the interface is busy. */
static bool out_segment(struct mini *m, struct mini_tcp *t, uint32_t seq, uint32_t length,
                        uint8_t flags)
{
    uint8_t *frame = mini_link_begin(m);
    if (frame == NULL)
        return false;
    uint8_t *tcp = frame + MINI_PAYLOAD;
    bool syn = (flags & KIT_TCP_SYN) != 0, ack = (flags & KIT_TCP_ACK) != 0;
    size_t header = KIT_TCP_HEADER + out_options(m, t, flags, tcp + KIT_TCP_HEADER);
    uint16_t window =
        ack ? out_window(m, t, syn) : (uint16_t)mini_min(mini_receive_space(m, t), UINT16_MAX);
    out_header(tcp, t->local_port, t->remote_port, seq, ack ? t->rcv_nxt : 0, flags, window,
               header);
    mini_ring_get(&t->tx, seq - t->tx_seq, tcp + header, length);
    if (kit_netif_noted(m->network))
        mini_note_out(m, t, frame);
    out_finish(m, frame, t->local_ip, t->remote_ip, header + length);
    if (ack) {
        t->ack_now = false;
        t->unacked = 0;
        mini_timer_stop(t, MINI_TIMER_ACK);
    }
    return true;
}

/* Where a segment without data stands: behind everything sent, but never beyond the peer's window.
 * A byte that probed a closed window would else take it there, and the peer would not look at our
 * acknowledgments, nor believe a reset (RFC 9293, 3.10.7.4; RFC 5961, 3.2). */
static uint32_t out_bare_seq(const struct mini_tcp *t)
{
    uint32_t edge = t->snd_una + t->snd_wnd;
    return t->socket.state >= KIT_TCP_ESTABLISHED && kit_seq_lt(edge, t->snd_max) ? edge
                                                                                  : t->snd_max;
}

MINI_COLD void mini_tcp_send_ack(struct mini *m, struct mini_tcp *t)
{
    if (!out_segment(m, t, out_bare_seq(t), 0, KIT_TCP_ACK))
        mini_tcp_ack_now(m, t);
}

/* RFC 5961, section 7: limited, and per connection, so that nobody learns from a shared count. */
MINI_COLD void mini_tcp_challenge(struct mini *m, struct mini_tcp *t)
{
    if (m->now_ns - t->challenge_ns >= KIT_NS_PER_S) {
        t->challenge_ns = m->now_ns;
        t->challenges = 0;
    }
    if (t->challenges++ < MINI_CHALLENGES)
        mini_tcp_send_ack(m, t);
}

MINI_COLD void mini_tcp_send_reset(struct mini *m, struct mini_tcp *t)
{
    uint8_t *frame = mini_link_begin(m);
    if (frame == NULL)
        return;
    m->stats.resets_out++;
    out_header(frame + MINI_PAYLOAD, t->local_port, t->remote_port, out_bare_seq(t), t->rcv_nxt,
               KIT_TCP_RST | KIT_TCP_ACK, 0, KIT_TCP_HEADER);
    out_finish(m, frame, t->local_ip, t->remote_ip, KIT_TCP_HEADER);
}

MINI_COLD void mini_tcp_reply(struct mini *m, const struct mini_segment *s, uint32_t seq,
                              uint32_t ack, uint8_t flags, uint16_t window)
{
    uint8_t *frame = mini_link_begin(m);
    if (frame == NULL)
        return;
    out_header(frame + MINI_PAYLOAD, s->local_port, s->remote_port, seq, ack, flags, window,
               KIT_TCP_HEADER);
    out_finish(m, frame, m->address, s->remote_ip, KIT_TCP_HEADER);
}

/* RFC 9293, 3.10.7.1. */
MINI_COLD void mini_tcp_refuse(struct mini *m, const struct mini_segment *s)
{
    if ((s->flags & KIT_TCP_RST) != 0)
        return;
    m->stats.resets_out++;
    uint32_t length = s->length + ((s->flags & KIT_TCP_SYN) != 0) + ((s->flags & KIT_TCP_FIN) != 0);
    if ((s->flags & KIT_TCP_ACK) != 0)
        mini_tcp_reply(m, s, s->ack, 0, KIT_TCP_RST, 0);
    else
        mini_tcp_reply(m, s, 0, s->seq + length, KIT_TCP_RST | KIT_TCP_ACK, 0);
}

/* Something went out that wants an acknowledgment. */
static void out_await(struct mini *m, struct mini_tcp *t, uint32_t seq, uint32_t count)
{
    if (kit_seq_lt(t->snd_max, seq + count))
        t->snd_max = seq + count;
    t->sent_ns = m->now_ns;
    if (t->persist || t->timers[MINI_TIMER_SEND] == KIT_NEVER) {
        t->persist = false;
        mini_timer_set(m, t, MINI_TIMER_SEND, m->now_ns + t->rto_ns);
    }
}

MINI_COLD static bool out_syn(struct mini *m, struct mini_tcp *t)
{
    bool passive = t->socket.state == KIT_TCP_SYN_RECEIVED;
    if (t->snd_nxt != t->iss) {
        if (t->ack_now && passive)
            return out_segment(m, t, out_bare_seq(t), 0, KIT_TCP_ACK);
        return true;
    }
    if (!out_segment(m, t, t->iss, 0, (uint8_t)(KIT_TCP_SYN | (passive ? KIT_TCP_ACK : 0))))
        return false;
    if (t->snd_max == t->iss) {
        t->rtt_start_ns = m->now_ns;
        t->rtt_seq = t->iss;
    }
    t->snd_nxt = t->iss + 1;
    out_await(m, t, t->iss, 1);
    return true;
}

MINI_COLD void mini_tcp_retransmit(struct mini *m, struct mini_tcp *t)
{
    uint32_t offset = t->snd_una - t->tx_seq;
    uint32_t length = offset < t->tx.length ? mini_min(t->tx.length - offset, t->mss) : 0;
    bool fin = t->fin_sent && offset + length == t->tx.length;
    if (length == 0 && !fin)
        return;
    t->retransmits++;
    m->stats.retransmits++;
    if (out_segment(m, t, t->snd_una, length, (uint8_t)(KIT_TCP_ACK | (fin ? KIT_TCP_FIN : 0))))
        mini_timer_set(m, t, MINI_TIMER_SEND, m->now_ns + t->rto_ns);
}

MINI_COLD void mini_tcp_probe(struct mini *m, struct mini_tcp *t)
{
    uint32_t offset = t->snd_una - t->tx_seq;
    if (offset >= t->tx.length)
        return;
    uint32_t length = mini_min(mini_min(t->tx.length - offset, t->mss), mini_max(t->snd_wnd, 1));
    if (out_segment(m, t, t->snd_una, length, KIT_TCP_ACK | KIT_TCP_PSH) &&
        kit_seq_lt(t->snd_max, t->snd_una + length))
        t->snd_max = t->snd_una + length;
}

/* Bytes that may go now from snd_nxt on: what the peer's window, ours for the network, and the
 * segment size leave of `left`. */
static uint32_t out_allowed(const struct mini_tcp *t, uint32_t left)
{
    uint32_t cwnd = t->cwnd;
    if (!t->recovering) /* limited transmit */
        cwnd += mini_min(t->dupacks, 2) * (uint32_t)t->mss;
    uint32_t window = mini_min(t->snd_wnd, cwnd), used = t->snd_nxt - t->snd_una;
    return mini_min(mini_min(left, t->mss), window > used ? window - used : 0);
}

/* Whether a segment of `length` bytes is worth sending (RFC 9293, 3.8.6.2.1; Nagle: 3.7.4). */
static bool out_worthwhile(const struct mini *m, const struct mini_tcp *t, uint32_t length,
                           bool last)
{
    if (length == 0)
        return false;
    return length == t->mss || kit_seq_lt(t->snd_nxt, t->snd_max) ||
           (last && (!m->nagle || t->fin_queued || t->snd_una == t->snd_max)) ||
           length >= t->max_wnd / 2;
}

/* Sends the next segment: 1; 0: nothing may go now; -1: the interface is busy. */
static int out_next(struct mini *m, struct mini_tcp *t)
{
    uint32_t offset = t->snd_nxt - t->tx_seq;
    if (offset > t->tx.length)
        return 0; /* the FIN is out */
    uint32_t left = t->tx.length - offset, length = out_allowed(t, left);
    bool fin = t->fin_queued && length == left;
    if (!fin && !out_worthwhile(m, t, length, length == left)) {
        if (left != 0 && t->snd_nxt == t->snd_una && !t->persist) {
            t->persist = true; /* the window is closed, or silly: ask from time to time */
            t->retries = 0;
            mini_timer_set(m, t, MINI_TIMER_SEND, m->now_ns + t->rto_ns);
        }
        return 0;
    }
    uint8_t flags = (uint8_t)(KIT_TCP_ACK | (length == left && length != 0 ? KIT_TCP_PSH : 0) |
                              (fin ? KIT_TCP_FIN : 0));
    if (!out_segment(m, t, t->snd_nxt, length, flags))
        return -1;
    if (t->rtt_start_ns == 0 && t->snd_nxt == t->snd_max) {
        t->rtt_start_ns = m->now_ns;
        t->rtt_seq = t->snd_nxt;
    }
    if (t->probes != 0) { /* the window is open again */
        t->probes = 0;
        mini_tcp_compute_rto(t);
    }
    out_await(m, t, t->snd_nxt, length + fin);
    t->snd_nxt += length + fin;
    t->fin_sent |= fin;
    return 1;
}

bool mini_tcp_output(struct mini *m, struct mini_tcp *t)
{
    if (t->socket.state == KIT_TCP_SYN_SENT || t->socket.state == KIT_TCP_SYN_RECEIVED)
        return out_syn(m, t);
    if (t->snd_una == t->snd_max && m->now_ns - t->sent_ns > t->rto_ns)
        mini_tcp_restart(t); /* RFC 5681, 4.1 */
    int rc;
    while ((rc = out_next(m, t)) > 0)
        ;
    if (rc == 0 && t->ack_now && !out_segment(m, t, out_bare_seq(t), 0, KIT_TCP_ACK))
        rc = -1;
    return rc == 0;
}
