/* SPDX-License-Identifier: MIT */
/* The calls of net.h on listeners and connections, and the delivery of events. None of them sends:
 * a connection with something to say is queued and speaks at the end of the next poll. */
#include <unikit/net/mini/mini.h>

static struct mini_listener *socket_listener(const struct kit_tcp *handle)
{
    return KIT_CONTAINER_OF(handle, struct mini_listener, socket.handle);
}

static struct mini_socket *socket_of(const struct kit_tcp *handle)
{
    return KIT_CONTAINER_OF(handle, struct mini_socket, handle);
}

static bool socket_is_over(const struct mini_tcp *t)
{
    return t->socket.state == KIT_TCP_CLOSED || t->socket.state == KIT_TCP_TIME_WAIT;
}

void mini_event(struct mini *m, struct mini_socket *socket, uint32_t events)
{
    socket->events |= events;
    if (socket->orphan || !kit_list_empty(&socket->event_link) ||
        (socket->state != KIT_TCP_LISTEN && mini_tcp_of(&socket->handle)->listener != NULL))
        return;
    kit_list_push_back(&m->events, &socket->event_link);
}

bool mini_events_deliver(struct mini *m)
{
    bool any = false;
    struct kit_list *at;
    while ((at = kit_list_pop_front(&m->events)) != NULL) {
        struct mini_socket *s = KIT_CONTAINER_OF(at, struct mini_socket, event_link);
        uint32_t events = s->events;
        any = true;
        s->events = 0;
        if (s->callback != NULL)
            s->callback(s->argument, &s->handle, events); /* s may be gone now */
    }
    return any;
}

MINI_COLD int mini_tcp_listen(struct kit_net *net, uint16_t port, uint32_t backlog,
                              kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    struct mini *m = mini_of(net);
    if (port == 0)
        return KIT_EINVAL;
    if (mini_find_listener(m, port) != NULL)
        return KIT_EEXIST;
    struct mini_listener *l =
        m->listener_count == MINI_LISTENERS ? NULL : mini_alloc(m, sizeof(*l));
    if (l == NULL)
        return KIT_ENOMEM;
    *l = (struct mini_listener){.socket = {.handle.net = net,
                                           .callback = callback,
                                           .argument = argument,
                                           .state = KIT_TCP_LISTEN},
                                .backlog = backlog == 0 ? 1 : backlog,
                                .port = port};
    kit_list_init(&l->socket.event_link);
    kit_list_init(&l->half);
    kit_list_init(&l->full);
    kit_list_push_back(&m->listeners, &l->link);
    m->listener_count++;
    *out = &l->socket.handle;
    return 0;
}

MINI_COLD struct kit_tcp *mini_tcp_accept(struct kit_tcp *handle)
{
    if (socket_of(handle)->state != KIT_TCP_LISTEN)
        return NULL;
    struct mini_listener *l = socket_listener(handle);
    struct kit_list *first = kit_list_pop_front(&l->full);
    if (first == NULL)
        return NULL;
    struct mini_tcp *t = KIT_CONTAINER_OF(first, struct mini_tcp, listener_link);
    l->full_count--;
    t->listener = NULL;
    if (t->socket.events != 0)
        mini_event(mini_of_tcp(handle), &t->socket, 0);
    return &t->socket.handle;
}

MINI_COLD void mini_tcp_set_callback(struct kit_tcp *handle, kit_tcp_callback callback,
                                     void *argument)
{
    socket_of(handle)->callback = callback;
    socket_of(handle)->argument = argument;
}

MINI_COLD void mini_tcp_set_isn(struct mini *m, struct mini_tcp *t, const uint32_t *floor)
{
    t->iss = mini_isn(m, t->remote_ip, t->remote_port, t->local_port);
    if (floor != NULL && !kit_seq_lt(*floor, t->iss))
        t->iss = *floor + 65536 + 1; /* beyond a window of the one before (RFC 1122, 4.2.2.13) */
    t->snd_una = t->snd_nxt = t->snd_max = t->recover = t->iss;
    t->tx_seq = t->iss + 1;
    while (m->receive_buffer >> t->rcv_shift > UINT16_MAX + 1)
        t->rcv_shift++;
}

/* An ephemeral port free for this peer; one in TIME_WAIT only if there is no other. */
MINI_COLD static struct mini_tcp *socket_bind(struct mini *m, uint32_t ip, uint16_t port)
{
    for (uint32_t tries = 0; tries < 2 * 16384; tries++) {
        uint16_t local = m->next_port;
        m->next_port = local == UINT16_MAX ? 49152 : (uint16_t)(local + 1);
        uint32_t hash, floor;
        if (mini_find(m, ip, port, local, &hash) != NULL || mini_find_listener(m, local) != NULL ||
            (ip == m->address && local == port))
            continue;
        struct mini_time_wait *w = mini_find_time_wait(m, ip, port, local, hash);
        if (w != NULL && tries < 16384)
            continue;
        struct mini_tcp *t = mini_tcp_new(m, ip, port, local, hash);
        if (t == NULL)
            return NULL;
        if (w != NULL) {
            floor = w->snd_nxt;
            mini_time_wait_free(m, w);
        }
        mini_tcp_set_isn(m, t, w != NULL ? &floor : NULL);
        return t;
    }
    return NULL;
}

