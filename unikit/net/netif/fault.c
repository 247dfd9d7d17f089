/* SPDX-License-Identifier: MIT */
/* netif.fault: a layer that does to frames what bad networks do. Each direction has a lane:
 *
 *   frame -> loss -> queue of the bottleneck -> damage -> delay -> out
 *
 * Loss is independent per frame, or in bursts after Gilbert and Elliott: a chain with a good and a
 * bad state, each frame one step (E. O. Elliott, Bell System Technical Journal 42, 1963). The
 * bottleneck sends `rate` bits per second and holds `queue` frames; one more is dropped, and from
 * `mark` on those that may be are marked CE (RFC 3168, 5). Delay keeps the order, unless a frame is
 * picked to be held back for longer.
 *
 * Frames under way lie in a pool of `slots` per lane, sorted by when they leave. Inserting looks at
 * those behind the place only: O(1) unless frames overtake each other. What happens follows from
 * the seed and the environment's clock alone; every frame has random words of its own, so that one
 * rate changed leaves the luck of the others as it was.
 *
 * A frame that leaves is sent on by the next call on this end, so deadline_ns must be kept.
 * Offloaded frames are refused. Cost: one copy per frame and lane. */
#include <unikit/net/netif.h>
#include <unikit/net/wire/checksum.h>
#include <unikit/net/wire/ethernet.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/list.h>

extern const struct kit_netif_component kit_netif_fault;

/* The options in the record's order. */
enum {
    OPTION_SEED,
    OPTION_DIRECTION,
    OPTION_LOSS,
    OPTION_BURST_START,
    OPTION_BURST_END,
    OPTION_BURST_LOSS,
    OPTION_DUPLICATE,
    OPTION_REORDER,
    OPTION_HOLD,
    OPTION_CORRUPT,
    OPTION_TRUNCATE,
    OPTION_DELAY,
    OPTION_JITTER,
    OPTION_RATE,
    OPTION_QUEUE,
    OPTION_MARK,
    OPTION_SLOTS
};

enum { BOTH, OUT_ONLY, IN_ONLY };
enum { OUT, IN, LANES };
enum { FETCH = 4096 /* frames taken from below by one call */ };

/* The counters of a lane, in the record's order. */
enum {
    FRAMES,
    LOST,
    LOST_IN_BURSTS,
    OVERFLOWED, /* the bottleneck's queue was full */
    NO_SLOT,
    MARKED,
    CORRUPTED,
    TRUNCATED,
    DUPLICATED,
    REORDERED,
    COUNTERS
};

#define WORD_STEP UINT64_C(0x9e3779b97f4a7c15)
#define WORDS 32                       /* random words that a frame may draw */
#define RETRY_NS (100 * KIT_NS_PER_US) /* the interface below takes no more now */

struct fault_frame {
    struct kit_list link;
    uint64_t due_ns;
    uint32_t length;
    uint8_t *data;
};

struct lane {
    bool active;
    bool bad; /* state of the chain */
    uint64_t random;
    uint64_t busy_ns;     /* when the bottleneck has sent all that it took */
    uint64_t last_due_ns; /* of a frame that keeps the order */
    uint64_t *departures; /* of frames in the bottleneck's queue: a ring */
    uint32_t first;
    uint32_t queued;
    struct kit_list idle;
    struct kit_list waiting; /* by due_ns */
    uint8_t *spare;          /* where a frame goes for which there is no slot */
    uint64_t counters[COUNTERS];
};

struct fault {
    network_interface_t network;
    network_interface_t *inner;
    runtime_environment_t *env;
    uint64_t options[OPTION_SLOTS + 1];
    struct lane lanes[LANES];
    bool blocked; /* the interface below refused a frame */
};

static struct fault *fault_of(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct fault, network);
}

