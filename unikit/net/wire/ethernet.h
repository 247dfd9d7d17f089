/* SPDX-License-Identifier: MIT */
/* Ethernet II frames: destination, source, type; no FCS. */
#ifndef KIT_NET_WIRE_ETHERNET_H
#define KIT_NET_WIRE_ETHERNET_H

#include <unikit/net/wire/bytes.h>

enum {
    KIT_ETH_HEADER = 14,
    KIT_ETH_ADDRESS = 6,
    KIT_ETH_DESTINATION = 0,
    KIT_ETH_SOURCE = 6,
    KIT_ETH_TYPE = 12,
    KIT_ETH_IPV4 = 0x0800,
    KIT_ETH_ARP = 0x0806
};

KIT_INLINE bool kit_eth_is_multicast(const uint8_t *address)
{
    return (address[0] & 1) != 0;
}

KIT_INLINE bool kit_eth_equal(const uint8_t *a, const uint8_t *b)
{
    return kit_load32(a) == kit_load32(b) && kit_load16(a + 4) == kit_load16(b + 4);
}

KIT_INLINE void kit_eth_write(uint8_t *frame, const uint8_t *destination, const uint8_t *source,
                              uint16_t type)
{
    memcpy(frame + KIT_ETH_DESTINATION, destination, KIT_ETH_ADDRESS);
    memcpy(frame + KIT_ETH_SOURCE, source, KIT_ETH_ADDRESS);
    kit_store16(frame + KIT_ETH_TYPE, type);
}

#endif
