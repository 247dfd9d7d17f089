/* SPDX-License-Identifier: MIT */
/* IPv4 and ICMP (RFC 791, 792; host rules of RFC 1122, section 3). One address; a packet is for us
 * if it is sent to that address or to a broadcast address. Fragments are dropped and counted, and
 * nothing is ever sent that would have to be fragmented. Options are skipped. */
#include <unikit/net/mini/mini.h>

uint32_t mini_route(const struct mini *m, uint32_t ip)
{
    if (m->address == 0 || ip == 0)
        return 0;
    if (((ip ^ m->address) & m->mask) == 0 || ip == UINT32_MAX)
        return ip;
    return m->gateway;
}

int mini_ipv4_send(struct mini *m, uint8_t *frame, uint32_t source, uint32_t destination,
                   uint8_t protocol, size_t length)
{
    uint32_t next = mini_route(m, destination);
    if (next == 0)
        return KIT_EUNREACH;
    kit_ipv4_write(frame + KIT_ETH_HEADER, source, destination, protocol, (uint16_t)length);
    return mini_arp_send(m, next, frame, MINI_PAYLOAD + length);
}

static bool ipv4_is_broadcast(const struct mini *m, uint32_t ip)
{
    return ip == UINT32_MAX || (ip == (m->address | ~m->mask) && ~m->mask > 1);
}

/* Whether a host may have sent from there to here (RFC 1122, 3.2.1.3). */
static bool ipv4_source_sound(const struct mini *m, uint32_t source, const uint8_t *mac)
{
    if (source == m->address) /* only over a loopback, where we are the neighbour as well */
        return kit_eth_equal(mac, m->mac);
    return source != 0 && source >> 24 != 127 && source >> 28 < 14 && !ipv4_is_broadcast(m, source);
}

/* At most MINI_ERRORS per second leave, so that we amplify nobody's flood. */
MINI_COLD static bool icmp_allowed(struct mini *m)
{
    if (m->now_ns - m->error_ns >= KIT_NS_PER_S) {
        m->error_ns = m->now_ns;
        m->errors = 0;
    }
    return m->errors++ < MINI_ERRORS;
}

MINI_COLD void mini_icmp_unreachable(struct mini *m, const uint8_t *ip, uint8_t code)
{
    size_t quoted = kit_ipv4_header_length(ip) + 8, total = kit_load16(ip + KIT_IPV4_TOTAL);
    if (quoted > total)
        quoted = total;
    uint8_t *frame = icmp_allowed(m) ? mini_link_begin(m) : NULL;
    if (frame == NULL)
        return;
    uint8_t *icmp = frame + MINI_PAYLOAD;
    memset(icmp, 0, KIT_ICMP_HEADER);
    icmp[KIT_ICMP_TYPE] = KIT_ICMP_UNREACHABLE;
    icmp[KIT_ICMP_CODE] = code;
    memcpy(icmp + KIT_ICMP_HEADER, ip, quoted);
    kit_store16(icmp + KIT_ICMP_CHECKSUM,
                kit_checksum_end(mini_sum(0, icmp, KIT_ICMP_HEADER + quoted)));
    (void)mini_ipv4_send(m, frame, m->address, kit_load32(ip + KIT_IPV4_SOURCE), KIT_IPV4_ICMP,
                         KIT_ICMP_HEADER + quoted);
}

MINI_COLD static void icmp_echo(struct mini *m, uint32_t source, const uint8_t *icmp, size_t length)
{
    uint8_t *frame = mini_link_begin(m);
    if (frame == NULL) {
        m->stats.dropped_full++;
        return;
    }
    uint8_t *reply = frame + MINI_PAYLOAD;
    memcpy(reply, icmp, length);
    reply[KIT_ICMP_TYPE] = KIT_ICMP_ECHO_REPLY;
    kit_store16(reply + KIT_ICMP_CHECKSUM, 0);
    kit_store16(reply + KIT_ICMP_CHECKSUM, kit_checksum_end(mini_sum(0, reply, length)));
    (void)mini_ipv4_send(m, frame, m->address, source, KIT_IPV4_ICMP, length);
}

