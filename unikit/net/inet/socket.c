/* SPDX-License-Identifier: MIT */
/* The calls of net.h on listeners and connections, and the delivery of events. None of them sends:
 * a connection with something to say is queued and speaks at the end of the next poll. */
#include <unikit/net/inet/calls.h>

static struct inet_listener *socket_listener(const struct kit_tcp *handle)
{
    return KIT_CONTAINER_OF(handle, struct inet_listener, socket.handle);
}

static struct inet_socket *socket_of(const struct kit_tcp *handle)
{
    return KIT_CONTAINER_OF(handle, struct inet_socket, handle);
}

static bool socket_is_over(const struct inet_tcp *t)
{
    return t->socket.state == KIT_TCP_CLOSED || t->socket.state == KIT_TCP_TIME_WAIT;
}

void inet_event(struct inet *m, struct inet_socket *socket, uint32_t events)
{
    socket->events |= (uint16_t)events;
    if (socket->orphan || !kit_list_empty(&socket->event_link) ||
        (socket->state != KIT_TCP_LISTEN && inet_tcp_of(&socket->handle)->listener != NULL))
        return;
    kit_list_push_back(&m->events, &socket->event_link);
}

bool inet_events_deliver(struct inet *m)
{
    bool any = false;
    struct kit_list *at;
    while ((at = kit_list_pop_front(&m->events)) != NULL) {
        struct inet_socket *s = KIT_CONTAINER_OF(at, struct inet_socket, event_link);
        uint32_t events = s->events;
        any = true;
        s->events = 0;
        if (s->callback != NULL)
            s->callback(s->argument, &s->handle, events); /* s may be gone now */
    }
    return any;
}

INET_COLD int inet_tcp_listen(struct kit_net *net, uint16_t port, uint32_t backlog,
                              kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    struct inet *m = inet_of(net);
    if (port == 0)
        return KIT_EINVAL;
    if (inet_tcp_find_listener(m, port) != NULL)
        return KIT_EEXIST;
    struct inet_listener *l = inet_take(&m->memory, sizeof(*l));
    if (l == NULL)
        return KIT_ENOMEM;
    *l = (struct inet_listener){.socket = {.handle.net = net,
                                           .callback = callback,
                                           .argument = argument,
                                           .state = KIT_TCP_LISTEN},
                                .entry.hash = inet_port_hash(m, port),
                                .backlog = backlog == 0 ? 1 : backlog,
                                .port = port};
    kit_list_init(&l->socket.event_link);
    kit_list_init(&l->half);
    kit_list_init(&l->full);
    inet_table_insert(&m->memory, &m->listeners, &l->entry);
    *out = &l->socket.handle;
    return 0;
}

INET_COLD struct kit_tcp *inet_tcp_accept(struct kit_tcp *handle)
{
    if (socket_of(handle)->state != KIT_TCP_LISTEN)
        return NULL;
    struct inet_listener *l = socket_listener(handle);
    struct kit_list *first = kit_list_pop_front(&l->full);
    if (first == NULL)
        return NULL;
    struct inet_tcp *t = KIT_CONTAINER_OF(first, struct inet_tcp, listener_link);
    l->full_count--;
    t->listener = NULL;
    if (t->socket.events != 0)
        inet_event(inet_of(handle->net), &t->socket, 0);
    return &t->socket.handle;
}

INET_COLD void inet_tcp_set_callback(struct kit_tcp *handle, kit_tcp_callback callback,
                                     void *argument)
{
    socket_of(handle)->callback = callback;
    socket_of(handle)->argument = argument;
}

INET_COLD int inet_address_in(const struct kit_address *in, struct inet_ip *out)
{
    if (in->family != 4)
        return in->family == 6 ? KIT_ENOTSUP : KIT_EINVAL;
    *out = inet_v4(kit_load32(in->bytes));
    return 0;
}

INET_COLD void inet_address_out(struct kit_address *out, const struct inet_ip *ip, uint16_t port)
{
    *out = (struct kit_address){.port = port, .family = inet_is_v4(ip) ? 4 : 6};
    if (inet_is_v4(ip)) {
        kit_store32(out->bytes, inet_as_v4(ip));
        return;
    }
    for (unsigned i = 0; i < 8; i++) {
        out->bytes[i] = (uint8_t)(ip->high >> (56 - 8 * i));
        out->bytes[8 + i] = (uint8_t)(ip->low >> (56 - 8 * i));
    }
}

