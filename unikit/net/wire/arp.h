/* SPDX-License-Identifier: MIT */
/* ARP for IPv4 over Ethernet (RFC 826): offsets within the ARP packet. */
#ifndef KIT_NET_WIRE_ARP_H
#define KIT_NET_WIRE_ARP_H

#include <unikit/net/wire/bytes.h>
#include <unikit/net/wire/ethernet.h>

enum {
    KIT_ARP_SIZE = 28,
    KIT_ARP_OPERATION = 6,
    KIT_ARP_SENDER_MAC = 8,
    KIT_ARP_SENDER_IP = 14,
    KIT_ARP_TARGET_MAC = 18,
    KIT_ARP_TARGET_IP = 24,
    KIT_ARP_REQUEST = 1,
    KIT_ARP_REPLY = 2
};

/* Whether the packet is a complete one for IPv4 over Ethernet. */
KIT_INLINE bool kit_arp_valid(const uint8_t *arp, size_t length)
{
    return length >= KIT_ARP_SIZE && kit_load32(arp) == 0x00010800 && kit_load16(arp + 4) == 0x0604;
}

KIT_INLINE void kit_arp_write(uint8_t *arp, uint16_t operation, const uint8_t *sender_mac,
                              uint32_t sender_ip, const uint8_t *target_mac, uint32_t target_ip)
{
    kit_store32(arp, 0x00010800);
    kit_store16(arp + 4, 0x0604);
    kit_store16(arp + KIT_ARP_OPERATION, operation);
    memcpy(arp + KIT_ARP_SENDER_MAC, sender_mac, KIT_ETH_ADDRESS);
    kit_store32(arp + KIT_ARP_SENDER_IP, sender_ip);
    memcpy(arp + KIT_ARP_TARGET_MAC, target_mac, KIT_ETH_ADDRESS);
    kit_store32(arp + KIT_ARP_TARGET_IP, target_ip);
}

#endif
