/* SPDX-License-Identifier: MIT */
/* The host side of a network interface: what a monitor's device thread needs to move frames
 * between an image and the world. Hosted code only. */
#ifndef KIT_NET_NETIF_HOST_H
#define KIT_NET_NETIF_HOST_H

#include <unikit/net/netif.h>

/* cdef: begin */
struct kit_host_netif {
    network_interface_t network; /* first: a kit_host_netif is a network interface */
    /* Becomes readable when receive_packet or receive_batch may have something; -1: never. */
    int fd;
    /* When a receive call is due even if fd stays silent (an interface with timers of its own), by
     * CLOCK_MONOTONIC; NULL: never. */
    uint64_t (*deadline_ns)(struct kit_host_netif *netif);
};
/* cdef: end */

#endif
