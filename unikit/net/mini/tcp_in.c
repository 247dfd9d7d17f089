/* SPDX-License-Identifier: MIT */
/* TCP segments in: RFC 9293, section 3.10.7, in its order, with the checks of RFC 5961 against
 * blind attacks. Only what lies in the window we advertised is looked at; segments are trimmed to
 * it first. Urgent data is taken as ordinary data (RFC 6093). Data on a SYN is not kept, its
 * sender repeats it. */
#include <unikit/net/mini/mini.h>

/* What the peer's SYN tells. */
MINI_COLD static void in_learn(struct mini *m, struct mini_tcp *t, const struct mini_segment *s)
{
    struct kit_tcp_options options = kit_tcp_parse_options(s->options, s->options_length);
    uint16_t mss = options.mss != 0 ? options.mss : MINI_MSS_DEFAULT;
    t->mss = (uint16_t)mini_min(mini_max(mss, MINI_MSS_MIN), mini_our_mss(m));
    t->scale_offered = options.scale != 0xff;
    if (t->scale_offered)
        t->snd_shift = options.scale;
    else
        t->rcv_shift = 0;
    t->irs = s->seq;
    t->rcv_nxt = s->seq + 1;
    t->rcv_adv = t->rcv_nxt;
    t->snd_wnd = s->window; /* never scaled on a SYN (RFC 7323, 2.2) */
    t->max_wnd = s->window;
    t->snd_wl1 = s->seq;
    t->snd_wl2 = s->ack;
}

MINI_COLD void mini_tcp_established(struct mini *m, struct mini_tcp *t)
{
    struct mini_listener *l = t->listener;
    t->socket.state = t->fin_queued ? KIT_TCP_FIN_WAIT_1 : KIT_TCP_ESTABLISHED;
    mini_tcp_start_sending(t);
    if (l == NULL) {
        m->stats.connected++;
        mini_event(m, &t->socket, KIT_NET_CONNECTED | KIT_NET_WRITABLE);
        return;
    }
    m->stats.accepted++;
    kit_list_remove(&t->listener_link);
    kit_list_push_back(&l->full, &t->listener_link);
    l->half_count--;
    l->full_count++;
    mini_event(m, &l->socket, KIT_NET_ACCEPT);
}

/* RFC 9293, 3.10.7.3. */
MINI_COLD static void in_syn_sent(struct mini *m, struct mini_tcp *t, struct mini_segment *s)
{
    bool acked = (s->flags & KIT_TCP_ACK) != 0;
    if (acked && (!kit_seq_lt(t->iss, s->ack) || !kit_seq_le(s->ack, t->snd_max))) {
        mini_tcp_refuse(m, s);
        return;
    }
    if ((s->flags & KIT_TCP_RST) != 0) {
        if (acked) {
            m->stats.resets_in++;
            mini_tcp_end(m, t, KIT_EREFUSED);
        }
        return;
    }
    if ((s->flags & KIT_TCP_SYN) == 0)
        return;
    in_learn(m, t, s);
    if (acked) {
        t->rcv_adv = t->rcv_nxt + mini_min(mini_receive_space(m, t), UINT16_MAX); /* our SYN's */
        mini_tcp_established(m, t);
        (void)mini_tcp_ack(m, t, s);
        mini_tcp_ack_now(m, t);
    } else { /* simultaneous open: the same SYN again, now with an ACK */
        t->socket.state = KIT_TCP_SYN_RECEIVED;
        t->snd_nxt = t->iss;
        mini_tcp_queue(m, t);
    }
}

/* Trims the segment to the window. False: nothing is left to look at, and the answer that RFC 9293
 * wants for an unacceptable segment is under way. */
