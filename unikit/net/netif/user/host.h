/* SPDX-License-Identifier: MIT */
/* netif.user, inside: the objects, and which file does what.
 *
 *   host_user.c   open, close, the interface towards the image, the event loop
 *   host_wire.c   the wire as the outer stack sees it
 *   host_arp.c    makes the outer stack know the image's MAC address
 *   host_tcp.c    TCP: listeners and relays
 *   host_udp.c    UDP: ports and the sessions of their peers
 *   host_env.c    clock, entropy and memory of the outer stack
 *
 * Everything runs in the thread that sends and receives frames: a frame from the image goes through
 * the outer stack and to the sockets before send returns; receive looks at the sockets first.
 *
 * Invariants (check() verifies them): relay_count is the length of `relays` and `dying`; every
 * session is in the hash and in `by_age` once; the ports are paused at the start, the listeners
 * while no relay is free. */
#ifndef KIT_NET_NETIF_USER_HOST_H
#define KIT_NET_NETIF_USER_HOST_H

#include <netinet/in.h>

#include <unikit/net/netif/user/host_user.h>
#include <unikit/rt/list.h>

enum {
    USER_QUEUE = 256,     /* frames for the image; a power of two */
    USER_RESERVE = 64,    /* of them, free before a reset is sent */
    USER_SCRATCH = 65536, /* bytes moved at once; no datagram is longer */
    USER_EVENTS = 64,     /* sockets looked at before the image gets its frames */
    USER_ACCEPTS = 64,    /* connections or datagrams taken from a port at once */
    USER_ROUNDS = 32,     /* polls of the outer stack in a row */
    USER_BUCKETS = 256    /* of the session hash; a power of two */
};

struct user;

/* What an epoll event points to. */
struct user_source {
    void (*ready)(struct user *user, struct user_source *source, uint32_t events);
    int fd;
};

struct user_port {
    struct user_source source; /* first */
    uint16_t image_port;
    uint8_t protocol;
};

/* A TCP connection: a socket of the host and one of the outer stack. */
struct user_relay {
    struct user_source source; /* first */
    struct kit_list link;      /* in user.relays */
    struct user *user;
    struct kit_tcp *tcp;
    uint8_t *pending; /* read from the host, not yet taken by the stack; NULL: nothing */
    uint32_t pending_first;
    uint32_t pending_last;
    bool connected;
    bool readable;   /* the host's socket may have more (its edge was seen) */
    bool writable;   /* the host's socket may take more */
    bool hung_up;    /* the host's socket has an end or an error waiting behind its data */
    bool host_ended; /* end of stream passed from the host to the image */
    bool image_ended;
};

/* A peer of a UDP port, with a port of its own on the outer stack. */
struct user_session {
    struct kit_list by_age; /* in user.sessions, longest silent first */
    struct user_session *hash_next;
    struct user *user;
    struct user_port *port;
    struct kit_udp *udp;
    struct sockaddr_in peer;
    uint64_t used_ns;
};

struct user_heap {
    struct kit_alloc alloc; /* first */
    struct kit_alloc_stats stats;
};

struct user_wire {
    network_interface_t end;         /* the outer stack's; first */
    const struct kit_frame *arrived; /* from the image, during a send */
    size_t arrived_count;
    uint8_t *slots; /* frames for the image */
    size_t slot_size;
    uint32_t lengths[USER_QUEUE];
    uint32_t head; /* free running */
    uint32_t tail;
    uint64_t dropped;
};

struct user {
    struct kit_host_netif netif; /* first */
    struct user_wire wire;
    struct user_heap heap;
    console_interface_t console;
    runtime_environment_t env;
    struct kit_cpu cpu;
    struct kit_net *net;
    struct kit_user_config config;
    struct kit_user_stats stats;
    struct user_port *ports;
    size_t port_count;
    struct kit_list relays;
    struct kit_list dying; /* relays without a host's side, to be reset when the wire has room */
    struct kit_list sessions;
    struct user_session *buckets[USER_BUCKETS];
    uint8_t *scratch;
    uint32_t relay_count;
    uint32_t session_count;
    uint64_t paused_until_ns; /* KIT_NEVER: not paused, or until a relay ends */
    uint64_t introduce_ns;    /* when the image may be introduced again */
    uint8_t image_mac[6];     /* as heard */
    bool heard;               /* the image spoke from its address since the last introduction */
    bool starting;            /* the image was never heard: its first clients wait a moment */
    bool paused;              /* the ports, while `starting`; then the listeners alone */
    bool busy;                /* the outer stack has more to do at once */
    bool broken;              /* it panicked */
};

/* host_env.c */
uint64_t user_now_ns(void);
void user_env_open(struct user *user);

/* host_wire.c */
int user_wire_open(struct user_wire *wire, uint32_t mtu);
void user_wire_close(struct user_wire *wire);
/* The first frame for the image, copied; its length, 0: none, or KIT_EMSGSIZE. */
int user_wire_take(struct user_wire *wire, void *buffer, size_t max_length);

KIT_INLINE bool user_wire_empty(const struct user_wire *wire)
{
    return wire->head == wire->tail;
}

KIT_INLINE uint32_t user_wire_free(const struct user_wire *wire)
{
    return USER_QUEUE - (wire->tail - wire->head);
}

KIT_INLINE bool user_wire_full(const struct user_wire *wire)
{
    return user_wire_free(wire) == 0;
}

/* host_user.c */
int user_watch(struct user *user, struct user_source *source, uint32_t events);
/* Takes no more connections until user_resume; they wait in the backlog of the host's sockets. */
void user_pause(struct user *user, uint64_t until_ns);
void user_resume(struct user *user);
struct kit_address user_image(const struct user *user, uint16_t port);

/* host_arp.c */
enum { USER_ARP_FRAME = 42 };
void user_arp_hear(struct user *user, const struct kit_frame *frames, size_t count);
bool user_arp_due(const struct user *user, uint64_t now_ns);
/* Writes the frame of USER_ARP_FRAME bytes that introduces the image. */
void user_arp_request(struct user *user, uint64_t now_ns, uint8_t *frame);

/* host_tcp.c */
void user_tcp_ready(struct user *user, struct user_source *source, uint32_t events);
/* Resets dying relays as far as there is room on the wire. */
void user_tcp_reap(struct user *user);
void user_tcp_close(struct user *user);

/* host_udp.c */
void user_udp_ready(struct user *user, struct user_source *source, uint32_t events);
/* Forgets the peers that were silent for too long. */
void user_udp_expire(struct user *user, uint64_t now_ns);
uint64_t user_udp_deadline_ns(const struct user *user);
int user_udp_check(const struct user *user);
void user_udp_close(struct user *user);

#endif
