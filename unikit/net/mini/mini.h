/* SPDX-License-Identifier: MIT */
/* net.mini, inside: the objects, and which file does what.
 *
 *   mini.c      open, close, poll, configure, stats; the ops table and the component
 *   link.c      batches of frames to and from the interface
 *   note.c      what is said of frames to those who watch the wire
 *   arp.c       neighbours (RFC 826)
 *   ipv4.c      IPv4 and ICMP (RFC 791, 792, 1122)
 *   udp.c       UDP (RFC 768)
 *   table.c     connections: lookup, birth, death, TIME_WAIT, keyed hash and ISN (RFC 6528)
 *   ring.c      byte rings that grow on demand, and the list of segments ahead of the stream
 *   tcp_in.c    segments in (RFC 9293, 3.10.7; RFC 5961)
 *   tcp_ack.c   acknowledgments, round trip times, congestion (RFC 5681, 6298, 6582)
 *   tcp_out.c   segments out
 *   timer.c     one heap of connections by deadline; what expires
 *   socket.c    the calls of net.h on listeners and connections
 *   check.c     the invariants
 *
 * How one poll runs: a batch of frames is taken in, then expired timers run, then the callbacks of
 * all sockets that saw events, then every connection that has something to say says it, then the
 * batch of frames built by all of this leaves at once. So acknowledgments ride on replies.
 *
 * Invariants (check() verifies them): a connection in a synchronized or opening state is in the
 * hash and counted in `open`; a dead one whose handle was given up is on the `dead` list until the
 * end of the frame, then freed. Everything allocated is counted in `memory`. */
#ifndef KIT_NET_MINI_MINI_H
#define KIT_NET_MINI_MINI_H

#include <unikit/net/net.h>
#include <unikit/net/wire/arp.h>
#include <unikit/net/wire/checksum.h>
#include <unikit/net/wire/ethernet.h>
#include <unikit/net/wire/icmp.h>
#include <unikit/net/wire/ipv4.h>
#include <unikit/net/wire/tcp.h>
#include <unikit/net/wire/udp.h>
#include <unikit/rt/assert.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/list.h>
#include <unikit/rt/opt.h>

#ifndef MINI_BATCH
#define MINI_BATCH 16 /* frames taken or given at once; a power of two */
#endif

enum {
    MINI_PAYLOAD = KIT_ETH_HEADER + KIT_IPV4_HEADER, /* offset of what IPv4 carries, in a frame */
    MINI_RING_MIN = 2048,
    MINI_RANGES = 8,    /* pieces of stream that may wait for a gap to close */
    MINI_ARP_QUEUE = 4, /* frames that wait for one neighbour */
    MINI_LISTENERS = 64,
    MINI_CHALLENGES = 10,   /* challenge ACKs per connection and second (RFC 5961, section 7) */
    MINI_ERRORS = 100,      /* ICMP errors per second (RFC 1812, 4.3.2.8) */
    MINI_MSS_DEFAULT = 536, /* RFC 9293, 3.7.1 */
    MINI_MSS_MIN = 64,      /* below it a peer only wants to make us work */
    MINI_RETRIES = 10,      /* of data: 162 s at least (RFC 1122, 4.2.3.5: >= 100 s) */
    MINI_SYN_RETRIES = 7,   /* 255 s (RFC 1122, 4.2.3.5: >= 180 s) */
    MINI_ORPHAN_PROBES = 8  /* zero-window probes before a connection without owner is dropped */
};

#define MINI_RTO_FIRST_NS KIT_NS_PER_S
#define MINI_RTO_MIN_NS (200 * KIT_NS_PER_MS)
#define MINI_RTO_MAX_NS (60 * KIT_NS_PER_S)
#define MINI_DELAYED_ACK_NS (40 * KIT_NS_PER_MS)
#define MINI_LINGER_NS (60 * KIT_NS_PER_S)
#define MINI_BLOCKED_NS (100 * KIT_NS_PER_US)

/* What is rare is compiled for size and kept out of the way of what is not. */
#define MINI_COLD __attribute__((cold))

struct mini;

struct mini_ring {
    uint8_t *data;
    uint32_t capacity; /* a power of two; 0: nothing allocated yet */
    uint32_t head;     /* index of the first byte */
    uint32_t length;   /* bytes in order; bytes ahead of the stream may lie beyond */
};

/* A piece of sequence space, start inclusive, end exclusive. */
struct mini_range {
    uint32_t start;
    uint32_t end;
};

