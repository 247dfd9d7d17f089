/* SPDX-License-Identifier: MIT */
/* How connections open from outside (RFC 9293, 3.10.7.2). Half-open ones wait in a list per
 * listener, no longer than its backlog. When it is full no state is kept for a SYN: the answer's
 * sequence number is a cookie that holds what must be remembered (RFC 4987, section 3.6), its
 * timestamp the options, and the peer's ACK brings both back. Cookies are taken for two minutes
 * after the last one was given, so that at all other times an ACK out of nowhere is refused. */
#include <unikit/net/inet/calls.h>

enum { FLAG_ECE = 64, FLAG_CWR = 128, COOKIE_BITS = 63, COOKIE_NO_SCALE = 15 };
#define COOKIE_PERIOD_NS (64 * KIT_NS_PER_S)
#define COOKIE_PERIODS 2

static const uint16_t cookie_sizes[] = {536, 1024, 1220, 1300, 1360, 1440, 1460, 8960};

uint32_t inet_tcp_full_mss(const struct inet *m, const struct inet_tcp *t)
{
    (void)t;
    return (uint32_t)m->mtu - KIT_IPV4_HEADER - KIT_TCP_HEADER;
}

/* What the peer's SYN tells. */
INET_COLD void inet_tcp_learn(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    const struct inet_tcp_options *o = &s->options;
    uint32_t mss = inet_max(o->mss != 0 ? o->mss : INET_MSS_DEFAULT, INET_MSS_MIN);
    struct inet_route route;
    uint32_t most = inet_tcp_full_mss(m, t);
    if (inet_route(m, &t->tuple.remote, &route) == 0)
        most = inet_min(most, (uint32_t)route.mtu - KIT_IPV4_HEADER - KIT_TCP_HEADER);
    t->scaled = o->scale != 0xff;
    t->sack = o->sack;
    t->timestamps = o->timestamps;
    t->ts_recent = o->ts_value;
    t->ts_recent_ms = m->now_ms;
    t->snd_shift = t->scaled ? o->scale : 0;
    if (!t->scaled)
        t->rcv_shift = 0;
    t->flow.mss = inet_min(mss, most) - inet_tcp_options_length(t); /* RFC 6691 */
    t->rcv_mss = INET_MSS_DEFAULT;
    t->irs = s->seq;
    t->rcv_nxt = t->acked = s->seq + 1;
    t->rcv_adv = t->rcv_nxt;
    t->snd_wnd = s->window; /* never scaled on a SYN (RFC 7323, 2.2) */
    t->max_wnd = s->window;
    t->snd_wl1 = s->seq;
    t->snd_wl2 = s->ack;
}

INET_COLD void inet_tcp_established(struct inet *m, struct inet_tcp *t)
{
    struct inet_listener *l = t->listener;
    bool again = t->retransmits != 0;
    t->socket.state = t->fin_queued ? KIT_TCP_FIN_WAIT_1 : KIT_TCP_ESTABLISHED;
    t->flow.cwnd = again ? t->flow.mss : inet_flow_initial(t->flow.mss); /* RFC 5681, 3.1 */
    t->flow.ssthresh = UINT32_MAX / 2;
    m->congestion->reset(&t->flow);
    if (!again && !t->cookie) {
        uint32_t rtt = inet_max(m->now_us - t->sent_us, 1);
        inet_rtt_sample(&t->rtt, rtt, 1);
        inet_rack_round_trip(&t->rack, rtt, m->now_us);
    }
    t->recover = t->iss;
    t->retries = t->backoff = 0;
    t->copied_us = m->now_us;
    inet_tcp_heard(m, t);
    if (l == NULL) {
        m->stats.connected++;
        inet_event(m, &t->socket, KIT_NET_CONNECTED | KIT_NET_WRITABLE);
        return;
    }
    m->stats.accepted++;
    kit_list_remove(&t->listener_link);
    kit_list_push_back(&l->full, &t->listener_link);
    l->half_count--;
    l->full_count++;
    inet_event(m, &l->socket, KIT_NET_ACCEPT);
}

