/* SPDX-License-Identifier: MIT */
/* Network interfaces as components. What a component opens is the network_interface_t of the
 * runtime environment (platform/env.h): a stack cannot tell a component from a platform's device.
 *
 * A component has one end or several (a pipe has two): open() fills `ends`. Two ends of one object
 * MAY be used by two threads, one each; one end by one thread at a time. */
#ifndef KIT_NET_NETIF_H
#define KIT_NET_NETIF_H

#include <unikit/platform/env.h>
#include <unikit/rt/opt.h>

/* With -DKIT_NETIF_DIRECT (the image's stack runs on the platform's device) calls go straight to
 * the image's platform, as those of the environment do. */
#ifdef KIT_NETIF_DIRECT
#define KIT_NETIF_NOTES 0
#define KIT_NETIF_CALL(network, name) kit_image_##name
#define KIT_NETIF_SET(network, name, function) ((void)0)
#else
#define KIT_NETIF_NOTES 1
#define KIT_NETIF_CALL(network, name) ((network)->name)
#define KIT_NETIF_SET(network, name, function) ((void)((network)->name = (function)))
#endif

/* Whether somebody wants notes on frames: never where calls go straight to a platform. */
KIT_INLINE bool kit_netif_noted(const network_interface_t *network)
{
    return KIT_NETIF_NOTES && network->note != NULL;
}

/* cdef: begin */
enum {
    KIT_NETIF_ABI = 1,
    KIT_NETIF_HEADER = 14,  /* Ethernet header, bytes */
    KIT_NETIF_ENDS_MAX = 16,
    /* features */
    KIT_NETIF_LOSSLESS = 1, /* a frame that send took is received, in order, exactly once */
    KIT_NETIF_LAYER = 2     /* stands on another interface */
};

/* Takes bytes that a component writes to the outside, in order; called from its calls. */
struct kit_netif_sink {
    void (*write)(void *context, const void *data, size_t length);
    void *context;
};

/* What `build` gets beside options and memory. All stays the caller's and outlives the object. */
struct kit_netif_base {
    runtime_environment_t *env;
    network_interface_t *inner; /* what a layer stands on, and alone uses from now on; else NULL */
    const struct kit_netif_sink *sink; /* optional */
};

struct kit_netif_component {
    const char *id; /* «netif.pipe» */
    uint32_t abi;
    uint32_t features;
    uint32_t ends;
    /* Bytes of memory that open() wants for these options; 0: an option is out of range. */
    size_t (*memory_size)(const uint64_t *options);
    /* Builds the object in memory (aligned to 64), fills ends[0 ... this->ends).
     * 0; KIT_EINVAL, KIT_ENOMEM. */
    int (*open)(const uint64_t *options, void *memory, size_t size, network_interface_t **ends);
    /* Instead of the two above, which are NULL then, for a component that needs a clock, or stands
     * on another interface. `inner` is NULL unless it is a layer; a layer has one end. */
    size_t (*build_size)(const uint64_t *options, const network_interface_t *inner);
    int (*build)(const uint64_t *options, void *memory, size_t size,
                 const struct kit_netif_base *base, network_interface_t **ends);
    /* optional: when a receive call on an end is due though nothing came from below: a frame that
     * it holds back leaves or arrives. KIT_NEVER: nothing is held. */
    uint64_t (*deadline_ns)(network_interface_t *end);
    /* optional: the first `count` counters of an end, in the record's order; how many there are. */
    size_t (*counters)(const network_interface_t *end, uint64_t *values, size_t count);
    /* optional: the last call on an object: writes what it holds to its sink. */
    void (*close)(network_interface_t *end);
};

KIT_INLINE int kit_netif_send(network_interface_t *network, const void *frame, size_t length)
{
    return KIT_NETIF_CALL(network, send_packet)(network, frame, length);
}

KIT_INLINE int kit_netif_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    return KIT_NETIF_CALL(network, receive_packet)(network, buffer, max_length);
}

KIT_INLINE int kit_netif_configure(network_interface_t *network, const char *ip,
                                   const char *netmask)
{
    return KIT_NETIF_CALL(network, configure)(network, ip, netmask);
}

KIT_INLINE int kit_netif_send_batch(network_interface_t *network, const struct kit_frame *frames,
                                    size_t count)
{
    return KIT_NETIF_CALL(network, send_batch)(network, frames, count);
}

KIT_INLINE int kit_netif_receive_batch(network_interface_t *network, struct kit_frame *frames,
                                       size_t count)
{
    return KIT_NETIF_CALL(network, receive_batch)(network, frames, count);
}
/* cdef: end */

#endif
