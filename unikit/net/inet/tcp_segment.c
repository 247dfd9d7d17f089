/* SPDX-License-Identifier: MIT */
/* How a segment is built (RFC 9293, section 3.1): header, options, bytes from the queue, and the
 * checksum, or what a device needs to make it and to cut a super-frame up. */
#include <unikit/net/inet/calls.h>

enum { ECN_ECT0 = 2, OPTION_SACK_PERMITTED = 4, OPTION_SACK = 5, OPTION_TIMESTAMPS = 8 };

uint32_t inet_tcp_bare_seq(const struct inet_tcp *t)
{
    /* Behind everything sent, but never beyond the peer's window: a byte that probed a closed
     * window would else take it there, and the peer would not look at our acknowledgments, nor
     * believe a reset (RFC 9293, 3.10.7.4; RFC 5961, 3.2). */
    uint32_t edge = t->snd_una + t->snd_wnd;
    return t->socket.state >= KIT_TCP_ESTABLISHED && kit_seq_lt(edge, t->snd_max) ? edge
                                                                                  : t->snd_max;
}

static size_t put_timestamps(uint8_t *at, uint32_t value, uint32_t echo)
{
    kit_store32(at, 0x0101080a); /* two NOPs, kind 8, length 10 (RFC 7323, appendix A) */
    kit_store32(at + 4, value);
    kit_store32(at + 8, echo);
    return 12;
}

/* RFC 2018, sections 3 and 4; a duplicate is reported first (RFC 2883, section 4). */
INET_COLD static size_t put_blocks(struct inet_tcp *t, uint8_t *at, unsigned most)
{
    struct inet_range blocks[INET_SACK_BLOCKS];
    unsigned count = 0;
    if (t->duplicate.start != t->duplicate.end) {
        blocks[count++] = t->duplicate;
        t->duplicate = (struct inet_range){0, 0};
    }
    count += inet_assembly_blocks(&t->ahead, blocks + count, most - count);
    if (count == 0)
        return 0;
    kit_store16(at, 0x0101);
    at[2] = OPTION_SACK;
    at[3] = (uint8_t)(2 + 8 * count);
    for (unsigned i = 0; i < count; i++) {
        kit_store32(at + 4 + 8 * i, blocks[i].start);
        kit_store32(at + 8 + 8 * i, blocks[i].end);
    }
    return 4 + 8 * count;
}

uint32_t inet_tcp_options_length(const struct inet_tcp *t)
{
    return t->timestamps ? 12 : 0;
}

INET_COLD static size_t put_syn_options(const struct inet_reply *r, uint8_t *at)
{
    size_t length = 4;
    at[0] = KIT_TCP_OPTION_MSS;
    at[1] = 4;
    kit_store16(at + 2, r->mss);
    if (r->sack && r->timestamps) {
        kit_store16(at + length, OPTION_SACK_PERMITTED << 8 | 2);
        put_timestamps(at + length, r->ts_value, r->ts_echo);
        kit_store16(at + length, OPTION_SACK_PERMITTED << 8 | 2); /* in place of the NOPs */
        length += 12;
    } else if (r->timestamps) {
        length += put_timestamps(at + length, r->ts_value, r->ts_echo);
    } else if (r->sack) {
        kit_store32(at + length, 0x01010000 | OPTION_SACK_PERMITTED << 8 | 2);
        length += 4;
    }
    if (r->scale != 0xff) {
        kit_store32(at + length, 0x01030300u | r->scale);
        length += 4;
    }
    return length;
}

static void put_header(uint8_t *tcp, const struct inet_tuple *tuple, const struct inet_reply *r,
                       size_t header)
{
    kit_store16(tcp + KIT_TCP_SOURCE, tuple->local_port);
    kit_store16(tcp + KIT_TCP_DESTINATION, tuple->remote_port);
    kit_store32(tcp + KIT_TCP_SEQUENCE, r->seq);
    kit_store32(tcp + KIT_TCP_ACKNOWLEDGMENT, r->ack);
    tcp[KIT_TCP_OFFSET] = (uint8_t)(header / 4 << 4);
    tcp[KIT_TCP_FLAGS] = (uint8_t)r->flags;
    kit_store16(tcp + KIT_TCP_WINDOW, r->window);
    kit_store32(tcp + KIT_TCP_CHECKSUM, 0); /* and no urgent pointer */
}

