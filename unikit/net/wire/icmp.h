/* SPDX-License-Identifier: MIT */
/* ICMP for IPv4 (RFC 792). */
#ifndef KIT_NET_WIRE_ICMP_H
#define KIT_NET_WIRE_ICMP_H

#include <unikit/net/wire/bytes.h>

enum {
    KIT_ICMP_HEADER = 8,
    KIT_ICMP_TYPE = 0,
    KIT_ICMP_CODE = 1,
    KIT_ICMP_CHECKSUM = 2,
    KIT_ICMP_MTU = 6, /* of «fragmentation needed» (RFC 1191) */
    KIT_ICMP_ECHO_REPLY = 0,
    KIT_ICMP_UNREACHABLE = 3,
    KIT_ICMP_ECHO = 8,
    /* codes of unreachable */
    KIT_ICMP_NET = 0,
    KIT_ICMP_HOST = 1,
    KIT_ICMP_PROTOCOL = 2,
    KIT_ICMP_PORT = 3,
    KIT_ICMP_FRAGMENTATION = 4
};

#endif
