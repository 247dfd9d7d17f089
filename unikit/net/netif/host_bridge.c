/* SPDX-License-Identifier: MIT */
/* The bridge: two lanes, each with one batch of frames in flight. A lane first delivers what it
 * holds and only then fetches more, so a full receiver slows its sender down instead of losing
 * frames. Between frames it polls for a bounded, adapting time, then sleeps in ppoll() until a
 * descriptor is readable, a held frame may be retried, or an interface's own timer is due. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* ppoll */
#endif
#include <unikit/net/netif/host_bridge.h>

#include <poll.h>
#include <stdlib.h>
#include <time.h>

enum { BATCH = 64, ROUNDS_UNCHECKED = 64 };
static const uint64_t RETRY_NS = 500 * KIT_NS_PER_US; /* a full side that cannot say POLLOUT */
static const uint64_t SPIN_MIN_NS = 2 * KIT_NS_PER_US;

struct lane {
    struct kit_host_netif *from;
    struct kit_host_netif *to;
    struct kit_bridge_direction *count;
    struct kit_frame frames[BATCH];
    uint8_t *buffer;
    size_t first; /* frames[first ... last) are held */
    size_t last;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * KIT_NS_PER_S + (uint64_t)t.tv_nsec;
}

static int lane_open(struct lane *lane, struct kit_host_netif *from, struct kit_host_netif *to,
                     struct kit_bridge_direction *count)
{
    size_t capacity = (size_t)from->network.mtu + KIT_NETIF_HEADER;
    *lane = (struct lane){.from = from, .to = to, .count = count};
    lane->buffer = malloc(capacity * BATCH);
    if (!lane->buffer)
        return KIT_ENOMEM;
    for (size_t i = 0; i < BATCH; i++)
        lane->frames[i] =
            (struct kit_frame){.data = lane->buffer + i * capacity, .capacity = (uint32_t)capacity};
    return 0;
}

/* Delivers held frames; 0 or what ended the receiving side. */
static int lane_deliver(struct lane *lane)
{
    while (lane->first < lane->last) {
        size_t held = lane->last - lane->first;
        int sent = kit_netif_send_batch(&lane->to->network, &lane->frames[lane->first], held);
        if (sent == KIT_EAGAIN || sent == 0) {
            lane->count->held++;
            return 0;
        }
        if (sent == KIT_ECLOSED)
            return sent;
        if (sent < 0) { /* this one frame is not wanted; the next may be */
            lane->count->dropped++;
            lane->first++;
            continue;
        }
        for (int i = 0; i < sent; i++)
            lane->count->bytes += lane->frames[lane->first++].length;
        lane->count->frames += (uint64_t)sent;
    }
    return 0;
}

/* One round; 1: moved something, 0: nothing to do, or why the lane ended. */
static int lane_run(struct lane *lane)
{
    bool moved = lane->first < lane->last;
    if (!moved) {
        int got = kit_netif_receive_batch(&lane->from->network, lane->frames, BATCH);
        if (got <= 0)
            return got == KIT_EMSGSIZE ? 1 : got;
        lane->first = 0;
        lane->last = (size_t)got;
    }
    size_t before = lane->first;
    int rc = lane_deliver(lane);
    return rc < 0 ? rc : !moved || lane->first != before;
}

static bool lane_held(const struct lane *lane)
{
    return lane->first < lane->last;
}

/* When the lane's source wants to be asked; not while what it gave last is still held. */
static uint64_t lane_deadline(const struct lane *lane)
{
    struct kit_host_netif *from = lane->from;
    return !lane_held(lane) && from->deadline_ns ? from->deadline_ns(from) : KIT_NEVER;
}

/* How long to poll before the next sleep, given whether polling this long paid (would have paid).
 */
static uint64_t adapted(uint64_t spin, uint64_t longest, bool paid)
{
    if (paid)
        return spin * 2 < longest ? spin * 2 : longest;
    return spin / 2 >= SPIN_MIN_NS ? spin / 2 : spin;
}

/* Sleeps (or looks, with `wait` false) until something may be done; whether to stop. */
static bool bridge_sleep(struct kit_bridge *bridge, const struct lane *ab, const struct lane *ba,
                         bool wait)
{
    struct pollfd fds[3] = {{.fd = ab->from->fd}, {.fd = ba->from->fd}, {.fd = bridge->stop_fd}};
    uint64_t deadline = lane_deadline(ab), other = lane_deadline(ba);
    if (other < deadline)
        deadline = other;
    fds[0].events = (short)((lane_held(ab) ? 0 : POLLIN) | (lane_held(ba) ? POLLOUT : 0));
    fds[1].events = (short)((lane_held(ba) ? 0 : POLLIN) | (lane_held(ab) ? POLLOUT : 0));
    fds[2].events = POLLIN;
    uint64_t left = 0;
    if (wait) {
        uint64_t now = now_ns();
        left = deadline > now ? deadline - now : 0;
        if ((lane_held(ab) || lane_held(ba)) && left > RETRY_NS)
            left = RETRY_NS;
        bridge->sleeps++;
    }
    struct timespec timeout = {.tv_sec = (time_t)(left / KIT_NS_PER_S),
                               .tv_nsec = (long)(left % KIT_NS_PER_S)};
    ppoll(fds, 3, wait && left > KIT_NEVER / 2 ? NULL : &timeout, NULL);
    return fds[2].revents != 0;
}

static int bridge_run(struct kit_bridge *bridge, struct lane *ab, struct lane *ba)
{
    const uint64_t longest = bridge->spin_ns;
    uint64_t spin = longest, idle_since = 0;
    unsigned rounds = 0;
    while (!__atomic_load_n(&bridge->stop, __ATOMIC_RELAXED)) {
        int there = lane_run(ab);
        int back = there < 0 ? 0 : lane_run(ba);
        if (there < 0 || back < 0)
            return there < 0 ? there : back;
        if (there || back) {
            if (idle_since)
                spin = adapted(spin, longest, true);
            idle_since = 0;
            if (++rounds % ROUNDS_UNCHECKED == 0 && bridge_sleep(bridge, ab, ba, false))
                return 0;
            continue;
        }
        uint64_t now = now_ns();
        if (!idle_since)
            idle_since = now;
        if (now - idle_since < spin)
            continue;
        idle_since = 0;
        if (bridge_sleep(bridge, ab, ba, true))
            return 0;
        spin = adapted(spin, longest, now_ns() - now < longest);
    }
    return 0;
}

int kit_netif_bridge(struct kit_host_netif *a, struct kit_host_netif *b, struct kit_bridge *bridge)
{
    struct lane *lanes = malloc(2 * sizeof *lanes);
    if (!lanes)
        return KIT_ENOMEM;
    lanes[1].buffer = NULL;
    int rc = lane_open(&lanes[0], a, b, &bridge->ab);
    if (!rc)
        rc = lane_open(&lanes[1], b, a, &bridge->ba);
    if (!rc)
        rc = bridge_run(bridge, &lanes[0], &lanes[1]);
    free(lanes[0].buffer);
    free(lanes[1].buffer);
    free(lanes);
    return rc;
}
