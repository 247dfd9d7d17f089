/* SPDX-License-Identifier: MIT */
/* net.inet, inside: the stack, and which file does what.
 *
 *   inet.c       open, close, poll; options; the ops table and the component
 *   info.c       statistics and counters
 *   check.c      the invariants
 *   link.c       batches of frames to and from the interface; offloads
 *   neighbour.c  neighbours by ARP (RFC 826)
 *   route.c      own addresses, next hops, path MTU (RFC 1191)
 *   ip.c         packets in and out, of either family; fragments.c: both ways with fragments
 *   icmp.c       ICMP: echo, errors to and from sockets, rate limits
 *   udp.c        UDP
 *   table.c queue.c assembly.c board.c rack.c flow.c cubic.c    parts that know no stack, with
 *                tests of their own: hash tables, byte queues, segments ahead of the stream, the
 *                scoreboard, loss by time, windows
 *   tcp_in.c     segments in: the states (RFC 9293, 3.10.7; RFC 5961)
 *   tcp_open.c   listeners, handshakes, SYN cookies (RFC 4987)
 *   tcp_data.c   receiving: window, data, selective acknowledgments to send
 *   tcp_ack.c    acknowledgments in; tcp_loss.c: what they say about losses (RFC 8985, 6675, 5682)
 *   tcp_out.c    what to send; tcp_segment.c: how
 *   tcp_timer.c  what expires; timer.c: one heap of connections by deadline
 *   tcp_life.c   birth, death, TIME-WAIT (RFC 6191), initial sequence numbers (RFC 6528)
 *   socket.c     the calls of net.h on listeners and connections
 *
 * How one poll runs: a batch of frames is taken in, then expired timers run, then the callbacks of
 * all sockets that saw events, then every connection that has something to say says it, then the
 * batch of frames built by all of this leaves at once. So acknowledgments ride on replies. */
#ifndef KIT_NET_INET_INET_H
#define KIT_NET_INET_INET_H

#include <unikit/net/inet/tcp.h>
#include <unikit/net/wire/checksum.h>
#include <unikit/net/wire/ethernet.h>
#include <unikit/net/wire/ipv4.h>
#include <unikit/rt/assert.h>
#include <unikit/rt/bits.h>

#define INET_COLD __attribute__((cold))

enum {
    INET_BATCH = 32,        /* frames taken or given at once */
    INET_BATCH_LARGE = 8,   /* the same where a frame may have 64 KiB */
    INET_SUPER = 65535,     /* longest IP packet of a super-frame */
    INET_PENDING = 4,       /* frames that wait for one neighbour */
    INET_ERRORS = 100,      /* ICMP errors and answers for nobody's segments, per second */
    INET_PATHS = 256,       /* destinations whose path MTU is remembered */
    INET_PORT_FIRST = 32768 /* ephemeral ports: from here to 65535 (RFC 6056) */
};

#define INET_BLOCKED_NS (100 * KIT_NS_PER_US)
#define INET_LATE_NS (10 * KIT_NS_PER_MS) /* so late timers may be under load */

/* VIRTIO_NET_F_* and virtio_net_hdr words (virtio 1.2, section 5.1). */
enum {
    INET_OFFLOAD_CHECKSUM = 1 << 0, /* we may leave TCP and UDP checksums to the device */
    INET_OFFLOAD_TSO4 = 1 << 11,    /* we may send TCP super-frames over IPv4 */
    INET_OFFLOAD_LRO4 = 1 << 7,     /* we may receive them */
    INET_NEEDS_CHECKSUM = 1,
    INET_DATA_VALID = 2,
    INET_GSO_TCP4 = 1,
    INET_GSO_ECN = 0x80
};

/* Why packets were dropped, and other things worth counting; names in info.c. */
enum inet_count {
    INET_FRAME_SHORT,
    INET_FRAME_OTHER, /* for another address or protocol */
    INET_ARP_MALFORMED,
    INET_ARP_UNWANTED,
    INET_ARP_STORM,
    INET_IP_HEADER,
    INET_IP_CHECKSUM,
    INET_IP_SOURCE,
    INET_IP_DESTINATION,
    INET_IP_OPTIONS,
    INET_IP_PROTOCOL,
    INET_FRAGMENT_MALFORMED,
    INET_FRAGMENT_OVERLAP,
    INET_FRAGMENT_FULL,
    INET_FRAGMENT_TIMEOUT,
    INET_ICMP_MALFORMED,
    INET_ICMP_UNWANTED,
    INET_UDP_MALFORMED,
    INET_UDP_CHECKSUM,
    INET_UDP_PORT,
    INET_UDP_FULL,
    INET_TCP_MALFORMED,
    INET_TCP_CHECKSUM,
    INET_TCP_PORT,
    INET_TCP_WINDOW,
    INET_TCP_PAWS,
    INET_TCP_TIMESTAMP,
    INET_TCP_ACK,
    INET_TCP_FLAGS,
    INET_TCP_BACKLOG,
    INET_TCP_COOKIE,
    INET_TCP_MEMORY,
    INET_SEND_NEIGHBOUR,
    INET_SEND_DEVICE,
    INET_SEND_BUSY,
    INET_DROPS, /* those before are drops */
    INET_COOKIES_SENT = INET_DROPS,
    INET_COOKIES_TAKEN,
    INET_FAST_RECOVERIES,
    INET_TIMEOUTS,
    INET_TAIL_PROBES,
    INET_UNDONE,
    INET_DUPLICATES_REPORTED, /* by peers (RFC 2883) */
    INET_CHALLENGES_SENT,
    INET_CONGESTION_MARKS,
    INET_PATH_SHRUNK,
    INET_SUPER_OUT,
    INET_SUPER_IN,
    INET_COUNTS
};

