/* SPDX-License-Identifier: MIT */
/* TCP segments in: RFC 9293, section 3.10.7, in its order, with the checks of RFC 7323 against old
 * segments and of RFC 5961 against blind attacks. Only what lies in the window we advertised is
 * looked at; segments are trimmed to it first. Urgent data is taken as ordinary data (RFC 6093).
 * Data on a SYN is not kept, its sender repeats it. */
#include <unikit/net/inet/calls.h>

enum {
    FLAG_ECE = 64,
    FLAG_CWR = 128,
    OPTION_SACK_PERMITTED = 4,
    OPTION_SACK = 5,
    OPTION_TIMESTAMPS = 8,
    PAWS_LIFE_MS = 24 * 86400 * 1000 /* RFC 7323, 5.5 */
};

/* ---- options -------------------------------------------------------------------------------- */

static void option_take(struct inet_tcp_options *o, const uint8_t *at)
{
    uint8_t length = at[1];
    if (at[0] == KIT_TCP_OPTION_MSS && length == 4)
        o->mss = kit_load16(at + 2);
    else if (at[0] == KIT_TCP_OPTION_SCALE && length == 3)
        o->scale = at[2] < KIT_TCP_SCALE_MAX ? at[2] : KIT_TCP_SCALE_MAX; /* RFC 7323, 2.3 */
    else if (at[0] == OPTION_SACK_PERMITTED && length == 2)
        o->sack = true;
    else if (at[0] == OPTION_TIMESTAMPS && length == 10) {
        o->timestamps = true;
        o->ts_value = kit_load32(at + 2);
        o->ts_echo = kit_load32(at + 6);
    } else if (at[0] == OPTION_SACK && length >= 10 && (length - 2) % 8 == 0) {
        o->block_count = (uint8_t)((length - 2) / 8);
        if (o->block_count > INET_SACK_BLOCKS)
            o->block_count = INET_SACK_BLOCKS;
        for (unsigned i = 0; i < o->block_count; i++)
            o->blocks[i] =
                (struct inet_range){kit_load32(at + 2 + 8 * i), kit_load32(at + 6 + 8 * i)};
    }
}

/* What is malformed ends the list. */
static void options_parse(struct inet_tcp_options *o, const uint8_t *at, size_t length)
{
    o->mss = 0;
    o->scale = 0xff;
    o->block_count = 0;
    o->sack = o->timestamps = false;
    o->ts_value = o->ts_echo = 0;
    if (length == 12 && kit_load32(at) == 0x0101080a) { /* what nearly every segment has */
        option_take(o, at + 2);
        return;
    }
    size_t i = 0;
    while (i < length && at[i] != KIT_TCP_OPTION_END) {
        if (at[i] == KIT_TCP_OPTION_NOP) {
            i++;
            continue;
        }
        if (length - i < 2 || at[i + 1] < 2 || at[i + 1] > length - i)
            break;
        option_take(o, at + i);
        i += at[i + 1];
    }
}

/* ---- the states ----------------------------------------------------------------------------- */

/* RFC 9293, 3.10.7.3. */
INET_COLD static void in_syn_sent(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    bool acked = (s->flags & KIT_TCP_ACK) != 0;
    if (acked && (!kit_seq_lt(t->iss, s->ack) || !kit_seq_le(s->ack, t->snd_max))) {
        inet_tcp_refuse(m, s);
        return;
    }
    if ((s->flags & KIT_TCP_RST) != 0) {
        if (acked) {
            m->stats.resets_in++;
            inet_tcp_end(m, t, KIT_EREFUSED);
        }
        return;
    }
    if ((s->flags & KIT_TCP_SYN) == 0)
        return;
    inet_tcp_learn(m, t, s);
    if (acked) {
        /* RFC 3168, 6.1.1: an ECN-setup SYN-ACK has ECE alone. */
        t->ecn = t->ecn && (s->flags & (FLAG_ECE | FLAG_CWR)) == FLAG_ECE;
        t->rcv_adv = t->rcv_nxt + inet_min(inet_tcp_space(t), UINT16_MAX); /* our SYN's */
        inet_tcp_established(m, t);
        (void)inet_tcp_ack(m, t, s);
        inet_tcp_ack_now(m, t);
    } else { /* simultaneous open: the same SYN again, now with an ACK */
        t->ecn = t->ecn && (s->flags & (FLAG_ECE | FLAG_CWR)) == (FLAG_ECE | FLAG_CWR);
        t->socket.state = KIT_TCP_SYN_RECEIVED;
        t->syn_due = true;
        inet_tcp_queue(m, t);
    }
}