/* What listeners and connections share. */
struct mini_socket {
    struct kit_tcp handle;
    kit_tcp_callback callback;
    void *argument;
    struct kit_list event_link; /* in mini.events */
    uint32_t events;            /* not yet delivered */
    uint8_t state;              /* KIT_TCP_* */
    bool orphan;                /* the handle was given up */
};

struct mini_listener {
    struct mini_socket socket;
    struct kit_list link; /* in mini.listeners */
    struct kit_list half; /* SYN_RECEIVED, oldest first */
    struct kit_list full; /* established, waiting for accept() */
    uint32_t half_count;
    uint32_t full_count;
    uint32_t backlog;
    uint16_t port;
};

enum {
    MINI_TIMER_SEND,   /* retransmission, or zero-window probe while `persist` */
    MINI_TIMER_ACK,    /* delayed acknowledgment */
    MINI_TIMER_LINGER, /* FIN_WAIT_2 without owner */
    MINI_TIMERS
};

struct mini_tcp {
    struct mini_socket socket;

    /* What most of the code speaks of: its offsets fit in one byte of an instruction. */
    struct mini_ring tx;
    uint32_t snd_una;
    uint32_t snd_nxt; /* goes back to snd_una on a timeout */
    uint32_t snd_max; /* highest ever sent */
    uint32_t rcv_nxt;
    uint32_t cwnd;
    uint16_t mss; /* for sending */
    uint8_t range_count;
    bool fin_queued;
    uint8_t retries; /* timeouts or unanswered probes in a row */
    bool persist;
    uint8_t dupacks;
    uint8_t rcv_shift;
    bool recovering;
    bool ack_now;
    uint8_t probes; /* zero-window probes in a row, answered ones too */
    bool fin_ahead; /* at fin_seq, the stream has not got there yet */
    uint32_t iss;
    uint32_t srtt_us; /* 0: no sample yet */
    uint32_t tx_seq;  /* sequence number of the ring's first byte; after it all, of the FIN */
    uint32_t rcv_adv; /* right edge of the window as advertised; never goes back */
    uint64_t rto_ns;  /* backed off */

    struct mini_tcp *hash_next;
    struct mini_listener *listener; /* while not accepted */
    struct kit_list listener_link;  /* in half or full; later in mini.held or mini.dead */
    struct kit_list output_link;    /* in mini.output */
    uint64_t timers[MINI_TIMERS];   /* KIT_NEVER: off */
    uint64_t heap_deadline;         /* <= the earliest timer */
    size_t heap_position;           /* 1 ...; 0: not in the heap */
    uint32_t hash;
    uint32_t local_ip;
    uint32_t remote_ip;
    uint16_t local_port;
    uint16_t remote_port;
    int32_t error;

    /* sending (RFC 9293, 3.3.1) */
    uint32_t snd_wnd;
    uint32_t snd_wl1;
    uint32_t snd_wl2;
    uint32_t max_wnd; /* largest window the peer ever offered */
    uint32_t ssthresh;
    uint32_t recover;      /* RFC 6582 */
    uint32_t bytes_acked;  /* in congestion avoidance, towards the next segment */
    uint64_t sent_ns;      /* last data */
    uint64_t rtt_start_ns; /* of the segment being timed; 0: none */
    uint32_t rtt_seq;      /* its first byte */
    uint32_t rttvar_us;
    uint32_t retransmits;
    uint8_t snd_shift;
    bool scale_offered; /* by the peer's SYN */
    bool fin_sent;
    bool want_write; /* send() found no space: WRITABLE is owed */

    /* receiving */
    struct mini_ring rx;
    uint32_t irs;
    uint8_t unacked;   /* segments received since the last ACK sent */
    bool fin_received; /* in order */
    uint32_t fin_seq;
    uint32_t challenges; /* sent in the running second */
    uint64_t challenge_ns;
    struct mini_range ranges[MINI_RANGES]; /* ahead of rcv_nxt, in order, not touching */
};

/* What is left of a connection in TIME_WAIT. */
struct mini_time_wait {
    struct mini_time_wait *hash_next;
    struct kit_list link; /* in mini.time_waits, oldest first */
    uint64_t deadline_ns;
    uint32_t hash;
    uint32_t remote_ip;
    uint16_t remote_port;
    uint16_t local_port;
    uint32_t snd_nxt;
    uint32_t rcv_nxt;
    uint16_t window;
};

struct mini_datagram {
    struct kit_list link;
    uint32_t from_ip;
    uint16_t from_port;
    uint16_t length;
    uint8_t data[];
};

struct mini_udp {
    struct kit_udp handle;
    kit_udp_callback callback;
    void *argument;
    struct kit_list link;       /* in mini.udps */
    struct kit_list event_link; /* in mini.udp_events */
    struct kit_list queue;
    size_t queued; /* bytes, headers included */
    uint16_t port;
};