/* An ephemeral port free for this peer (RFC 6056, algorithm 3: ports to one peer follow each other,
 * from a place that others cannot tell); one in TIME-WAIT only if there is no other. */
INET_COLD static struct inet_tcp *socket_bind(struct inet *m, struct inet_tuple *tuple)
{
    uint32_t range = 65536 - INET_PORT_FIRST, start = inet_tcp_ts_offset(m, tuple) >> 8;
    for (uint32_t tries = 0; tries < 2 * range; tries++) {
        uint32_t hash, floor = 0;
        tuple->local_port = (uint16_t)(INET_PORT_FIRST + (start + m->port_offset++) % range);
        struct inet_entry *entry = inet_tcp_find(m, tuple, &hash);
        if (inet_tcp_find_listener(m, tuple->local_port) != NULL ||
            (entry != NULL && (entry->kind == INET_KIND_TCP || tries < range)) ||
            (inet_ip_equal(&tuple->remote, &tuple->local) &&
             tuple->local_port == tuple->remote_port))
            continue;
        struct inet_tcp *t = inet_tcp_new(m, tuple, hash);
        if (t == NULL)
            return NULL;
        if (entry != NULL) {
            struct inet_time_wait *w = KIT_CONTAINER_OF(entry, struct inet_time_wait, entry);
            floor = w->snd_nxt;
            inet_time_wait_free(m, w);
        }
        inet_tcp_set_isn(m, t, entry != NULL ? &floor : NULL);
        return t;
    }
    return NULL;
}

INET_COLD int inet_tcp_connect(struct kit_net *net, const struct kit_address *remote,
                               kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    struct inet *m = inet_of(net);
    struct inet_tuple tuple = {.remote_port = remote->port};
    struct inet_route route;
    int rc = inet_address_in(remote, &tuple.remote);
    if (rc != 0)
        return rc;
    if (remote->port == 0 || inet_as_v4(&tuple.remote) >> 28 >= 14)
        return KIT_EINVAL;
    inet_clock(m);
    if (inet_route(m, &tuple.remote, &route) != 0 || inet_is_broadcast(m, &tuple.remote))
        return KIT_EUNREACH;
    tuple.local = route.source;
    struct inet_tcp *t = socket_bind(m, &tuple);
    if (t == NULL)
        return KIT_ENOMEM;
    t->socket.callback = callback;
    t->socket.argument = argument;
    t->socket.state = KIT_TCP_SYN_SENT;
    t->syn_due = true;
    t->ecn = m->ecn == INET_ECN_ASK;
    inet_tcp_queue(m, t);
    *out = &t->socket.handle;
    return 0;
}

int inet_tcp_send(struct kit_tcp *handle, const void *data, size_t length)
{
    struct inet_tcp *t = inet_tcp_of(handle);
    struct inet *m = inet_of(handle->net);
    if (t->socket.state == KIT_TCP_LISTEN)
        return KIT_EINVAL;
    if (t->socket.state == KIT_TCP_CLOSED && t->error != 0)
        return t->error;
    if (t->fin_queued || socket_is_over(t))
        return KIT_ECLOSED;
    uint32_t limit = inet_tcp_send_limit(m, t);
    uint32_t space = limit > t->tx.length ? limit - t->tx.length : 0;
    uint32_t wanted = length < space ? (uint32_t)length : space;
    uint32_t count = inet_queue_append(&m->memory, &t->tx, data, wanted);
    if (count < wanted && t->tx.length == 0)
        return KIT_ENOMEM;
    if (count < length)
        t->want_write = true;
    if (count == 0)
        return length == 0 ? 0 : KIT_EAGAIN;
    inet_tcp_queue(m, t);
    return (int)count;
}

/* What receive and peek say when there is no data. */
INET_COLD static int socket_dry(const struct inet_tcp *t)
{
    if (t->socket.state == KIT_TCP_LISTEN)
        return KIT_EINVAL;
    if (t->fin_received)
        return 0;
    if (socket_is_over(t))
        return t->error;
    return KIT_EAGAIN;
}

int inet_tcp_receive(struct kit_tcp *handle, void *buffer, size_t length)
{
    struct inet_tcp *t = inet_tcp_of(handle);
    if (t->socket.state == KIT_TCP_LISTEN || t->rx.length == 0)
        return socket_dry(t);
    uint32_t count = length < t->rx.length ? (uint32_t)length : t->rx.length;
    inet_queue_copy(t->rx.first, 0, buffer, count);
    inet_tcp_consume(handle, count);
    return (int)count;
}

