/* SPDX-License-Identifier: MIT */
/* The TCP header and its options (RFC 9293, section 3.1; RFC 7323). */
#ifndef KIT_NET_WIRE_TCP_H
#define KIT_NET_WIRE_TCP_H

#include <unikit/net/wire/bytes.h>

enum {
    KIT_TCP_HEADER = 20,
    KIT_TCP_SOURCE = 0,
    KIT_TCP_DESTINATION = 2,
    KIT_TCP_SEQUENCE = 4,
    KIT_TCP_ACKNOWLEDGMENT = 8,
    KIT_TCP_OFFSET = 12,
    KIT_TCP_FLAGS = 13,
    KIT_TCP_WINDOW = 14,
    KIT_TCP_CHECKSUM = 16,
    KIT_TCP_URGENT = 18,
    KIT_TCP_FIN = 1,
    KIT_TCP_SYN = 2,
    KIT_TCP_RST = 4,
    KIT_TCP_PSH = 8,
    KIT_TCP_ACK = 16,
    KIT_TCP_URG = 32,
    KIT_TCP_OPTION_END = 0,
    KIT_TCP_OPTION_NOP = 1,
    KIT_TCP_OPTION_MSS = 2,
    KIT_TCP_OPTION_SCALE = 3,
    KIT_TCP_SCALE_MAX = 14
};

struct kit_tcp_options {
    uint16_t mss;  /* 0: not given */
    uint8_t scale; /* window shift; 0xff: not given */
};

/* Reads the options of a SYN; what is malformed ends the list. */
KIT_INLINE struct kit_tcp_options kit_tcp_parse_options(const uint8_t *at, size_t length)
{
    struct kit_tcp_options options = {0, 0xff};
    size_t i = 0;
    while (i < length && at[i] != KIT_TCP_OPTION_END) {
        if (at[i] == KIT_TCP_OPTION_NOP) {
            i++;
            continue;
        }
        if (length - i < 2 || at[i + 1] < 2 || at[i + 1] > length - i)
            break;
        if (at[i] == KIT_TCP_OPTION_MSS && at[i + 1] == 4)
            options.mss = kit_load16(at + i + 2);
        if (at[i] == KIT_TCP_OPTION_SCALE && at[i + 1] == 3)
            options.scale = at[i + 2] < KIT_TCP_SCALE_MAX ? at[i + 2] : KIT_TCP_SCALE_MAX;
        i += at[i + 1];
    }
    return options;
}

/* Sequence numbers compare modulo 2^32 (RFC 9293, section 3.4). */
KIT_INLINE bool kit_seq_lt(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

KIT_INLINE bool kit_seq_le(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}

#endif
