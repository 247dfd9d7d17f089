/* SPDX-License-Identifier: MIT */
/* Neighbours by ARP (RFC 826; RFC 1122, section 2.3.2), found by hash, at most `neighbours` of
 * them; the one not used for the longest time makes room. An entry is asked for once a second,
 * three times, while at most INET_PENDING frames wait for it. A known one is confirmed by asking
 * again while it is in use, and forgotten if nobody answers.
 *
 * Against storms and spoofing: only a request or a reply that is addressed to us makes an entry,
 * and a request only while there is room or the entry it replaces is idle; what others say among
 * themselves only changes existing entries, and an address does not move twice in a second. */
#include <unikit/net/inet/calls.h>
#include <unikit/net/wire/arp.h>

#define ARP_ASK_NS KIT_NS_PER_S
#define ARP_TRIES 3
#define ARP_FRESH_NS (60 * KIT_NS_PER_S) /* afterwards confirm ... */
#define ARP_STALE_NS (90 * KIT_NS_PER_S) /* ... and give up here */
#define ARP_LIFE_NS (600 * KIT_NS_PER_S) /* unused ones are forgotten */

static const uint8_t arp_broadcast[KIT_ETH_ADDRESS] = {255, 255, 255, 255, 255, 255};
static const uint8_t arp_nobody[KIT_ETH_ADDRESS] = {0};

static uint32_t arp_own(const struct inet *m)
{
    return m->networks[0].prefix == 0 ? 0 : inet_as_v4(&m->networks[0].address);
}

INET_COLD static void arp_transmit(struct inet *m, uint16_t operation, const uint8_t *to,
                                   const uint8_t *target_mac, uint32_t target_ip)
{
    struct kit_frame *frame = inet_link_begin(m);
    if (frame == NULL) {
        m->counts[INET_SEND_BUSY]++;
        return;
    }
    kit_eth_write(frame->data, to, m->mac, KIT_ETH_ARP);
    kit_arp_write(frame->data + KIT_ETH_HEADER, operation, m->mac, arp_own(m), target_mac,
                  target_ip);
    frame->length = KIT_ETH_HEADER + KIT_ARP_SIZE;
    inet_link_commit(m);
}

static void neighbour_wake(struct inet *m, uint64_t deadline_ns)
{
    if (m->neighbour_deadline_ns > deadline_ns)
        m->neighbour_deadline_ns = deadline_ns;
}

INET_COLD static void neighbour_ask(struct inet *m, struct inet_neighbour *n)
{
    /* A neighbour being confirmed is asked directly (RFC 1122, 2.3.2.1). */
    arp_transmit(m, KIT_ARP_REQUEST, n->state == INET_KNOWN ? n->mac : arp_broadcast, arp_nobody,
                 inet_as_v4(&n->ip));
    neighbour_wake(m, m->now_ns + ARP_ASK_NS);
}

INET_COLD void inet_neighbour_announce(struct inet *m)
{
    arp_transmit(m, KIT_ARP_REQUEST, arp_broadcast, arp_nobody, arp_own(m));
}

static struct inet_neighbour *neighbour_of(struct kit_list *link)
{
    return KIT_CONTAINER_OF(link, struct inet_neighbour, link);
}

static struct inet_neighbour *neighbour_find(struct inet *m, const struct inet_ip *ip)
{
    if (m->neighbour != NULL && inet_ip_equal(&m->neighbour->ip, ip))
        return m->neighbour;
    struct inet_entry *at = *inet_table_chain(&m->neighbours, inet_hash_ip(&m->key, ip));
    for (; at != NULL; at = at->next) {
        struct inet_neighbour *n = KIT_CONTAINER_OF(at, struct inet_neighbour, entry);
        if (inet_ip_equal(&n->ip, ip)) {
            kit_list_remove(&n->link);
            kit_list_push_back(&m->neighbours_used, &n->link);
            return m->neighbour = n;
        }
    }
    return NULL;
}

INET_COLD static void neighbour_drop_frames(struct inet *m, struct inet_neighbour *n)
{
    for (unsigned i = 0; i < n->waiting; i++)
        inet_give(&m->memory, n->frames[i].data, n->frames[i].length);
    n->waiting = 0;
}

INET_COLD static void neighbour_free(struct inet *m, struct inet_neighbour *n)
{
    neighbour_drop_frames(m, n);
    inet_table_remove(&m->memory, &m->neighbours, &n->entry);
    kit_list_remove(&n->link);
    if (m->neighbour == n)
        m->neighbour = NULL;
    inet_give(&m->memory, n, sizeof(*n));
}