int inet_tcp_peek(struct kit_tcp *handle, const void **data)
{
    struct inet_tcp *t = inet_tcp_of(handle);
    if (t->socket.state == KIT_TCP_LISTEN || t->rx.length == 0)
        return socket_dry(t);
    const struct inet_chunk *chunk = t->rx.first;
    *data = chunk->data + chunk->start;
    return (int)(chunk->end - chunk->start);
}

void inet_tcp_consume(struct kit_tcp *handle, size_t length)
{
    struct inet_tcp *t = inet_tcp_of(handle);
    struct inet *m = inet_of(handle->net);
    KIT_ASSERT(t->socket.state != KIT_TCP_LISTEN && length <= t->rx.length);
    inet_queue_drop(&m->memory, &t->rx, (uint32_t)length);
    if (socket_is_over(t) || t->fin_received || t->socket.state < KIT_TCP_ESTABLISHED)
        return;
    if (inet_tcp_opened(m, t, (uint32_t)length))
        inet_tcp_ack_now(m, t);
}

INET_COLD int inet_tcp_shutdown(struct kit_tcp *handle)
{
    struct inet_tcp *t = inet_tcp_of(handle);
    if (t->socket.state == KIT_TCP_LISTEN)
        return KIT_EINVAL;
    if (t->fin_queued || socket_is_over(t))
        return KIT_ECLOSED;
    t->fin_queued = true;
    if (t->socket.state == KIT_TCP_ESTABLISHED)
        t->socket.state = KIT_TCP_FIN_WAIT_1;
    else if (t->socket.state == KIT_TCP_CLOSE_WAIT)
        t->socket.state = KIT_TCP_LAST_ACK;
    inet_tcp_queue(inet_of(handle->net), t);
    return 0;
}

INET_COLD int inet_tcp_option(struct kit_tcp *handle, uint32_t option, uint64_t value)
{
    struct inet_tcp *t = inet_tcp_of(handle);
    struct inet *m = inet_of(handle->net);
    uint64_t ms = value / KIT_NS_PER_MS;
    if (t->socket.state == KIT_TCP_LISTEN || socket_is_over(t))
        return KIT_EINVAL;
    switch (option) {
    case KIT_TCP_OPT_NODELAY:
        t->nagle = value == 0;
        break;
    case KIT_TCP_OPT_CORK:
        t->cork = value != 0;
        break;
    case KIT_TCP_OPT_KEEPALIVE:
        if ((ms == 0 && value != 0) || ms > UINT32_MAX / 2)
            return KIT_EINVAL;
        t->keepalive_ms = (uint32_t)ms;
        if (t->socket.state >= KIT_TCP_ESTABLISHED) {
            inet_clock(m);
            inet_timer_stop(t, INET_TIMER_LIFE);
            inet_tcp_heard(m, t);
        }
        return 0;
    case KIT_TCP_OPT_USER_TIMEOUT:
        if (ms < 1000 || ms > UINT32_MAX / 2)
            return KIT_EINVAL;
        t->patience_ms = (uint32_t)ms;
        return 0;
    default:
        return KIT_ENOTSUP;
    }
    inet_tcp_queue(m, t);
    return 0;
}

INET_COLD static void socket_close_listener(struct inet *m, struct inet_listener *l)
{
    struct kit_list *lists[] = {&l->half, &l->full};
    for (unsigned i = 0; i < 2; i++) {
        while (!kit_list_empty(lists[i])) {
            struct inet_tcp *t = KIT_CONTAINER_OF(lists[i]->next, struct inet_tcp, listener_link);
            inet_tcp_send_reset(m, t);
            inet_tcp_end(m, t, KIT_ECLOSED);
        }
    }
    inet_reap(m);
    inet_table_remove(&m->memory, &m->listeners, &l->entry);
    kit_list_remove(&l->socket.event_link);
    inet_give(&m->memory, l, sizeof(*l));
}

/* The application lets go. False: that was the end of the connection, and t is gone. */
INET_COLD static bool socket_orphan(struct inet *m, struct inet_tcp *t)
{
    t->socket.orphan = true;
    t->socket.callback = NULL;
    kit_list_remove(&t->socket.event_link);
    if (socket_is_over(t)) {
        inet_tcp_free(m, t);
        return false;
    }
    return true;
}