/* A connection in SYN_RECEIVED from what a SYN says; NULL: no memory. */
INET_COLD static struct inet_tcp *open_half(struct inet *m, struct inet_listener *l,
                                            const struct inet_segment *s)
{
    struct inet_tcp *t = inet_tcp_new(m, &s->tuple, s->hash);
    if (t == NULL)
        return NULL;
    t->listener = l;
    t->socket.callback = l->socket.callback;
    t->socket.argument = l->socket.argument;
    t->socket.state = KIT_TCP_SYN_RECEIVED;
    kit_list_push_back(&l->half, &t->listener_link);
    l->half_count++;
    inet_tcp_learn(m, t, s);
    /* RFC 3168, 6.1.1: an ECN-setup SYN has both flags. */
    t->ecn = m->ecn != INET_ECN_OFF && (s->flags & (FLAG_ECE | FLAG_CWR)) == (FLAG_ECE | FLAG_CWR);
    return t;
}

/* ---- SYN cookies ---------------------------------------------------------------------------- */

static uint32_t cookie_hash(const struct inet *m, const struct inet_segment *s, uint64_t period)
{
    uint64_t words[6] = {s->tuple.local.high,
                         s->tuple.local.low,
                         s->tuple.remote.high,
                         s->tuple.remote.low,
                         (uint64_t)s->tuple.local_port << 16 | s->tuple.remote_port,
                         period << 8 | 3};
    return (uint32_t)inet_hash_strong(&m->secret, words, 6);
}

/* The period in the upper 8 bits and the segment size in the lower 24, each masked. */
INET_COLD static uint32_t cookie_make(const struct inet *m, const struct inet_segment *s,
                                      uint32_t irs, uint32_t size)
{
    uint64_t period = m->now_ns / COOKIE_PERIOD_NS;
    return cookie_hash(m, s, UINT64_MAX >> 8) + irs + ((uint32_t)period << 24) +
           ((cookie_hash(m, s, period) + size) & 0xffffff);
}

/* The index of the segment size; -1: not of our making, or too old. */
INET_COLD static int cookie_read(const struct inet *m, const struct inet_segment *s, uint32_t irs,
                                 uint32_t cookie)
{
    uint64_t period = m->now_ns / COOKIE_PERIOD_NS;
    cookie -= cookie_hash(m, s, UINT64_MAX >> 8) + irs;
    uint32_t age = ((uint32_t)period - (cookie >> 24)) & 0xff;
    if (age >= COOKIE_PERIODS || age > period)
        return -1;
    uint32_t size = (cookie - cookie_hash(m, s, period - age)) & 0xffffff;
    return size < KIT_ARRAY_SIZE(cookie_sizes) ? (int)size : -1;
}

INET_COLD static void cookie_send(struct inet *m, struct inet_listener *l,
                                  const struct inet_segment *s)
{
    const struct inet_tcp_options *o = &s->options;
    uint32_t size = KIT_ARRAY_SIZE(cookie_sizes) - 1, mss = o->mss != 0 ? o->mss : INET_MSS_DEFAULT;
    uint8_t shift = 0;
    while (size != 0 && cookie_sizes[size] > mss)
        size--;
    while (m->receive_buffer >> shift > UINT16_MAX)
        shift++;
    bool ecn =
        m->ecn != INET_ECN_OFF && (s->flags & (FLAG_ECE | FLAG_CWR)) == (FLAG_ECE | FLAG_CWR);
    struct inet_reply r = {.seq = cookie_make(m, s, s->seq, size),
                           .ack = s->seq + 1,
                           .flags = KIT_TCP_SYN | KIT_TCP_ACK,
                           .window = (uint16_t)inet_min(m->receive_buffer, UINT16_MAX),
                           .mss = (uint16_t)inet_tcp_full_mss(m, NULL),
                           .scale = 0xff,
                           .ts_echo = o->ts_value};
    if (o->timestamps) { /* without them there is no room for the other options */
        uint32_t now = m->now_ms + inet_tcp_ts_offset(m, &s->tuple);
        uint32_t scale = o->scale != 0xff ? o->scale : COOKIE_NO_SCALE;
        r.timestamps = true;
        r.sack = o->sack;
        r.scale = o->scale != 0xff ? shift : 0xff;
        r.flags |= ecn ? FLAG_ECE : 0;
        r.ts_value = (now & ~(uint32_t)COOKIE_BITS) | scale | (o->sack ? 16 : 0) | (ecn ? 32 : 0);
        if (kit_seq_lt(now, r.ts_value))
            r.ts_value -= COOKIE_BITS + 1; /* never ahead of the clock */
    }
    l->cookies = true;
    l->cookies_ns = m->now_ns;
    m->counts[INET_COOKIES_SENT]++;
    inet_tcp_reply(m, s, &r);
}

