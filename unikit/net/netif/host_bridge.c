/* SPDX-License-Identifier: MIT */
/* The bridge: two lanes, each with one batch of frames in flight. A lane first delivers what it
 * holds and only then fetches more, so a full receiver slows its sender down instead of losing
 * frames. One ppoll() tells what may be done: a descriptor is readable, a held frame may be tried
 * again, an interface's own timer is due; only that is done, so no call is made in vain. Before it
 * sleeps the bridge may poll for a bounded, adapting time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* ppoll */
#endif
#include <unikit/net/netif/host_bridge.h>

#include <poll.h>
#include <stdlib.h>
#include <time.h>

enum { BATCH = 64, LANES = 2 };
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
    bool ready; /* the source's descriptor has something */
    bool more;  /* the source had a full batch, and perhaps has more */
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

static bool lane_held(const struct lane *lane)
{
    return lane->first < lane->last;
}

/* Delivers held frames; 0 or what ended the receiving side. */
static int lane_deliver(struct lane *lane)
{
    while (lane_held(lane)) {
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

/* Delivers what is held, else fetches a batch and delivers that. 0 or why the lane ended. */
static int lane_run(struct lane *lane)
{
    if (!lane_held(lane)) {
        int got = kit_netif_receive_batch(&lane->from->network, lane->frames, BATCH);
        lane->more = got == BATCH || got == KIT_EMSGSIZE;
        if (got <= 0)
            return got == KIT_EMSGSIZE ? 0 : got;
        lane->first = 0;
        lane->last = (size_t)got;
    }
    return lane_deliver(lane);
}

/* When the lane's source wants to be asked without a word of its descriptor; not while what it gave
 * last is still held. */
static uint64_t lane_deadline(const struct lane *lane)
{
    struct kit_host_netif *from = lane->from;
    if (lane_held(lane))
        return KIT_NEVER;
    if (lane->more)
        return 0;
    return from->deadline_ns ? from->deadline_ns(from) : KIT_NEVER;
}

/* How long to poll before the next sleep, given whether polling this long paid (would have paid).
 */
static uint64_t adapted(uint64_t spin, uint64_t longest, bool paid)
{
    if (paid)
        return spin * 2 < longest ? spin * 2 : longest;
    return spin / 2 >= SPIN_MIN_NS ? spin / 2 : spin;
}

/* How long the bridge may sleep: until a source's timer, or until a full side is tried again. */
static uint64_t bridge_patience(const struct lane *lanes, uint64_t now)
{
    uint64_t patience = KIT_NEVER;
    for (size_t i = 0; i < LANES; i++) {
        uint64_t deadline = lane_deadline(&lanes[i]);
        uint64_t left = lane_held(&lanes[i]) ? RETRY_NS : deadline > now ? deadline - now : 0;
        if (deadline == KIT_NEVER && !lane_held(&lanes[i]))
            left = KIT_NEVER;
        patience = left < patience ? left : patience;
    }
    return patience;
}

/* Waits for the descriptors; whether one had news. Sets *stop when it is time to end. */
static bool bridge_wait(struct kit_bridge *bridge, struct lane *lanes, uint64_t patience,
                        bool *stop)
{
    struct pollfd fds[LANES + 1];
    for (size_t i = 0; i < LANES; i++) {
        int events = (lane_held(&lanes[i]) ? 0 : POLLIN) | (lane_held(&lanes[!i]) ? POLLOUT : 0);
        fds[i] = (struct pollfd){.fd = lanes[i].from->fd, .events = (short)events};
    }
    fds[LANES] = (struct pollfd){.fd = bridge->stop_fd, .events = POLLIN};
    const struct timespec timeout = {.tv_sec = (time_t)(patience / KIT_NS_PER_S),
                                     .tv_nsec = (long)(patience % KIT_NS_PER_S)};
    int ready = ppoll(fds, LANES + 1, patience == KIT_NEVER ? NULL : &timeout, NULL);
    for (size_t i = 0; i < LANES; i++)
        lanes[i].ready = ready > 0 && (fds[i].revents & ~POLLOUT) != 0;
    *stop =
        __atomic_load_n(&bridge->stop, __ATOMIC_RELAXED) || (ready > 0 && fds[LANES].revents != 0);
    return ready > 0;
}

/* Polls for a bounded time, then sleeps. */
static bool bridge_idle(struct kit_bridge *bridge, struct lane *lanes, uint64_t *spin)
{
    uint64_t start = now_ns(), now = start, patience = bridge_patience(lanes, start);
    bool stop = false;
    while (bridge->spin_ns && now - start < *spin && now - start < patience) {
        if (bridge_wait(bridge, lanes, 0, &stop) || stop) {
            *spin = adapted(*spin, bridge->spin_ns, true);
            return stop;
        }
        now = now_ns();
    }
    patience =
        patience == KIT_NEVER || patience <= now - start ? patience : patience - (now - start);
    bridge->sleeps += patience != 0;
    bridge_wait(bridge, lanes, patience, &stop);
    if (bridge->spin_ns)
        *spin = adapted(*spin, bridge->spin_ns, now_ns() - start < bridge->spin_ns);
    return stop;
}

static int bridge_run(struct kit_bridge *bridge, struct lane *lanes)
{
    uint64_t spin = bridge->spin_ns;
    while (!bridge_idle(bridge, lanes, &spin)) {
        uint64_t now = now_ns();
        for (size_t i = 0; i < LANES; i++) {
            if (!lanes[i].ready && !lane_held(&lanes[i]) && lane_deadline(&lanes[i]) > now)
                continue;
            int rc = lane_run(&lanes[i]);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

int kit_netif_bridge(struct kit_host_netif *a, struct kit_host_netif *b, struct kit_bridge *bridge)
{
    struct lane *lanes = calloc(LANES, sizeof *lanes);
    if (!lanes)
        return KIT_ENOMEM;
    int rc = lane_open(&lanes[0], a, b, &bridge->ab);
    if (!rc)
        rc = lane_open(&lanes[1], b, a, &bridge->ba);
    if (!rc)
        rc = bridge_run(bridge, lanes);
    free(lanes[0].buffer);
    free(lanes[1].buffer);
    free(lanes);
    return rc;
}