MINI_COLD int mini_tcp_connect(struct kit_net *net, const struct kit_address *remote,
                               kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    struct mini *m = mini_of(net);
    uint32_t ip = kit_load32(remote->bytes);
    if (remote->family == 6)
        return KIT_ENOTSUP;
    if (remote->family != 4 || remote->port == 0 || ip >> 28 >= 14)
        return KIT_EINVAL;
    if (mini_route(m, ip) == 0)
        return KIT_EUNREACH;
    m->now_ns = kit_env_now_ns(m->env);
    struct mini_tcp *t = socket_bind(m, ip, remote->port);
    if (t == NULL)
        return KIT_ENOMEM;
    t->socket.callback = callback;
    t->socket.argument = argument;
    t->socket.state = KIT_TCP_SYN_SENT;
    mini_tcp_queue(m, t);
    *out = &t->socket.handle;
    return 0;
}

int mini_tcp_send(struct kit_tcp *handle, const void *data, size_t length)
{
    struct mini_tcp *t = mini_tcp_of(handle);
    struct mini *m = mini_of_tcp(handle);
    if (t->socket.state == KIT_TCP_LISTEN)
        return KIT_EINVAL;
    if (t->socket.state == KIT_TCP_CLOSED && t->error != 0)
        return t->error;
    if (t->fin_queued || socket_is_over(t))
        return KIT_ECLOSED;
    uint32_t space = m->send_buffer - t->tx.length;
    uint32_t count = length < space ? (uint32_t)length : space;
    if (count != 0 && !mini_ring_reserve(m, &t->tx, t->tx.length + count, m->send_buffer)) {
        count = t->tx.capacity - t->tx.length; /* no memory: what there is must do */
        if (count == 0 && t->tx.length == 0)
            return KIT_ENOMEM;
    }
    if (count < length)
        t->want_write = true;
    if (count == 0)
        return length == 0 ? 0 : KIT_EAGAIN;
    mini_ring_put(&t->tx, t->tx.length, data, count);
    t->tx.length += count;
    mini_tcp_queue(m, t);
    return (int)count;
}

/* What receive and peek say when there is no data. */
MINI_COLD static int socket_dry(const struct mini_tcp *t)
{
    if (t->socket.state == KIT_TCP_LISTEN)
        return KIT_EINVAL;
    if (t->fin_received)
        return 0;
    if (socket_is_over(t))
        return t->error;
    return KIT_EAGAIN;
}

int mini_tcp_receive(struct kit_tcp *handle, void *buffer, size_t length)
{
    struct mini_tcp *t = mini_tcp_of(handle);
    if (t->socket.state == KIT_TCP_LISTEN || t->rx.length == 0)
        return socket_dry(t);
    uint32_t count = length < t->rx.length ? (uint32_t)length : t->rx.length;
    mini_ring_get(&t->rx, 0, buffer, count);
    mini_tcp_consume(handle, count);
    return (int)count;
}

int mini_tcp_peek(struct kit_tcp *handle, const void **data)
{
    struct mini_tcp *t = mini_tcp_of(handle);
    if (t->socket.state == KIT_TCP_LISTEN || t->rx.length == 0)
        return socket_dry(t);
    *data = t->rx.data + t->rx.head;
    return (int)mini_min(t->rx.length, t->rx.capacity - t->rx.head);
}

void mini_tcp_consume(struct kit_tcp *handle, size_t length)
{
    struct mini_tcp *t = mini_tcp_of(handle);
    struct mini *m = mini_of_tcp(handle);
    KIT_ASSERT(t->socket.state != KIT_TCP_LISTEN && length <= t->rx.length);
    mini_ring_drop(&t->rx, (uint32_t)length);
    if (t->rx.length == 0 && t->range_count == 0)
        t->rx.head = 0; /* so that what comes next lies in one piece, in warm cache lines */
    if (socket_is_over(t) || t->fin_received || t->socket.state < KIT_TCP_ESTABLISHED)
        return;
    /* A window update is due once it is worth two segments (RFC 9293, 3.8.6.2.2). */
    uint32_t opened = t->rcv_nxt + mini_receive_space(m, t) - t->rcv_adv;
    if ((int32_t)opened > 0 && opened >= mini_min(m->receive_buffer / 2, 2u * t->mss))
        mini_tcp_ack_now(m, t);
}

MINI_COLD int mini_tcp_shutdown(struct kit_tcp *handle)
{
    struct mini_tcp *t = mini_tcp_of(handle);
    if (t->socket.state == KIT_TCP_LISTEN)
        return KIT_EINVAL;
    if (t->fin_queued || socket_is_over(t))
        return KIT_ECLOSED;
    t->fin_queued = true;
    if (t->socket.state == KIT_TCP_ESTABLISHED)
        t->socket.state = KIT_TCP_FIN_WAIT_1;
    else if (t->socket.state == KIT_TCP_CLOSE_WAIT)
        t->socket.state = KIT_TCP_LAST_ACK;
    mini_tcp_queue(mini_of_tcp(handle), t);
    return 0;
}