/* A new entry; NULL: memory is out, or nobody may be forgotten for it. */
INET_COLD static struct inet_neighbour *neighbour_new(struct inet *m, const struct inet_ip *ip,
                                                      bool wanted)
{
    if (m->neighbours.count >= m->neighbour_limit) {
        struct inet_neighbour *oldest = neighbour_of(m->neighbours_used.next);
        if (!wanted && oldest->state == INET_KNOWN &&
            m->now_ns - oldest->changed_ns < ARP_FRESH_NS) {
            m->counts[INET_ARP_STORM]++;
            return NULL;
        }
        neighbour_free(m, oldest);
    }
    struct inet_neighbour *n = inet_take(&m->memory, sizeof(*n));
    if (n == NULL)
        return NULL;
    *n = (struct inet_neighbour){.ip = *ip, .state = INET_ASKING, .changed_ns = m->now_ns};
    n->entry.hash = inet_hash_ip(&m->key, ip);
    inet_table_insert(&m->memory, &m->neighbours, &n->entry);
    kit_list_init(&n->link);
    kit_list_push_back(&m->neighbours_used, &n->link);
    return n;
}

INET_COLD static void neighbour_learn(struct inet *m, struct inet_neighbour *n, const uint8_t *mac)
{
    if (n->state == INET_KNOWN && !kit_eth_equal(n->mac, mac) &&
        m->now_ns - n->changed_ns < ARP_ASK_NS) {
        m->counts[INET_ARP_STORM]++;
        return;
    }
    memcpy(n->mac, mac, KIT_ETH_ADDRESS);
    n->state = INET_KNOWN;
    n->changed_ns = m->now_ns;
    n->tries = 0;
    neighbour_wake(m, m->now_ns + ARP_LIFE_NS);
    for (unsigned i = 0; i < n->waiting; i++) {
        struct kit_frame *frame = inet_link_begin(m);
        if (frame == NULL) {
            m->counts[INET_SEND_BUSY]++;
            continue;
        }
        uint8_t *data = frame->data;
        memcpy(data, n->frames[i].data, n->frames[i].length);
        *frame = n->frames[i];
        frame->data = data;
        kit_eth_write(data, n->mac, m->mac, KIT_ETH_IPV4);
        inet_link_commit(m);
    }
    neighbour_drop_frames(m, n);
}

INET_COLD void inet_arp_input(struct inet *m, const uint8_t *frame, size_t length)
{
    const uint8_t *arp = frame + KIT_ETH_HEADER;
    if (!kit_arp_valid(arp, length - KIT_ETH_HEADER)) {
        m->counts[INET_ARP_MALFORMED]++;
        return;
    }
    const uint8_t *mac = arp + KIT_ARP_SENDER_MAC;
    uint32_t own = arp_own(m), sender = kit_load32(arp + KIT_ARP_SENDER_IP);
    struct inet_ip ip = inet_v4(sender);
    if (kit_eth_is_multicast(mac) || own == 0 || sender == own) {
        m->counts[INET_ARP_UNWANTED]++; /* our own echo, a conflict, or nonsense */
        return;
    }
    bool for_us = kit_load32(arp + KIT_ARP_TARGET_IP) == own;
    struct inet_neighbour *n = sender == 0 ? NULL : neighbour_find(m, &ip);
    /* Only neighbours on the link are worth an entry (RFC 1027's proxies answer by themselves). */
    if (n == NULL && for_us && sender != 0 &&
        inet_ip_same(&ip, &m->networks[0].address, m->networks[0].prefix))
        n = neighbour_new(m, &ip, false);
    if (n != NULL)
        neighbour_learn(m, n, mac);
    if (for_us && kit_load16(arp + KIT_ARP_OPERATION) == KIT_ARP_REQUEST)
        arp_transmit(m, KIT_ARP_REPLY, mac, mac, sender);
    else if (!for_us && n == NULL)
        m->counts[INET_ARP_UNWANTED]++;
}

INET_COLD static int neighbour_enqueue(struct inet *m, struct inet_neighbour *n,
                                       const struct kit_frame *frame)
{
    if (n->waiting == INET_PENDING) { /* keep the latest (RFC 1122, 2.3.2.2) */
        inet_give(&m->memory, n->frames[0].data, n->frames[0].length);
        memmove(&n->frames[0], &n->frames[1], sizeof(n->frames[0]) * (INET_PENDING - 1));
        n->waiting--;
        m->counts[INET_SEND_NEIGHBOUR]++;
    }
    uint8_t *copy = inet_take(&m->memory, frame->length);
    if (copy == NULL) {
        m->counts[INET_SEND_NEIGHBOUR]++;
        return KIT_ENOMEM;
    }
    memcpy(copy, frame->data, frame->length);
    n->frames[n->waiting] = *frame;
    n->frames[n->waiting++].data = copy;
    return 0;
}

