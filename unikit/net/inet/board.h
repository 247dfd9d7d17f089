/* SPDX-License-Identifier: MIT */
/* The sender's scoreboard: what is in flight, when it was sent, and what became of it. With it
 * goes RACK (RFC 8985), which tells by time what was lost. Times are microseconds modulo 2^32. */
#ifndef KIT_NET_INET_BOARD_H
#define KIT_NET_INET_BOARD_H

#include <unikit/net/inet/assembly.h>

enum {
    INET_SENT_SACKED = 1, /* the peer has it */
    INET_SENT_LOST = 2,   /* to be sent again, or sent again already */
    INET_SENT_OUT = 4,    /* a retransmission is in flight */
    INET_SENT_AGAIN = 8,  /* was retransmitted at least once */
    INET_BOARD_INNER = 2
};

/* One transmission: a segment, or the segments of a super-frame. */
struct inet_sent {
    uint32_t start;
    uint32_t end;
    uint32_t sent_us; /* last transmission */
    uint32_t flags;
};

struct inet_board {
    struct inet_sent *records; /* a ring, in order, without gaps; `inner` or allocated */
    uint32_t head;
    uint32_t count;
    uint32_t capacity; /* a power of two */
    uint32_t sacked;   /* bytes with SACKED */
    uint32_t lost;     /* bytes with LOST */
    uint32_t out;      /* bytes with OUT */
    struct inet_sent inner[INET_BOARD_INNER];
};

struct inet_rack {
    uint32_t sent_us; /* of the segment sent last among those delivered */
    uint32_t end;
    uint32_t rtt_us;
    uint32_t fack;       /* highest sequence number delivered */
    uint32_t min_rtt_us; /* of this and the period before; 0: unknown */
    uint32_t period_min_us;
    uint32_t period_us; /* when the running period began */
    uint32_t round;     /* the round that widened the window last ended here */
    uint8_t width;      /* of the window, quarters of the minimal round trip */
    uint8_t patience;   /* recoveries until it is narrow again */
    bool valid;
    bool reordered; /* the network was seen to reorder */
};

/* What one acknowledgment says, collected while it is taken in. */
struct inet_delivery {
    uint32_t now_us;
    uint32_t echo_us;  /* when the segment was sent that caused it, by timestamp ... */
    uint32_t slack_us; /* ... with this uncertainty; 0: no timestamps */
    uint32_t acked;    /* bytes, cumulatively, not selectively acknowledged before */
    uint32_t sacked;   /* bytes, newly selectively acknowledged */
    uint32_t rtt_us;   /* of the oldest segment delivered that was sent once; 0: none */
    uint32_t largest;  /* bytes of the longest transmission delivered */
    uint32_t limit;    /* sequence number up to which ... */
    uint32_t original; /* ... bytes count that were sent once and delivered now */
};

void inet_board_open(struct inet_board *b);
void inet_board_clear(struct inet_memory *memory, struct inet_board *b);
/* Notes what was just sent behind all the rest. False: memory is out, nothing changed. */
bool inet_board_push(struct inet_memory *memory, struct inet_board *b, uint32_t start, uint32_t end,
                     uint32_t now_us);
/* Whether push will succeed. */
bool inet_board_reserve(struct inet_memory *memory, struct inet_board *b);
/* Everything below `una` has arrived. */
void inet_board_ack(struct inet_memory *memory, struct inet_board *b, struct inet_rack *rack,
                    uint32_t una, struct inet_delivery *d);
/* A block that the peer says it has. */
void inet_board_sack(struct inet_memory *memory, struct inet_board *b, struct inet_rack *rack,
                     uint32_t start, uint32_t end, struct inet_delivery *d);
/* The n-th record in flight. */
struct inet_sent *inet_board_at(struct inet_board *b, uint32_t index);
/* The first record that is lost and not sent again; NULL: none. *index: where. */
struct inet_sent *inet_board_next_lost(struct inet_board *b, uint32_t *index);
/* Splits a record, so that the first part has `length` bytes; false: memory is out. */
bool inet_board_split(struct inet_memory *memory, struct inet_board *b, uint32_t index,
                      uint32_t length);
void inet_board_mark_lost(struct inet_board *b, struct inet_sent *s);
void inet_board_mark_sent(struct inet_board *b, struct inet_sent *s, uint32_t now_us);
/* After a timeout (RFC 8985, section 6.3): the first record is lost, and all sent `age_us` ago. If
 * the peer has taken back what it said (RFC 2018, section 8) its blocks are forgotten. */
void inet_board_timeout(struct inet_board *b, uint32_t now_us, uint32_t age_us);
/* No record is lost: the retransmission was a mistake. */
void inet_board_undo(struct inet_board *b);
bool inet_board_sound(const struct inet_board *b, uint32_t una, uint32_t nxt);

void inet_rack_delivered(struct inet_rack *r, const struct inet_sent *s,
                         const struct inet_delivery *d);
void inet_rack_round_trip(struct inet_rack *r, uint32_t rtt_us, uint32_t now_us);
/* Marks what is lost by now; bytes newly marked in *lost. After how many microseconds to look
 * again; 0: no need. */
uint32_t inet_rack_detect(struct inet_rack *r, struct inet_board *b, uint32_t now_us,
                          uint32_t window_us, uint32_t *lost);
/* The reordering window (RFC 8985, section 6.2, step 4). */
uint32_t inet_rack_window(const struct inet_rack *r, uint32_t srtt_us, bool recovering,
                          bool threshold);
/* A segment was reported twice: wait longer before calling one lost. */
void inet_rack_duplicate(struct inet_rack *r, uint32_t una, uint32_t nxt);
void inet_rack_recovered(struct inet_rack *r);

/* Bytes in flight by RFC 6675's estimate. */
KIT_INLINE uint32_t inet_board_pipe(const struct inet_board *b, uint32_t flight)
{
    return flight - b->sacked - b->lost + b->out;
}

KIT_INLINE uint32_t inet_sent_length(const struct inet_sent *s)
{
    return s->end - s->start;
}

/* Whether the first transmission was later than the second (RFC 8985, section 6.2). */
KIT_INLINE bool inet_sent_after(uint32_t sent1, uint32_t end1, uint32_t sent2, uint32_t end2)
{
    return kit_seq_lt(sent2, sent1) || (sent1 == sent2 && kit_seq_lt(end2, end1));
}

#endif