MINI_COLD static void socket_close_listener(struct mini *m, struct mini_listener *l)
{
    struct kit_list *lists[] = {&l->half, &l->full};
    for (unsigned i = 0; i < 2; i++) {
        while (!kit_list_empty(lists[i])) {
            struct mini_tcp *t = KIT_CONTAINER_OF(lists[i]->next, struct mini_tcp, listener_link);
            mini_tcp_send_reset(m, t);
            mini_tcp_end(m, t, KIT_ECLOSED);
        }
    }
    mini_reap(m);
    kit_list_remove(&l->link);
    kit_list_remove(&l->socket.event_link);
    m->listener_count--;
    mini_free(m, l, sizeof(*l));
}

/* The application lets go. False: that was the end of the connection, and t is gone. */
MINI_COLD static bool socket_orphan(struct mini *m, struct mini_tcp *t)
{
    t->socket.orphan = true;
    t->socket.callback = NULL;
    kit_list_remove(&t->socket.event_link);
    if (socket_is_over(t)) {
        mini_tcp_free(m, t);
        return false;
    }
    return true;
}

MINI_COLD void mini_tcp_close(struct kit_tcp *handle)
{
    struct mini *m = mini_of_tcp(handle);
    struct mini_tcp *t = mini_tcp_of(handle);
    if (socket_of(handle)->state == KIT_TCP_LISTEN) {
        socket_close_listener(m, socket_listener(handle));
        return;
    }
    if (!socket_orphan(m, t))
        return;
    if (t->socket.state == KIT_TCP_SYN_SENT) {
        mini_tcp_end(m, t, 0);
        mini_reap(m);
        return;
    }
    (void)mini_tcp_shutdown(handle);
    mini_ring_free(m, &t->rx);
    t->range_count = 0;
    if (t->socket.state == KIT_TCP_FIN_WAIT_2)
        mini_timer_set(m, t, MINI_TIMER_LINGER, kit_env_now_ns(m->env) + MINI_LINGER_NS);
}

MINI_COLD void mini_tcp_abort(struct kit_tcp *handle)
{
    struct mini *m = mini_of_tcp(handle);
    struct mini_tcp *t = mini_tcp_of(handle);
    if (socket_of(handle)->state == KIT_TCP_LISTEN) {
        mini_tcp_close(handle);
        return;
    }
    if (!socket_orphan(m, t))
        return;
    if (t->socket.state != KIT_TCP_SYN_SENT)
        mini_tcp_send_reset(m, t);
    mini_tcp_end(m, t, KIT_ECLOSED);
    mini_reap(m);
}

MINI_COLD static void socket_address(struct kit_address *out, uint32_t ip, uint16_t port)
{
    *out = (struct kit_address){.port = port, .family = 4};
    kit_store32(out->bytes, ip);
}

MINI_COLD void mini_tcp_info(const struct kit_tcp *handle, struct kit_tcp_info *out)
{
    const struct mini *m = mini_of_tcp(handle);
    const struct mini_tcp *t = mini_tcp_of(handle);
    *out = (struct kit_tcp_info){.state = socket_of(handle)->state};
    if (out->state == KIT_TCP_LISTEN) {
        socket_address(&out->local, m->address, socket_listener(handle)->port);
        return;
    }
    socket_address(&out->local, t->local_ip, t->local_port);
    socket_address(&out->remote, t->remote_ip, t->remote_port);
    out->error = t->error;
    out->send_space = socket_is_over(t) || t->fin_queued ? 0 : m->send_buffer - t->tx.length;
    out->receive_ready = t->rx.length;
    out->mss = t->mss;
    out->srtt_us = t->srtt_us;
    out->retransmits = t->retransmits;
    out->unacknowledged = t->tx.length;
}

MINI_COLD void mini_close_sockets(struct mini *m)
{
    for (size_t i = 0; m->buckets != NULL && i <= m->bucket_mask; i++) {
        while (m->buckets[i] != NULL) {
            m->buckets[i]->socket.orphan = true;
            mini_tcp_end(m, m->buckets[i], 0);
        }
    }
    mini_reap(m);
    while (!kit_list_empty(&m->held))
        mini_tcp_free(m, KIT_CONTAINER_OF(m->held.next, struct mini_tcp, listener_link));
    while (!kit_list_empty(&m->time_waits))
        mini_time_wait_free(m, KIT_CONTAINER_OF(m->time_waits.next, struct mini_time_wait, link));
    while (!kit_list_empty(&m->listeners))
        socket_close_listener(m, KIT_CONTAINER_OF(m->listeners.next, struct mini_listener, link));
    while (!kit_list_empty(&m->udps))
        mini_udp_close(&KIT_CONTAINER_OF(m->udps.next, struct mini_udp, link)->handle);
}
