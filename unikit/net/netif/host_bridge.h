/* SPDX-License-Identifier: MIT */
/* Moves frames between two host interfaces, as a patch cable does. Hosted code only. */
#ifndef KIT_NET_NETIF_HOST_BRIDGE_H
#define KIT_NET_NETIF_HOST_BRIDGE_H

#include <unikit/net/netif/host.h>

/* cdef: begin */
struct kit_bridge_direction {
    uint64_t frames;
    uint64_t bytes;
    uint64_t dropped; /* refused by the receiving side for another reason than being full */
    uint64_t held;    /* times the receiving side was full and the rest of a batch waited */
};

struct kit_bridge {
    int32_t stop_fd; /* readable: stop; -1: none */
    uint32_t stop;   /* another thread sets it to 1: stop (seen at the next wake-up) */
    /* Longest time to poll without sleeping after the last frame, ns; 0: sleep at once. Within it
     * the time adapts: it doubles when polling paid and halves when it did not. */
    uint64_t spin_ns;
    struct kit_bridge_direction ab;
    struct kit_bridge_direction ba;
    uint64_t sleeps;
};

/* Moves frames both ways until stopped. Nothing is dropped because a side is full: its frames
 * wait, and so does their source. 0: stopped; KIT_ECLOSED: a side ended; KIT_EIO: a side failed;
 * KIT_ENOMEM. */
int kit_netif_bridge(struct kit_host_netif *a, struct kit_host_netif *b, struct kit_bridge *bridge);
/* cdef: end */

#endif
