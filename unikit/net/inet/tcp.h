/* SPDX-License-Identifier: MIT */
/* TCP of net.inet: listeners, connections, what is left of them in TIME-WAIT, and a segment as the
 * parts of the stack hand it on. */
#ifndef KIT_NET_INET_TCP_H
#define KIT_NET_INET_TCP_H

#include <unikit/net/inet/board.h>
#include <unikit/net/inet/flow.h>
#include <unikit/net/inet/table.h>
#include <unikit/net/net.h>
#include <unikit/rt/list.h>

enum {
    INET_MSS_DEFAULT = 536, /* RFC 9293, 3.7.1 */
    INET_MSS_MIN = 64,      /* below it a peer only wants to make us work */
    INET_MSS_BASE = 512,    /* where a path that swallows larger segments is tried again */
    INET_SYN_RETRIES = 7,   /* 255 s (RFC 1122, 4.2.3.5: >= 180 s) */
    INET_ORPHAN_PROBES = 8, /* zero-window probes before a connection without owner is dropped */
    INET_CHALLENGES = 10,   /* challenge ACKs per connection and second (RFC 5961, section 7) */
    INET_QUICK_ACKS = 8,    /* after the start or a disturbance, each at once */
    INET_ACK_EVERY = 8,     /* full segments, also within one batch */
    INET_SACK_BLOCKS = 4
};

#define INET_RTO_MIN_US 200000
#define INET_RTO_MAX_NS (60 * KIT_NS_PER_S)
#define INET_DELAYED_ACK_NS (40 * KIT_NS_PER_MS)
#define INET_DELAYED_ACK_MIN_NS (2 * KIT_NS_PER_MS)
#define INET_PEER_DELAY_US 200000 /* how long a peer may hold an acknowledgment back */
#define INET_PROBE_SLACK_US 4000  /* for the time that machines take */
#define INET_CORK_NS (200 * KIT_NS_PER_MS)
#define INET_LINGER_NS (60 * KIT_NS_PER_S)

enum { INET_KIND_TCP, INET_KIND_TIME_WAIT };

/* What listeners and connections share. */
struct inet_socket {
    struct kit_tcp handle;
    kit_tcp_callback callback;
    void *argument;
    struct kit_list event_link; /* in inet.events */
    uint16_t events;            /* not yet delivered */
    uint8_t state;              /* KIT_TCP_* */
    bool orphan;                /* the handle was given up */
};

struct inet_listener {
    struct inet_entry entry; /* in inet.listeners, by port */
    struct inet_socket socket;
    struct kit_list half; /* SYN_RECEIVED, oldest first */
    struct kit_list full; /* established, waiting for accept() */
    uint32_t half_count;
    uint32_t full_count;
    uint32_t backlog;
    uint16_t port;
    bool cookies;        /* some were sent, the last ... */
    uint64_t cookies_ns; /* ... at this time */
};

enum {
    INET_TIMER_SEND, /* `waiting` says what for */
    INET_TIMER_ACK,  /* delayed acknowledgment */
    INET_TIMER_LIFE, /* FIN_WAIT_2 without owner, keep-alive */
    INET_TIMERS
};

/* What the timer SEND waits for. */
enum { INET_WAIT_RTO, INET_WAIT_PROBE, INET_WAIT_REORDER, INET_WAIT_WINDOW, INET_WAIT_CORK };

/* Congestion phases. */
enum { INET_OPEN, INET_CWR, INET_RECOVERY, INET_LOSS };

enum { INET_FRTO_OFF, INET_FRTO_SENT, INET_FRTO_NEW };

struct inet_tcp {
    struct inet_entry entry; /* in inet.flows */
    struct inet_tuple tuple;
    struct inet_socket socket;

    /* sending (RFC 9293, 3.3.1) */
    struct inet_queue tx;
    const struct inet_chunk *cursor; /* where snd_nxt was last; NULL: at the start */
    uint32_t cursor_seq;             /* sequence number of its first byte */
    uint32_t tx_seq; /* sequence number of the queue's first byte; behind it all, of the FIN */
    uint32_t snd_una;
    uint32_t snd_nxt;
    uint32_t snd_max; /* snd_nxt, or beyond it a byte that probed a closed window */
    uint32_t iss;
    uint32_t snd_wnd;
    uint32_t snd_wl1;
    uint32_t snd_wl2;
    uint32_t max_wnd; /* largest window the peer ever offered */
    uint8_t snd_shift;
    uint8_t rcv_shift;
    uint8_t backoff; /* of the retransmission timeout, doublings */
    uint8_t retries; /* timeouts without any progress */
    uint8_t probes;  /* of a closed window in a row */
    uint8_t asked;   /* keep-alive probes without an answer */
    uint8_t waiting; /* INET_WAIT_* */
    uint8_t phase;   /* INET_OPEN ... */
    uint8_t frto;    /* INET_FRTO_* */

