/* SPDX-License-Identifier: MIT */
/* netif.user: ports of the host forwarded into an image, without privileges. Hosted code only.
 *
 * The interface is the wire between the image and a second, hosted TCP/IP stack («the outer one»),
 * which any net component provides. Whoever connects to a forwarded port of the host is connected
 * by the outer stack to the image; bytes, ends of stream, resets and backpressure pass both ways.
 */
#ifndef KIT_NET_NETIF_USER_HOST_USER_H
#define KIT_NET_NETIF_USER_HOST_USER_H

#include <unikit/net/net.h>
#include <unikit/net/netif/host.h>

/* cdef: begin */
enum { KIT_USER_TCP = 6, KIT_USER_UDP = 17 }; /* IP protocol numbers */

/* A socket of the host and where it leads. */
struct kit_user_port {
    int fd; /* TCP: listening; UDP: bound; both nonblocking and the caller's */
    uint16_t image_port;
    uint8_t protocol;
    uint8_t reserved;
};

struct kit_user_config {
    const struct kit_net_component *stack;
    const uint64_t *stack_options;
    uint32_t outer_address; /* of the outer stack, host order */
    uint32_t image_address;
    uint32_t prefix;
    uint32_t mtu;         /* 68 ... 65521 */
    uint32_t connections; /* TCP connections at once; further ones wait in the backlog */
    uint32_t sessions;    /* UDP peers remembered at once; the longest silent one goes first */
    uint64_t session_ns;  /* how long a silent UDP peer is remembered */
    uint64_t memory;      /* bytes that the outer stack may take at most */
    uint8_t mac[6];       /* of the image's end */
};

struct kit_user_stats {
    uint64_t frames_in; /* from the outer stack to the image */
    uint64_t frames_out;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t dropped_full; /* frames for an image that does not take them */
    uint64_t accepted;     /* TCP connections */
    uint64_t refused;      /* ... that the image refused or did not answer */
    uint64_t datagrams_in; /* forwarded to the image */
    uint64_t datagrams_out;
    uint64_t datagrams_dropped;
    uint64_t memory; /* bytes the outer stack holds */
    uint32_t connections;
    uint32_t sessions;
};

/* Opens the interface; its fd is an epoll set. 0 and *out; KIT_EINVAL, KIT_ENOMEM, KIT_EIO, or
 * what the stack's open says. */
int kit_host_user_open(const struct kit_user_config *config, const struct kit_user_port *ports,
                       size_t count, struct kit_host_netif **out);
void kit_host_user_stats(const struct kit_host_netif *netif, struct kit_user_stats *out);
/* Verifies the invariants of both sides; 0 or KIT_ECORRUPT. */
int kit_host_user_check(const struct kit_host_netif *netif);
/* Resets every connection and frees everything; the ports stay open. */
void kit_host_user_close(struct kit_host_netif *netif);
/* cdef: end */

#endif
