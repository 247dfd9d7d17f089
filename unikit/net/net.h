/* SPDX-License-Identifier: MIT */
/* The TCP/IP stack interface: one stack instance over one network interface.
 *
 * Everything works by events. poll() receives frames and runs timers; while it runs it calls the
 * callbacks of sockets, and a callback may call anything here, close() of its own socket included.
 * Events are edges: after one, work until KIT_EAGAIN. No call blocks. Not thread safe.
 * Ops are appended, never reordered; «optional» ones may be NULL. */
#ifndef KIT_NET_NET_H
#define KIT_NET_NET_H

#include <unikit/alloc/alloc.h>
#include <unikit/net/netif.h>
#include <unikit/platform/env.h>

/* cdef: begin */
struct kit_net;
struct kit_tcp;
struct kit_udp;

enum {
    KIT_NET_ABI = 1,
    /* features */
    KIT_NET_TCP = 1,
    KIT_NET_UDP = 2,
    KIT_NET_IPV4 = 4,
    KIT_NET_IPV6 = 8,
    KIT_NET_CONNECT = 16,    /* active open */
    KIT_NET_SACK = 32,       /* RFC 2018, both ways */
    KIT_NET_TIMESTAMPS = 64, /* RFC 7323 */
    KIT_NET_ECN = 128,       /* RFC 3168 */
    /* events */
    KIT_NET_ACCEPT = 1, /* listener: accept() has something */
    KIT_NET_CONNECTED = 2,
    KIT_NET_READABLE = 4, /* data, or the end of the stream */
    KIT_NET_WRITABLE = 8, /* send space again after KIT_EAGAIN */
    KIT_NET_CLOSED = 16,  /* both directions ended in good order */
    KIT_NET_ERROR = 32    /* the connection is dead; status() tells why */
};

/* An IP address and a port. */
struct kit_address {
    uint8_t bytes[16]; /* network order; an IPv4 address in the first four */
    uint16_t port;     /* host order */
    uint8_t family;    /* 4, 6; 0: unspecified */
    uint8_t reserved;
};

typedef void (*kit_tcp_callback)(void *argument, struct kit_tcp *tcp, uint32_t events);
typedef void (*kit_udp_callback)(void *argument, struct kit_udp *udp);

struct kit_tcp_info {
    struct kit_address local;
    struct kit_address remote;
    uint32_t state;         /* RFC 9293, section 3.3.2: KIT_TCP_* */
    int32_t error;          /* 0 or why the connection is dead */
    uint32_t send_space;    /* bytes that send() would take now */
    uint32_t receive_ready; /* bytes that receive() would give now */
    uint32_t mss;
    uint32_t srtt_us;
    uint32_t retransmits;
    uint32_t unacknowledged; /* bytes sent or queued and not acknowledged */
    /* what a stack does not know or have is 0 */
    uint32_t cwnd; /* congestion window, bytes */
    uint32_t ssthresh;
    uint32_t rto_us; /* retransmission timeout, backed off */
    uint32_t rttvar_us;
    uint32_t in_flight;      /* bytes sent and not acknowledged */
    uint32_t send_window;    /* the peer's, bytes from the first unacknowledged one on */
    uint32_t receive_window; /* offered to the peer, bytes */
    uint32_t phase;          /* of congestion control: KIT_TCP_PHASE_* */
};

enum {
    KIT_TCP_PHASE_OPEN = 0,
    KIT_TCP_PHASE_REDUCED,  /* after a congestion mark */
    KIT_TCP_PHASE_RECOVERY, /* repairs losses */
    KIT_TCP_PHASE_LOSS      /* after a timeout */
};

/* Options of a connection, for tcp_option. */
enum {
    KIT_TCP_OPT_NODELAY = 1, /* 0: small segments wait while others are in flight (Nagle) */
    KIT_TCP_OPT_CORK,        /* 1: segments are full, until 0, close or 200 ms */
    KIT_TCP_OPT_KEEPALIVE,   /* ns of silence after which the peer is asked; 0: never */
    KIT_TCP_OPT_USER_TIMEOUT /* ns without progress after which the connection dies, >= 1 s */
};

