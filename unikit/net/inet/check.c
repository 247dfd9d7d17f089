/* SPDX-License-Identifier: MIT */
/* The invariants of a stack, in one pass over all its connections. */
#include <unikit/net/inet/calls.h>

INET_COLD static bool check_timers(const struct inet *m, const struct inet_tcp *t)
{
    if (t->heap_position > m->heap_count ||
        (t->heap_position != 0 && m->heap[t->heap_position] != t))
        return false;
    for (unsigned i = 0; i < INET_TIMERS; i++) {
        if (t->timers[i] != KIT_NEVER && (t->heap_position == 0 || t->timers[i] < t->heap_deadline))
            return false;
    }
    /* What is not acknowledged, sent or not, has a timer or is about to go: nothing can stall. */
    return t->snd_una == t->tx_seq + t->tx.length + t->fin_queued ||
           t->timers[INET_TIMER_SEND] != KIT_NEVER || !kit_list_empty(&t->output_link);
}

INET_COLD static bool check_window(const struct inet *m, const struct inet_tcp *t)
{
    uint32_t end = t->tx_seq + t->tx.length;
    if (kit_seq_lt(t->snd_nxt, t->snd_una) || kit_seq_lt(t->snd_max, t->snd_nxt) ||
        kit_seq_lt(end + 1, t->snd_max) || t->tx.length > m->send_buffer)
        return false;
    if (t->cursor != NULL && kit_seq_lt(t->cursor_seq, t->tx_seq))
        return false;
    if (t->socket.state <= KIT_TCP_SYN_RECEIVED)
        return t->board.count == 0;
    return t->flow.cwnd >= t->flow.mss && t->flow.mss != 0 &&
           inet_board_sound(&t->board, t->snd_una, t->snd_nxt) &&
           !kit_seq_lt(t->rcv_adv, t->rcv_nxt);
}

INET_COLD static bool check_tcp(const struct inet *m, const struct inet_tcp *t)
{
    return t->socket.state >= KIT_TCP_SYN_SENT && t->socket.state < KIT_TCP_TIME_WAIT &&
           inet_queue_sound(&t->tx) && inet_queue_sound(&t->rx) &&
           inet_assembly_sound(&t->ahead, t->rcv_nxt) && check_timers(m, t) && check_window(m, t);
}

INET_COLD static size_t tcp_memory(const struct inet_tcp *t)
{
    size_t board =
        t->board.records == t->board.inner ? 0 : sizeof(*t->board.records) * t->board.capacity;
    return sizeof(*t) + inet_queue_memory(&t->tx) + inet_queue_memory(&t->rx) +
           inet_assembly_memory(&t->ahead) + board;
}

/* Adds up what the flows hold; false: one is broken. */
INET_COLD static bool check_flows(const struct inet *m, size_t *bytes)
{
    uint32_t open = 0, waits = 0;
    for (uint32_t i = 0; i < m->flows.used; i++) {
        for (struct inet_entry *at = m->flows.buckets[i]; at != NULL; at = at->next) {
            if (at->kind == INET_KIND_TIME_WAIT) {
                *bytes += sizeof(struct inet_time_wait);
                waits++;
                continue;
            }
            const struct inet_tcp *t = KIT_CONTAINER_OF(at, struct inet_tcp, entry);
            if (!check_tcp(m, t))
                return false;
            *bytes += tcp_memory(t);
            open++;
        }
    }
    for (const struct kit_list *at = m->held.next; at != &m->held; at = at->next)
        *bytes += tcp_memory(KIT_CONTAINER_OF(at, struct inet_tcp, listener_link));
    return open == m->open && waits == m->time_wait_count && open <= m->connections;
}

INET_COLD static size_t check_count(const struct kit_list *list, const struct inet_listener *l)
{
    size_t count = 0;
    for (const struct kit_list *at = list->next; at != list; at = at->next)
        count += KIT_CONTAINER_OF(at, struct inet_tcp, listener_link)->listener == l;
    return count;
}

INET_COLD static bool check_listeners(const struct inet *m, size_t *bytes)
{
    for (uint32_t i = 0; i < m->listeners.used; i++) {
        for (struct inet_entry *at = m->listeners.buckets[i]; at != NULL; at = at->next) {
            const struct inet_listener *l = KIT_CONTAINER_OF(at, struct inet_listener, entry);
            if (check_count(&l->half, l) != l->half_count || l->half_count > l->backlog + 1 ||
                check_count(&l->full, l) != l->full_count || l->full_count > l->backlog)
                return false;
            *bytes += sizeof(*l);
        }
    }
    return true;
}

INET_COLD static size_t check_ports(const struct inet *m)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < m->ports.used; i++) {
        for (struct inet_entry *at = m->ports.buckets[i]; at != NULL; at = at->next)
            bytes +=
                sizeof(struct inet_udp) + KIT_CONTAINER_OF(at, struct inet_udp, entry)->capacity;
    }
    return bytes;
}

INET_COLD int inet_check(const struct kit_net *net)
{
    const struct inet *m = inet_of(net);
    size_t bytes = sizeof(*m) + (m->rx_size + m->tx_size) * m->batch +
                   sizeof(struct kit_frame) * m->batch * 2 + sizeof(*m->heap) * m->heap_capacity +
                   inet_table_memory(&m->flows) + inet_table_memory(&m->listeners) +
                   inet_table_memory(&m->ports) + inet_table_memory(&m->paths) +
                   m->paths.count * sizeof(struct inet_path) + inet_neighbour_memory(m) +
                   m->fragment_bytes + check_ports(m);
    for (uint32_t i = 1; i <= m->heap_count; i++) {
        if (m->heap[i]->heap_position != i ||
            (i > 1 && m->heap[i / 2]->heap_deadline > m->heap[i]->heap_deadline))
            return KIT_ECORRUPT;
    }
    if (!check_flows(m, &bytes) || !check_listeners(m, &bytes) || !inet_fragment_sound(m) ||
        !inet_table_sound(&m->flows) || !inet_table_sound(&m->listeners) ||
        !inet_table_sound(&m->neighbours) || !inet_table_sound(&m->ports) ||
        !inet_table_sound(&m->paths) || m->tx_tail - m->tx_head > m->batch ||
        !kit_list_empty(&m->dead) || bytes != m->memory.used ||
        (m->memory.limit != 0 && m->memory.used > m->memory.limit))
        return KIT_ECORRUPT;
    return 0;
}
