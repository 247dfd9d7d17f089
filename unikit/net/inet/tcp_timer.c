/* SPDX-License-Identifier: MIT */
/* What happens when a connection's timer runs out. */
#include <unikit/net/inet/calls.h>

enum { KEEPALIVE_PROBES = 9, KEEPALIVE_STEP_MS = 75000, BACKOFF_MAX = 10 };

INET_COLD static void timer_give_up(struct inet *m, struct inet_tcp *t)
{
    if (t->socket.state >= KIT_TCP_ESTABLISHED)
        inet_tcp_send_reset(m, t);
    inet_tcp_end(m, t, KIT_ETIMEDOUT);
}

/* One more without an answer. Whether it was one too many (RFC 9293, 3.8.3). */
INET_COLD static bool timer_is_over(struct inet *m, struct inet_tcp *t)
{
    if (t->retries == 0)
        t->stuck_ms = m->now_ms - (uint32_t)(inet_tcp_rto_ns(t) / KIT_NS_PER_MS);
    if (t->retries != 0 && m->now_ms - t->stuck_ms >= t->patience_ms)
        return true;
    if (t->retries < UINT8_MAX)
        t->retries++;
    if (t->backoff < BACKOFF_MAX)
        t->backoff++;
    return false;
}

INET_COLD static void timer_syn(struct inet *m, struct inet_tcp *t)
{
    if (t->retries >= INET_SYN_RETRIES) {
        timer_give_up(m, t);
        return;
    }
    t->retries++;
    t->backoff++;
    t->retransmits++;
    m->stats.retransmits++;
    t->ecn = t->ecn && t->socket.state == KIT_TCP_SYN_RECEIVED; /* RFC 3168, 6.1.1.1 */
    t->syn_due = true;
    inet_tcp_queue(m, t);
    t->base_ns = m->now_ns;
    inet_tcp_arm(m, t);
}

INET_COLD static void timer_retransmit(struct inet *m, struct inet_tcp *t)
{
    if (t->socket.state == KIT_TCP_SYN_SENT || t->socket.state == KIT_TCP_SYN_RECEIVED) {
        timer_syn(m, t);
        return;
    }
    uint8_t before = t->retries;
    if (timer_is_over(m, t)) {
        timer_give_up(m, t);
        return;
    }
    uint8_t after = t->retries;
    t->retries = before;
    inet_loss_timeout(m, t);
    t->retries = after;
    inet_tcp_arm(m, t);
}

INET_COLD static void timer_window(struct inet *m, struct inet_tcp *t)
{
    if (timer_is_over(m, t) || (t->socket.orphan && t->probes >= INET_ORPHAN_PROBES)) {
        timer_give_up(m, t);
        return;
    }
    if (t->probes < UINT8_MAX)
        t->probes++;
    t->waiting = INET_WAIT_WINDOW;
    inet_timer_set(m, t, INET_TIMER_SEND, m->now_ns + inet_tcp_rto_ns(t));
    inet_tcp_window_probe(m, t);
}

INET_COLD static void timer_probe(struct inet *m, struct inet_tcp *t)
{
    m->counts[INET_TAIL_PROBES]++;
    if (inet_tcp_tail_probe(m, t))
        t->base_ns = m->now_ns; /* RFC 8985, section 7.3 */
    t->waiting = INET_WAIT_RTO;
    inet_timer_set(m, t, INET_TIMER_SEND, t->base_ns + inet_tcp_rto_ns(t));
}

INET_COLD static void timer_cork(struct inet *m, struct inet_tcp *t)
{
    t->cork = false;
    if (!inet_tcp_output(m, t))
        inet_tcp_queue(m, t);
    t->cork = true;
}

static void timer_send(struct inet *m, struct inet_tcp *t)
{
    inet_timer_stop(t, INET_TIMER_SEND);
    switch (t->waiting) {
    case INET_WAIT_PROBE:
        timer_probe(m, t);
        break;
    case INET_WAIT_REORDER:
        inet_loss_reordered(m, t);
        break;
    case INET_WAIT_WINDOW:
        timer_window(m, t);
        break;
    case INET_WAIT_CORK:
        timer_cork(m, t);
        break;
    default:
        timer_retransmit(m, t);
    }
}

void inet_tcp_heard(struct inet *m, struct inet_tcp *t)
{
    t->heard_ms = m->now_ms;
    t->asked = 0;
    if (t->keepalive_ms != 0 && t->timers[INET_TIMER_LIFE] == KIT_NEVER)
        inet_timer_set(m, t, INET_TIMER_LIFE, m->now_ns + t->keepalive_ms * KIT_NS_PER_MS);
}

/* RFC 9293, 3.8.4. */
INET_COLD static void timer_life(struct inet *m, struct inet_tcp *t)
{
    inet_timer_stop(t, INET_TIMER_LIFE);
    if (t->socket.orphan && t->socket.state == KIT_TCP_FIN_WAIT_2) {
        inet_tcp_end(m, t, 0);
        return;
    }
    if (t->keepalive_ms == 0 || t->socket.state < KIT_TCP_ESTABLISHED)
        return;
    uint32_t quiet = m->now_ms - t->heard_ms, step = inet_min(t->keepalive_ms, KEEPALIVE_STEP_MS);
    if (quiet < t->keepalive_ms) {
        step = t->keepalive_ms - quiet;
    } else if (t->asked >= KEEPALIVE_PROBES) {
        timer_give_up(m, t);
        return;
    } else if (t->snd_una == t->snd_nxt && t->tx.length == 0) { /* else other timers ask */
        t->asked++;
        inet_tcp_keep_alive(m, t);
    }
    inet_timer_set(m, t, INET_TIMER_LIFE, m->now_ns + step * KIT_NS_PER_MS);
}

static void timer_fire(struct inet *m, struct inet_tcp *t)
{
    if (t->timers[INET_TIMER_ACK] <= m->now_ns) {
        inet_timer_stop(t, INET_TIMER_ACK);
        inet_tcp_ack_now(m, t);
    }
    if (t->timers[INET_TIMER_SEND] <= m->now_ns)
        timer_send(m, t);
    if (t->heap_position != 0 && t->timers[INET_TIMER_LIFE] <= m->now_ns)
        timer_life(m, t);
}

bool inet_tcp_timers(struct inet *m)
{
    struct inet_tcp *t;
    bool any = false;
    while ((t = inet_timer_next(m)) != NULL) {
        any = true;
        timer_fire(m, t);
        inet_reap(m);
    }
    return any;
}