enum {
    KIT_TCP_CLOSED = 0,
    KIT_TCP_LISTEN,
    KIT_TCP_SYN_SENT,
    KIT_TCP_SYN_RECEIVED,
    KIT_TCP_ESTABLISHED,
    KIT_TCP_FIN_WAIT_1,
    KIT_TCP_FIN_WAIT_2,
    KIT_TCP_CLOSE_WAIT,
    KIT_TCP_CLOSING,
    KIT_TCP_LAST_ACK,
    KIT_TCP_TIME_WAIT
};

struct kit_net_stats {
    uint64_t frames_in;
    uint64_t frames_out;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t dropped_malformed; /* broken header, length or checksum */
    uint64_t dropped_unwanted;  /* for nobody here: address, protocol, port */
    uint64_t dropped_full;      /* a table, queue or buffer was full */
    uint64_t accepted;          /* TCP connections, passive */
    uint64_t connected;         /* TCP connections, active */
    uint64_t resets_in;
    uint64_t resets_out;
    uint64_t retransmits;
    uint64_t memory;   /* bytes taken from the allocator now */
    uint32_t tcp_open; /* connections in any state but LISTEN and CLOSED */
    uint32_t udp_open;
};

struct kit_net_ops {
    /* Receives what is there (a bounded batch), runs what is due; whether it did anything. */
    bool (*poll)(struct kit_net *net);
    /* When poll() has a timer to run; KIT_NEVER: only after a frame. */
    uint64_t (*deadline_ns)(struct kit_net *net);
    /* Sets address, prefix length and gateway (family 0: none) of the interface.
     * 0, KIT_EINVAL, KIT_ENOTSUP (family). */
    int (*configure)(struct kit_net *net, const struct kit_address *address, unsigned prefix,
                     const struct kit_address *gateway);
    /* The interface's address of that family (4, 6). 0, KIT_ENOENT. */
    int (*address)(const struct kit_net *net, uint8_t family, struct kit_address *out);
    /* Opens a listener. backlog: connections that wait for accept() at most. 0 and *out;
     * KIT_EEXIST: port taken; KIT_EINVAL: port 0; KIT_ENOMEM. */
    int (*tcp_listen)(struct kit_net *net, uint16_t port, uint32_t backlog,
                      kit_tcp_callback callback, void *argument, struct kit_tcp **out);
    /* The next established connection, or NULL. It has the listener's callback and argument until
     * tcp_set_callback; events that came before are reported again by its first poll. */
    struct kit_tcp *(*tcp_accept)(struct kit_tcp *listener);
    void (*tcp_set_callback)(struct kit_tcp *tcp, kit_tcp_callback callback, void *argument);
    /* Starts an active open; CONNECTED or ERROR follows. 0 and *out; KIT_EINVAL, KIT_ENOMEM,
     * KIT_EUNREACH, KIT_ENOTSUP. */
    int (*tcp_connect)(struct kit_net *net, const struct kit_address *remote,
                       kit_tcp_callback callback, void *argument, struct kit_tcp **out);
    /* Queues up to `length` bytes, copying them: the number taken (> 0, or 0 if length is 0);
     * KIT_EAGAIN: no space, WRITABLE follows; KIT_ECLOSED: shut down; KIT_ERESET, KIT_ETIMEDOUT. */
    int (*tcp_send)(struct kit_tcp *tcp, const void *data, size_t length);
    /* Up to `length` bytes: their number; 0: end of stream; KIT_EAGAIN: READABLE follows; or the
     * error that killed the connection, after all data was read. */
    int (*tcp_receive)(struct kit_tcp *tcp, void *buffer, size_t length);
    /* As receive without copying: *data is valid until the next call that names this socket or
     * poll(). Gives the first contiguous piece. */
    int (*tcp_peek)(struct kit_tcp *tcp, const void **data);
    /* Drops `length` bytes that peek gave. */
    void (*tcp_consume)(struct kit_tcp *tcp, size_t length);
    /* No more sending: FIN follows what is queued. 0; KIT_ECLOSED if already done. */
    int (*tcp_shutdown)(struct kit_tcp *tcp);
    /* Gives the handle up: no callback any more; queued data is still delivered. A listener
     * resets the connections that nobody accepted. */
    void (*tcp_close)(struct kit_tcp *tcp);
    /* Gives the handle up with a RST; queued data is dropped. */
    void (*tcp_abort)(struct kit_tcp *tcp);
    void (*tcp_info)(const struct kit_tcp *tcp, struct kit_tcp_info *out);
    /* Opens a UDP port; 0: an ephemeral one. 0 and *out; KIT_EEXIST, KIT_ENOMEM. */
    int (*udp_open)(struct kit_net *net, uint16_t port, kit_udp_callback callback, void *argument,
                    struct kit_udp **out);
    uint16_t (*udp_port)(const struct kit_udp *udp);
    /* Sends one datagram. 0; KIT_EMSGSIZE, KIT_EUNREACH, KIT_EAGAIN, KIT_EINVAL. */
    int (*udp_send)(struct kit_udp *udp, const struct kit_address *to, const void *data,
                    size_t length);
    /* The next datagram, cut to `length`: its full size; KIT_EAGAIN: none. */
    int (*udp_receive)(struct kit_udp *udp, struct kit_address *from, void *buffer, size_t length);
    void (*udp_close)(struct kit_udp *udp);
    void (*stats)(const struct kit_net *net, struct kit_net_stats *out);
    /* Verifies every invariant; 0 or KIT_ECORRUPT. */
    int (*check)(const struct kit_net *net);
    /* Frees everything without a word to the peers; handles become invalid. */
    void (*close)(struct kit_net *net);
    /* optional: sets KIT_TCP_OPT_* of a connection. 0, KIT_EINVAL, KIT_ENOTSUP. */
    int (*tcp_option)(struct kit_tcp *tcp, uint32_t option, uint64_t value);
    /* optional: the index-th of the stack's own counters, reasons of drops among them; the name
     * lives for ever. 0; KIT_ENOENT: there are fewer. */
    int (*counter)(const struct kit_net *net, uint32_t index, const char **name, uint64_t *value);
};