/* An error about a packet of ours: the quotation names it. */
MINI_COLD static void icmp_error(struct mini *m, const uint8_t *icmp, size_t length)
{
    const uint8_t *ip = icmp + KIT_ICMP_HEADER;
    size_t quoted = length - KIT_ICMP_HEADER;
    if (quoted < KIT_IPV4_HEADER || ip[0] >> 4 != 4 ||
        kit_ipv4_header_length(ip) < KIT_IPV4_HEADER || kit_ipv4_header_length(ip) + 8 > quoted) {
        m->stats.dropped_malformed++;
        return;
    }
    if (kit_load32(ip + KIT_IPV4_SOURCE) == m->address && ip[KIT_IPV4_PROTOCOL] == KIT_IPV4_TCP)
        mini_tcp_icmp(m, kit_load32(ip + KIT_IPV4_DESTINATION), ip + kit_ipv4_header_length(ip),
                      icmp[KIT_ICMP_CODE], kit_load16(icmp + KIT_ICMP_MTU));
}

MINI_COLD static void icmp_input(struct mini *m, uint32_t source, const uint8_t *icmp,
                                 size_t length)
{
    if (length < KIT_ICMP_HEADER || kit_checksum_end(mini_sum(0, icmp, length)) != 0)
        m->stats.dropped_malformed++;
    else if (icmp[KIT_ICMP_TYPE] == KIT_ICMP_ECHO && icmp[KIT_ICMP_CODE] == 0)
        icmp_echo(m, source, icmp, length);
    else if (icmp[KIT_ICMP_TYPE] == KIT_ICMP_UNREACHABLE)
        icmp_error(m, icmp, length);
    else
        m->stats.dropped_unwanted++;
}

void mini_ipv4_input(struct mini *m, const struct kit_frame *frame)
{
    const uint8_t *ip = frame->data + KIT_ETH_HEADER;
    if (!kit_ipv4_fits(ip, frame->length - KIT_ETH_HEADER) ||
        kit_checksum_end(mini_sum(0, ip, kit_ipv4_header_length(ip))) != 0) {
        m->stats.dropped_malformed++;
        return;
    }
    uint32_t source = kit_load32(ip + KIT_IPV4_SOURCE);
    uint32_t destination = kit_load32(ip + KIT_IPV4_DESTINATION);
    bool broadcast = destination != m->address;
    if (m->address == 0 || (broadcast && !ipv4_is_broadcast(m, destination)) ||
        (!broadcast && kit_eth_is_multicast(frame->data)) || /* RFC 1122, 3.3.6 */
        !ipv4_source_sound(m, source, frame->data + KIT_ETH_SOURCE) ||
        (kit_load16(ip + KIT_IPV4_FRAGMENT) & KIT_IPV4_FRAGMENTED) != 0) {
        m->stats.dropped_unwanted++;
        return;
    }
    size_t header = kit_ipv4_header_length(ip);
    size_t length = kit_load16(ip + KIT_IPV4_TOTAL) - header;
    /* The platform vouches for the checksum (virtio 1.2, 5.1.6.4: NEEDS_CSUM, DATA_VALID). */
    bool checked = (frame->flags & 3) != 0;
    switch (ip[KIT_IPV4_PROTOCOL]) {
    case KIT_IPV4_TCP:
        if (!broadcast)
            mini_tcp_input(m, ip, ip + header, length, checked);
        break;
    case KIT_IPV4_UDP:
        mini_udp_input(m, ip, ip + header, length, checked, broadcast);
        break;
    case KIT_IPV4_ICMP:
        if (!broadcast) /* RFC 1122, 3.2.2.6: an echo to a broadcast may be ignored */
            icmp_input(m, source, ip + header, length);
        break;
    default:
        m->stats.dropped_unwanted++;
        if (!broadcast)
            mini_icmp_unreachable(m, ip, KIT_ICMP_PROTOCOL);
    }
}