INET_COLD static int neighbour_wait(struct inet *m, struct inet_neighbour *n,
                                    const struct inet_ip *next, const struct kit_frame *frame)
{
    bool fresh = n == NULL || n->tries == 0;
    if (n == NULL)
        n = neighbour_new(m, next, true);
    if (n == NULL) {
        m->counts[INET_SEND_NEIGHBOUR]++;
        return KIT_ENOMEM;
    }
    int rc = neighbour_enqueue(m, n, frame); /* leaves the slot to the question */
    if (fresh) {
        n->tries = 1;
        neighbour_ask(m, n);
    }
    return rc;
}

static int neighbour_commit(struct inet *m, const uint8_t *mac, struct kit_frame *frame)
{
    kit_eth_write(frame->data, mac, m->mac, KIT_ETH_IPV4);
    inet_link_commit(m);
    return 0;
}

int inet_neighbour_send(struct inet *m, const struct inet_ip *next, struct kit_frame *frame)
{
    struct inet_neighbour *n = neighbour_find(m, next);
    if (n == NULL) {
        if (inet_ip_equal(next, &m->networks[0].address)) /* a loopback interface gives it back */
            return neighbour_commit(m, m->mac, frame);
        if (inet_is_broadcast(m, next))
            return neighbour_commit(m, arp_broadcast, frame);
        return neighbour_wait(m, n, next, frame);
    }
    uint64_t age = m->now_ns - n->changed_ns;
    if (n->state == INET_KNOWN && age > ARP_STALE_NS) { /* unused for long: start over */
        n->state = INET_ASKING;
        n->tries = 0;
        n->changed_ns = m->now_ns;
    }
    if (n->state != INET_KNOWN)
        return neighbour_wait(m, n, next, frame);
    neighbour_commit(m, n->mac, frame);
    if (age > ARP_FRESH_NS && n->tries == 0) {
        n->tries = 1;
        neighbour_ask(m, n);
    }
    return 0;
}

/* Nobody answered: connections that are being opened through this neighbour fail. */
INET_COLD static void neighbour_failed(struct inet *m, struct inet_neighbour *n)
{
    struct inet_ip ip = n->ip;
    neighbour_free(m, n);
    for (uint32_t i = 1; i <= m->heap_count; i++) {
        struct inet_tcp *t = m->heap[i];
        struct inet_route route;
        if (t->socket.state != KIT_TCP_SYN_SENT || inet_route(m, &t->tuple.remote, &route) != 0 ||
            !inet_ip_equal(&route.next, &ip))
            continue;
        inet_tcp_end(m, t, KIT_EUNREACH);
        i = 0; /* the heap moved */
    }
    inet_reap(m);
}

/* Everybody who was asked a second ago, and those that nobody used for long. */
INET_COLD static void neighbour_expire(struct inet *m, struct inet_neighbour *n)
{
    uint64_t age = m->now_ns - n->changed_ns;
    if (n->tries == 0 && age < ARP_LIFE_NS)
        neighbour_wake(m, n->changed_ns + ARP_LIFE_NS);
    else if (n->state == INET_KNOWN && age > ARP_STALE_NS)
        neighbour_free(m, n); /* asked again, and in vain, or not used */
    else if (n->state == INET_ASKING && n->tries >= ARP_TRIES)
        neighbour_failed(m, n);
    else {
        n->tries = n->state == INET_ASKING ? (uint8_t)(n->tries + 1) : n->tries;
        neighbour_ask(m, n);
    }
}

void inet_neighbour_timers(struct inet *m)
{
    if (m->now_ns < m->neighbour_deadline_ns)
        return;
    m->neighbour_deadline_ns = KIT_NEVER;
    struct kit_list *next, *at = m->neighbours_used.next;
    for (; at != &m->neighbours_used; at = next) {
        next = at->next; /* an entry that expires takes only itself out of the list */
        neighbour_expire(m, neighbour_of(at));
    }
}

INET_COLD void inet_neighbour_clear(struct inet *m)
{
    while (!kit_list_empty(&m->neighbours_used))
        neighbour_free(m, neighbour_of(m->neighbours_used.next));
    m->neighbour_deadline_ns = KIT_NEVER;
}

INET_COLD size_t inet_neighbour_memory(const struct inet *m)
{
    size_t bytes = inet_table_memory(&m->neighbours);
    for (struct kit_list *at = m->neighbours_used.next; at != &m->neighbours_used; at = at->next) {
        const struct inet_neighbour *n = neighbour_of(at);
        bytes += sizeof(*n);
        for (unsigned i = 0; i < n->waiting; i++)
            bytes += n->frames[i].length;
    }
    return bytes;
}
