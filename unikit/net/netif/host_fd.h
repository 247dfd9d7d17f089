/* SPDX-License-Identifier: MIT */
/* A file descriptor that carries one Ethernet frame per read and write as a host interface: a TAP
 * device, or one end of a SOCK_SEQPACKET or SOCK_DGRAM socket pair. Hosted code only. */
#ifndef KIT_NET_NETIF_HOST_FD_H
#define KIT_NET_NETIF_HOST_FD_H

#include <unikit/net/netif/host.h>

/* cdef: begin */
struct kit_host_stats {
    uint64_t frames_in; /* received from the descriptor */
    uint64_t frames_out;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t dropped_size; /* longer than the receiver's buffer or the mtu */
    uint64_t refused;      /* the descriptor took no more at that moment */
    uint64_t errors;       /* the device refused a frame, for example because it is down */
};

/* Wraps `fd`, which stays the caller's and becomes nonblocking. `mac` is the address of the
 * image's end. 0 and *out; KIT_EINVAL: not a descriptor, or mtu outside 68 ... 65521; KIT_ENOMEM.
 */
int kit_host_fd_open(int fd, const uint8_t *mac, uint32_t mtu, struct kit_host_netif **out);
void kit_host_fd_stats(const struct kit_host_netif *netif, struct kit_host_stats *out);
/* Frees the wrapper and leaves the descriptor open. */
void kit_host_fd_close(struct kit_host_netif *netif);
/* cdef: end */

#endif
