/* SPDX-License-Identifier: MIT */
/* Round trip times, slow start, Reno, proportional rate reduction. */
#include <unikit/net/inet/flow.h>

enum { RTT_MAX_US = 60000000, SLOW_START_BURST = 8 };

static uint32_t flow_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t flow_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* RFC 6298, section 2, with the weights of RFC 7323, section 4.2. */
void inet_rtt_sample(struct inet_rtt *r, uint32_t rtt_us, uint32_t samples)
{
    uint32_t rtt = flow_min(flow_max(rtt_us, 1), RTT_MAX_US) * 16;
    if (r->smooth == 0) {
        r->smooth = rtt;
        r->variation = rtt / 2;
        return;
    }
    int64_t error = (int64_t)rtt - r->smooth, size = error < 0 ? -error : error;
    r->variation = (uint32_t)(r->variation + (size - (int64_t)r->variation) / (4 * samples));
    r->smooth = (uint32_t)flow_max((uint32_t)(r->smooth + error / (8 * (int64_t)samples)), 1);
}

uint32_t inet_rtt_timeout_us(const struct inet_rtt *r, uint32_t least_us)
{
    if (r->smooth == 0)
        return 1000000; /* RFC 6298, 2.1 */
    uint64_t timeout = r->smooth / 16 + (uint64_t)flow_max(r->variation / 4, least_us);
    return timeout > RTT_MAX_US ? RTT_MAX_US : (uint32_t)timeout;
}

uint32_t inet_flow_initial(uint32_t mss)
{
    return flow_min(10 * mss, flow_max(2 * mss, 14600));
}

void inet_flow_grow(struct inet_flow *f, const struct inet_congestion *congestion, uint32_t acked,
                    uint32_t now_ms, uint32_t srtt_us)
{
    if (f->cwnd < f->ssthresh) { /* RFC 5681, 3.1; one ACK may stand for several, not for many */
        uint32_t step = flow_min(flow_min(acked, SLOW_START_BURST * f->mss), f->ssthresh - f->cwnd);
        f->cwnd += step;
        acked -= step;
        if (f->cwnd < f->ssthresh || acked == 0)
            return;
    }
    congestion->avoid(f, acked, now_ms, srtt_us);
}

/* RFC 6937, section 3. */
uint32_t inet_prr_allow(struct inet_prr *p, uint32_t pipe, uint32_t ssthresh, uint32_t mss,
                        uint32_t delivered, bool safe)
{
    uint64_t allowed;
    p->delivered += delivered;
    if (pipe > ssthresh) {
        uint64_t share = (uint64_t)p->delivered * ssthresh;
        uint32_t flight = flow_max(p->flight, 1);
        allowed = (share + flight - 1) / flight;
        return allowed > p->out ? (uint32_t)(allowed - p->out) : 0;
    }
    uint32_t owed = p->delivered > p->out ? p->delivered - p->out : 0;
    if (safe) /* the slow start reduction bound, else the conservative one */
        owed = flow_max(owed, delivered) + mss;
    return flow_min(ssthresh - pipe, owed);
}

/* ---- NewReno ---- */

static void reno_reset(struct inet_flow *f)
{
    f->counted = 0;
}

/* RFC 5681, 3.1, counting bytes (RFC 3465). */
static void reno_avoid(struct inet_flow *f, uint32_t acked, uint32_t now_ms, uint32_t srtt_us)
{
    (void)now_ms, (void)srtt_us;
    f->counted += acked;
    while (f->counted >= f->cwnd) {
        f->counted -= f->cwnd;
        f->cwnd += f->mss;
    }
}

static uint32_t reno_reduce(struct inet_flow *f, uint32_t flight)
{
    f->counted = 0;
    return flow_max(flight / 2, 2 * f->mss);
}

static const struct inet_congestion reno = {.name = "newreno",
                                            .reset = reno_reset,
                                            .avoid = reno_avoid,
                                            .reduce = reno_reduce,
                                            .undo = reno_reset,
                                            .idle = reno_reset};

extern const struct inet_congestion inet_cubic_congestion;
const struct inet_congestion *const inet_congestions[2] = {&inet_cubic_congestion, &reno};