enum { MINI_ARP_FREE, MINI_ARP_ASKING, MINI_ARP_KNOWN };

struct mini_arp {
    uint32_t ip;
    uint8_t mac[KIT_ETH_ADDRESS];
    uint8_t state;
    uint8_t tries;
    uint8_t waiting; /* frames in `frames` */
    uint64_t used_ns;
    uint64_t changed_ns; /* asked or confirmed last */
    struct {
        uint8_t *data;
        uint32_t length;
    } frames[MINI_ARP_QUEUE];
};

struct mini {
    /* As in a connection: what most of the code speaks of is first, what is large is last. */
    struct kit_net net;
    uint64_t now_ns;  /* of this poll or call */
    uint32_t address; /* host order; 0: not configured */
    uint32_t mask;
    struct mini_tcp **heap; /* from index 1 */
    struct mini_tcp **buckets;
    struct mini_arp *arps;
    size_t bucket_mask;
    uint32_t tx_head; /* free running; the slot is the number modulo MINI_BATCH */
    uint32_t tx_tail;
    uint8_t mac[KIT_ETH_ADDRESS];
    uint16_t next_port;
    uint32_t send_buffer;
    uint32_t receive_buffer;
    size_t slot_size;
    uint64_t arp_deadline_ns;
    size_t connections;
    size_t heap_count;
    uint32_t arp_count;

    runtime_environment_t *env;
    network_interface_t *network;
    struct kit_alloc *alloc;

    uint32_t gateway; /* 0: none */
    uint16_t mtu;

    /* options */
    bool nagle;
    uint64_t time_wait_ns;
    uint32_t udp_limit;
    uint32_t udp_buffer;

    /* frames */
    uint8_t *slots;

    struct mini_arp *arp_last;

    struct kit_list listeners;
    uint32_t listener_count;
    struct kit_list events;
    struct kit_list output;
    struct kit_list dead; /* to be freed at the end of the frame */
    struct kit_list held; /* over, but the application still has the handle */
    struct kit_list time_waits;
    struct mini_time_wait **tw_buckets;
    struct mini_tcp *last; /* looked up last */
    size_t time_wait_count;
    size_t open;
    uint64_t key[4]; /* 0, 1: lookup; 2, 3: initial sequence numbers */

    struct kit_list udps;
    struct kit_list udp_events;
    uint32_t udp_count;

    uint64_t error_ns; /* ICMP errors: the running second, and how many were sent in it */
    uint32_t errors;
    struct kit_net_stats stats;
    struct kit_frame rx[MINI_BATCH];
    struct kit_frame tx[MINI_BATCH];
};

/* One segment that came in, header checked. */
struct mini_segment {
    uint32_t remote_ip;
    uint16_t remote_port;
    uint16_t local_port;
    uint32_t seq;
    uint32_t ack;
    uint32_t window; /* unscaled */
    uint8_t flags;
    const uint8_t *options;
    size_t options_length;
    const uint8_t *data;
    uint32_t length; /* of data */
};

/* mini.c */
void *mini_alloc(struct mini *m, size_t size);
void mini_free(struct mini *m, void *block, size_t size);

/* link.c */
int mini_link_open(struct mini *m);
/* The slot for the next frame, or NULL: the interface is busy and the batch full. */
uint8_t *mini_link_begin(struct mini *m);
/* Sends what mini_link_begin gave. */
void mini_link_commit(struct mini *m, size_t length);
/* Gives the batch to the interface; whether it is empty now. */
bool mini_link_flush(struct mini *m);
size_t mini_link_receive(struct mini *m);

/* note.c: for an interface that wants notes on frames (kit_netif_noted) */
void mini_note_out(struct mini *m, const struct mini_tcp *t, const uint8_t *frame);
/* After the frame was taken in; `before`: the counters from before. */
void mini_note_in(struct mini *m, const struct kit_frame *frame,
                  const struct kit_net_stats *before);
bool mini_link_blocked(const struct mini *m);

/* As kit_checksum_add, but one copy of it for all. */
uint64_t mini_sum(uint64_t sum, const uint8_t *data, size_t length);

/* arp.c */
void mini_arp_input(struct mini *m, const uint8_t *frame, size_t length);
/* Fills in the Ethernet header of the frame just built for next hop `ip` and commits it, or lets
 * it wait for the neighbour. 0 or KIT_EUNREACH, KIT_ENOMEM: dropped. */
int mini_arp_send(struct mini *m, uint32_t ip, uint8_t *frame, size_t length);
void mini_arp_announce(struct mini *m);
void mini_arp_timers(struct mini *m);
void mini_arp_clear(struct mini *m);