/* An address of ours, its network and the way out; family 4, later 6. */
struct inet_network {
    struct inet_ip address;
    struct inet_ip gateway;
    unsigned prefix; /* of 128 bits; 0: not configured */
    bool routed;     /* there is a gateway */
};

struct inet_route {
    struct inet_ip source;
    struct inet_ip next; /* whom to give it to */
    uint16_t mtu;
};

/* A packet that came in: header checked, whole. */
struct inet_packet {
    struct inet_ip source;
    struct inet_ip destination;
    const uint8_t *ip;
    const uint8_t *data; /* what IP carries */
    uint32_t length;
    uint8_t protocol;
    bool broadcast;
    bool checked; /* somebody vouches for the checksum of what it carries */
    bool congested;
};

/* What the next packet out is to carry. */
struct inet_parcel {
    struct inet_route route;
    struct inet_ip destination;
    uint32_t length; /* behind the IP header */
    uint8_t protocol;
    uint8_t ecn;
    bool fragments; /* routers may cut it up */
};

struct inet_udp {
    struct inet_entry entry; /* in inet.ports, by port */
    struct kit_udp handle;
    kit_udp_callback callback;
    void *argument;
    struct kit_list event_link; /* in inet.udp_events */
    uint8_t *ring;              /* datagrams, header and bytes, one behind the other */
    uint32_t capacity;          /* a power of two; 0: nothing allocated yet */
    uint32_t head;
    uint32_t length;
    uint16_t port;
};

enum { INET_ASKING = 1, INET_KNOWN };

struct inet_neighbour {
    struct inet_entry entry;
    struct kit_list link; /* in inet.neighbours_used, least recently used first */
    struct inet_ip ip;
    uint64_t changed_ns; /* asked or confirmed last */
    uint8_t mac[KIT_ETH_ADDRESS];
    uint8_t state;
    uint8_t tries;
    uint8_t waiting;
    struct kit_frame frames[INET_PENDING];
};

struct inet_path {
    struct inet_entry entry;
    struct kit_list link; /* in inet.paths_used, oldest first */
    struct inet_ip ip;
    uint64_t expires_ns;
    uint16_t mtu;
};

struct inet_datagram; /* being put together; fragments.c */

struct inet {
    struct kit_net net;
    uint64_t now_ns; /* of this poll or call, and the same in other units, modulo 2^32 */
    uint32_t now_us;
    uint32_t now_ms;
    uint64_t timers_ns; /* when timers were looked at last */
    runtime_environment_t *env;
    network_interface_t *network;
    struct inet_memory memory;
    struct inet_network networks[2]; /* IPv4, IPv6 */
    struct inet_key key;             /* for looking up */
    struct inet_key secret;          /* for what leaves the machine */

    /* frames */
    uint8_t *slots;
    struct kit_frame *rx;
    struct kit_frame *tx;
    size_t rx_size;
    size_t tx_size;
    uint32_t batch;   /* a power of two */
    uint32_t tx_head; /* free running */
    uint32_t tx_tail;
    uint32_t rx_used; /* slots that the last batch filled */
    uint32_t offloads;
    uint16_t mtu;
    uint8_t mac[KIT_ETH_ADDRESS];

    /* TCP */
    struct inet_tcp *last;  /* looked up last */
    struct inet_tcp **heap; /* from index 1 */
    uint32_t heap_count;
    uint32_t heap_capacity;
    uint32_t open;
    uint32_t time_wait_count;
    uint32_t port_offset;
    struct kit_list events;
    struct kit_list output;
    struct kit_list dead; /* to be freed at the end of the frame */
    struct kit_list held; /* over, but the application still has the handle */
    struct kit_list time_waits;
    struct inet_table flows;
    struct inet_table listeners;

    /* neighbours, paths, fragments */
    struct inet_neighbour *neighbour; /* looked up last */
    uint64_t neighbour_deadline_ns;
    struct inet_table neighbours;
    struct kit_list neighbours_used;
    struct inet_table paths;
    struct kit_list paths_used;
    struct kit_list datagrams; /* oldest first */
    uint64_t fragment_bytes;
    uint16_t identification;

    struct inet_table ports;
    struct kit_list udp_events;

    uint64_t second_ns; /* the running second, and errors sent in it */
    uint32_t errors;

    /* options */
    uint32_t connections;
    uint32_t send_buffer;
    uint32_t receive_buffer;
    uint32_t udp_limit;
    uint32_t udp_buffer;
    uint32_t neighbour_limit;
    uint64_t time_wait_ns;
    uint64_t fragment_limit;
    uint32_t keepalive_ms;
    uint32_t patience_ms;
    bool nagle;
    uint8_t ecn; /* INET_ECN_* */
    const struct inet_congestion *congestion;

    struct kit_net_stats stats;
    uint64_t counts[INET_COUNTS];
};

enum { INET_ECN_OFF, INET_ECN_ACCEPT, INET_ECN_ASK };

KIT_INLINE struct inet *inet_of(const struct kit_net *net)
{
    return KIT_CONTAINER_OF(net, struct inet, net);
}

KIT_INLINE struct inet_tcp *inet_tcp_of(const struct kit_tcp *handle)
{
    return KIT_CONTAINER_OF(handle, struct inet_tcp, socket.handle);
}

KIT_INLINE uint32_t inet_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

KIT_INLINE uint32_t inet_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

#endif