INET_COLD void inet_tcp_close(struct kit_tcp *handle)
{
    struct inet *m = inet_of(handle->net);
    struct inet_tcp *t = inet_tcp_of(handle);
    if (socket_of(handle)->state == KIT_TCP_LISTEN) {
        socket_close_listener(m, socket_listener(handle));
        return;
    }
    if (!socket_orphan(m, t))
        return;
    if (t->socket.state == KIT_TCP_SYN_SENT) {
        inet_tcp_end(m, t, 0);
        inet_reap(m);
        return;
    }
    (void)inet_tcp_shutdown(handle);
    t->cork = false;
    inet_queue_clear(&m->memory, &t->rx);
    inet_assembly_clear(&m->memory, &t->ahead);
    inet_clock(m);
    if (t->socket.state == KIT_TCP_FIN_WAIT_2)
        inet_timer_set(m, t, INET_TIMER_LIFE, m->now_ns + INET_LINGER_NS);
}

INET_COLD void inet_tcp_abort(struct kit_tcp *handle)
{
    struct inet *m = inet_of(handle->net);
    struct inet_tcp *t = inet_tcp_of(handle);
    if (socket_of(handle)->state == KIT_TCP_LISTEN) {
        inet_tcp_close(handle);
        return;
    }
    if (!socket_orphan(m, t))
        return;
    if (t->socket.state != KIT_TCP_SYN_SENT)
        inet_tcp_send_reset(m, t);
    inet_tcp_end(m, t, KIT_ECLOSED);
    inet_reap(m);
}

INET_COLD void inet_tcp_info(const struct kit_tcp *handle, struct kit_tcp_info *out)
{
    const struct inet *m = inet_of(handle->net);
    const struct inet_tcp *t = inet_tcp_of(handle);
    *out = (struct kit_tcp_info){.state = socket_of(handle)->state};
    if (out->state == KIT_TCP_LISTEN) {
        inet_address_out(&out->local, &m->networks[0].address, socket_listener(handle)->port);
        return;
    }
    uint32_t limit = inet_tcp_send_limit(m, t);
    inet_address_out(&out->local, &t->tuple.local, t->tuple.local_port);
    inet_address_out(&out->remote, &t->tuple.remote, t->tuple.remote_port);
    out->error = t->error;
    if (!socket_is_over(t) && !t->fin_queued && limit > t->tx.length)
        out->send_space = limit - t->tx.length;
    out->receive_ready = t->rx.length;
    out->mss = t->flow.mss + inet_tcp_options_length(t);
    out->srtt_us = inet_rtt_us(&t->rtt);
    out->retransmits = t->retransmits;
    out->unacknowledged = t->tx.length;
    out->cwnd = t->flow.cwnd;
    out->ssthresh = t->flow.ssthresh;
    out->rto_us = (uint32_t)(inet_tcp_rto_ns(t) / KIT_NS_PER_US);
    out->rttvar_us = t->rtt.variation / 16;
    out->in_flight = t->snd_nxt - t->snd_una;
    out->send_window = t->snd_wnd;
    out->receive_window = t->rcv_adv - t->rcv_nxt;
    out->phase = t->phase;
}

INET_COLD void inet_close_sockets(struct inet *m)
{
    for (uint32_t i = 0; i < m->flows.used;) {
        struct inet_entry *entry = m->flows.buckets[i];
        if (entry == NULL) {
            i++;
        } else if (entry->kind == INET_KIND_TIME_WAIT) {
            inet_time_wait_free(m, KIT_CONTAINER_OF(entry, struct inet_time_wait, entry));
        } else {
            struct inet_tcp *t = KIT_CONTAINER_OF(entry, struct inet_tcp, entry);
            t->socket.orphan = true;
            inet_tcp_end(m, t, 0);
        }
    }
    inet_reap(m);
    while (!kit_list_empty(&m->held))
        inet_tcp_free(m, KIT_CONTAINER_OF(m->held.next, struct inet_tcp, listener_link));
    for (uint32_t i = 0; i < m->listeners.used;) {
        if (m->listeners.buckets[i] == NULL)
            i++;
        else
            socket_close_listener(
                m, KIT_CONTAINER_OF(m->listeners.buckets[i], struct inet_listener, entry));
    }
    for (uint32_t i = 0; i < m->ports.used;) {
        if (m->ports.buckets[i] == NULL)
            i++;
        else
            inet_udp_close(&KIT_CONTAINER_OF(m->ports.buckets[i], struct inet_udp, entry)->handle);
    }
}