/* ipv4.c */
void mini_ipv4_input(struct mini *m, const struct kit_frame *frame);
/* The gateway or the address itself; 0: no route. */
uint32_t mini_route(const struct mini *m, uint32_t ip);
/* Sends the frame whose payload of `length` bytes was written at frame + MINI_PAYLOAD; slot from
 * mini_link_begin. 0 or KIT_EUNREACH, KIT_ENOMEM. */
int mini_ipv4_send(struct mini *m, uint8_t *frame, uint32_t source, uint32_t destination,
                   uint8_t protocol, size_t length);
/* ICMP destination unreachable in answer to `ip`; rate limited. */
void mini_icmp_unreachable(struct mini *m, const uint8_t *ip, uint8_t code);

/* udp.c */
void mini_udp_input(struct mini *m, const uint8_t *ip, const uint8_t *udp, size_t length,
                    bool checked, bool broadcast);
int mini_udp_open(struct kit_net *net, uint16_t port, kit_udp_callback callback, void *argument,
                  struct kit_udp **out);
uint16_t mini_udp_port(const struct kit_udp *handle);
int mini_udp_send(struct kit_udp *handle, const struct kit_address *to, const void *data,
                  size_t length);
int mini_udp_receive(struct kit_udp *handle, struct kit_address *from, void *buffer, size_t length);
void mini_udp_close(struct kit_udp *handle);
bool mini_udp_deliver(struct mini *m);

/* table.c */
uint32_t mini_hash(const struct mini *m, uint32_t ip, uint16_t remote_port, uint16_t local_port);
uint32_t mini_isn(const struct mini *m, uint32_t ip, uint16_t remote_port, uint16_t local_port);
struct mini_tcp *mini_find(struct mini *m, uint32_t ip, uint16_t remote_port, uint16_t local_port,
                           uint32_t *hash);
struct mini_time_wait *mini_find_time_wait(const struct mini *m, uint32_t ip, uint16_t remote_port,
                                           uint16_t local_port, uint32_t hash);
struct mini_listener *mini_find_listener(const struct mini *m, uint16_t port);
/* A connection in state CLOSED, in the hash; NULL: the limit is reached or memory is out. */
struct mini_tcp *mini_tcp_new(struct mini *m, uint32_t ip, uint16_t remote_port,
                              uint16_t local_port, uint32_t hash);
/* The connection is over: takes it out of hash, heap and queues; with an error the owner hears
 * ERROR, else CLOSED. One without owner is freed at the end of the frame. */
void mini_tcp_end(struct mini *m, struct mini_tcp *t, int error);
/* As mini_tcp_end without error, but the four numbers stay taken for a while. */
void mini_tcp_time_wait(struct mini *m, struct mini_tcp *t);
void mini_time_wait_free(struct mini *m, struct mini_time_wait *w);
void mini_time_wait_expire(struct mini *m);
void mini_tcp_free(struct mini *m, struct mini_tcp *t);
void mini_reap(struct mini *m);

/* ring.c */
uint32_t mini_buffer_size(uint64_t size);
/* Makes room for `need` bytes, at most `limit` (a power of two); false: no memory, no change. */
bool mini_ring_reserve(struct mini *m, struct mini_ring *r, uint32_t need, uint32_t limit);
void mini_ring_free(struct mini *m, struct mini_ring *r);
/* Copies to / from `offset` bytes behind the head; the caller made sure that they are there. */
void mini_ring_put(struct mini_ring *r, uint32_t offset, const uint8_t *data, uint32_t length);
void mini_ring_get(const struct mini_ring *r, uint32_t offset, uint8_t *data, uint32_t length);
void mini_ring_drop(struct mini_ring *r, uint32_t length);
/* Notes a piece ahead of the stream; false: too many pieces. */
bool mini_ranges_add(struct mini_tcp *t, uint32_t start, uint32_t end);
/* Takes out what touches `next`; where the stream gets to with it. */
uint32_t mini_ranges_advance(struct mini_tcp *t, uint32_t next);

/* tcp_in.c */
void mini_tcp_input(struct mini *m, const uint8_t *ip, const uint8_t *tcp, size_t length,
                    bool checked);
/* An ICMP error about a segment that we sent (its header is at `tcp`, 8 bytes). */
void mini_tcp_icmp(struct mini *m, uint32_t remote_ip, const uint8_t *tcp, uint8_t code,
                   uint16_t mtu);
void mini_tcp_established(struct mini *m, struct mini_tcp *t);