/* RFC 7323, section 5.3, R1, and 3.2. True: the segment is old, or lacks what was agreed. */
static bool in_is_old(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    if (!t->timestamps || (s->flags & KIT_TCP_RST) != 0)
        return false;
    if (!s->options.timestamps) {
        m->counts[INET_TCP_TIMESTAMP]++;
        return true;
    }
    if (!kit_seq_lt(s->options.ts_value, t->ts_recent) ||
        m->now_ms - t->ts_recent_ms > PAWS_LIFE_MS)
        return false;
    m->counts[INET_TCP_PAWS]++;
    inet_tcp_challenge(m, t);
    return true;
}

/* RFC 5961, section 3: only the exact sequence number resets. */
INET_COLD static void in_reset(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    uint32_t offset = s->seq - t->rcv_nxt;
    if (offset != 0) {
        if (offset < t->rcv_adv - t->rcv_nxt)
            inet_tcp_challenge(m, t);
        else
            m->counts[INET_TCP_WINDOW]++;
        return;
    }
    m->stats.resets_in++;
    inet_tcp_end(m, t, t->socket.state == KIT_TCP_SYN_RECEIVED ? KIT_EREFUSED : KIT_ERESET);
}

/* A SYN on a connection that has seen one. False: done with it. */
INET_COLD static bool in_syn_again(struct inet *m, struct inet_tcp *t, struct inet_segment *s)
{
    if (t->socket.state != KIT_TCP_SYN_RECEIVED || s->seq != t->irs) {
        inet_tcp_challenge(m, t); /* RFC 5961, section 4 */
        return false;
    }
    if ((s->flags & KIT_TCP_ACK) != 0) { /* the other half of a simultaneous open */
        s->flags &= (uint16_t)~KIT_TCP_SYN;
        s->seq++;
        inet_tcp_ack_now(m, t);
        return true;
    }
    t->syn_due = true; /* our SYN was lost, or is late */
    t->retransmits++;
    inet_tcp_queue(m, t);
    return false;
}

INET_COLD static void in_fin(struct inet *m, struct inet_tcp *t)
{
    t->fin_ahead = false;
    t->fin_received = true;
    inet_assembly_clear(&m->memory, &t->ahead); /* what a peer sent behind its own FIN is void */
    t->rcv_nxt++;
    inet_event(m, &t->socket, KIT_NET_READABLE);
    if (t->socket.state == KIT_TCP_FIN_WAIT_2) {
        inet_tcp_send_ack(m, t);
        inet_tcp_time_wait(m, t);
        return;
    }
    inet_tcp_ack_now(m, t);
    t->socket.state = t->socket.state == KIT_TCP_ESTABLISHED ? KIT_TCP_CLOSE_WAIT : KIT_TCP_CLOSING;
}

/* Our FIN is acknowledged. False: the connection is over. */
INET_COLD static bool in_fin_acked(struct inet *m, struct inet_tcp *t)
{
    switch (t->socket.state) {
    case KIT_TCP_FIN_WAIT_1:
        t->socket.state = KIT_TCP_FIN_WAIT_2;
        if (t->socket.orphan)
            inet_timer_set(m, t, INET_TIMER_LIFE, m->now_ns + INET_LINGER_NS);
        return true;
    case KIT_TCP_CLOSING:
        if (t->ack_now)
            inet_tcp_send_ack(m, t);
        inet_tcp_time_wait(m, t);
        return false;
    case KIT_TCP_LAST_ACK:
        inet_tcp_end(m, t, 0);
        return false;
    default:
        return true;
    }
}

