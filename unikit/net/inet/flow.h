/* SPDX-License-Identifier: MIT */
/* How much may be in flight: round trip times (RFC 6298), the congestion window and who steers it
 * (RFC 5681, 9438), and its reduction in proportion (RFC 6937). All of it is arithmetic on what it
 * is given: no clock, no memory, no connection. */
#ifndef KIT_NET_INET_FLOW_H
#define KIT_NET_INET_FLOW_H

#include <unikit/rt/types.h>

/* ---- round trip times: units of a sixteenth of a microsecond ---- */

struct inet_rtt {
    uint32_t smooth; /* 0: no sample yet */
    uint32_t variation;
};

/* `samples`: how many are expected per round trip, 1 or more (RFC 7323, section 4.2). */
void inet_rtt_sample(struct inet_rtt *r, uint32_t rtt_us, uint32_t samples);
/* The retransmission timeout without back-off. */
uint32_t inet_rtt_timeout_us(const struct inet_rtt *r, uint32_t least_us);

KIT_INLINE uint32_t inet_rtt_us(const struct inet_rtt *r)
{
    return r->smooth / 16;
}

/* ---- the congestion window ---- */

struct inet_cubic {
    uint32_t w_max;    /* window at the last reduction, after fast convergence */
    uint32_t prior;    /* window before the last reduction */
    uint32_t k_ms;     /* from the start of the epoch to w_max */
    uint32_t epoch_ms; /* when the running epoch began ... */
    uint32_t estimate; /* what Reno would have */
    uint32_t rest;     /* of bytes not yet added to the window, and to the estimate */
    uint32_t estimate_rest;
    bool running; /* ... if one runs */
};

struct inet_flow {
    uint32_t cwnd;
    uint32_t ssthresh;
    uint32_t mss;
    union {
        struct inet_cubic cubic;
        uint32_t counted; /* Reno: bytes acknowledged towards the next segment */
    };
};

struct inet_congestion {
    const char *name;
    /* A connection begins, or a timeout ended what was known. */
    void (*reset)(struct inet_flow *f);
    /* Congestion avoidance: `acked` bytes arrived while the window was the limit. */
    void (*avoid)(struct inet_flow *f, uint32_t acked, uint32_t now_ms, uint32_t srtt_us);
    /* The network is congested, `flight` bytes are in it: the slow start threshold to set. */
    uint32_t (*reduce)(struct inet_flow *f, uint32_t flight);
    /* That was a mistake, and the window is as it was. */
    void (*undo)(struct inet_flow *f);
    /* Nothing was sent for a while. */
    void (*idle)(struct inet_flow *f);
};

extern const struct inet_congestion *const inet_congestions[2]; /* in the option's order */

/* `acked` bytes arrived while the window was the limit: slow start, then avoidance. */
void inet_flow_grow(struct inet_flow *f, const struct inet_congestion *congestion, uint32_t acked,
                    uint32_t now_ms, uint32_t srtt_us);
/* The initial window (RFC 6928). */
uint32_t inet_flow_initial(uint32_t mss);

uint32_t inet_cubic_root(uint64_t value);
/* The window of an epoch that began `t_ms` ago. */
uint32_t inet_cubic_window(const struct inet_cubic *c, uint32_t mss, uint32_t t_ms);

/* ---- proportional rate reduction ---- */

struct inet_prr {
    uint32_t flight; /* RecoverFS */
    uint32_t delivered;
    uint32_t out;
};

/* Bytes that may be sent after an acknowledgment that delivered `delivered` more, with `pipe` bytes
 * in flight. `safe`: it moved the window and found no further loss. */
uint32_t inet_prr_allow(struct inet_prr *p, uint32_t pipe, uint32_t ssthresh, uint32_t mss,
                        uint32_t delivered, bool safe);

#endif
