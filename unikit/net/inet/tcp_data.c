/* SPDX-License-Identifier: MIT */
/* Receiving (RFC 9293, sections 3.8.6 and 3.10.7.4): the window we offer, segments trimmed to it,
 * data in order and ahead of it, and when to acknowledge (RFC 5681, section 4.2).
 *
 * The window starts at 64 KiB at most and doubles, up to `receive_buffer`, whenever the reader took
 * half of it within a round trip: memory goes to connections that use it. */
#include <unikit/net/inet/calls.h>

uint32_t inet_tcp_space(const struct inet_tcp *t)
{
    return t->rx.length < t->rcv_limit ? t->rcv_limit - t->rx.length : 0;
}

/* The window opens in steps worth a segment only (RFC 9293, 3.8.6.2.2) and never closes from the
 * right (section 3.8.6). */
uint16_t inet_tcp_window(struct inet_tcp *t, bool syn)
{
    uint32_t space = inet_tcp_space(t), granted = t->rcv_adv - t->rcv_nxt;
    uint32_t step = inet_min(t->rcv_limit / 2, inet_max(t->rcv_mss, INET_MSS_DEFAULT));
    uint32_t window = space >= granted + step ? space : granted;
    unsigned shift = syn ? 0 : t->rcv_shift;
    uint32_t field = inet_min(window >> shift, UINT16_MAX);
    if (field << shift > granted)
        t->rcv_adv = t->rcv_nxt + (field << shift);
    return (uint16_t)field;
}

static void data_report(struct inet_tcp *t, uint32_t start, uint32_t end)
{
    if (t->sack)
        t->duplicate = (struct inet_range){start, end};
}

/* What is old of the segment goes. False: all of it. */
static bool trim_front(struct inet *m, struct inet_tcp *t, struct inet_segment *s)
{
    uint32_t fin = s->flags & KIT_TCP_FIN, old = t->rcv_nxt - s->seq;
    if (s->length + fin == 0) { /* a keep-alive, or an ACK that was overtaken */
        inet_tcp_challenge(m, t);
        return false;
    }
    t->quick = INET_QUICK_ACKS;
    if (s->length != 0)
        data_report(t, s->seq, s->seq + inet_min(old, s->length));
    inet_tcp_ack_now(m, t); /* our ACK must have been lost */
    if (old >= s->length + fin) {
        s->flags &= (uint16_t)~KIT_TCP_FIN;
        s->seq = t->rcv_nxt;
        s->length = 0;
        return kit_seq_lt(t->snd_una, s->ack) || s->options.block_count != 0;
    }
    s->data += inet_min(old, s->length);
    s->length -= inet_min(old, s->length);
    s->seq = t->rcv_nxt;
    return true;
}

bool inet_tcp_trim(struct inet *m, struct inet_tcp *t, struct inet_segment *s)
{
    if (kit_seq_lt(s->seq, t->rcv_nxt) && !trim_front(m, t, s))
        return false;
    uint32_t fin = s->flags & KIT_TCP_FIN;
    if (s->length + fin == 0 && kit_seq_le(s->seq, t->rcv_adv))
        return true;
    if (!kit_seq_lt(s->seq, t->rcv_adv)) {
        inet_tcp_ack_now(m, t); /* a probe of our closed window: its ACK counts */
        m->counts[INET_TCP_WINDOW]++;
        s->flags &= (uint16_t)~KIT_TCP_FIN;
        s->length = 0;
        return s->seq == t->rcv_nxt;
    }
    uint32_t room = t->rcv_adv - s->seq;
    if (s->length + fin > room) {
        s->length = inet_min(s->length, room);
        s->flags &= (uint16_t)~KIT_TCP_FIN;
        m->counts[INET_TCP_WINDOW]++;
        inet_tcp_ack_now(m, t);
    }
    return true;
}

/* How long an acknowledgment may wait for company: a round trip, which is what the sender expects
 * to wait anyway. */
