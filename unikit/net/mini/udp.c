/* SPDX-License-Identifier: MIT */
/* UDP (RFC 768). Sockets in a short list; each queues datagrams up to its share of bytes, one
 * allocation per datagram, and drops what comes on top. */
#include <unikit/net/mini/mini.h>

static struct mini_udp *udp_of(const struct kit_udp *handle)
{
    return KIT_CONTAINER_OF(handle, struct mini_udp, handle);
}

static struct mini_udp *udp_find(const struct mini *m, uint16_t port)
{
    for (struct kit_list *at = m->udps.next; at != &m->udps; at = at->next) {
        struct mini_udp *u = KIT_CONTAINER_OF(at, struct mini_udp, link);
        if (u->port == port)
            return u;
    }
    return NULL;
}

void mini_udp_input(struct mini *m, const uint8_t *ip, const uint8_t *udp, size_t length,
                    bool checked, bool broadcast)
{
    uint32_t source = kit_load32(ip + KIT_IPV4_SOURCE);
    size_t size = length < KIT_UDP_HEADER ? 0 : kit_load16(udp + KIT_UDP_LENGTH);
    if (size < KIT_UDP_HEADER || size > length) {
        m->stats.dropped_malformed++;
        return;
    }
    if (!checked && kit_load16(udp + KIT_UDP_CHECKSUM) != 0) {
        uint64_t sum = kit_checksum_pseudo(source, kit_load32(ip + KIT_IPV4_DESTINATION),
                                           KIT_IPV4_UDP, (uint16_t)size);
        if (kit_checksum_end(mini_sum(sum, udp, size)) != 0) {
            m->stats.dropped_malformed++;
            return;
        }
    }
    struct mini_udp *u = udp_find(m, kit_load16(udp + KIT_UDP_DESTINATION));
    if (u == NULL) {
        m->stats.dropped_unwanted++;
        if (!broadcast)
            mini_icmp_unreachable(m, ip, KIT_ICMP_PORT);
        return;
    }
    size -= KIT_UDP_HEADER;
    size_t cost = sizeof(struct mini_datagram) + size;
    struct mini_datagram *d = u->queued + cost > m->udp_buffer ? NULL : mini_alloc(m, cost);
    if (d == NULL) {
        m->stats.dropped_full++;
        return;
    }
    d->from_ip = source;
    d->from_port = kit_load16(udp + KIT_UDP_SOURCE);
    d->length = (uint16_t)size;
    memcpy(d->data, udp + KIT_UDP_HEADER, size);
    kit_list_push_back(&u->queue, &d->link);
    u->queued += cost;
    if (kit_list_empty(&u->event_link))
        kit_list_push_back(&m->udp_events, &u->event_link);
}

bool mini_udp_deliver(struct mini *m)
{
    bool any = false;
    struct kit_list *at;
    while ((at = kit_list_pop_front(&m->udp_events)) != NULL) {
        struct mini_udp *u = KIT_CONTAINER_OF(at, struct mini_udp, event_link);
        any = true;
        if (u->callback != NULL)
            u->callback(u->argument, &u->handle);
    }
    return any;
}

MINI_COLD int mini_udp_open(struct kit_net *net, uint16_t port, kit_udp_callback callback,
                            void *argument, struct kit_udp **out)
{
    struct mini *m = mini_of(net);
    if (m->udp_count == m->udp_limit)
        return KIT_ENOMEM;
    if (port == 0) { /* fewer sockets than ports: ends */
        do {
            port = m->next_port;
            m->next_port = m->next_port == UINT16_MAX ? 49152 : (uint16_t)(m->next_port + 1);
        } while (udp_find(m, port) != NULL);
    } else if (udp_find(m, port) != NULL) {
        return KIT_EEXIST;
    }
    struct mini_udp *u = mini_alloc(m, sizeof(*u));
    if (u == NULL)
        return KIT_ENOMEM;
    *u = (struct mini_udp){
        .handle.net = net, .callback = callback, .argument = argument, .port = port};
    kit_list_init(&u->queue);
    kit_list_init(&u->event_link);
    kit_list_push_back(&m->udps, &u->link);
    m->udp_count++;
    *out = &u->handle;
    return 0;
}

MINI_COLD uint16_t mini_udp_port(const struct kit_udp *handle)
{
    return udp_of(handle)->port;
}

int mini_udp_send(struct kit_udp *handle, const struct kit_address *to, const void *data,
                  size_t length)
{
    struct mini *m = mini_of(handle->net);
    if (to->family != 4 || to->port == 0)
        return KIT_EINVAL;
    if (length > (size_t)m->mtu - KIT_IPV4_HEADER - KIT_UDP_HEADER)
        return KIT_EMSGSIZE;
    uint32_t ip = kit_load32(to->bytes);
    if (mini_route(m, ip) == 0 || kit_ipv4_is_multicast(ip))
        return KIT_EUNREACH;
    uint8_t *frame = mini_link_begin(m);
    if (frame == NULL)
        return KIT_EAGAIN;
    m->now_ns = kit_env_now_ns(m->env);
    uint8_t *udp = frame + MINI_PAYLOAD;
    uint16_t size = (uint16_t)(length + KIT_UDP_HEADER);
    kit_store16(udp + KIT_UDP_SOURCE, udp_of(handle)->port);
    kit_store16(udp + KIT_UDP_DESTINATION, to->port);
    kit_store16(udp + KIT_UDP_LENGTH, size);
    kit_store16(udp + KIT_UDP_CHECKSUM, 0);
    if (length != 0)
        memcpy(udp + KIT_UDP_HEADER, data, length);
    uint64_t sum = kit_checksum_pseudo(m->address, ip, KIT_IPV4_UDP, size);
    uint16_t checksum = kit_checksum_end(mini_sum(sum, udp, size));
    kit_store16(udp + KIT_UDP_CHECKSUM, checksum != 0 ? checksum : 0xffff);
    int rc = mini_ipv4_send(m, frame, m->address, ip, KIT_IPV4_UDP, size);
    return rc == KIT_ENOMEM ? KIT_EAGAIN : rc;
}

int mini_udp_receive(struct kit_udp *handle, struct kit_address *from, void *buffer, size_t length)
{
    struct mini_udp *u = udp_of(handle);
    struct kit_list *first = kit_list_pop_front(&u->queue);
    if (first == NULL)
        return KIT_EAGAIN;
    struct mini_datagram *d = KIT_CONTAINER_OF(first, struct mini_datagram, link);
    int size = d->length;
    if (from != NULL) {
        *from = (struct kit_address){.port = d->from_port, .family = 4};
        kit_store32(from->bytes, d->from_ip);
    }
    if (length > d->length)
        length = d->length;
    if (length != 0)
        memcpy(buffer, d->data, length);
    u->queued -= sizeof(*d) + d->length;
    mini_free(mini_of(handle->net), d, sizeof(*d) + d->length);
    return size;
}

MINI_COLD void mini_udp_close(struct kit_udp *handle)
{
    struct mini_udp *u = udp_of(handle);
    struct mini *m = mini_of(handle->net);
    while (mini_udp_receive(handle, NULL, NULL, 0) >= 0)
        ;
    kit_list_remove(&u->link);
    kit_list_remove(&u->event_link);
    m->udp_count--;
    mini_free(m, u, sizeof(*u));
}
