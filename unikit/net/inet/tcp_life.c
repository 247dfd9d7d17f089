/* SPDX-License-Identifier: MIT */
/* Connections from birth to death. The living and those in TIME-WAIT are in one table by their
 * four numbers, so a segment costs one look-up; TIME-WAIT keeps 104 bytes of a connection, at most
 * four times `connections` of them, and recycles the oldest when full. */
#include <unikit/net/inet/calls.h>

struct inet_entry *inet_tcp_find(struct inet *m, const struct inet_tuple *tuple, uint32_t *hash)
{
    struct inet_tcp *t = m->last;
    if (t != NULL && inet_tuple_equal(&t->tuple, tuple)) {
        *hash = t->entry.hash;
        return &t->entry;
    }
    *hash = inet_hash_tuple(&m->key, tuple);
    struct inet_entry *at = *inet_table_chain(&m->flows, *hash);
    for (; at != NULL; at = at->next) {
        if (at->hash != *hash)
            continue;
        if (at->kind == INET_KIND_TIME_WAIT) {
            if (inet_tuple_equal(&KIT_CONTAINER_OF(at, struct inet_time_wait, entry)->tuple, tuple))
                return at;
            continue;
        }
        t = KIT_CONTAINER_OF(at, struct inet_tcp, entry);
        if (inet_tuple_equal(&t->tuple, tuple)) {
            m->last = t;
            return at;
        }
    }
    return NULL;
}

uint32_t inet_port_hash(const struct inet *m, uint16_t port)
{
    return (uint32_t)m->key.word[0] ^ port * UINT32_C(0x9e3779b1);
}

struct inet_listener *inet_tcp_find_listener(const struct inet *m, uint16_t port)
{
    struct inet_entry *at = *inet_table_chain(&m->listeners, inet_port_hash(m, port));
    for (; at != NULL; at = at->next) {
        struct inet_listener *l = KIT_CONTAINER_OF(at, struct inet_listener, entry);
        if (l->port == port)
            return l;
    }
    return NULL;
}

static uint64_t life_secret(const struct inet *m, const struct inet_tuple *t, uint64_t purpose)
{
    uint64_t words[6] = {t->local.high,
                         t->local.low,
                         t->remote.high,
                         t->remote.low,
                         (uint64_t)t->local_port << 16 | t->remote_port,
                         purpose};
    return inet_hash_strong(&m->secret, words, 6);
}

/* RFC 6528: a clock of 4.096 us per tick plus a secret of the connection. Above an incarnation
 * before by more than a window (RFC 1122, 4.2.2.13). */
INET_COLD void inet_tcp_set_isn(struct inet *m, struct inet_tcp *t, const uint32_t *floor)
{
    t->iss = (uint32_t)(m->now_ns >> 12) + (uint32_t)life_secret(m, &t->tuple, 1);
    if (floor != NULL && !kit_seq_lt(*floor, t->iss))
        t->iss = *floor + 65536 + 1;
    t->snd_una = t->snd_nxt = t->snd_max = t->recover = t->iss;
    t->tx_seq = t->cursor_seq = t->iss + 1;
}

/* Timestamps start anywhere, but the same for the same peer (RFC 7323, section 5.4). */
INET_COLD uint32_t inet_tcp_ts_offset(const struct inet *m, const struct inet_tuple *tuple)
{
    struct inet_tuple both = *tuple;
    both.local_port = both.remote_port = 0;
    return (uint32_t)life_secret(m, &both, 2);
}

INET_COLD struct inet_tcp *inet_tcp_new(struct inet *m, const struct inet_tuple *tuple,
                                        uint32_t hash)
{
    struct inet_tcp *t = NULL;
    if (m->open < m->connections && inet_timer_reserve(m))
        t = inet_take(&m->memory, sizeof(*t));
    if (t == NULL && m->open == 0)
        inet_timer_close(m);
    if (t == NULL)
        return NULL;
    memset(t, 0, sizeof(*t));
    t->entry.hash = hash;
    t->entry.kind = INET_KIND_TCP;
    t->tuple = *tuple;
    t->socket.handle.net = &m->net;
    t->flow.mss = INET_MSS_DEFAULT;
    t->nagle = m->nagle;
    t->keepalive_ms = m->keepalive_ms;
    t->patience_ms = m->patience_ms;
    t->rcv_limit = inet_min(m->receive_buffer, 65536);
    t->rcv_mss = INET_MSS_DEFAULT;
    t->quick = INET_QUICK_ACKS;
    t->ts_offset = inet_tcp_ts_offset(m, tuple);
    t->heard_ms = m->now_ms;
    while (m->receive_buffer >> t->rcv_shift > UINT16_MAX)
        t->rcv_shift++;
    for (unsigned i = 0; i < INET_TIMERS; i++)
        t->timers[i] = KIT_NEVER;
    inet_board_open(&t->board);
    kit_list_init(&t->socket.event_link);
    kit_list_init(&t->output_link);
    kit_list_init(&t->listener_link);
    inet_table_insert(&m->memory, &m->flows, &t->entry);
    m->open++;
    return t;
}

INET_COLD static void life_leave_listener(struct inet_tcp *t)
{
    if (t->listener == NULL)
        return;
    kit_list_remove(&t->listener_link);
    if (t->socket.state == KIT_TCP_SYN_RECEIVED)
        t->listener->half_count--;
    else
        t->listener->full_count--;
    t->listener = NULL;
    t->socket.orphan = true; /* nobody ever held the handle */
}

