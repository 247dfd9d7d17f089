/* SPDX-License-Identifier: MIT */
/* The UDP header (RFC 768). */
#ifndef KIT_NET_WIRE_UDP_H
#define KIT_NET_WIRE_UDP_H

#include <unikit/net/wire/bytes.h>

enum {
    KIT_UDP_HEADER = 8,
    KIT_UDP_SOURCE = 0,
    KIT_UDP_DESTINATION = 2,
    KIT_UDP_LENGTH = 4,
    KIT_UDP_CHECKSUM = 6
};

#endif