/* SplitMix64. */
static uint64_t fault_random(struct lane *lane)
{
    uint64_t z = lane->random += WORD_STEP;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Whether something of a chance given in 2^-32 happens to this frame. */
static bool fault_chance(struct lane *lane, uint64_t chance)
{
    return (fault_random(lane) >> 32) < chance;
}

/* A number in 0 ... limit. */
static uint64_t fault_below(struct lane *lane, uint64_t limit)
{
    uint64_t word = fault_random(lane);
    return limit == UINT64_MAX ? word : word % (limit + 1);
}

static bool fault_loses(const struct fault *f, struct lane *lane)
{
    bool alone = fault_chance(lane, f->options[OPTION_LOSS]);
    uint64_t turn = lane->bad ? f->options[OPTION_BURST_END] : f->options[OPTION_BURST_START];
    lane->bad ^= fault_chance(lane, turn);
    bool burst = fault_chance(lane, f->options[OPTION_BURST_LOSS]) && lane->bad;
    lane->counters[LOST] += alone;
    lane->counters[LOST_IN_BURSTS] += burst && !alone;
    return alone || burst;
}

/* Lets the bottleneck send `length` bytes. False: its queue is full. *full: frames before it. */
static bool fault_bottleneck(const struct fault *f, struct lane *lane, uint64_t now,
                             uint32_t length, uint64_t *departs, uint32_t *full)
{
    uint64_t rate = f->options[OPTION_RATE];
    uint32_t room = (uint32_t)f->options[OPTION_QUEUE];
    *departs = now;
    *full = 0;
    if (rate == 0)
        return true;
    while (lane->queued != 0 && lane->departures[lane->first] <= now) {
        lane->first = (lane->first + 1) % room;
        lane->queued--;
    }
    *full = lane->queued;
    if (lane->queued == room)
        return false;
    uint64_t start = lane->busy_ns > now ? lane->busy_ns : now;
    *departs = lane->busy_ns = start + (uint64_t)length * 8 * KIT_NS_PER_S / rate;
    lane->departures[(lane->first + lane->queued++) % room] = *departs;
    return true;
}

/* Marks a packet of an ECN-capable transport «congestion experienced»; whether it is one. */
static bool fault_mark(uint8_t *frame, uint32_t length)
{
    uint16_t type = kit_load16(frame + KIT_ETH_TYPE);
    uint8_t *ip = frame + KIT_NETIF_HEADER;
    if (type == KIT_ETH_IPV4 && length >= KIT_NETIF_HEADER + 20) {
        if ((ip[1] & 3) == 0)
            return false;
        uint32_t size = (uint32_t)(ip[0] & 15) * 4;
        if (size < 20 || length < KIT_NETIF_HEADER + size)
            return false;
        ip[1] |= 3;
        kit_store16(ip + 10, 0);
        kit_store16(ip + 10, kit_checksum_end(kit_checksum_add(0, ip, size)));
        return true;
    }
    if (type != 0x86dd || length < KIT_NETIF_HEADER + 40 || (ip[1] >> 4 & 3) == 0)
        return false;
    ip[1] |= 0x30;
    return true;
}

/* Flips a bit behind the Ethernet header, cuts the end off. */
static void fault_damage(const struct fault *f, struct lane *lane, struct fault_frame *frame)
{
    uint64_t where = fault_random(lane);
    uint64_t payload = frame->length - KIT_NETIF_HEADER;
    if (fault_chance(lane, f->options[OPTION_CORRUPT]) && payload != 0) {
        uint64_t bit = where % (payload * 8);
        frame->data[KIT_NETIF_HEADER + bit / 8] ^= (uint8_t)(1u << bit % 8);
        lane->counters[CORRUPTED]++;
    }
    if (fault_chance(lane, f->options[OPTION_TRUNCATE]) && payload != 0) {
        frame->length = KIT_NETIF_HEADER + (uint32_t)((where >> 32) % payload);
        lane->counters[TRUNCATED]++;
    }
}

static void fault_insert(struct lane *lane, struct fault_frame *frame)
{
    struct kit_list *at = lane->waiting.prev;
    while (at != &lane->waiting &&
           KIT_CONTAINER_OF(at, struct fault_frame, link)->due_ns > frame->due_ns)
        at = at->prev;
    kit_list_insert_after(at, &frame->link);
}

static struct fault_frame *fault_slot(struct lane *lane)
{
    struct kit_list *free = kit_list_pop_front(&lane->idle);
    return free != NULL ? KIT_CONTAINER_OF(free, struct fault_frame, link) : NULL;
}

/* When a frame that leaves the bottleneck at `departs` arrives. */
static uint64_t fault_due(const struct fault *f, struct lane *lane, uint64_t departs)
{
    uint64_t due = departs + f->options[OPTION_DELAY];
    due += fault_below(lane, f->options[OPTION_JITTER]);
    uint64_t late = 1 + fault_below(lane, f->options[OPTION_HOLD]);
    if (fault_chance(lane, f->options[OPTION_REORDER])) {
        lane->counters[REORDERED]++;
        return due + late;
    }
    if (due < lane->last_due_ns)
        due = lane->last_due_ns;
    return lane->last_due_ns = due;
}

static void fault_twice(const struct fault *f, struct lane *lane, const struct fault_frame *frame)
{
    if (!fault_chance(lane, f->options[OPTION_DUPLICATE]))
        return;
    struct fault_frame *copy = fault_slot(lane);
    if (copy == NULL)
        return;
    memcpy(copy->data, frame->data, frame->length);
    copy->length = frame->length;
    copy->due_ns = frame->due_ns;
    fault_insert(lane, copy);
    lane->counters[DUPLICATED]++;
}

/* Decides what becomes of a frame in a slot of the lane: under way, or its slot is free again. */
static void fault_take(struct fault *f, struct lane *lane, struct fault_frame *frame)
{
    uint64_t now = kit_env_now_ns(f->env), departs = now;
    uint32_t full = 0;
    uint64_t next = lane->random + WORDS * WORD_STEP;
    lane->counters[FRAMES]++;
    frame->due_ns = now;
    if (lane->active) {
        bool lost = fault_loses(f, lane);
        if (!lost && !fault_bottleneck(f, lane, now, frame->length, &departs, &full)) {
            lane->counters[OVERFLOWED]++;
            lost = true;
        }
        if (!lost && f->options[OPTION_MARK] != 0 && full >= f->options[OPTION_MARK])
            lane->counters[MARKED] += fault_mark(frame->data, frame->length);
        if (lost) {
            kit_list_push_front(&lane->idle, &frame->link);
            lane->random = next;
            return;
        }
        fault_damage(f, lane, frame);
        frame->due_ns = fault_due(f, lane, departs);
    }
    fault_insert(lane, frame);
    if (lane->active)
        fault_twice(f, lane, frame);
    lane->random = next;
}

/* The first frame whose time has come, or NULL. */
static struct fault_frame *fault_ready(const struct fault *f, const struct lane *lane)
{
    if (kit_list_empty(&lane->waiting))
        return NULL;
    struct fault_frame *frame = KIT_CONTAINER_OF(lane->waiting.next, struct fault_frame, link);
    return frame->due_ns <= kit_env_now_ns(f->env) ? frame : NULL;
}

static void fault_release(struct lane *lane, struct fault_frame *frame)
{
    kit_list_remove(&frame->link);
    kit_list_push_front(&lane->idle, &frame->link);
}

/* Hands on what leaves now. A frame that is refused for good is lost, as on a wire. */
static void fault_send_due(struct fault *f)
{
    struct lane *lane = &f->lanes[OUT];
    struct fault_frame *frame;
    f->blocked = false;
    while ((frame = fault_ready(f, lane)) != NULL) {
        if (kit_netif_send(f->inner, frame->data, frame->length) == KIT_EAGAIN) {
            f->blocked = true;
            return;
        }
        fault_release(lane, frame);
    }
}

/* Fetches what arrived below; what finds no slot is lost, as at a full queue. */
static void fault_fetch(struct fault *f)
{
    struct lane *lane = &f->lanes[IN];
    uint32_t longest = (uint32_t)f->network.mtu + KIT_NETIF_HEADER;
    for (unsigned i = 0; i < FETCH; i++) {
        struct fault_frame *frame = fault_slot(lane);
        int got = kit_netif_receive(f->inner, frame != NULL ? frame->data : lane->spare, longest);
        if (frame == NULL) {
            if (got <= 0 && got != KIT_EMSGSIZE)
                return;
            lane->counters[FRAMES]++;
            lane->counters[NO_SLOT]++;
            continue;
        }
        if (got < KIT_NETIF_HEADER) {
            kit_list_push_front(&lane->idle, &frame->link);
            if (got <= 0 && got != KIT_EMSGSIZE)
                return;
            continue;
        }
        frame->length = (uint32_t)got;
        fault_take(f, lane, frame);
    }
}

static int fault_send(network_interface_t *network, const void *data, size_t length)
{
    struct fault *f = fault_of(network);
    struct lane *lane = &f->lanes[OUT];
    if (length < KIT_NETIF_HEADER || length > (size_t)network->mtu + KIT_NETIF_HEADER)
        return KIT_EMSGSIZE;
    fault_send_due(f);
    struct fault_frame *frame = fault_slot(lane);
    if (frame == NULL) {
        if (f->blocked)
            return KIT_EAGAIN;
        lane->counters[FRAMES]++;
        lane->counters[NO_SLOT]++;
        return 0;
    }
    memcpy(frame->data, data, length);
    frame->length = (uint32_t)length;
    fault_take(f, lane, frame);
    fault_send_due(f);
    return 0;
}

static int fault_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct fault *f = fault_of(network);
    fault_send_due(f);
    fault_fetch(f);
    struct fault_frame *frame = fault_ready(f, &f->lanes[IN]);
    if (frame == NULL)
        return 0;
    fault_release(&f->lanes[IN], frame); /* its bytes stay until the next call */
    if (frame->length > max_length)
        return KIT_EMSGSIZE;
    memcpy(buffer, frame->data, frame->length);
    return (int)frame->length;
}