/* tcp_ack.c */
void mini_tcp_start_sending(struct mini_tcp *t);
/* After a pause the network may have changed: start as at the beginning. */
void mini_tcp_restart(struct mini_tcp *t);
/* The timeout without back-off. */
void mini_tcp_compute_rto(struct mini_tcp *t);
/* Takes in an acceptable acknowledgment; whether our FIN is acknowledged. */
bool mini_tcp_ack(struct mini *m, struct mini_tcp *t, const struct mini_segment *s);

/* tcp_out.c */
/* Lets the connection speak at the end of the poll. */
void mini_tcp_queue(struct mini *m, struct mini_tcp *t);
void mini_tcp_ack_now(struct mini *m, struct mini_tcp *t);
/* Says what there is to say; false: the interface is busy, try again. */
bool mini_tcp_output(struct mini *m, struct mini_tcp *t);
/* Sends the first unacknowledged segment again. */
void mini_tcp_retransmit(struct mini *m, struct mini_tcp *t);
/* One byte (or what fits) past a closed window. */
void mini_tcp_probe(struct mini *m, struct mini_tcp *t);
/* A pure ACK at once: for duplicates, which must go out one by one. */
void mini_tcp_send_ack(struct mini *m, struct mini_tcp *t);
void mini_tcp_challenge(struct mini *m, struct mini_tcp *t);
void mini_tcp_send_reset(struct mini *m, struct mini_tcp *t);
/* Answers a segment that belongs to no connection. */
void mini_tcp_reply(struct mini *m, const struct mini_segment *s, uint32_t seq, uint32_t ack,
                    uint8_t flags, uint16_t window);
void mini_tcp_refuse(struct mini *m, const struct mini_segment *s);
uint16_t mini_our_mss(const struct mini *m);
/* Free space that the next segment advertises, bytes. */
uint32_t mini_receive_space(const struct mini *m, const struct mini_tcp *t);

/* timer.c */
void mini_timer_set(struct mini *m, struct mini_tcp *t, unsigned timer, uint64_t deadline_ns);
void mini_timer_stop(struct mini_tcp *t, unsigned timer);
void mini_timer_forget(struct mini *m, struct mini_tcp *t);
bool mini_timers_run(struct mini *m);

/* socket.c */
int mini_tcp_listen(struct kit_net *net, uint16_t port, uint32_t backlog, kit_tcp_callback callback,
                    void *argument, struct kit_tcp **out);
struct kit_tcp *mini_tcp_accept(struct kit_tcp *handle);
void mini_tcp_set_callback(struct kit_tcp *handle, kit_tcp_callback callback, void *argument);
int mini_tcp_connect(struct kit_net *net, const struct kit_address *remote,
                     kit_tcp_callback callback, void *argument, struct kit_tcp **out);
int mini_tcp_send(struct kit_tcp *handle, const void *data, size_t length);
int mini_tcp_receive(struct kit_tcp *handle, void *buffer, size_t length);
int mini_tcp_peek(struct kit_tcp *handle, const void **data);
void mini_tcp_consume(struct kit_tcp *handle, size_t length);
int mini_tcp_shutdown(struct kit_tcp *handle);
void mini_tcp_close(struct kit_tcp *handle);
void mini_tcp_abort(struct kit_tcp *handle);
void mini_tcp_info(const struct kit_tcp *handle, struct kit_tcp_info *out);
/* Chooses the initial sequence number, above *floor if there was a connection of the same name. */
void mini_tcp_set_isn(struct mini *m, struct mini_tcp *t, const uint32_t *floor);
/* Frees all listeners and connections without a word. */
void mini_close_sockets(struct mini *m);
/* Notes events and has them delivered at the end of the poll. */
void mini_event(struct mini *m, struct mini_socket *socket, uint32_t events);
bool mini_events_deliver(struct mini *m);

/* check.c */
int mini_check(const struct kit_net *net);

KIT_INLINE struct mini *mini_of(const struct kit_net *net)
{
    return KIT_CONTAINER_OF(net, struct mini, net);
}

KIT_INLINE struct mini *mini_of_tcp(const struct kit_tcp *handle)
{
    return mini_of(handle->net);
}

KIT_INLINE struct mini_tcp *mini_tcp_of(const struct kit_tcp *handle)
{
    return KIT_CONTAINER_OF(handle, struct mini_tcp, socket.handle);
}

KIT_INLINE uint32_t mini_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

KIT_INLINE uint32_t mini_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Bytes and flags sent and not acknowledged. */
KIT_INLINE uint32_t mini_flight(const struct mini_tcp *t)
{
    return t->snd_max - t->snd_una;
}

#endif
