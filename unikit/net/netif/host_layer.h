/* SPDX-License-Identifier: MIT */
/* A layer component (netif.h) over an open interface, as a host interface: with the descriptor of
 * what it stands on, the earlier of both deadlines, and a file behind its sink. Hosted code only.
 */
#ifndef KIT_NET_NETIF_HOST_LAYER_H
#define KIT_NET_NETIF_HOST_LAYER_H

#include <unikit/net/netif/host.h>

/* cdef: begin */
/* `inner` is what the layer stands on, `host` the same one if it is a host interface, else NULL.
 * `file` is a descriptor for the sink, which is closed with the layer; -1: no sink. What is written
 * is buffered until a receive call finds nothing. 0 and *out; KIT_EINVAL, KIT_ENOMEM, KIT_ENOTSUP:
 * no layer, or it needs a sink. */
int kit_host_layer_open(const struct kit_netif_component *component, const uint64_t *options,
                        runtime_environment_t *env, network_interface_t *inner,
                        struct kit_host_netif *host, int file, struct kit_host_netif **out);
/* The counters of the layer: how many there are. */
size_t kit_host_layer_counters(const struct kit_host_netif *layer, uint64_t *values, size_t count);
/* Lets the layer write what it holds, then frees it. 0, or the errno of the first write that
 * failed; nothing was written after that. */
int kit_host_layer_close(struct kit_host_netif *layer);
/* cdef: end */

#endif
