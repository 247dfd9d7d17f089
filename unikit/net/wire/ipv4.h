/* SPDX-License-Identifier: MIT */
/* The IPv4 header (RFC 791). */
#ifndef KIT_NET_WIRE_IPV4_H
#define KIT_NET_WIRE_IPV4_H

#include <unikit/net/wire/bytes.h>
#include <unikit/net/wire/checksum.h>

enum {
    KIT_IPV4_HEADER = 20, /* without options; what we send */
    KIT_IPV4_TOTAL = 2,
    KIT_IPV4_ID = 4,
    KIT_IPV4_FRAGMENT = 6,
    KIT_IPV4_TTL = 8,
    KIT_IPV4_PROTOCOL = 9,
    KIT_IPV4_CHECKSUM = 10,
    KIT_IPV4_SOURCE = 12,
    KIT_IPV4_DESTINATION = 16,
    KIT_IPV4_DF = 0x4000,
    KIT_IPV4_FRAGMENTED = 0x3fff, /* more fragments, or an offset */
    KIT_IPV4_ICMP = 1,
    KIT_IPV4_TCP = 6,
    KIT_IPV4_UDP = 17
};

KIT_INLINE size_t kit_ipv4_header_length(const uint8_t *ip)
{
    return (size_t)(ip[0] & 15) * 4;
}

/* Whether `length` bytes start with a header of possible lengths and hold the whole packet; the
 * checksum over kit_ipv4_header_length() bytes is for the caller to verify. */
KIT_INLINE bool kit_ipv4_fits(const uint8_t *ip, size_t length)
{
    if (length < KIT_IPV4_HEADER || ip[0] >> 4 != 4)
        return false;
    size_t header = kit_ipv4_header_length(ip), total = kit_load16(ip + KIT_IPV4_TOTAL);
    return header >= KIT_IPV4_HEADER && header <= total && total <= length;
}

/* A header without options for `payload` bytes behind it. Not to be fragmented, so the
 * identification is free (RFC 6864, section 4.1) and 0. */
KIT_INLINE void kit_ipv4_write(uint8_t *ip, uint32_t source, uint32_t destination, uint8_t protocol,
                               uint16_t payload)
{
    kit_store16(ip, 0x4500);
    kit_store16(ip + KIT_IPV4_TOTAL, (uint16_t)(payload + KIT_IPV4_HEADER));
    kit_store16(ip + KIT_IPV4_ID, 0);
    kit_store16(ip + KIT_IPV4_FRAGMENT, KIT_IPV4_DF);
    ip[KIT_IPV4_TTL] = 64;
    ip[KIT_IPV4_PROTOCOL] = protocol;
    kit_store32(ip + KIT_IPV4_SOURCE, source);
    kit_store32(ip + KIT_IPV4_DESTINATION, destination);
    /* The words of the pseudo header and the constant ones: that is all there is. */
    uint64_t sum =
        kit_checksum_pseudo(source, destination, protocol, (uint16_t)(payload + KIT_IPV4_HEADER));
    sum = kit_checksum_add16(sum, 0x4500);
    sum = kit_checksum_add16(sum, KIT_IPV4_DF);
    sum = kit_checksum_add16(sum, 64 << 8);
    kit_store16(ip + KIT_IPV4_CHECKSUM, kit_checksum_end(sum));
}

KIT_INLINE bool kit_ipv4_is_multicast(uint32_t address)
{
    return address >> 28 == 14;
}

#endif
