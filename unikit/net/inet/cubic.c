/* SPDX-License-Identifier: MIT */
/* CUBIC (RFC 9438) in integers: windows in bytes, time in milliseconds, C = 0.4, beta = 0.7.
 *
 * W(t) = C (t - K)^3 + w_max segments. With t in milliseconds and W in bytes that is
 * 4 mss (t - K)^3 / 10^10, which fits 64 bits for 100 s to both sides of K. */
#include <unikit/net/inet/flow.h>

extern const struct inet_congestion inet_cubic_congestion;

enum { CUBIC_SPAN_MS = 100000, CUBIC_WINDOW_MAX = 1 << 30 };

uint32_t inet_cubic_root(uint64_t value)
{
    uint64_t root = 0;
    for (int bit = 20; bit >= 0; bit--) { /* 2^63 has a root of 21 bits */
        uint64_t next = root | UINT64_C(1) << bit;
        if (next * next * next <= value)
            root = next;
    }
    return (uint32_t)root;
}

uint32_t inet_cubic_window(const struct inet_cubic *c, uint32_t mss, uint32_t t_ms)
{
    int64_t t = (int64_t)t_ms - c->k_ms;
    t = t > CUBIC_SPAN_MS ? CUBIC_SPAN_MS : t < -CUBIC_SPAN_MS ? -CUBIC_SPAN_MS : t;
    int64_t offset = t * t * t / 1000 * (4 * (int64_t)mss) / 10000000;
    int64_t window = (int64_t)c->w_max + offset;
    return window < 0 ? 0 : window > CUBIC_WINDOW_MAX ? CUBIC_WINDOW_MAX : (uint32_t)window;
}

static void cubic_reset(struct inet_flow *f)
{
    f->cubic = (struct inet_cubic){0};
}

/* Section 4.2. */
static void cubic_begin(struct inet_flow *f, uint32_t now_ms)
{
    struct inet_cubic *c = &f->cubic;
    c->running = true;
    c->epoch_ms = now_ms;
    c->estimate = f->cwnd;
    c->rest = c->estimate_rest = 0;
    c->k_ms = 0;
    if (c->w_max < f->cwnd) /* no reduction yet, or grown beyond it in slow start */
        c->w_max = f->cwnd;
    else
        c->k_ms = inet_cubic_root((uint64_t)(c->w_max - f->cwnd) * UINT64_C(2500000000) / f->mss);
}

/* Section 4.3: what Reno with the same average window would have. */
static void cubic_estimate(struct inet_flow *f, uint32_t acked)
{
    struct inet_cubic *c = &f->cubic;
    uint64_t gain = (uint64_t)acked * f->mss + c->estimate_rest;
    if (c->estimate < c->prior)
        gain = (uint64_t)acked * f->mss * 9 / 17 + c->estimate_rest; /* 3 (1 - beta) / (1 + beta) */
    c->estimate += (uint32_t)(gain / f->cwnd);
    c->estimate_rest = (uint32_t)(gain % f->cwnd);
    if (c->estimate > CUBIC_WINDOW_MAX)
        c->estimate = CUBIC_WINDOW_MAX;
}

/* Sections 4.4 and 4.5. */
static void cubic_avoid(struct inet_flow *f, uint32_t acked, uint32_t now_ms, uint32_t srtt_us)
{
    struct inet_cubic *c = &f->cubic;
    if (!c->running)
        cubic_begin(f, now_ms);
    uint32_t t = now_ms - c->epoch_ms;
    cubic_estimate(f, acked);
    if (inet_cubic_window(c, f->mss, t) < c->estimate) {
        if (f->cwnd < c->estimate)
            f->cwnd = c->estimate;
        return;
    }
    uint32_t target = inet_cubic_window(c, f->mss, t + srtt_us / 1000);
    if (target > f->cwnd + f->cwnd / 2)
        target = f->cwnd + f->cwnd / 2;
    if (target <= f->cwnd)
        return;
    uint64_t gain = (uint64_t)(target - f->cwnd) * acked + c->rest;
    c->rest = (uint32_t)(gain % f->cwnd);
    f->cwnd += (uint32_t)(gain / f->cwnd);
}

/* Sections 4.6 and 4.7. */
static uint32_t cubic_reduce(struct inet_flow *f, uint32_t flight)
{
    struct inet_cubic *c = &f->cubic;
    (void)flight;
    c->running = false;
    c->prior = f->cwnd;
    c->w_max = f->cwnd < c->w_max ? (uint32_t)((uint64_t)f->cwnd * 17 / 20) : f->cwnd;
    uint32_t least = 2 * f->mss, threshold = (uint32_t)((uint64_t)f->cwnd * 7 / 10);
    return threshold < least ? least : threshold;
}

/* Section 4.9: the old curve is gone; begin one at the window as it was. */
static void cubic_undo(struct inet_flow *f)
{
    f->cubic.running = false;
    if (f->cubic.w_max < f->cubic.prior)
        f->cubic.w_max = f->cubic.prior;
}

/* Section 5.8: time without sending does not count. */
static void cubic_idle(struct inet_flow *f)
{
    f->cubic.running = false;
}

const struct inet_congestion inet_cubic_congestion = {.name = "cubic",
                                                      .reset = cubic_reset,
                                                      .avoid = cubic_avoid,
                                                      .reduce = cubic_reduce,
                                                      .undo = cubic_undo,
                                                      .idle = cubic_idle};