struct kit_net {
    const struct kit_net_ops *ops;
};

/* Handles start with the stack they belong to, so that every op can be dispatched from them. */
struct kit_tcp {
    struct kit_net *net;
};

struct kit_udp {
    struct kit_net *net;
};

struct kit_net_component {
    const char *id;
    uint32_t abi;
    uint32_t features;
    const struct kit_net_ops *ops;
    /* Time and entropy come from env, frames from `network`, memory from `alloc`; all stay the
     * caller's and outlive the stack. The address comes from the options or configure().
     * 0 and *out; KIT_EINVAL, KIT_ENOMEM, KIT_EIO. */
    int (*open)(const uint64_t *options, runtime_environment_t *env, network_interface_t *network,
                struct kit_alloc *alloc, struct kit_net **out);
};
/* cdef: end */

#ifdef KIT_SOLE_NET
extern const struct kit_net_component KIT_SOLE_NET;
#define KIT_NET_OPS(n) ((void)(n), KIT_SOLE_NET.ops)
#define KIT_NET_BIND(n, table) ((void)(n), (void)(table))
#else
#define KIT_NET_OPS(n) ((n)->ops)
#define KIT_NET_BIND(n, table) ((void)((n)->ops = (table)))
#endif

/* cdef: begin */
KIT_INLINE bool kit_net_poll(struct kit_net *net)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->poll(net);
}

KIT_INLINE uint64_t kit_net_deadline_ns(struct kit_net *net)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->deadline_ns(net);
}

KIT_INLINE int kit_net_configure(struct kit_net *net, const struct kit_address *address,
                                 unsigned prefix, const struct kit_address *gateway)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->configure(net, address, prefix, gateway);
}

KIT_INLINE int kit_net_address(const struct kit_net *net, uint8_t family, struct kit_address *out)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->address(net, family, out);
}

KIT_INLINE int kit_net_tcp_listen(struct kit_net *net, uint16_t port, uint32_t backlog,
                                  kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->tcp_listen(net, port, backlog, callback, argument, out);
}

