/* SPDX-License-Identifier: MIT */
/* Neighbours by ARP (RFC 826; RFC 1122, section 2.3.2): a small table searched in order, with the
 * neighbour used last in front of it. An entry is asked for once a second, three times, while at
 * most MINI_ARP_QUEUE frames wait for it. A known one is confirmed again by asking while it is
 * still in use, and forgotten if nobody answers.
 *
 * Only a request or a reply that is addressed to us makes an entry; what others say among
 * themselves and gratuitous announcements only change existing ones. */
#include <unikit/net/mini/mini.h>

#define ARP_ASK_NS KIT_NS_PER_S
#define ARP_TRIES 3
#define ARP_FRESH_NS (60 * KIT_NS_PER_S) /* afterwards confirm ... */
#define ARP_STALE_NS (90 * KIT_NS_PER_S) /* ... and give up here */

static const uint8_t arp_broadcast[KIT_ETH_ADDRESS] = {255, 255, 255, 255, 255, 255};
static const uint8_t arp_nobody[KIT_ETH_ADDRESS] = {0};

MINI_COLD static void arp_transmit(struct mini *m, uint16_t operation, const uint8_t *to,
                                   const uint8_t *target_mac, uint32_t target_ip)
{
    uint8_t *frame = mini_link_begin(m);
    if (frame == NULL) {
        m->stats.dropped_full++;
        return;
    }
    kit_eth_write(frame, to, m->mac, KIT_ETH_ARP);
    kit_arp_write(frame + KIT_ETH_HEADER, operation, m->mac, m->address, target_mac, target_ip);
    mini_link_commit(m, KIT_ETH_HEADER + KIT_ARP_SIZE);
}

MINI_COLD static void arp_ask(struct mini *m, struct mini_arp *a)
{
    /* A neighbour being confirmed is asked directly (RFC 1122, 2.3.2.1). */
    arp_transmit(m, KIT_ARP_REQUEST, a->state == MINI_ARP_KNOWN ? a->mac : arp_broadcast,
                 arp_nobody, a->ip);
    if (m->arp_deadline_ns > m->now_ns + ARP_ASK_NS)
        m->arp_deadline_ns = m->now_ns + ARP_ASK_NS;
}

MINI_COLD void mini_arp_announce(struct mini *m)
{
    arp_transmit(m, KIT_ARP_REQUEST, arp_broadcast, arp_nobody, m->address);
}

static struct mini_arp *arp_find(struct mini *m, uint32_t ip)
{
    if (m->arp_last->ip == ip && m->arp_last->state != MINI_ARP_FREE)
        return m->arp_last;
    for (uint32_t i = 0; i < m->arp_count; i++) {
        if (m->arps[i].ip == ip && m->arps[i].state != MINI_ARP_FREE)
            return m->arp_last = &m->arps[i];
    }
    return NULL;
}

MINI_COLD static void arp_drop_frames(struct mini *m, struct mini_arp *a)
{
    for (unsigned i = 0; i < a->waiting; i++)
        mini_free(m, a->frames[i].data, a->frames[i].length);
    a->waiting = 0;
}

/* A free entry, or the one not used for the longest time. */
MINI_COLD static struct mini_arp *arp_take(struct mini *m, uint32_t ip)
{
    struct mini_arp *best = &m->arps[0];
    for (uint32_t i = 0; i < m->arp_count && best->state != MINI_ARP_FREE; i++) {
        if (m->arps[i].state == MINI_ARP_FREE || m->arps[i].used_ns < best->used_ns)
            best = &m->arps[i];
    }
    arp_drop_frames(m, best);
    *best = (struct mini_arp){.ip = ip, .used_ns = m->now_ns, .changed_ns = m->now_ns};
    return best;
}

MINI_COLD static void arp_learn(struct mini *m, struct mini_arp *a, const uint8_t *mac)
{
    memcpy(a->mac, mac, KIT_ETH_ADDRESS);
    a->state = MINI_ARP_KNOWN;
    a->changed_ns = m->now_ns;
    a->tries = 0;
    for (unsigned i = 0; i < a->waiting; i++) {
        uint8_t *frame = mini_link_begin(m);
        if (frame == NULL) {
            m->stats.dropped_full++;
            continue;
        }
        memcpy(frame, a->frames[i].data, a->frames[i].length);
        kit_eth_write(frame, a->mac, m->mac, KIT_ETH_IPV4);
        mini_link_commit(m, a->frames[i].length);
    }
    arp_drop_frames(m, a);
}