/* Fills the checksum in or leaves it to the device, and sends. `segment`: most bytes of data in a
 * packet; a longer frame is for the device to cut up. */
static void segment_finish(struct inet *m, struct kit_frame *frame, struct inet_parcel *parcel,
                           size_t header, uint32_t segment)
{
    size_t offset = inet_ip_offset(&parcel->destination);
    uint8_t *tcp = frame->data + offset;
    uint64_t sum =
        inet_ip_pseudo(&parcel->route.source, &parcel->destination, KIT_IPV4_TCP, parcel->length);
    if ((m->offloads & INET_OFFLOAD_CHECKSUM) != 0) {
        kit_store16(tcp + KIT_TCP_CHECKSUM, (uint16_t)~kit_checksum_end(sum));
        frame->flags = INET_NEEDS_CHECKSUM;
        frame->checksum_start = (uint16_t)offset;
        frame->checksum_offset = KIT_TCP_CHECKSUM;
        if (parcel->length - header > segment) {
            frame->gso_type = INET_GSO_TCP4 | (parcel->ecn != 0 ? INET_GSO_ECN : 0);
            frame->gso_size = (uint16_t)segment;
            frame->header_length = (uint16_t)(offset + header);
        }
    } else {
        kit_store16(tcp + KIT_TCP_CHECKSUM, kit_checksum_end(inet_sum(sum, tcp, parcel->length)));
    }
    /* Without a way to the neighbour it is lost, as it could be later on. */
    (void)inet_ip_send(m, frame, parcel);
}

/* Bytes of the queue from `seq` on; remembers where it was, since most often it goes on there. */
static void segment_copy(struct inet_tcp *t, uint32_t seq, uint8_t *to, uint32_t length)
{
    const struct inet_chunk *at = t->cursor;
    uint32_t from = t->cursor_seq;
    if (length == 0)
        return;
    if (at == NULL || kit_seq_lt(seq, from)) {
        at = t->tx.first;
        from = t->tx_seq;
    }
    uint32_t offset = seq - from;
    at = inet_queue_seek(at, &offset);
    t->cursor = at;
    t->cursor_seq = seq - offset;
    inet_queue_copy(at, offset, to, length);
}

static size_t segment_options(struct inet *m, struct inet_tcp *t, struct inet_reply *r,
                              uint32_t length, uint8_t *at)
{
    if ((r->flags & KIT_TCP_SYN) != 0) {
        bool answer = (r->flags & KIT_TCP_ACK) != 0;
        r->mss = (uint16_t)inet_tcp_full_mss(m, t);
        r->scale = !answer || t->scaled ? t->rcv_shift : 0xff;
        r->sack = !answer || t->sack;
        r->timestamps = !answer || t->timestamps;
        return put_syn_options(r, at);
    }
    size_t done = t->timestamps ? put_timestamps(at, r->ts_value, r->ts_echo) : 0;
    if (t->sack && (t->ahead.first != NULL || t->duplicate.start != t->duplicate.end)) {
        uint32_t room = 40 - (uint32_t)done;
        if (length != 0) /* what the segment size leaves */
            room = length >= t->flow.mss ? 0 : inet_min(room, t->flow.mss - length);
        if (room >= 12)
            done += put_blocks(t, at + done, inet_min((room - 4) / 8, INET_SACK_BLOCKS));
    }
    return done;
}

static void segment_acked(struct inet_tcp *t)
{
    t->ack_now = false;
    t->acked = t->rcv_nxt;
    if (t->quick != 0)
        t->quick--;
    inet_timer_stop(t, INET_TIMER_ACK);
}