/* RFC 9293, 3.10.7.4, fifth: the ACK field. False: done with the segment. */
static bool in_ack(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    if (t->socket.state == KIT_TCP_SYN_RECEIVED) {
        if (!kit_seq_lt(t->snd_una, s->ack) || !kit_seq_le(s->ack, t->snd_max)) {
            inet_tcp_refuse(m, s);
            return false;
        }
        if (t->listener != NULL && t->listener->full_count >= t->listener->backlog) {
            m->counts[INET_TCP_BACKLOG]++; /* our SYN comes again, and with luck there is room */
            return false;
        }
        inet_tcp_established(m, t);
    }
    if (kit_seq_lt(t->snd_max, s->ack) || kit_seq_lt(s->ack, t->snd_una - t->max_wnd)) {
        m->counts[INET_TCP_ACK]++;
        inet_tcp_challenge(m, t); /* RFC 5961, section 5 */
        return false;
    }
    return !inet_tcp_ack(m, t, s) || in_fin_acked(m, t);
}

static bool in_receives(const struct inet_tcp *t)
{
    return t->socket.state == KIT_TCP_ESTABLISHED || t->socket.state == KIT_TCP_FIN_WAIT_1 ||
           t->socket.state == KIT_TCP_FIN_WAIT_2;
}

/* RFC 9293, 3.10.7.4, seventh and eighth: the data, the FIN. False: the connection is over. */
static bool in_text(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    bool taken = true;
    if (s->length != 0 && t->socket.orphan && t->socket.state == KIT_TCP_FIN_WAIT_2) {
        inet_tcp_send_reset(m, t); /* data for nobody (RFC 1122, 4.2.2.13) */
        inet_tcp_end(m, t, KIT_ERESET);
        return false;
    }
    if (s->length != 0)
        taken = inet_tcp_take(m, t, s);
    if (taken && (s->flags & KIT_TCP_FIN) != 0 && !t->fin_ahead) {
        t->fin_ahead = true;
        t->fin_seq = s->seq + s->length;
    }
    if (t->fin_ahead && t->rcv_nxt == t->fin_seq)
        in_fin(m, t);
    return t->socket.state != KIT_TCP_TIME_WAIT;
}

/* RFC 3168, section 6.1.3: tell about marks until the peer has heard. */
static void in_congestion(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    if ((s->flags & FLAG_CWR) != 0)
        t->ecn_echo = false;
    if (s->congested && s->length != 0) {
        m->counts[INET_CONGESTION_MARKS]++;
        t->ecn_echo = true;
        inet_tcp_ack_now(m, t);
    }
}

static void in_synchronized(struct inet *m, struct inet_tcp *t, struct inet_segment *s)
{
    bool stamp = t->timestamps && s->options.timestamps && kit_seq_le(s->seq, t->acked);
    if (!inet_tcp_trim(m, t, s))
        return;
    if (stamp && !kit_seq_lt(s->options.ts_value, t->ts_recent)) { /* RFC 7323, 4.3 */
        t->ts_recent = s->options.ts_value;
        t->ts_recent_ms = m->now_ms;
    }
    if (!in_ack(m, t, s))
        return;
    inet_tcp_heard(m, t);
    if (t->ecn)
        in_congestion(m, t, s);
    if (in_receives(t) && !in_text(m, t, s))
        return;
    if (t->ack_now || t->board.lost != t->board.out || t->frto == INET_FRTO_NEW ||
        t->snd_nxt != t->tx_seq + t->tx.length + t->fin_queued)
        inet_tcp_queue(m, t); /* there is something to say, or to say again */
}

void inet_tcp_segment_input(struct inet *m, struct inet_tcp *t, const struct inet_segment *segment)
{
    struct inet_segment s = *segment;
    if (t->socket.state == KIT_TCP_SYN_SENT) {
        in_syn_sent(m, t, &s);
        return;
    }
    if (in_is_old(m, t, &s))
        return;
    if ((s.flags & KIT_TCP_RST) != 0) {
        in_reset(m, t, &s);
        return;
    }
    if ((s.flags & KIT_TCP_SYN) == 0)
        s.window <<= t->snd_shift; /* never scaled on a SYN (RFC 7323, 2.2) */
    else if (!in_syn_again(m, t, &s))
        return;
    if ((s.flags & KIT_TCP_ACK) == 0)
        m->counts[INET_TCP_FLAGS]++;
    else
        in_synchronized(m, t, &s);
}