    bool fin_queued : 1;
    bool fin_sent : 1;
    bool fin_received : 1; /* in order */
    bool fin_ahead : 1;    /* at fin_seq, the stream has not got there yet */
    bool ack_now : 1;
    bool want_write : 1; /* send() found no space: WRITABLE is owed */
    bool nagle : 1;
    bool cork : 1;
    bool timestamps : 1;
    bool sack : 1;
    bool scaled : 1;
    bool ecn : 1;
    bool ecn_echo : 1;    /* ECE until the peer says CWR */
    bool ecn_cwr : 1;     /* CWR on the next new data */
    bool limited : 1;     /* the congestion window held data back */
    bool probing : 1;     /* a tail loss probe is out, up to probe_end */
    bool probe_again : 1; /* ... and it was a retransmission */
    bool undoable : 1;
    bool again : 1; /* something was retransmitted in this episode, first at again_us */
    bool syn_due : 1;
    bool proven : 1; /* a full segment got through: the path carries them */
    bool cookie : 1; /* made from a SYN cookie */
    bool ts_recent_valid : 1;

    struct inet_flow flow;
    struct inet_rtt rtt;
    struct inet_board board;
    struct inet_rack rack;
    struct inet_prr prr;
    uint32_t recover; /* the episode ends when this is acknowledged */
    uint32_t undo_cwnd;
    uint32_t undo_ssthresh;
    uint32_t undo_bytes; /* retransmitted in this episode and not reported as duplicate */
    uint32_t again_us;
    uint32_t probe_end;
    uint32_t dupacks;  /* bytes they stand for; only without SACK */
    uint64_t base_ns;  /* the retransmission timeout counts from here */
    uint32_t stuck_ms; /* since then no progress, while retries != 0 */
    uint32_t sent_us;  /* last data, or the SYN */
    uint32_t retransmits;

    /* receiving */
    struct inet_queue rx;
    struct inet_assembly ahead;
    uint32_t irs;
    uint32_t rcv_nxt;
    uint32_t rcv_adv;   /* right edge of the window as advertised; never goes back */
    uint32_t acked;     /* last acknowledgment number sent */
    uint32_t rcv_limit; /* bytes to hold; grows with the reader's speed */
    uint32_t copied;    /* to the reader since copied_us */
    uint32_t copied_us;
    uint32_t fin_seq;
    uint32_t ts_offset;
    uint32_t ts_recent;
    uint32_t ts_recent_ms;
    struct inet_range duplicate; /* to report (RFC 2883); empty: none */
    uint16_t rcv_mss;            /* size of full segments, as seen */
    uint8_t quick;               /* acknowledgments to send at once */
    uint8_t challenges;          /* sent in the running second */
    uint32_t challenge_ms;
    uint32_t heard_ms; /* last segment of the peer */
    uint32_t keepalive_ms;
    uint32_t patience_ms; /* user timeout */

    struct inet_listener *listener; /* while not accepted */
    struct kit_list listener_link;  /* in half or full; later in inet.held or inet.dead */
    struct kit_list output_link;    /* in inet.output */
    uint64_t timers[INET_TIMERS];   /* KIT_NEVER: off */
    uint64_t heap_deadline;         /* <= the earliest timer */
    uint32_t heap_position;         /* 1 ...; 0: not in the heap */
    int32_t error;
};

/* What is left of a connection in TIME-WAIT. */
struct inet_time_wait {
    struct inet_entry entry; /* in inet.flows */
    struct inet_tuple tuple;
    struct kit_list link; /* in inet.time_waits, oldest first */
    uint64_t deadline_ns;
    uint32_t snd_nxt;
    uint32_t rcv_nxt;
    uint32_t ts_offset;
    uint32_t ts_recent;
    uint16_t window;
    bool timestamps;
};

struct inet_tcp_options {
    uint16_t mss;  /* 0: not given */
    uint8_t scale; /* 0xff: not given */
    uint8_t block_count;
    bool sack; /* permitted */
    bool timestamps;
    uint32_t ts_value;
    uint32_t ts_echo;
    struct inet_range blocks[INET_SACK_BLOCKS];
};

/* One segment that came in, header checked. */
struct inet_segment {
    struct inet_tuple tuple;
    uint32_t hash;
    uint32_t seq;
    uint32_t ack;
    uint32_t window; /* unscaled at first */
    uint16_t flags;
    bool congested; /* a router marked it */
    const uint8_t *data;
    uint32_t length; /* of data */
    struct inet_tcp_options options;
};

#endif