static uint64_t data_delay_ns(const struct inet_tcp *t)
{
    uint64_t delay = (uint64_t)inet_rtt_us(&t->rtt) * KIT_NS_PER_US;
    if (delay < INET_DELAYED_ACK_MIN_NS)
        return INET_DELAYED_ACK_MIN_NS;
    return delay < INET_DELAYED_ACK_NS ? delay : INET_DELAYED_ACK_NS;
}

/* When to acknowledge data that came in order: every second full segment, or after a while. Those
 * of one batch share an acknowledgment, but not too many: one that is lost should not stop the
 * sender. */
static void data_acknowledge(struct inet *m, struct inet_tcp *t, uint32_t length)
{
    if (length >= t->rcv_mss)
        t->rcv_mss = (uint16_t)inet_min(length, 1460);
    uint32_t owed = t->rcv_nxt - t->acked;
    if (owed >= INET_ACK_EVERY * t->rcv_mss && m->offloads == 0)
        inet_tcp_send_ack(m, t);
    else if (t->quick != 0 || owed >= 2u * t->rcv_mss)
        inet_tcp_ack_now(m, t);
    else if (t->timers[INET_TIMER_ACK] == KIT_NEVER)
        inet_timer_set(m, t, INET_TIMER_ACK, m->now_ns + data_delay_ns(t));
}

static bool data_in_order(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    uint32_t taken = inet_queue_append(&m->memory, &t->rx, s->data, s->length);
    t->rcv_nxt += taken;
    if (taken != 0)
        inet_event(m, &t->socket, KIT_NET_READABLE);
    if (t->ahead.first != NULL) { /* a gap closes: say so at once (RFC 5681, 4.2) */
        t->rcv_nxt = inet_assembly_deliver(&m->memory, &t->ahead, t->rcv_nxt, &t->rx);
        inet_tcp_ack_now(m, t);
    } else {
        data_acknowledge(m, t, taken);
    }
    if (taken == s->length)
        return true;
    m->counts[INET_TCP_MEMORY]++;
    inet_tcp_ack_now(m, t);
    return false;
}

static bool data_ahead(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    struct inet_range duplicate = {0, 0};
    bool kept = false;
    if (!inet_memory_is_short(&m->memory))
        kept = inet_assembly_add(&m->memory, &t->ahead, s->seq, s->data, s->length, &duplicate) ||
               duplicate.end - duplicate.start == s->length;
    m->counts[INET_TCP_MEMORY] += !kept;
    if (duplicate.start != duplicate.end)
        data_report(t, duplicate.start, duplicate.end);
    t->quick = INET_QUICK_ACKS;
    inet_tcp_send_ack(m, t); /* duplicates count, so one per segment (RFC 5681, 4.2) */
    return kept;
}

bool inet_tcp_take(struct inet *m, struct inet_tcp *t, const struct inet_segment *s)
{
    bool in_order = s->seq == t->rcv_nxt;
    if (t->socket.orphan) { /* nobody reads any more: acknowledge, forget */
        if (in_order)
            t->rcv_nxt += s->length;
        inet_tcp_ack_now(m, t);
        return in_order;
    }
    return in_order ? data_in_order(m, t, s) : data_ahead(m, t, s);
}

bool inet_tcp_opened(struct inet *m, struct inet_tcp *t, uint32_t length)
{
    uint32_t round = inet_max(inet_rtt_us(&t->rtt), 1000);
    t->copied += length;
    if (m->now_us - t->copied_us > round) {
        if (t->copied >= t->rcv_limit / 2 && t->rcv_limit < m->receive_buffer &&
            !inet_memory_is_short(&m->memory))
            t->rcv_limit = inet_min(t->rcv_limit * 2, m->receive_buffer);
        t->copied = 0;
        t->copied_us = m->now_us;
    }
    /* A window update is due once it is worth two segments (RFC 9293, 3.8.6.2.2). */
    uint32_t opened = t->rcv_nxt + inet_tcp_space(t) - t->rcv_adv;
    return (int32_t)opened > 0 && opened >= inet_min(t->rcv_limit / 2, 2u * t->rcv_mss);
}