static bool in_parse(struct inet *m, const struct inet_packet *p, struct inet_segment *s)
{
    const uint8_t *tcp = p->data;
    size_t header = p->length < KIT_TCP_HEADER ? 0 : (size_t)(tcp[KIT_TCP_OFFSET] >> 4) * 4;
    if (header < KIT_TCP_HEADER || header > p->length) {
        m->counts[INET_TCP_MALFORMED]++;
        return false;
    }
    if (!p->checked) {
        uint64_t sum = inet_ip_pseudo(&p->source, &p->destination, KIT_IPV4_TCP, p->length);
        if (kit_checksum_end(inet_sum(sum, tcp, p->length)) != 0) {
            m->counts[INET_TCP_CHECKSUM]++;
            return false;
        }
    }
    s->tuple = (struct inet_tuple){p->destination, p->source, kit_load16(tcp + KIT_TCP_DESTINATION),
                                   kit_load16(tcp + KIT_TCP_SOURCE)};
    s->seq = kit_load32(tcp + KIT_TCP_SEQUENCE);
    s->ack = kit_load32(tcp + KIT_TCP_ACKNOWLEDGMENT);
    s->window = kit_load16(tcp + KIT_TCP_WINDOW);
    s->flags = tcp[KIT_TCP_FLAGS];
    s->congested = p->congested;
    s->data = tcp + header;
    s->length = p->length - (uint32_t)header;
    options_parse(&s->options, tcp + KIT_TCP_HEADER, header - KIT_TCP_HEADER);
    if (s->tuple.remote_port != 0 && s->tuple.local_port != 0)
        return true;
    m->counts[INET_TCP_MALFORMED]++;
    return false;
}

void inet_tcp_input(struct inet *m, const struct inet_packet *p)
{
    struct inet_segment s;
    if (!in_parse(m, p, &s))
        return;
    struct inet_entry *entry = inet_tcp_find(m, &s.tuple, &s.hash);
    struct inet_time_wait *old = NULL;
    if (entry != NULL && entry->kind == INET_KIND_TCP) {
        inet_tcp_segment_input(m, KIT_CONTAINER_OF(entry, struct inet_tcp, entry), &s);
        return;
    }
    if (entry != NULL) {
        old = KIT_CONTAINER_OF(entry, struct inet_time_wait, entry);
        if (!inet_time_wait_input(m, old, &s))
            return;
    }
    struct inet_listener *l = inet_tcp_find_listener(m, s.tuple.local_port);
    if (l == NULL) {
        m->counts[INET_TCP_PORT]++;
        inet_tcp_refuse(m, &s);
        return;
    }
    inet_tcp_listener_input(m, l, &s, old);
    if (old != NULL)
        inet_time_wait_free(m, old);
}

/* ---- ICMP ----------------------------------------------------------------------------------- */

/* RFC 1191: the path carries less. Old routers do not say how much (section 5); then the next of
 * the usual sizes is tried. */
INET_COLD static void in_path(struct inet *m, struct inet_tcp *t, uint32_t mtu)
{
    static const uint16_t usual[] = {1492, 1280, 1006, 552};
    uint32_t now = t->flow.mss + inet_tcp_options_length(t) + KIT_IPV4_HEADER + KIT_TCP_HEADER;
    for (unsigned i = 0; mtu == 0 && i < KIT_ARRAY_SIZE(usual); i++)
        mtu = usual[i] < now ? usual[i] : 0;
    if (mtu >= now || !inet_path_shrink(m, &t->tuple.remote, mtu))
        return;
    inet_tcp_resize(m, t);
}

INET_COLD void inet_tcp_icmp(struct inet *m, struct inet_tuple *tuple, const uint8_t *tcp,
                             uint8_t code, uint32_t mtu)
{
    uint32_t hash, seq = kit_load32(tcp + KIT_TCP_SEQUENCE);
    struct inet_entry *entry = inet_tcp_find(m, tuple, &hash);
    struct inet_tcp *t = KIT_CONTAINER_OF(entry, struct inet_tcp, entry);
    /* RFC 5927, section 4: an error must be about something that is in flight. */
    if (entry == NULL || entry->kind != INET_KIND_TCP || kit_seq_lt(seq, t->snd_una) ||
        !kit_seq_lt(seq, t->snd_max)) {
        m->counts[INET_ICMP_UNWANTED]++;
        return;
    }
    if (code == 4)
        in_path(m, t, mtu);
    else if (t->socket.state == KIT_TCP_SYN_SENT) /* RFC 5461: later on all errors are soft */
        inet_tcp_end(m, t, code == 2 || code == 3 ? KIT_EREFUSED : KIT_EUNREACH);
    inet_reap(m);
}