INET_COLD static void life_detach(struct inet *m, struct inet_tcp *t, uint8_t state,
                                  uint32_t events)
{
    life_leave_listener(t);
    inet_table_remove(&m->memory, &m->flows, &t->entry);
    if (m->last == t)
        m->last = NULL;
    m->open--;
    inet_timer_forget(m, t);
    kit_list_remove(&t->output_link);
    inet_queue_clear(&m->memory, &t->tx);
    inet_board_clear(&m->memory, &t->board);
    inet_assembly_clear(&m->memory, &t->ahead);
    t->cursor = NULL;
    t->socket.state = state;
    if (m->open == 0)
        inet_timer_close(m);
    if (!t->socket.orphan) {
        kit_list_push_back(&m->held, &t->listener_link);
        inet_event(m, &t->socket, events);
        return;
    }
    kit_list_remove(&t->socket.event_link);
    kit_list_push_back(&m->dead, &t->listener_link);
}

INET_COLD void inet_tcp_end(struct inet *m, struct inet_tcp *t, int error)
{
    t->error = error;
    life_detach(m, t, KIT_TCP_CLOSED, error != 0 ? KIT_NET_ERROR : KIT_NET_CLOSED);
}

INET_COLD void inet_tcp_time_wait(struct inet *m, struct inet_tcp *t)
{
    struct inet_time_wait *w = NULL;
    if (m->time_wait_count / 4 >= m->connections)
        inet_time_wait_free(m, KIT_CONTAINER_OF(m->time_waits.next, struct inet_time_wait, link));
    if (m->time_wait_ns != 0)
        w = inet_take(&m->memory, sizeof(*w)); /* else forgetting at once is the lesser evil */
    if (w != NULL) {
        uint32_t space = inet_tcp_space(t) >> t->rcv_shift;
        *w = (struct inet_time_wait){.tuple = t->tuple,
                                     .deadline_ns = m->now_ns + m->time_wait_ns,
                                     .snd_nxt = t->snd_max,
                                     .rcv_nxt = t->rcv_nxt,
                                     .ts_offset = t->ts_offset,
                                     .ts_recent = t->ts_recent,
                                     .timestamps = t->timestamps,
                                     .window = (uint16_t)inet_min(space, UINT16_MAX)};
        w->entry.hash = t->entry.hash;
        w->entry.kind = INET_KIND_TIME_WAIT;
    }
    life_detach(m, t, KIT_TCP_TIME_WAIT, KIT_NET_CLOSED);
    if (w == NULL)
        return;
    inet_table_insert(&m->memory, &m->flows, &w->entry);
    kit_list_init(&w->link);
    kit_list_push_back(&m->time_waits, &w->link);
    m->time_wait_count++;
}

INET_COLD void inet_time_wait_free(struct inet *m, struct inet_time_wait *w)
{
    inet_table_remove(&m->memory, &m->flows, &w->entry);
    kit_list_remove(&w->link);
    m->time_wait_count--;
    inet_give(&m->memory, w, sizeof(*w));
}

INET_COLD void inet_time_wait_expire(struct inet *m)
{
    while (!kit_list_empty(&m->time_waits)) {
        struct inet_time_wait *w =
            KIT_CONTAINER_OF(m->time_waits.next, struct inet_time_wait, link);
        if (w->deadline_ns > m->now_ns)
            return;
        inet_time_wait_free(m, w);
    }
}

INET_COLD static void time_wait_answer(struct inet *m, const struct inet_time_wait *w,
                                       const struct inet_segment *s)
{
    struct inet_reply reply = {.seq = w->snd_nxt,
                               .ack = w->rcv_nxt,
                               .flags = KIT_TCP_ACK,
                               .window = w->window,
                               .scale = 0xff,
                               .timestamps = w->timestamps,
                               .ts_value = m->now_ms + w->ts_offset,
                               .ts_echo = w->ts_recent};
    if (inet_icmp_allowed(m))
        inet_tcp_reply(m, s, &reply);
}

INET_COLD bool inet_time_wait_input(struct inet *m, struct inet_time_wait *w,
                                    const struct inet_segment *s)
{
    bool stamped = w->timestamps && s->options.timestamps;
    bool old = stamped && kit_seq_lt(s->options.ts_value, w->ts_recent);
    if ((s->flags & KIT_TCP_RST) != 0) {
        if (s->seq == w->rcv_nxt) /* RFC 5961, section 3 */
            inet_time_wait_free(m, w);
        return false;
    }
    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_ACK)) == KIT_TCP_SYN) {
        /* RFC 6191, section 2: newer by its timestamp, else by its sequence number. */
        bool newer = kit_seq_lt(w->rcv_nxt, s->seq);
        if (stamped && s->options.ts_value != w->ts_recent)
            newer = !old;
        if (newer && inet_tcp_find_listener(m, s->tuple.local_port) != NULL)
            return true;
    }
    if ((s->flags & KIT_TCP_FIN) != 0 && !old) {
        w->deadline_ns = m->now_ns + m->time_wait_ns;
        kit_list_remove(&w->link);
        kit_list_push_back(&m->time_waits, &w->link);
    }
    if ((s->flags & (KIT_TCP_SYN | KIT_TCP_FIN)) != 0 || s->length != 0)
        time_wait_answer(m, w, s);
    return false;
}

INET_COLD void inet_tcp_free(struct inet *m, struct inet_tcp *t)
{
    kit_list_remove(&t->socket.event_link);
    kit_list_remove(&t->listener_link);
    inet_queue_clear(&m->memory, &t->rx);
    inet_give(&m->memory, t, sizeof(*t));
}

void inet_reap(struct inet *m)
{
    struct kit_list *at;
    while ((at = kit_list_pop_front(&m->dead)) != NULL)
        inet_tcp_free(m, KIT_CONTAINER_OF(at, struct inet_tcp, listener_link));
}