static int fault_send_batch(network_interface_t *network, const struct kit_frame *frames,
                            size_t count)
{
    size_t done = 0;
    int rc = 0;
    for (; done < count; done++) {
        bool offloaded = frames[done].flags != 0 || frames[done].gso_type != 0;
        rc = offloaded ? KIT_EIO : fault_send(network, frames[done].data, frames[done].length);
        if (rc != 0)
            break;
    }
    return done != 0 ? (int)done : rc;
}

static int fault_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    size_t done = 0;
    while (done < count) {
        int got = fault_receive(network, frames[done].data, frames[done].capacity);
        if (got == KIT_EMSGSIZE)
            continue; /* one fewer is under way, so this ends */
        if (got <= 0)
            break;
        frames[done] = (struct kit_frame){
            .data = frames[done].data, .length = (uint32_t)got, .capacity = frames[done].capacity};
        done++;
    }
    return (int)done;
}

static int fault_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    return kit_netif_configure(fault_of(network)->inner, ip, netmask);
}

static uint64_t fault_deadline_ns(network_interface_t *network)
{
    const struct fault *f = fault_of(network);
    uint64_t deadline = KIT_NEVER;
    for (unsigned i = 0; i < LANES; i++) {
        const struct kit_list *first = f->lanes[i].waiting.next;
        if (first == &f->lanes[i].waiting)
            continue;
        uint64_t due = KIT_CONTAINER_OF(first, struct fault_frame, link)->due_ns;
        if (i == OUT && f->blocked)
            due = kit_env_now_ns(f->env) + RETRY_NS;
        deadline = due < deadline ? due : deadline;
    }
    return deadline;
}

