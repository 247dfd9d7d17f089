/* SPDX-License-Identifier: MIT */
/* IP packets (RFC 791; host rules of RFC 1122, section 3). Input checks the header once and hands
 * on an inet_packet of either family, output takes an inet_parcel of either: everything above
 * knows addresses only. A packet is for us if it is sent to our address or to a broadcast
 * address. Options are skipped, source routes refused (RFC 7126). */
#include <unikit/net/inet/calls.h>

enum { IP_OPTION_LSRR = 131, IP_OPTION_SSRR = 137, IP_TTL = 64, IP_CE = 3 };

size_t inet_ip_offset(const struct inet_ip *destination)
{
    (void)destination;
    return KIT_ETH_HEADER + KIT_IPV4_HEADER;
}

uint64_t inet_ip_pseudo(const struct inet_ip *source, const struct inet_ip *destination,
                        uint8_t protocol, uint32_t length)
{
    return kit_checksum_pseudo(inet_as_v4(source), inet_as_v4(destination), protocol,
                               (uint16_t)length);
}

static void ip_write(uint8_t *ip, const struct inet_parcel *parcel, uint16_t id, uint16_t fragment)
{
    uint32_t source = inet_as_v4(&parcel->route.source), to = inet_as_v4(&parcel->destination);
    uint16_t total = (uint16_t)(parcel->length + KIT_IPV4_HEADER);
    ip[0] = 0x45;
    ip[1] = parcel->ecn;
    kit_store16(ip + KIT_IPV4_TOTAL, total);
    kit_store16(ip + KIT_IPV4_ID, id);
    kit_store16(ip + KIT_IPV4_FRAGMENT, fragment);
    ip[KIT_IPV4_TTL] = IP_TTL;
    ip[KIT_IPV4_PROTOCOL] = parcel->protocol;
    kit_store32(ip + KIT_IPV4_SOURCE, source);
    kit_store32(ip + KIT_IPV4_DESTINATION, to);
    /* The words of the pseudo header and the others: that is all there is. */
    uint64_t sum = kit_checksum_pseudo(source, to, parcel->protocol, total);
    sum = kit_checksum_add16(sum, (uint16_t)(0x4500 | parcel->ecn));
    sum = kit_checksum_add16(sum, id);
    sum = kit_checksum_add16(sum, fragment);
    sum = kit_checksum_add16(sum, IP_TTL << 8);
    kit_store16(ip + KIT_IPV4_CHECKSUM, kit_checksum_end(sum));
}

int inet_ip_send(struct inet *m, struct kit_frame *frame, const struct inet_parcel *parcel)
{
    /* What is not to be fragmented needs no identification (RFC 6864, section 4.1). */
    uint16_t id = parcel->fragments ? m->identification++ : 0;
    ip_write(frame->data + KIT_ETH_HEADER, parcel, id, parcel->fragments ? 0 : KIT_IPV4_DF);
    frame->length = KIT_ETH_HEADER + KIT_IPV4_HEADER + parcel->length;
    return inet_neighbour_send(m, &parcel->route.next, frame);
}

int inet_fragment_send(struct inet *m, const struct inet_parcel *parcel, const uint8_t *head,
                       size_t head_length, const uint8_t *data)
{
    uint32_t most = ((uint32_t)parcel->route.mtu - KIT_IPV4_HEADER) & ~7u, sent = 0;
    uint16_t id = m->identification++;
    int rc = 0;
    while (sent < parcel->length && rc == 0) {
        struct kit_frame *frame = inet_link_begin(m);
        if (frame == NULL)
            return sent == 0 ? KIT_EAGAIN : 0; /* the rest is lost, and with it the datagram */
        struct inet_parcel part = *parcel;
        uint8_t *payload = frame->data + inet_ip_offset(&parcel->destination);
        part.length = inet_min(most, parcel->length - sent);
        size_t from_head = sent == 0 ? head_length : 0;
        memcpy(payload, head, from_head);
        memcpy(payload + from_head, data + (sent == 0 ? 0 : sent - head_length),
               part.length - from_head);
        bool more = sent + part.length < parcel->length;
        ip_write(frame->data + KIT_ETH_HEADER, &part, id,
                 (uint16_t)(sent / 8 | (more ? 0x2000 : 0)));
        frame->length = (uint32_t)inet_ip_offset(&parcel->destination) + part.length;
        sent += part.length;
        rc = inet_neighbour_send(m, &parcel->route.next, frame);
    }
    return rc;
}

