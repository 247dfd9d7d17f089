/* SPDX-License-Identifier: MIT */
/* The invariants of a stack, in one pass over all its connections. */
#include <unikit/net/mini/mini.h>

MINI_COLD static bool check_ring(const struct mini_ring *r, uint32_t limit)
{
    if (r->capacity == 0)
        return r->data == NULL && r->length == 0 && r->head == 0;
    return r->data != NULL && kit_is_power_of_two(r->capacity) && r->capacity <= limit &&
           r->head < r->capacity && r->length <= r->capacity;
}

MINI_COLD static bool check_ranges(const struct mini_tcp *t)
{
    uint32_t before = t->rcv_nxt;
    for (unsigned i = 0; i < t->range_count; i++) {
        if (!kit_seq_lt(before, t->ranges[i].start) ||
            !kit_seq_lt(t->ranges[i].start, t->ranges[i].end))
            return false;
        before = t->ranges[i].end;
    }
    return t->range_count <= MINI_RANGES &&
           (t->range_count == 0 || t->rx.length + (before - t->rcv_nxt) <= t->rx.capacity);
}

MINI_COLD static bool check_timers(const struct mini *m, const struct mini_tcp *t)
{
    if (t->heap_position > m->heap_count ||
        (t->heap_position != 0 && m->heap[t->heap_position] != t))
        return false;
    for (unsigned i = 0; i < MINI_TIMERS; i++) {
        if (t->timers[i] != KIT_NEVER && (t->heap_position == 0 || t->timers[i] < t->heap_deadline))
            return false;
    }
    /* What is not acknowledged, sent or not, has a timer or is about to go: nothing can stall. */
    return t->snd_una == t->tx_seq + t->tx.length + t->fin_queued ||
           t->timers[MINI_TIMER_SEND] != KIT_NEVER || !kit_list_empty(&t->output_link);
}

MINI_COLD static bool check_tcp(const struct mini *m, const struct mini_tcp *t)
{
    if (t->socket.state < KIT_TCP_SYN_SENT || t->socket.state >= KIT_TCP_TIME_WAIT)
        return false;
    if (!check_ring(&t->tx, m->send_buffer) || !check_ring(&t->rx, m->receive_buffer) ||
        !check_ranges(t) || !check_timers(m, t))
        return false;
    if (kit_seq_lt(t->snd_nxt, t->snd_una) || kit_seq_lt(t->snd_max, t->snd_nxt) ||
        kit_seq_lt(t->tx_seq + t->tx.length + 1, t->snd_max) || t->cwnd > UINT32_MAX / 2 ||
        (t->socket.state > KIT_TCP_SYN_RECEIVED && t->cwnd < t->mss))
        return false;
    return t->socket.state == KIT_TCP_SYN_SENT || !kit_seq_lt(t->rcv_adv, t->rcv_nxt);
}

MINI_COLD static bool check_listener(const struct mini_listener *l)
{
    size_t half = 0, full = 0;
    for (const struct kit_list *at = l->half.next; at != &l->half; at = at->next)
        half += KIT_CONTAINER_OF(at, struct mini_tcp, listener_link)->listener == l;
    for (const struct kit_list *at = l->full.next; at != &l->full; at = at->next)
        full += KIT_CONTAINER_OF(at, struct mini_tcp, listener_link)->listener == l;
    return half == l->half_count && full == l->full_count && half <= l->backlog &&
           full <= l->backlog;
}

MINI_COLD static size_t check_list(const struct kit_list *list)
{
    size_t count = 0;
    for (const struct kit_list *at = list->next; at != list; at = at->next)
        count += at->next->prev == at;
    return count;
}

MINI_COLD static size_t check_ring_memory(const struct mini_tcp *t)
{
    return sizeof(*t) + t->tx.capacity + t->rx.capacity;
}

/* Bytes that ought to be allocated, by counting everything there is. */
MINI_COLD static size_t check_memory(const struct mini *m)
{
    size_t bytes =
        sizeof(*m) + m->slot_size * MINI_BATCH * 2 + sizeof(struct mini_arp) * m->arp_count +
        (m->bucket_mask + 1) * sizeof(void *) * 2 + sizeof(void *) * (m->connections + 1) +
        m->time_wait_count * sizeof(struct mini_time_wait) +
        m->listener_count * sizeof(struct mini_listener);
    for (size_t i = 0; i <= m->bucket_mask; i++) {
        for (const struct mini_tcp *t = m->buckets[i]; t != NULL; t = t->hash_next)
            bytes += check_ring_memory(t);
    }
    for (const struct kit_list *at = m->held.next; at != &m->held; at = at->next)
        bytes += check_ring_memory(KIT_CONTAINER_OF(at, struct mini_tcp, listener_link));
    for (const struct kit_list *at = m->udps.next; at != &m->udps; at = at->next)
        bytes += sizeof(struct mini_udp) + KIT_CONTAINER_OF(at, struct mini_udp, link)->queued;
    for (uint32_t i = 0; i < m->arp_count; i++) {
        for (unsigned j = 0; j < m->arps[i].waiting; j++)
            bytes += m->arps[i].frames[j].length;
    }
    return bytes;
}

MINI_COLD int mini_check(const struct kit_net *net)
{
    const struct mini *m = mini_of(net);
    size_t open = 0;
    for (size_t i = 0; i <= m->bucket_mask; i++) {
        for (const struct mini_tcp *t = m->buckets[i]; t != NULL; t = t->hash_next) {
            if ((t->hash & m->bucket_mask) != i || !check_tcp(m, t))
                return KIT_ECORRUPT;
            open++;
        }
    }
    for (size_t i = 1; i <= m->heap_count; i++) {
        if (m->heap[i]->heap_position != i ||
            (i > 1 && m->heap[i / 2]->heap_deadline > m->heap[i]->heap_deadline))
            return KIT_ECORRUPT;
    }
    for (const struct kit_list *at = m->listeners.next; at != &m->listeners; at = at->next) {
        if (!check_listener(KIT_CONTAINER_OF(at, struct mini_listener, link)))
            return KIT_ECORRUPT;
    }
    if (open != m->open || open > m->connections || m->tx_tail - m->tx_head > MINI_BATCH ||
        check_list(&m->time_waits) != m->time_wait_count ||
        check_list(&m->listeners) != m->listener_count || check_list(&m->udps) != m->udp_count ||
        !kit_list_empty(&m->dead) || check_memory(m) != m->stats.memory)
        return KIT_ECORRUPT;
    return 0;
}