static size_t fault_counters(const network_interface_t *network, uint64_t *values, size_t count)
{
    const struct fault *f = KIT_CONTAINER_OF(network, struct fault, network);
    for (size_t i = 0; i < count && i < (size_t)LANES * COUNTERS; i++)
        values[i] = f->lanes[i / COUNTERS].counters[i % COUNTERS];
    return (size_t)LANES * COUNTERS;
}

static size_t fault_stride(const network_interface_t *inner)
{
    return kit_align_up((size_t)inner->mtu + KIT_NETIF_HEADER, 64);
}

static bool fault_options_fit(const uint64_t *options)
{
    for (unsigned i = OPTION_LOSS; i <= OPTION_TRUNCATE; i++) {
        if (i != OPTION_HOLD && options[i] > UINT64_C(1) << 32)
            return false;
    }
    return options[OPTION_DIRECTION] <= IN_ONLY && options[OPTION_SLOTS] >= 1 &&
           options[OPTION_SLOTS] <= 1 << 20 && options[OPTION_QUEUE] >= 1 &&
           options[OPTION_QUEUE] <= 1 << 20;
}

static size_t fault_size(const uint64_t *options, const network_interface_t *inner)
{
    if (inner == NULL || !fault_options_fit(options))
        return 0;
    size_t frame = kit_align_up(sizeof(struct fault_frame), 64) + fault_stride(inner);
    size_t departures = kit_align_up((size_t)options[OPTION_QUEUE] * sizeof(uint64_t), 64);
    return kit_align_up(sizeof(struct fault), 64) +
           LANES * ((size_t)options[OPTION_SLOTS] * frame + departures + fault_stride(inner));
}

