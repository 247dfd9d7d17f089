/* SPDX-License-Identifier: MIT */
/* IPv4 addresses as people write them. */
#ifndef KIT_NET_WIRE_TEXT_H
#define KIT_NET_WIRE_TEXT_H

#include <unikit/rt/types.h>

/* Reads four decimal numbers with dots at *text and moves it behind them; false: it is none. */
KIT_INLINE bool kit_ipv4_parse(const char **text, uint32_t *address)
{
    const char *at = *text;
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t part = 0;
        unsigned digits = 0;
        if (i != 0 && *at++ != '.')
            return false;
        for (; *at >= '0' && *at <= '9'; at++) {
            part = part * 10 + (uint32_t)(*at - '0');
            if (++digits > 3)
                return false;
        }
        if (digits == 0 || part > 255)
            return false;
        value = value << 8 | part;
    }
    *text = at;
    *address = value;
    return true;
}

/* Whether `ip` and `netmask` are an address and a mask of ones followed by zeros. */
KIT_INLINE bool kit_ipv4_parse_pair(const char *ip, const char *netmask)
{
    uint32_t address, mask;
    return ip != NULL && netmask != NULL && kit_ipv4_parse(&ip, &address) && *ip == '\0' &&
           kit_ipv4_parse(&netmask, &mask) && *netmask == '\0' && (~mask & (~mask + 1)) == 0;
}

#endif