KIT_INLINE struct kit_tcp *kit_net_tcp_accept(struct kit_tcp *listener)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(listener->net)->tcp_accept(listener);
}

KIT_INLINE void kit_net_tcp_set_callback(struct kit_tcp *tcp, kit_tcp_callback callback,
                                         void *argument)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(tcp->net)->tcp_set_callback(tcp, callback, argument);
}

KIT_INLINE int kit_net_tcp_connect(struct kit_net *net, const struct kit_address *remote,
                                   kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->tcp_connect(net, remote, callback, argument, out);
}

KIT_INLINE int kit_net_tcp_send(struct kit_tcp *tcp, const void *data, size_t length)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(tcp->net)->tcp_send(tcp, data, length);
}

KIT_INLINE int kit_net_tcp_receive(struct kit_tcp *tcp, void *buffer, size_t length)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(tcp->net)->tcp_receive(tcp, buffer, length);
}

KIT_INLINE int kit_net_tcp_peek(struct kit_tcp *tcp, const void **data)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(tcp->net)->tcp_peek(tcp, data);
}

KIT_INLINE void kit_net_tcp_consume(struct kit_tcp *tcp, size_t length)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(tcp->net)->tcp_consume(tcp, length);
}

KIT_INLINE int kit_net_tcp_shutdown(struct kit_tcp *tcp)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(tcp->net)->tcp_shutdown(tcp);
}

KIT_INLINE void kit_net_tcp_close(struct kit_tcp *tcp)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(tcp->net)->tcp_close(tcp);
}

KIT_INLINE void kit_net_tcp_abort(struct kit_tcp *tcp)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(tcp->net)->tcp_abort(tcp);
}

KIT_INLINE void kit_net_tcp_info(const struct kit_tcp *tcp, struct kit_tcp_info *out)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(tcp->net)->tcp_info(tcp, out);
}

KIT_INLINE int kit_net_udp_open(struct kit_net *net, uint16_t port, kit_udp_callback callback,
                                void *argument, struct kit_udp **out)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->udp_open(net, port, callback, argument, out);
}

KIT_INLINE uint16_t kit_net_udp_port(const struct kit_udp *udp)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(udp->net)->udp_port(udp);
}

KIT_INLINE int kit_net_udp_send(struct kit_udp *udp, const struct kit_address *to, const void *data,
                                size_t length)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(udp->net)->udp_send(udp, to, data, length);
}

KIT_INLINE int kit_net_udp_receive(struct kit_udp *udp, struct kit_address *from, void *buffer,
                                   size_t length)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(udp->net)->udp_receive(udp, from, buffer, length);
}

KIT_INLINE void kit_net_udp_close(struct kit_udp *udp)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(udp->net)->udp_close(udp);
}

KIT_INLINE void kit_net_stats(const struct kit_net *net, struct kit_net_stats *out)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(net)->stats(net, out);
}

KIT_INLINE int kit_net_check(const struct kit_net *net)
{
    KIT_FROM_APPLICATION;
    return KIT_NET_OPS(net)->check(net);
}

KIT_INLINE void kit_net_close(struct kit_net *net)
{
    KIT_FROM_APPLICATION;
    KIT_NET_OPS(net)->close(net);
}

/* KIT_ENOTSUP also from stacks without the op. */
KIT_INLINE int kit_net_tcp_option(struct kit_tcp *tcp, uint32_t option, uint64_t value)
{
    if (KIT_NET_OPS(tcp->net)->tcp_option == NULL)
        return KIT_ENOTSUP;
    return KIT_NET_OPS(tcp->net)->tcp_option(tcp, option, value);
}

/* KIT_ENOENT also from stacks without the op. */
KIT_INLINE int kit_net_counter(const struct kit_net *net, uint32_t index, const char **name,
                               uint64_t *value)
{
    if (KIT_NET_OPS(net)->counter == NULL)
        return KIT_ENOENT;
    return KIT_NET_OPS(net)->counter(net, index, name, value);
}
/* cdef: end */

#endif