/* Lays a lane out in memory and returns what is behind it. */
static uint8_t *fault_open_lane(struct fault *f, unsigned number, uint8_t *memory)
{
    struct lane *lane = &f->lanes[number];
    uint64_t direction = f->options[OPTION_DIRECTION];
    lane->active = direction == BOTH || direction == (number == OUT ? OUT_ONLY : IN_ONLY);
    lane->random = f->options[OPTION_SEED] * 2 + number;
    kit_list_init(&lane->idle);
    kit_list_init(&lane->waiting);
    lane->departures = (uint64_t *)(void *)memory;
    memory += kit_align_up((size_t)f->options[OPTION_QUEUE] * sizeof(uint64_t), 64);
    for (uint64_t i = 0; i < f->options[OPTION_SLOTS]; i++) {
        struct fault_frame *frame = (struct fault_frame *)(void *)memory;
        frame->data = memory + kit_align_up(sizeof(*frame), 64);
        memory = frame->data + fault_stride(f->inner);
        kit_list_push_back(&lane->idle, &frame->link);
    }
    lane->spare = memory;
    return memory + fault_stride(f->inner);
}

static int fault_build(const uint64_t *options, void *memory, size_t size,
                       const struct kit_netif_base *base, network_interface_t **ends)
{
    size_t need = fault_size(options, base->inner);
    if (need == 0 || base->env == NULL || ((uintptr_t)memory & 63) != 0)
        return KIT_EINVAL;
    if (size < need)
        return KIT_ENOMEM;
    struct fault *f = memory;
    *f = (struct fault){.network = {.send_packet = fault_send,
                                    .receive_packet = fault_receive,
                                    .configure = fault_configure,
                                    .send_batch = fault_send_batch,
                                    .receive_batch = fault_receive_batch,
                                    .mtu = base->inner->mtu},
                        .inner = base->inner,
                        .env = base->env};
    memcpy(f->network.mac, base->inner->mac, sizeof(f->network.mac));
    memcpy(f->options, options, sizeof(f->options));
    uint8_t *at = (uint8_t *)memory + kit_align_up(sizeof(*f), 64);
    for (unsigned i = 0; i < LANES; i++)
        at = fault_open_lane(f, i, at);
    ends[0] = &f->network;
    return 0;
}

const struct kit_netif_component kit_netif_fault = {
    .id = "netif.fault",
    .abi = KIT_NETIF_ABI,
    .features = KIT_NETIF_LAYER,
    .ends = 1,
    .build_size = fault_size,
    .build = fault_build,
    .deadline_ns = fault_deadline_ns,
    .counters = fault_counters,
};