static bool in_trim(struct mini *m, struct mini_tcp *t, struct mini_segment *s)
{
    uint32_t fin = s->flags & KIT_TCP_FIN;
    if (kit_seq_lt(s->seq, t->rcv_nxt)) {
        uint32_t old = t->rcv_nxt - s->seq;
        if (s->length + fin == 0) { /* a keep-alive, or an ACK that was overtaken */
            mini_tcp_challenge(m, t);
            return false;
        }
        if (old >= s->length + fin) { /* all of it was here: our ACK must have been lost */
            mini_tcp_ack_now(m, t);
            s->flags &= (uint8_t)~KIT_TCP_FIN;
            s->seq = t->rcv_nxt;
            s->length = 0;
            return kit_seq_lt(t->snd_una, s->ack);
        }
        s->data += mini_min(old, s->length);
        s->length -= mini_min(old, s->length);
        s->seq = t->rcv_nxt;
    }
    uint32_t room = t->rcv_adv - s->seq; /* may wrap: then the segment lies beyond */
    if (s->length + fin == 0 && kit_seq_le(s->seq, t->rcv_adv))
        return true;
    if (!kit_seq_lt(s->seq, t->rcv_adv)) {
        mini_tcp_ack_now(m, t); /* a probe of our closed window: its ACK counts */
        s->flags &= (uint8_t)~KIT_TCP_FIN;
        s->length = 0;
        return s->seq == t->rcv_nxt;
    }
    if (s->length + fin > room) {
        if (s->length > room)
            s->length = room;
        s->flags &= (uint8_t)~KIT_TCP_FIN;
        mini_tcp_ack_now(m, t);
    }
    return true;
}

/* RFC 5961, section 3: only the exact sequence number resets. */
MINI_COLD static void in_reset(struct mini *m, struct mini_tcp *t, const struct mini_segment *s)
{
    uint32_t offset = s->seq - t->rcv_nxt;
    if (offset != 0) {
        if (offset < t->rcv_adv - t->rcv_nxt)
            mini_tcp_challenge(m, t);
        return;
    }
    m->stats.resets_in++;
    mini_tcp_end(m, t, t->socket.state == KIT_TCP_SYN_RECEIVED ? KIT_EREFUSED : KIT_ERESET);
}

/* A SYN on a connection that has seen one. False: done with it. */
MINI_COLD static bool in_syn_again(struct mini *m, struct mini_tcp *t, struct mini_segment *s)
{
    if (t->socket.state != KIT_TCP_SYN_RECEIVED || s->seq != t->irs) {
        mini_tcp_challenge(m, t); /* RFC 5961, section 4 */
        return false;
    }
    if ((s->flags & KIT_TCP_ACK) != 0) { /* the other half of a simultaneous open */
        s->flags &= (uint8_t)~KIT_TCP_SYN;
        s->seq++;
        mini_tcp_ack_now(m, t);
        return true;
    }
    t->snd_nxt = t->iss; /* our SYN was lost, or is late */
    t->rtt_start_ns = 0;
    mini_tcp_queue(m, t);
    return false;
}

/* Bytes arrived in order, `count` of them, and lie in the ring. */
static void in_advance(struct mini *m, struct mini_tcp *t, uint32_t count)
{
    t->rx.length += count;
    t->rcv_nxt += count;
    mini_event(m, &t->socket, KIT_NET_READABLE);
}

/* False: the segment was not taken. */
static bool in_data(struct mini *m, struct mini_tcp *t, const struct mini_segment *s)
{
    uint32_t offset = s->seq - t->rcv_nxt;
    if (t->socket.orphan) { /* nobody reads any more: acknowledge, forget */
        if (offset == 0)
            t->rcv_nxt += s->length;
        mini_tcp_ack_now(m, t);
        return offset == 0;
    }
    bool in_order = offset == 0 && t->range_count == 0;
    if (!mini_ring_reserve(m, &t->rx, t->rx.length + offset + s->length, m->receive_buffer) ||
        (!in_order && !mini_ranges_add(t, s->seq, s->seq + s->length))) {
        m->stats.dropped_full++;
        mini_tcp_ack_now(m, t);
        return false;
    }
    mini_ring_put(&t->rx, t->rx.length + offset, s->data, s->length);
    if (in_order) {
        in_advance(m, t, s->length);
        if (++t->unacked >= 2)
            mini_tcp_ack_now(m, t);
        else
            mini_timer_set(m, t, MINI_TIMER_ACK, m->now_ns + MINI_DELAYED_ACK_NS);
        return true;
    }
    uint32_t reached = mini_ranges_advance(t, t->rcv_nxt) - t->rcv_nxt;
    if (reached != 0) {
        in_advance(m, t, reached);
        mini_tcp_ack_now(m, t);
    } else {
        mini_tcp_send_ack(m, t); /* duplicates count, so one per segment (RFC 5681, 4.2) */
    }
    return true;
}