/* Whether a host may have sent from there to here (RFC 1122, 3.2.1.3). */
static bool ip_source_sound(const struct inet *m, const struct inet_ip *source, const uint8_t *mac)
{
    uint32_t ip = inet_as_v4(source);
    if (inet_ip_equal(source, &m->networks[0].address))
        return kit_eth_equal(mac, m->mac); /* only over a loopback, where we are the neighbour */
    return ip >> 24 != 0 && ip >> 24 != 127 && ip >> 28 < 14 && !inet_is_broadcast(m, source);
}

INET_COLD static bool ip_options_sound(const uint8_t *ip, size_t length)
{
    for (size_t i = KIT_IPV4_HEADER; i < length && ip[i] != 0;) {
        if (ip[i] == 1) {
            i++;
            continue;
        }
        if (length - i < 2 || ip[i + 1] < 2 || ip[i + 1] > length - i || ip[i] == IP_OPTION_LSRR ||
            ip[i] == IP_OPTION_SSRR)
            return false;
        i += ip[i + 1];
    }
    return true;
}

void inet_ip_deliver(struct inet *m, const struct inet_packet *p)
{
    switch (p->protocol) {
    case KIT_IPV4_TCP:
        if (!p->broadcast) /* RFC 9293, 3.9.2.3 */
            inet_tcp_input(m, p);
        else
            m->counts[INET_IP_DESTINATION]++;
        break;
    case KIT_IPV4_UDP:
        inet_udp_input(m, p);
        break;
    case KIT_IPV4_ICMP:
        if (!p->broadcast) /* RFC 1122, 3.2.2.6: an echo to a broadcast may be ignored */
            inet_icmp_input(m, p);
        else
            m->counts[INET_ICMP_UNWANTED]++;
        break;
    default:
        m->counts[INET_IP_PROTOCOL]++;
        inet_icmp_unreachable(m, p, INET_UNREACHABLE_PROTOCOL);
    }
}

void inet_ip_input(struct inet *m, struct kit_frame *frame)
{
    const uint8_t *ip = frame->data + KIT_ETH_HEADER;
    if (!kit_ipv4_fits(ip, frame->length - KIT_ETH_HEADER)) {
        m->counts[INET_IP_HEADER]++;
        return;
    }
    size_t header = kit_ipv4_header_length(ip);
    if (kit_checksum_end(inet_sum(0, ip, header)) != 0) {
        m->counts[INET_IP_CHECKSUM]++;
        return;
    }
    struct inet_packet p = {.source = inet_v4(kit_load32(ip + KIT_IPV4_SOURCE)),
                            .destination = inet_v4(kit_load32(ip + KIT_IPV4_DESTINATION)),
                            .ip = ip,
                            .data = ip + header,
                            .length = (uint32_t)(kit_load16(ip + KIT_IPV4_TOTAL) - header),
                            .protocol = ip[KIT_IPV4_PROTOCOL],
                            .checked =
                                (frame->flags & (INET_NEEDS_CHECKSUM | INET_DATA_VALID)) != 0,
                            .congested = (ip[1] & IP_CE) == IP_CE};
    const struct inet_network *own = &m->networks[0];
    p.broadcast = !inet_ip_equal(&p.destination, &own->address);
    if (own->prefix == 0 || (p.broadcast && !inet_is_broadcast(m, &p.destination)) ||
        (!p.broadcast && kit_eth_is_multicast(frame->data))) { /* RFC 1122, 3.3.6 */
        m->counts[INET_IP_DESTINATION]++;
    } else if (!ip_source_sound(m, &p.source, frame->data + KIT_ETH_SOURCE)) {
        m->counts[INET_IP_SOURCE]++;
    } else if (header != KIT_IPV4_HEADER && !ip_options_sound(ip, header)) {
        m->counts[INET_IP_OPTIONS]++;
    } else if ((kit_load16(ip + KIT_IPV4_FRAGMENT) & KIT_IPV4_FRAGMENTED) != 0) {
        p.checked = false;
        inet_fragment_input(m, &p);
    } else {
        inet_ip_deliver(m, &p);
    }
}
