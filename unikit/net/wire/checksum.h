/* SPDX-License-Identifier: MIT */
/* The Internet checksum (RFC 1071). The ones' complement sum does not depend on the byte order in
 * which words are added, so words are added as the machine loads them: two 32-bit halves of eight
 * bytes at a time into 64-bit accumulators that cannot overflow below 2^32 words. */
#ifndef KIT_NET_WIRE_CHECKSUM_H
#define KIT_NET_WIRE_CHECKSUM_H

#include <unikit/rt/types.h>

/* A running sum in machine order; start with 0. Every piece but the last MUST have even length. */
KIT_INLINE uint64_t kit_checksum_add(uint64_t sum, const uint8_t *data, size_t length)
{
    uint64_t low = 0, high = 0, low2 = 0, high2 = 0;
    while (length >= 16) {
        uint64_t a, b;
        memcpy(&a, data, 8);
        memcpy(&b, data + 8, 8);
        low += (uint32_t)a;
        high += a >> 32;
        low2 += (uint32_t)b;
        high2 += b >> 32;
        data += 16;
        length -= 16;
    }
    low += high;
    low2 += high2;
    sum += (low & 0xffffffff) + (low >> 32) + (low2 & 0xffffffff) + (low2 >> 32);
    while (length >= 2) {
        uint16_t word;
        memcpy(&word, data, 2);
        sum += word;
        data += 2;
        length -= 2;
    }
    if (length != 0) { /* pad with a zero byte behind it */
        uint8_t last[2] = {data[0], 0};
        uint16_t word;
        memcpy(&word, last, 2);
        sum += word;
    }
    return sum;
}

/* Adds a 16-bit number given in host order, as if its two network order bytes were added. */
KIT_INLINE uint64_t kit_checksum_add16(uint64_t sum, uint16_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return sum + (uint16_t)(value << 8 | value >> 8);
#else
    return sum + value;
#endif
}

/* The two IPv4 addresses (host order), the protocol and the length that TCP and UDP cover. */
KIT_INLINE uint64_t kit_checksum_pseudo(uint32_t source, uint32_t destination, uint8_t protocol,
                                        uint16_t length)
{
    uint64_t sum = kit_checksum_add16(0, (uint16_t)(source >> 16));
    sum = kit_checksum_add16(sum, (uint16_t)source);
    sum = kit_checksum_add16(sum, (uint16_t)(destination >> 16));
    sum = kit_checksum_add16(sum, (uint16_t)destination);
    sum = kit_checksum_add16(sum, protocol);
    return kit_checksum_add16(sum, length);
}

/* The checksum in host order, ready for kit_store16; 0 if the data carry a right checksum. */
KIT_INLINE uint16_t kit_checksum_end(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    uint16_t folded = (uint16_t)~sum;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    folded = (uint16_t)(folded << 8 | folded >> 8);
#endif
    return folded;
}

KIT_INLINE uint16_t kit_checksum(const uint8_t *data, size_t length)
{
    return kit_checksum_end(kit_checksum_add(0, data, length));
}

#endif
