/* SPDX-License-Identifier: MIT */
/* UDP (RFC 768), sockets found by hash. Each keeps datagrams in a ring that doubles on demand up to
 * the option's size, so a datagram costs a copy and no allocation; what comes on top is dropped
 * and counted. */
#include <unikit/net/inet/calls.h>
#include <unikit/net/wire/udp.h>

enum { UDP_RING_MIN = 1024 };

/* Before each datagram in the ring; lengths are rounded up to 8 there. */
struct udp_record {
    struct inet_ip from;
    uint16_t port;
    uint16_t length;
    uint32_t reserved;
};

static struct inet_udp *udp_of(const struct kit_udp *handle)
{
    return KIT_CONTAINER_OF(handle, struct inet_udp, handle);
}

static struct inet_udp *udp_find(const struct inet *m, uint16_t port)
{
    struct inet_entry *at = *inet_table_chain(&m->ports, inet_port_hash(m, port));
    for (; at != NULL; at = at->next) {
        struct inet_udp *u = KIT_CONTAINER_OF(at, struct inet_udp, entry);
        if (u->port == port)
            return u;
    }
    return NULL;
}

static void ring_put(struct inet_udp *u, uint32_t offset, const void *data, uint32_t length)
{
    uint32_t at = (u->head + u->length + offset) & (u->capacity - 1);
    uint32_t first = inet_min(length, u->capacity - at);
    memcpy(u->ring + at, data, first);
    memcpy(u->ring, (const uint8_t *)data + first, length - first);
}

static void ring_get(const struct inet_udp *u, uint32_t offset, void *data, uint32_t length)
{
    uint32_t at = (u->head + offset) & (u->capacity - 1);
    uint32_t first = inet_min(length, u->capacity - at);
    memcpy(data, u->ring + at, first);
    memcpy((uint8_t *)data + first, u->ring, length - first);
}

static bool udp_reserve(struct inet *m, struct inet_udp *u, uint32_t need)
{
    if (u->length + need <= u->capacity)
        return u->length + need <= m->udp_buffer;
    if (u->length + need > m->udp_buffer)
        return false;
    uint32_t capacity = u->capacity == 0 ? UDP_RING_MIN : u->capacity;
    while (capacity < u->length + need)
        capacity *= 2;
    uint8_t *ring = inet_take(&m->memory, capacity);
    if (ring == NULL)
        return false;
    if (u->length != 0)
        ring_get(u, 0, ring, u->length);
    inet_give(&m->memory, u->ring, u->capacity);
    u->ring = ring;
    u->capacity = capacity;
    u->head = 0;
    return true;
}

/* False: the header or the checksum is wrong; *size: what it carries. */
static bool udp_sound(struct inet *m, const struct inet_packet *p, uint32_t *size)
{
    *size = p->length < KIT_UDP_HEADER ? 0 : kit_load16(p->data + KIT_UDP_LENGTH);
    if (*size < KIT_UDP_HEADER || *size > p->length) {
        m->counts[INET_UDP_MALFORMED]++;
        return false;
    }
    if (!p->checked && kit_load16(p->data + KIT_UDP_CHECKSUM) != 0) {
        uint64_t sum = inet_ip_pseudo(&p->source, &p->destination, KIT_IPV4_UDP, *size);
        if (kit_checksum_end(inet_sum(sum, p->data, *size)) != 0) {
            m->counts[INET_UDP_CHECKSUM]++;
            return false;
        }
    }
    *size -= KIT_UDP_HEADER;
    return true;
}

void inet_udp_input(struct inet *m, const struct inet_packet *p)
{
    uint32_t size;
    if (!udp_sound(m, p, &size))
        return;
    struct inet_udp *u = udp_find(m, kit_load16(p->data + KIT_UDP_DESTINATION));
    if (u == NULL) {
        m->counts[INET_UDP_PORT]++;
        inet_icmp_unreachable(m, p, INET_UNREACHABLE_PORT);
        return;
    }
    struct udp_record record = {
        .from = p->source, .port = kit_load16(p->data + KIT_UDP_SOURCE), .length = (uint16_t)size};
    uint32_t cost = (uint32_t)(sizeof(record) + kit_align_up(size, 8));
    if (!udp_reserve(m, u, cost)) {
        m->counts[INET_UDP_FULL]++;
        return;
    }
    ring_put(u, 0, &record, sizeof(record));
    ring_put(u, sizeof(record), p->data + KIT_UDP_HEADER, size);
    u->length += cost;
    if (kit_list_empty(&u->event_link))
        kit_list_push_back(&m->udp_events, &u->event_link);
}

bool inet_udp_deliver(struct inet *m)
{
    bool any = false;
    struct kit_list *at;
    while ((at = kit_list_pop_front(&m->udp_events)) != NULL) {
        struct inet_udp *u = KIT_CONTAINER_OF(at, struct inet_udp, event_link);
        any = true;
        if (u->callback != NULL)
            u->callback(u->argument, &u->handle);
    }
    return any;
}