/* An ACK for a listener: the connection that a cookie stands for, or NULL. */
INET_COLD static struct inet_tcp *cookie_take(struct inet *m, struct inet_listener *l,
                                              const struct inet_segment *s)
{
    if (!l->cookies || m->now_ns - l->cookies_ns > COOKIE_PERIODS * COOKIE_PERIOD_NS)
        return NULL;
    int size = cookie_read(m, s, s->seq - 1, s->ack - 1);
    if (size < 0) {
        m->counts[INET_TCP_COOKIE]++;
        return NULL;
    }
    struct inet_segment syn = *s;
    syn.seq = s->seq - 1;
    syn.flags = KIT_TCP_SYN;
    syn.options.mss = cookie_sizes[size];
    syn.options.scale = 0xff;
    syn.options.sack = false;
    if (s->options.timestamps) {
        uint32_t bits = s->options.ts_echo & COOKIE_BITS;
        syn.options.scale = (bits & 15) != COOKIE_NO_SCALE ? bits & 15 : 0xff;
        syn.options.sack = (bits & 16) != 0;
        syn.flags |= (bits & 32) != 0 ? FLAG_ECE | FLAG_CWR : 0;
    }
    struct inet_tcp *t = open_half(m, l, &syn);
    if (t == NULL)
        return NULL;
    t->cookie = true;
    t->iss = s->ack - 1;
    t->snd_una = t->iss;
    t->snd_nxt = t->snd_max = t->tx_seq = t->cursor_seq = t->iss + 1;
    t->rcv_adv = t->rcv_nxt + inet_min(m->receive_buffer, UINT16_MAX);
    m->counts[INET_COOKIES_TAKEN]++;
    return t;
}

/* ---- listeners ------------------------------------------------------------------------------ */

/* Room for one more that is being opened: the oldest goes whose peer left our SYN unanswered for a
 * second, as those of a flood do; peers that answer are not sacrificed. */
INET_COLD static bool listener_room(struct inet *m, struct inet_listener *l)
{
    if (l->half_count < l->backlog && m->open < m->connections)
        return true;
    if (kit_list_empty(&l->half))
        return false;
    struct inet_tcp *oldest = KIT_CONTAINER_OF(l->half.next, struct inet_tcp, listener_link);
    if (oldest->retries == 0)
        return false;
    inet_tcp_end(m, oldest, 0);
    inet_reap(m);
    return true;
}

INET_COLD static void listener_syn(struct inet *m, struct inet_listener *l,
                                   const struct inet_segment *s, const struct inet_time_wait *old)
{
    if (l->full_count >= l->backlog) {
        m->counts[INET_TCP_BACKLOG]++; /* the peer's SYN comes again, and with luck there is room */
        return;
    }
    if (!listener_room(m, l)) {
        m->counts[INET_TCP_BACKLOG]++;
        cookie_send(m, l, s);
        return;
    }
    struct inet_tcp *t = open_half(m, l, s);
    if (t == NULL) {
        m->counts[INET_TCP_MEMORY]++;
        return;
    }
    inet_tcp_set_isn(m, t, old != NULL ? &old->snd_nxt : NULL);
    t->syn_due = true;
    inet_tcp_queue(m, t);
}

INET_COLD void inet_tcp_listener_input(struct inet *m, struct inet_listener *l,
                                       const struct inet_segment *s,
                                       const struct inet_time_wait *old)
{
    uint16_t flags = s->flags & (KIT_TCP_SYN | KIT_TCP_ACK | KIT_TCP_RST | KIT_TCP_FIN);
    if ((flags & KIT_TCP_RST) != 0)
        return;
    if (flags == KIT_TCP_SYN) {
        listener_syn(m, l, s, old);
        return;
    }
    if ((flags & KIT_TCP_ACK) == 0) {
        m->counts[INET_TCP_FLAGS]++;
        return;
    }
    struct inet_tcp *t = NULL;
    if ((flags & KIT_TCP_SYN) == 0) {
        if (l->full_count >= l->backlog && l->cookies &&
            m->now_ns - l->cookies_ns <= COOKIE_PERIODS * COOKIE_PERIOD_NS &&
            cookie_read(m, s, s->seq - 1, s->ack - 1) >= 0) {
            m->counts[INET_TCP_BACKLOG]++; /* it says so again, and with luck there is room then */
            return;
        }
        t = cookie_take(m, l, s);
    }
    if (t == NULL)
        inet_tcp_refuse(m, s);
    else
        inet_tcp_segment_input(m, t, s);
}