MINI_COLD void mini_arp_input(struct mini *m, const uint8_t *frame, size_t length)
{
    const uint8_t *arp = frame + KIT_ETH_HEADER;
    if (!kit_arp_valid(arp, length - KIT_ETH_HEADER)) {
        m->stats.dropped_malformed++;
        return;
    }
    const uint8_t *mac = arp + KIT_ARP_SENDER_MAC;
    uint32_t sender = kit_load32(arp + KIT_ARP_SENDER_IP);
    uint32_t target = kit_load32(arp + KIT_ARP_TARGET_IP);
    uint16_t operation = kit_load16(arp + KIT_ARP_OPERATION);
    if (kit_eth_is_multicast(mac) || m->address == 0 || sender == m->address) {
        m->stats.dropped_unwanted++; /* our own echo, a conflict, or nonsense */
        return;
    }
    bool for_us = target == m->address;
    struct mini_arp *a = sender == 0 ? NULL : arp_find(m, sender);
    /* Only neighbours on the link are worth an entry (RFC 1027's proxies answer by themselves). */
    if (a == NULL && for_us && sender != 0 && ((sender ^ m->address) & m->mask) == 0)
        a = arp_take(m, sender);
    if (a != NULL)
        arp_learn(m, a, mac);
    if (for_us && operation == KIT_ARP_REQUEST)
        arp_transmit(m, KIT_ARP_REPLY, mac, mac, sender);
    else if (!for_us && a == NULL)
        m->stats.dropped_unwanted++;
}

MINI_COLD static int arp_enqueue(struct mini *m, struct mini_arp *a, const uint8_t *frame,
                                 size_t length)
{
    if (a->waiting == MINI_ARP_QUEUE) { /* keep the latest (RFC 1122, 2.3.2.2) */
        mini_free(m, a->frames[0].data, a->frames[0].length);
        memmove(&a->frames[0], &a->frames[1], sizeof(a->frames[0]) * (MINI_ARP_QUEUE - 1));
        a->waiting--;
        m->stats.dropped_full++;
    }
    uint8_t *copy = mini_alloc(m, length);
    if (copy == NULL) {
        m->stats.dropped_full++;
        return KIT_ENOMEM;
    }
    memcpy(copy, frame, length);
    a->frames[a->waiting].data = copy;
    a->frames[a->waiting].length = (uint32_t)length;
    a->waiting++;
    return 0;
}

int mini_arp_send(struct mini *m, uint32_t ip, uint8_t *frame, size_t length)
{
    if (ip == m->address) { /* to ourselves: a loopback interface gives it back */
        kit_eth_write(frame, m->mac, m->mac, KIT_ETH_IPV4);
        mini_link_commit(m, length);
        return 0;
    }
    if (ip == UINT32_MAX || (ip == (m->address | ~m->mask) && ~m->mask > 1)) {
        kit_eth_write(frame, arp_broadcast, m->mac, KIT_ETH_IPV4);
        mini_link_commit(m, length);
        return 0;
    }
    struct mini_arp *a = arp_find(m, ip);
    if (a != NULL && a->state == MINI_ARP_KNOWN &&
        m->now_ns - a->changed_ns > ARP_STALE_NS) { /* unused for long: start over */
        a->state = MINI_ARP_ASKING;
        a->tries = 0;
        a->changed_ns = m->now_ns;
    }
    if (a == NULL || a->state != MINI_ARP_KNOWN) {
        bool fresh = a == NULL || a->tries == 0;
        if (a == NULL) {
            a = arp_take(m, ip);
            a->state = MINI_ARP_ASKING;
        }
        a->used_ns = m->now_ns;
        int rc = arp_enqueue(m, a, frame, length); /* frees the slot for the question */
        if (fresh) {
            a->tries = 1;
            arp_ask(m, a);
        }
        return rc;
    }
    a->used_ns = m->now_ns;
    kit_eth_write(frame, a->mac, m->mac, KIT_ETH_IPV4);
    mini_link_commit(m, length);
    if (m->now_ns - a->changed_ns > ARP_FRESH_NS && a->tries == 0) {
        a->tries = 1;
        arp_ask(m, a);
    }
    return 0;
}

/* Nobody answered: connections that are being opened through this neighbour fail. */
MINI_COLD static void arp_failed(struct mini *m, struct mini_arp *a)
{
    arp_drop_frames(m, a);
    a->state = MINI_ARP_FREE;
    for (size_t i = 0; i <= m->bucket_mask; i++) {
        struct mini_tcp *next, *t = m->buckets[i];
        for (; t != NULL; t = next) {
            next = t->hash_next;
            if (t->socket.state == KIT_TCP_SYN_SENT && mini_route(m, t->remote_ip) == a->ip)
                mini_tcp_end(m, t, KIT_EUNREACH);
        }
    }
    mini_reap(m);
}

void mini_arp_timers(struct mini *m)
{
    if (m->now_ns < m->arp_deadline_ns)
        return;
    m->arp_deadline_ns = KIT_NEVER;
    for (uint32_t i = 0; i < m->arp_count; i++) {
        struct mini_arp *a = &m->arps[i];
        if (a->state == MINI_ARP_FREE || a->tries == 0)
            continue;
        if (a->state == MINI_ARP_KNOWN) {
            if (m->now_ns - a->changed_ns > ARP_STALE_NS) {
                a->state = MINI_ARP_FREE; /* asked again, and in vain */
                continue;
            }
            arp_ask(m, a);
        } else if (a->tries >= ARP_TRIES) {
            arp_failed(m, a);
        } else {
            a->tries++;
            arp_ask(m, a);
        }
    }
}

MINI_COLD void mini_arp_clear(struct mini *m)
{
    for (uint32_t i = 0; i < m->arp_count; i++) {
        arp_drop_frames(m, &m->arps[i]);
        m->arps[i].state = MINI_ARP_FREE;
    }
    m->arp_deadline_ns = KIT_NEVER;
}