MINI_COLD static void in_fin(struct mini *m, struct mini_tcp *t)
{
    t->fin_ahead = false;
    t->fin_received = true;
    t->range_count = 0; /* what a peer sent behind its own FIN is void */
    t->rcv_nxt++;
    mini_event(m, &t->socket, KIT_NET_READABLE);
    if (t->socket.state == KIT_TCP_FIN_WAIT_2) {
        mini_tcp_send_ack(m, t);
        mini_tcp_time_wait(m, t);
        return;
    }
    mini_tcp_ack_now(m, t);
    t->socket.state = t->socket.state == KIT_TCP_ESTABLISHED ? KIT_TCP_CLOSE_WAIT : KIT_TCP_CLOSING;
}

/* Our FIN is acknowledged. False: the connection is over. */
MINI_COLD static bool in_fin_acked(struct mini *m, struct mini_tcp *t)
{
    switch (t->socket.state) {
    case KIT_TCP_FIN_WAIT_1:
        t->socket.state = KIT_TCP_FIN_WAIT_2;
        if (t->socket.orphan)
            mini_timer_set(m, t, MINI_TIMER_LINGER, m->now_ns + MINI_LINGER_NS);
        return true;
    case KIT_TCP_CLOSING:
        if (t->ack_now)
            mini_tcp_send_ack(m, t);
        mini_tcp_time_wait(m, t);
        return false;
    case KIT_TCP_LAST_ACK:
        mini_tcp_end(m, t, 0);
        return false;
    default:
        return true;
    }
}

/* RFC 9293, 3.10.7.4, fifth: the ACK field. False: done with the segment. */
static bool in_ack(struct mini *m, struct mini_tcp *t, const struct mini_segment *s)
{
    if (t->socket.state == KIT_TCP_SYN_RECEIVED) {
        if (!kit_seq_lt(t->snd_una, s->ack) || !kit_seq_le(s->ack, t->snd_max)) {
            mini_tcp_refuse(m, s);
            return false;
        }
        if (t->listener != NULL && t->listener->full_count >= t->listener->backlog) {
            m->stats.dropped_full++; /* our SYN comes again, and with luck there is room then */
            return false;
        }
        mini_tcp_established(m, t);
    }
    if (kit_seq_lt(t->snd_max, s->ack) || kit_seq_lt(s->ack, t->snd_una - t->max_wnd)) {
        mini_tcp_challenge(m, t); /* RFC 5961, section 5 */
        return false;
    }
    return !mini_tcp_ack(m, t, s) || in_fin_acked(m, t);
}

static bool in_receives(const struct mini_tcp *t)
{
    return t->socket.state == KIT_TCP_ESTABLISHED || t->socket.state == KIT_TCP_FIN_WAIT_1 ||
           t->socket.state == KIT_TCP_FIN_WAIT_2;
}