INET_COLD static uint16_t udp_free_port(struct inet *m)
{
    uint32_t range = 65536 - INET_PORT_FIRST;
    for (uint32_t tries = 0; tries < range; tries++) { /* fewer sockets than ports: ends */
        uint16_t port = (uint16_t)(INET_PORT_FIRST + m->port_offset++ % range);
        if (udp_find(m, port) == NULL)
            return port;
    }
    return 0;
}

INET_COLD int inet_udp_open(struct kit_net *net, uint16_t port, kit_udp_callback callback,
                            void *argument, struct kit_udp **out)
{
    struct inet *m = inet_of(net);
    if (port != 0 && udp_find(m, port) != NULL)
        return KIT_EEXIST;
    if (port == 0)
        port = udp_free_port(m);
    struct inet_udp *u =
        m->ports.count >= m->udp_limit || port == 0 ? NULL : inet_take(&m->memory, sizeof(*u));
    if (u == NULL)
        return KIT_ENOMEM;
    *u = (struct inet_udp){.handle.net = net,
                           .entry.hash = inet_port_hash(m, port),
                           .callback = callback,
                           .argument = argument,
                           .port = port};
    kit_list_init(&u->event_link);
    inet_table_insert(&m->memory, &m->ports, &u->entry);
    *out = &u->handle;
    return 0;
}

INET_COLD uint16_t inet_udp_port(const struct kit_udp *handle)
{
    return udp_of(handle)->port;
}

static void udp_header(uint8_t *udp, uint16_t source, uint16_t destination, uint32_t size)
{
    kit_store16(udp + KIT_UDP_SOURCE, source);
    kit_store16(udp + KIT_UDP_DESTINATION, destination);
    kit_store16(udp + KIT_UDP_LENGTH, (uint16_t)size);
    kit_store16(udp + KIT_UDP_CHECKSUM, 0);
}

int inet_udp_send(struct kit_udp *handle, const struct kit_address *to, const void *data,
                  size_t length)
{
    struct inet *m = inet_of(handle->net);
    struct inet_parcel parcel = {.protocol = KIT_IPV4_UDP, .fragments = true};
    if (inet_address_in(to, &parcel.destination) != 0 || to->port == 0)
        return KIT_EINVAL;
    if (length > (size_t)m->mtu - KIT_IPV4_HEADER - KIT_UDP_HEADER)
        return KIT_EMSGSIZE;
    inet_clock(m);
    if (inet_route(m, &parcel.destination, &parcel.route) != 0 ||
        inet_as_v4(&parcel.destination) >> 28 == 14)
        return KIT_EUNREACH;
    uint8_t *udp, head[KIT_UDP_HEADER];
    parcel.length = (uint32_t)length + KIT_UDP_HEADER;
    udp_header(head, udp_of(handle)->port, to->port, parcel.length);
    uint64_t sum =
        inet_ip_pseudo(&parcel.route.source, &parcel.destination, KIT_IPV4_UDP, parcel.length);
    struct kit_frame *frame = inet_link_begin(m);
    if (frame == NULL)
        return KIT_EAGAIN;
    udp = frame->data + inet_ip_offset(&parcel.destination);
    memcpy(udp, head, sizeof(head));
    if (length != 0)
        memcpy(udp + KIT_UDP_HEADER, data, length);
    uint16_t checksum = kit_checksum_end(inet_sum(sum, udp, parcel.length));
    kit_store16(udp + KIT_UDP_CHECKSUM, checksum != 0 ? checksum : 0xffff);
    int rc = inet_ip_send(m, frame, &parcel);
    return rc == KIT_ENOMEM ? KIT_EAGAIN : rc;
}

int inet_udp_receive(struct kit_udp *handle, struct kit_address *from, void *buffer, size_t length)
{
    struct inet_udp *u = udp_of(handle);
    struct udp_record record;
    if (u->length == 0)
        return KIT_EAGAIN;
    ring_get(u, 0, &record, sizeof(record));
    if (from != NULL)
        inet_address_out(from, &record.from, record.port);
    if (length > record.length)
        length = record.length;
    if (length != 0)
        ring_get(u, sizeof(record), buffer, (uint32_t)length);
    uint32_t cost = (uint32_t)(sizeof(record) + kit_align_up(record.length, 8));
    u->length -= cost;
    u->head = u->length == 0 ? 0 : (u->head + cost) & (u->capacity - 1);
    return record.length;
}

INET_COLD void inet_udp_close(struct kit_udp *handle)
{
    struct inet_udp *u = udp_of(handle);
    struct inet *m = inet_of(handle->net);
    inet_table_remove(&m->memory, &m->ports, &u->entry);
    kit_list_remove(&u->event_link);
    inet_give(&m->memory, u->ring, u->capacity);
    inet_give(&m->memory, u, sizeof(*u));
}
