/* SPDX-License-Identifier: MIT */
/* ICMP (RFC 792; RFC 1122, section 3.2.2): echo, errors about what we cannot take, and errors about
 * what we sent, which go to the connection that the quotation names. Answers that nobody asked for
 * are limited, so that we amplify no flood. */
#include <unikit/net/inet/calls.h>
#include <unikit/net/wire/icmp.h>

enum { ICMP_EXPIRED = 11, ICMP_REASSEMBLY = 1, ICMP_QUOTE = 8 };

INET_COLD bool inet_icmp_allowed(struct inet *m)
{
    if (m->now_ns - m->second_ns >= KIT_NS_PER_S) {
        m->second_ns = m->now_ns;
        m->errors = 0;
    }
    return m->errors++ < INET_ERRORS;
}

/* Sends a message whose first 8 bytes are type, code, 0 and `word`, the rest `data`. */
INET_COLD static void icmp_send(struct inet *m, const struct inet_ip *to, uint16_t type_code,
                                const uint8_t *word, const uint8_t *data, size_t length)
{
    struct inet_parcel parcel = {.destination = *to,
                                 .protocol = KIT_IPV4_ICMP,
                                 .length = (uint32_t)(KIT_ICMP_HEADER + length)};
    if (inet_route(m, to, &parcel.route) != 0)
        return;
    if (parcel.length + KIT_IPV4_HEADER > parcel.route.mtu) { /* a long echo came in fragments */
        uint8_t head[KIT_ICMP_HEADER] = {(uint8_t)(type_code >> 8), (uint8_t)type_code};
        memcpy(head + 4, word, 4);
        uint64_t sum = inet_sum(inet_sum(0, head, sizeof(head)), data, length);
        kit_store16(head + KIT_ICMP_CHECKSUM, kit_checksum_end(sum));
        (void)inet_fragment_send(m, &parcel, head, sizeof(head), data);
        return;
    }
    struct kit_frame *frame = inet_link_begin(m);
    if (frame == NULL) {
        m->counts[INET_SEND_BUSY]++;
        return;
    }
    uint8_t *icmp = frame->data + inet_ip_offset(to);
    kit_store16(icmp, type_code);
    kit_store16(icmp + KIT_ICMP_CHECKSUM, 0);
    memcpy(icmp + 4, word, 4);
    memcpy(icmp + KIT_ICMP_HEADER, data, length);
    kit_store16(icmp + KIT_ICMP_CHECKSUM,
                kit_checksum_end(inet_sum(0, icmp, KIT_ICMP_HEADER + length)));
    (void)inet_ip_send(m, frame, &parcel);
}

/* An error in answer to a packet, quoting its header and 8 bytes. Never about a broadcast, a
 * fragment but the first, or an error (RFC 1122, 3.2.2). */
INET_COLD static void icmp_error(struct inet *m, const struct inet_packet *p, uint16_t type_code)
{
    static const uint8_t unused[4] = {0};
    if (p->broadcast || (p->protocol == KIT_IPV4_ICMP && p->data[0] != KIT_ICMP_ECHO) ||
        !inet_icmp_allowed(m))
        return;
    size_t quoted = (size_t)(p->data - p->ip) + inet_min(p->length, ICMP_QUOTE);
    icmp_send(m, &p->source, type_code, unused, p->ip, quoted);
}

INET_COLD void inet_icmp_unreachable(struct inet *m, const struct inet_packet *p, uint8_t code)
{
    icmp_error(m, p, (uint16_t)(KIT_ICMP_UNREACHABLE << 8 | code));
}

INET_COLD void inet_icmp_expired(struct inet *m, const struct inet_packet *p)
{
    icmp_error(m, p, ICMP_EXPIRED << 8 | ICMP_REASSEMBLY);
}

/* An error about a packet of ours: the quotation names it. */
INET_COLD static void icmp_quoted(struct inet *m, const struct inet_packet *p)
{
    const uint8_t *ip = p->data + KIT_ICMP_HEADER;
    size_t quoted = p->length - KIT_ICMP_HEADER;
    if (quoted < KIT_IPV4_HEADER || ip[0] >> 4 != 4 ||
        kit_ipv4_header_length(ip) < KIT_IPV4_HEADER ||
        kit_ipv4_header_length(ip) + ICMP_QUOTE > quoted) {
        m->counts[INET_ICMP_MALFORMED]++;
        return;
    }
    const uint8_t *quote = ip + kit_ipv4_header_length(ip);
    struct inet_tuple tuple = {.local = inet_v4(kit_load32(ip + KIT_IPV4_SOURCE)),
                               .remote = inet_v4(kit_load32(ip + KIT_IPV4_DESTINATION)),
                               .local_port = kit_load16(quote),
                               .remote_port = kit_load16(quote + 2)};
    if (ip[KIT_IPV4_PROTOCOL] == KIT_IPV4_TCP)
        inet_tcp_icmp(m, &tuple, quote, p->data[KIT_ICMP_CODE], kit_load16(p->data + KIT_ICMP_MTU));
    else
        m->counts[INET_ICMP_UNWANTED]++;
}

INET_COLD void inet_icmp_input(struct inet *m, const struct inet_packet *p)
{
    if (p->length < KIT_ICMP_HEADER || kit_checksum_end(inet_sum(0, p->data, p->length)) != 0)
        m->counts[INET_ICMP_MALFORMED]++;
    else if (p->data[KIT_ICMP_TYPE] == KIT_ICMP_ECHO && p->data[KIT_ICMP_CODE] == 0)
        icmp_send(m, &p->source, KIT_ICMP_ECHO_REPLY << 8, p->data + 4, p->data + KIT_ICMP_HEADER,
                  p->length - KIT_ICMP_HEADER);
    else if (p->data[KIT_ICMP_TYPE] == KIT_ICMP_UNREACHABLE)
        icmp_quoted(m, p);
    else
        m->counts[INET_ICMP_UNWANTED]++;
}