static void in_segment(struct mini *m, struct mini_tcp *t, struct mini_segment *s)
{
    if (t->socket.state == KIT_TCP_SYN_SENT) {
        in_syn_sent(m, t, s);
        return;
    }
    if ((s->flags & KIT_TCP_RST) != 0) {
        in_reset(m, t, s);
        return;
    }
    if ((s->flags & KIT_TCP_SYN) == 0)
        s->window <<= t->snd_shift; /* never scaled on a SYN (RFC 7323, 2.2) */
    else if (!in_syn_again(m, t, s))
        return;
    if ((s->flags & KIT_TCP_ACK) == 0)
        return;
    if (!in_trim(m, t, s) || !in_ack(m, t, s))
        return;
    if (in_receives(t)) {
        bool taken = true;
        if (s->length != 0 && t->socket.orphan && t->socket.state == KIT_TCP_FIN_WAIT_2) {
            mini_tcp_send_reset(m, t); /* data for nobody (RFC 1122, 4.2.2.13) */
            mini_tcp_end(m, t, KIT_ERESET);
            return;
        }
        if (s->length != 0)
            taken = in_data(m, t, s);
        if (taken && (s->flags & KIT_TCP_FIN) != 0 && !t->fin_ahead) {
            t->fin_ahead = true;
            t->fin_seq = s->seq + s->length;
        }
        if (t->fin_ahead && t->rcv_nxt == t->fin_seq) {
            in_fin(m, t);
            if (t->socket.state == KIT_TCP_TIME_WAIT)
                return;
        }
    }
    if (t->ack_now || t->snd_nxt != t->tx_seq + t->tx.length + t->fin_queued)
        mini_tcp_queue(m, t); /* there is something to say, or to say again */
}

/* RFC 9293, 3.10.7.4 and RFC 6191: true if the segment opens a new connection. */
MINI_COLD static bool in_time_wait(struct mini *m, struct mini_time_wait *w,
                                   const struct mini_segment *s)
{
    if ((s->flags & KIT_TCP_RST) != 0) {
        if (s->seq == w->rcv_nxt)
            mini_time_wait_free(m, w);
        return false;
    }
    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_ACK)) == KIT_TCP_SYN && kit_seq_lt(w->rcv_nxt, s->seq))
        return mini_find_listener(m, s->local_port) != NULL;
    if ((s->flags & KIT_TCP_FIN) != 0) {
        w->deadline_ns = m->now_ns + m->time_wait_ns;
        kit_list_remove(&w->link);
        kit_list_push_back(&m->time_waits, &w->link);
    }
    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_FIN)) != 0 || s->length != 0)
        mini_tcp_reply(m, s, w->snd_nxt, w->rcv_nxt, KIT_TCP_ACK, w->window);
    return false;
}

/* Room for one more that is being opened. If there is none the oldest goes whose peer left our SYN
 * unanswered for a second, as those of a flood do; peers that answer are not sacrificed. */
MINI_COLD static struct mini_tcp *in_new(struct mini *m, struct mini_listener *l,
                                         const struct mini_segment *s, uint32_t hash)
{
    struct mini_tcp *t = NULL;
    if (l->half_count < l->backlog)
        t = mini_tcp_new(m, s->remote_ip, s->remote_port, s->local_port, hash);
    if (t != NULL || kit_list_empty(&l->half))
        return t;
    struct mini_tcp *oldest = KIT_CONTAINER_OF(l->half.next, struct mini_tcp, listener_link);
    if (oldest->retries == 0)
        return NULL;
    mini_tcp_end(m, oldest, 0);
    mini_reap(m);
    return mini_tcp_new(m, s->remote_ip, s->remote_port, s->local_port, hash);
}

/* RFC 9293, 3.10.7.2. The initial sequence number is above `floor` if there was an incarnation. */
MINI_COLD static void in_listen(struct mini *m, struct mini_listener *l,
                                const struct mini_segment *s, uint32_t hash, const uint32_t *floor)
{
    if ((s->flags & KIT_TCP_RST) != 0)
        return;
    if ((s->flags & KIT_TCP_ACK) != 0) {
        mini_tcp_refuse(m, s);
        return;
    }
    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_FIN)) != KIT_TCP_SYN)
        return;
    struct mini_tcp *t = l->full_count < l->backlog ? in_new(m, l, s, hash) : NULL;
    if (t == NULL) {
        m->stats.dropped_full++;
        return;
    }
    t->listener = l;
    t->socket.callback = l->socket.callback;
    t->socket.argument = l->socket.argument;
    t->socket.state = KIT_TCP_SYN_RECEIVED;
    kit_list_push_back(&l->half, &t->listener_link);
    l->half_count++;
    mini_tcp_set_isn(m, t, floor);
    in_learn(m, t, s);
    mini_tcp_queue(m, t);
}

