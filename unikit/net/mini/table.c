/* SPDX-License-Identifier: MIT */
/* Connections by their four numbers: chained hash tables for the living and for TIME_WAIT, keyed
 * with boot entropy so that nobody can aim at one chain. The hash is SipHash-2-4 (Aumasson and
 * Bernstein, 2012) of one or two words; with a second key it gives initial sequence numbers (RFC
 * 6528). TIME_WAIT keeps 56 bytes per connection, at most four times `connections`, and recycles
 * the oldest when full. */
#include <unikit/net/mini/mini.h>

static uint64_t rotate(uint64_t word, unsigned by)
{
    return word << by | word >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* The eight bytes that the peer's address and both ports make. */
MINI_COLD static uint64_t table_mix(const uint64_t *key, uint32_t ip, uint16_t remote_port,
                                    uint16_t local_port)
{
    uint64_t words[2] = {(uint64_t)ip << 32 | (uint32_t)remote_port << 16 | local_port, UINT64_C(8)
                                                                                            << 56};
    uint64_t v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                     key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};
    for (unsigned i = 0; i < 2; i++) {
        v[3] ^= words[i];
        sip_round(v);
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint32_t mini_hash(const struct mini *m, uint32_t ip, uint16_t remote_port, uint16_t local_port)
{
    return (uint32_t)table_mix(m->key, ip, remote_port, local_port);
}

/* A clock of 4.096 us per tick plus a secret per connection. */
MINI_COLD uint32_t mini_isn(const struct mini *m, uint32_t ip, uint16_t remote_port,
                            uint16_t local_port)
{
    return (uint32_t)(m->now_ns >> 12) +
           (uint32_t)table_mix(m->key + 2, ip, remote_port, local_port);
}

struct mini_tcp *mini_find(struct mini *m, uint32_t ip, uint16_t remote_port, uint16_t local_port,
                           uint32_t *hash)
{
    struct mini_tcp *t = m->last;
    if (t != NULL && t->remote_ip == ip && t->remote_port == remote_port &&
        t->local_port == local_port) {
        *hash = t->hash;
        return t;
    }
    *hash = mini_hash(m, ip, remote_port, local_port);
    for (t = m->buckets[*hash & m->bucket_mask]; t != NULL; t = t->hash_next) {
        if (t->remote_ip == ip && t->remote_port == remote_port && t->local_port == local_port)
            return m->last = t;
    }
    return NULL;
}

MINI_COLD struct mini_time_wait *mini_find_time_wait(const struct mini *m, uint32_t ip,
                                                     uint16_t remote_port, uint16_t local_port,
                                                     uint32_t hash)
{
    struct mini_time_wait *w = m->tw_buckets[hash & m->bucket_mask];
    while (w != NULL &&
           (w->remote_ip != ip || w->remote_port != remote_port || w->local_port != local_port))
        w = w->hash_next;
    return w;
}

MINI_COLD struct mini_listener *mini_find_listener(const struct mini *m, uint16_t port)
{
    for (struct kit_list *at = m->listeners.next; at != &m->listeners; at = at->next) {
        struct mini_listener *l = KIT_CONTAINER_OF(at, struct mini_listener, link);
        if (l->port == port)
            return l;
    }
    return NULL;
}

MINI_COLD struct mini_tcp *mini_tcp_new(struct mini *m, uint32_t ip, uint16_t remote_port,
                                        uint16_t local_port, uint32_t hash)
{
    struct mini_tcp *t = m->open == m->connections ? NULL : mini_alloc(m, sizeof(*t));
    if (t == NULL)
        return NULL;
    *t = (struct mini_tcp){.socket.handle.net = &m->net,
                           .hash = hash,
                           .local_ip = m->address,
                           .remote_ip = ip,
                           .local_port = local_port,
                           .remote_port = remote_port,
                           .mss = MINI_MSS_DEFAULT,
                           .rto_ns = MINI_RTO_FIRST_NS,
                           .timers = {KIT_NEVER, KIT_NEVER, KIT_NEVER}};
    kit_list_init(&t->socket.event_link);
    kit_list_init(&t->output_link);
    kit_list_init(&t->listener_link);
    struct mini_tcp **bucket = &m->buckets[hash & m->bucket_mask];
    t->hash_next = *bucket;
    *bucket = t;
    m->open++;
    return t;
}

MINI_COLD static void table_remove(struct mini *m, struct mini_tcp *t)
{
    struct mini_tcp **at = &m->buckets[t->hash & m->bucket_mask];
    while (*at != t)
        at = &(*at)->hash_next;
    *at = t->hash_next;
    if (m->last == t)
        m->last = NULL;
    m->open--;
}

MINI_COLD static void table_leave_listener(struct mini_tcp *t)
{
    if (t->listener == NULL)
        return;
    if (t->socket.state == KIT_TCP_SYN_RECEIVED)
        t->listener->half_count--;
    else
        t->listener->full_count--;
    t->listener = NULL;
    t->socket.orphan = true; /* nobody ever held the handle */
}

MINI_COLD static void table_detach(struct mini *m, struct mini_tcp *t, uint8_t state,
                                   uint32_t events)
{
    if (t->listener != NULL) {
        kit_list_remove(&t->listener_link);
        table_leave_listener(t);
    }
    table_remove(m, t);
    mini_timer_forget(m, t);
    kit_list_remove(&t->output_link);
    mini_ring_free(m, &t->tx);
    t->socket.state = state;
    if (!t->socket.orphan) {
        kit_list_push_back(&m->held, &t->listener_link);
        mini_event(m, &t->socket, events);
        return;
    }
    kit_list_remove(&t->socket.event_link);
    kit_list_push_back(&m->dead, &t->listener_link);
}

MINI_COLD void mini_tcp_end(struct mini *m, struct mini_tcp *t, int error)
{
    t->error = error;
    table_detach(m, t, KIT_TCP_CLOSED, error != 0 ? KIT_NET_ERROR : KIT_NET_CLOSED);
}

MINI_COLD void mini_tcp_time_wait(struct mini *m, struct mini_tcp *t)
{
    if (m->time_wait_count == m->connections * 4)
        mini_time_wait_free(m, KIT_CONTAINER_OF(m->time_waits.next, struct mini_time_wait, link));
    struct mini_time_wait *w = mini_alloc(m, sizeof(*w));
    if (w != NULL) { /* else forgetting at once is the lesser evil */
        uint32_t space = mini_receive_space(m, t) >> t->rcv_shift;
        *w = (struct mini_time_wait){.deadline_ns = m->now_ns + m->time_wait_ns,
                                     .hash = t->hash,
                                     .remote_ip = t->remote_ip,
                                     .remote_port = t->remote_port,
                                     .local_port = t->local_port,
                                     .snd_nxt = t->snd_max,
                                     .rcv_nxt = t->rcv_nxt,
                                     .window = (uint16_t)mini_min(space, UINT16_MAX)};
        struct mini_time_wait **bucket = &m->tw_buckets[w->hash & m->bucket_mask];
        w->hash_next = *bucket;
        *bucket = w;
        kit_list_push_back(&m->time_waits, &w->link);
        m->time_wait_count++;
    }
    table_detach(m, t, KIT_TCP_TIME_WAIT, KIT_NET_CLOSED);
}

MINI_COLD void mini_time_wait_free(struct mini *m, struct mini_time_wait *w)
{
    struct mini_time_wait **at = &m->tw_buckets[w->hash & m->bucket_mask];
    while (*at != w)
        at = &(*at)->hash_next;
    *at = w->hash_next;
    kit_list_remove(&w->link);
    m->time_wait_count--;
    mini_free(m, w, sizeof(*w));
}

MINI_COLD void mini_time_wait_expire(struct mini *m)
{
    while (!kit_list_empty(&m->time_waits)) {
        struct mini_time_wait *w =
            KIT_CONTAINER_OF(m->time_waits.next, struct mini_time_wait, link);
        if (w->deadline_ns > m->now_ns)
            return;
        mini_time_wait_free(m, w);
    }
}

MINI_COLD void mini_tcp_free(struct mini *m, struct mini_tcp *t)
{
    kit_list_remove(&t->socket.event_link);
    kit_list_remove(&t->listener_link);
    mini_ring_free(m, &t->tx);
    mini_ring_free(m, &t->rx);
    mini_free(m, t, sizeof(*t));
}

void mini_reap(struct mini *m)
{
    struct kit_list *at;
    while ((at = kit_list_pop_front(&m->dead)) != NULL)
        mini_tcp_free(m, KIT_CONTAINER_OF(at, struct mini_tcp, listener_link));
}