bool inet_tcp_segment(struct inet *m, struct inet_tcp *t, uint32_t seq, uint32_t length,
                      uint16_t flags)
{
    struct inet_parcel parcel = {.destination = t->tuple.remote, .protocol = KIT_IPV4_TCP};
    bool syn = (flags & KIT_TCP_SYN) != 0, ack = (flags & KIT_TCP_ACK) != 0;
    struct kit_frame *frame = inet_link_begin(m);
    if (frame == NULL)
        return false;
    uint8_t *tcp = frame->data + inet_ip_offset(&parcel.destination);
    struct inet_reply r = {.seq = seq,
                           .ack = ack ? t->rcv_nxt : 0,
                           .flags = flags,
                           .ts_value = m->now_ms + t->ts_offset,
                           .ts_echo = ack ? t->ts_recent : 0};
    r.window = ack ? inet_tcp_window(t, syn) : (uint16_t)inet_min(inet_tcp_space(t), UINT16_MAX);
    if (t->ecn_echo && !syn) /* RFC 3168, 6.1.3: until the peer says CWR */
        r.flags |= 64;
    size_t header = KIT_TCP_HEADER + segment_options(m, t, &r, length, tcp + KIT_TCP_HEADER);
    put_header(tcp, &t->tuple, &r, header);
    segment_copy(t, seq, tcp + header, length);
    parcel.length = (uint32_t)header + length;
    /* RFC 3168, 6.1.5: only new data, never a retransmission or a probe. */
    if (t->ecn && length != 0 && seq == t->snd_nxt && t->socket.state >= KIT_TCP_ESTABLISHED)
        parcel.ecn = ECN_ECT0;
    if (ack)
        segment_acked(t);
    if (inet_route(m, &parcel.destination, &parcel.route) != 0)
        return true; /* as lost */
    parcel.route.source = t->tuple.local;
    segment_finish(m, frame, &parcel, header, t->flow.mss);
    return true;
}

INET_COLD void inet_tcp_send_ack(struct inet *m, struct inet_tcp *t)
{
    if (!inet_tcp_segment(m, t, inet_tcp_bare_seq(t), 0, KIT_TCP_ACK))
        inet_tcp_ack_now(m, t);
}

/* RFC 5961, section 7: limited, and per connection, so that nobody learns from a shared count. */
INET_COLD void inet_tcp_challenge(struct inet *m, struct inet_tcp *t)
{
    if (m->now_ms - t->challenge_ms >= 1000) {
        t->challenge_ms = m->now_ms;
        t->challenges = 0;
    }
    if (t->challenges >= INET_CHALLENGES)
        return;
    t->challenges++;
    m->counts[INET_CHALLENGES_SENT]++;
    inet_tcp_send_ack(m, t);
}

INET_COLD void inet_tcp_reply(struct inet *m, const struct inet_segment *s,
                              const struct inet_reply *reply)
{
    struct inet_parcel parcel = {.destination = s->tuple.remote, .protocol = KIT_IPV4_TCP};
    struct kit_frame *frame = inet_link_begin(m);
    if (frame == NULL || inet_route(m, &parcel.destination, &parcel.route) != 0)
        return;
    uint8_t *tcp = frame->data + inet_ip_offset(&parcel.destination);
    size_t header = KIT_TCP_HEADER;
    if ((reply->flags & KIT_TCP_SYN) != 0)
        header += put_syn_options(reply, tcp + header);
    else if (reply->timestamps)
        header += put_timestamps(tcp + header, reply->ts_value, reply->ts_echo);
    put_header(tcp, &s->tuple, reply, header);
    parcel.length = (uint32_t)header;
    segment_finish(m, frame, &parcel, header, UINT32_MAX);
}

/* RFC 9293, 3.10.7.1. */
INET_COLD void inet_tcp_refuse(struct inet *m, const struct inet_segment *s)
{
    if ((s->flags & KIT_TCP_RST) != 0 || !inet_icmp_allowed(m))
        return;
    m->stats.resets_out++;
    uint32_t length = s->length + ((s->flags & KIT_TCP_SYN) != 0) + ((s->flags & KIT_TCP_FIN) != 0);
    struct inet_reply reply = {.flags = KIT_TCP_RST, .scale = 0xff};
    if ((s->flags & KIT_TCP_ACK) != 0) {
        reply.seq = s->ack;
    } else {
        reply.ack = s->seq + length;
        reply.flags = KIT_TCP_RST | KIT_TCP_ACK;
    }
    inet_tcp_reply(m, s, &reply);
}

INET_COLD void inet_tcp_send_reset(struct inet *m, struct inet_tcp *t)
{
    struct inet_segment s = {.tuple = t->tuple};
    struct inet_reply reply = {.seq = inet_tcp_bare_seq(t),
                               .ack = t->rcv_nxt,
                               .flags = KIT_TCP_RST | KIT_TCP_ACK,
                               .scale = 0xff};
    m->stats.resets_out++;
    inet_tcp_reply(m, &s, &reply);
}