static bool in_parse(struct mini *m, const uint8_t *ip, const uint8_t *tcp, size_t length,
                     bool checked, struct mini_segment *s)
{
    size_t header = length < KIT_TCP_HEADER ? 0 : (size_t)(tcp[KIT_TCP_OFFSET] >> 4) * 4;
    if (header < KIT_TCP_HEADER || header > length)
        return false;
    s->remote_ip = kit_load32(ip + KIT_IPV4_SOURCE);
    if (!checked) {
        uint64_t sum =
            kit_checksum_pseudo(s->remote_ip, m->address, KIT_IPV4_TCP, (uint16_t)length);
        if (kit_checksum_end(mini_sum(sum, tcp, length)) != 0)
            return false;
    }
    s->remote_port = kit_load16(tcp + KIT_TCP_SOURCE);
    s->local_port = kit_load16(tcp + KIT_TCP_DESTINATION);
    s->seq = kit_load32(tcp + KIT_TCP_SEQUENCE);
    s->ack = kit_load32(tcp + KIT_TCP_ACKNOWLEDGMENT);
    s->flags = tcp[KIT_TCP_FLAGS];
    s->window = kit_load16(tcp + KIT_TCP_WINDOW);
    s->options = tcp + KIT_TCP_HEADER;
    s->options_length = header - KIT_TCP_HEADER;
    s->data = tcp + header;
    s->length = (uint32_t)(length - header);
    return s->remote_port != 0 && s->local_port != 0;
}

void mini_tcp_input(struct mini *m, const uint8_t *ip, const uint8_t *tcp, size_t length,
                    bool checked)
{
    struct mini_segment s;
    if (!in_parse(m, ip, tcp, length, checked, &s)) {
        m->stats.dropped_malformed++;
        return;
    }
    uint32_t hash, floor;
    struct mini_tcp *t = mini_find(m, s.remote_ip, s.remote_port, s.local_port, &hash);
    if (t != NULL) {
        in_segment(m, t, &s);
        return;
    }
    struct mini_time_wait *w =
        mini_find_time_wait(m, s.remote_ip, s.remote_port, s.local_port, hash);
    if (w != NULL) {
        floor = w->snd_nxt;
        if (!in_time_wait(m, w, &s))
            return;
        mini_time_wait_free(m, w);
    }
    struct mini_listener *l = mini_find_listener(m, s.local_port);
    if (l != NULL) {
        in_listen(m, l, &s, hash, w != NULL ? &floor : NULL);
    } else {
        m->stats.dropped_unwanted++;
        mini_tcp_refuse(m, &s);
    }
}

MINI_COLD void mini_tcp_icmp(struct mini *m, uint32_t remote_ip, const uint8_t *tcp, uint8_t code,
                             uint16_t mtu)
{
    uint32_t hash, seq = kit_load32(tcp + KIT_TCP_SEQUENCE);
    struct mini_tcp *t = mini_find(m, remote_ip, kit_load16(tcp + KIT_TCP_DESTINATION),
                                   kit_load16(tcp + KIT_TCP_SOURCE), &hash);
    /* RFC 5927, section 4.1: only about something in flight */
    if (t == NULL || seq - t->snd_una >= mini_flight(t)) {
        m->stats.dropped_unwanted++;
        return;
    }
    if (code == KIT_ICMP_FRAGMENTATION) { /* RFC 1191; no smaller than what every host takes */
        uint32_t header = KIT_IPV4_HEADER + KIT_TCP_HEADER;
        uint32_t mss = mini_max(mtu > header ? mtu - header : 0, MINI_MSS_DEFAULT);
        if (mss >= t->mss)
            return;
        t->mss = (uint16_t)mss;
        t->snd_nxt = t->snd_una;
        t->rtt_start_ns = 0;
        mini_tcp_queue(m, t);
    } else if (t->socket.state == KIT_TCP_SYN_SENT && code <= KIT_ICMP_PORT) {
        mini_tcp_end(m, t, code >= KIT_ICMP_PROTOCOL ? KIT_EREFUSED : KIT_EUNREACH);
    }
}
