/* SPDX-License-Identifier: MIT */
/* netif.switch: a learning Ethernet switch (IEEE 802.1D, 7.8 and 7.9, without spanning tree) whose
 * ports are ends in memory.
 *
 * A frame's source teaches which port leads there; a frame to a known address goes to that port
 * alone, one to a group or to an unknown address to all others. The table has `table` places in
 * sets of four: a set that is full forgets what it saw longest ago, so a flood of forged addresses
 * costs the others no more than flooding. What was not seen for `age` is forgotten.
 *
 * Each port has a ring of frames that wait for its owner; a full ring drops, counted. All ends
 * belong to one thread. Cost of a frame: one copy per port that it goes to. */
#include <unikit/net/netif/frames.h>
#include <unikit/net/wire/ethernet.h>
#include <unikit/net/wire/text.h>

extern const struct kit_netif_component kit_netif_switch;

/* The options in the record's order. */
enum { OPTION_PORTS, OPTION_SLOTS, OPTION_MTU, OPTION_TABLE, OPTION_AGE };
enum { RECEIVED, FLOODED, DROPPED, SENT, COUNTERS };
enum { WAYS = 4 };

struct switch_entry {
    uint8_t mac[KIT_ETH_ADDRESS];
    uint16_t port; /* + 1; 0: free */
    uint64_t seen_ns;
};

struct net_switch;

struct switch_port {
    network_interface_t network;
    struct net_switch *of;
    uint64_t counters[COUNTERS];
    struct kit_frames ring; /* to the port's owner */
};

struct net_switch {
    runtime_environment_t *env;
    struct switch_entry *table;
    uint32_t sets; /* a power of two */
    uint32_t port_count;
    uint64_t age_ns;
    struct switch_port ports[KIT_NETIF_ENDS_MAX];
};

static struct switch_port *port_of(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct switch_port, network);
}

static struct switch_entry *switch_set(const struct net_switch *s, const uint8_t *mac)
{
    uint64_t word = (uint64_t)kit_load32(mac) << 16 | kit_load16(mac + 4);
    word *= UINT64_C(0x9e3779b97f4a7c15);
    return &s->table[(size_t)(word >> 40 & (s->sets - 1)) * WAYS];
}

static bool entry_lives(const struct net_switch *s, const struct switch_entry *e, uint64_t now)
{
    return e->port != 0 && now - e->seen_ns < s->age_ns;
}

/* Which port leads to an address; NULL: not known. */
static struct switch_port *switch_find(struct net_switch *s, const uint8_t *mac, uint64_t now)
{
    struct switch_entry *set = switch_set(s, mac);
    for (unsigned i = 0; i < WAYS; i++) {
        if (entry_lives(s, &set[i], now) && kit_eth_equal(set[i].mac, mac))
            return &s->ports[set[i].port - 1];
    }
    return NULL;
}

static void switch_learn(struct net_switch *s, const uint8_t *mac, uint16_t port, uint64_t now)
{
    struct switch_entry *set = switch_set(s, mac), *oldest = set;
    if (kit_eth_is_multicast(mac))
        return; /* no station's address */
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].port != 0 && kit_eth_equal(set[i].mac, mac)) {
            oldest = &set[i];
            break;
        }
        if (oldest->port != 0 && (set[i].port == 0 || set[i].seen_ns < oldest->seen_ns))
            oldest = &set[i];
    }
    memcpy(oldest->mac, mac, KIT_ETH_ADDRESS);
    oldest->port = (uint16_t)(port + 1);
    oldest->seen_ns = now;
}

static void switch_give(struct switch_port *to, const void *data, size_t length)
{
    if (kit_frames_send_one(&to->ring, data, length) == 0)
        to->counters[SENT]++;
    else
        to->counters[DROPPED]++;
}

static int switch_send(network_interface_t *network, const void *data, size_t length)
{
    struct switch_port *from = port_of(network);
    struct net_switch *s = from->of;
    if (length < KIT_NETIF_HEADER || length > (size_t)network->mtu + KIT_NETIF_HEADER)
        return KIT_EMSGSIZE;
    const uint8_t *frame = data;
    uint64_t now = kit_env_now_ns(s->env);
    from->counters[RECEIVED]++;
    switch_learn(s, frame + KIT_ETH_SOURCE, (uint16_t)(from - s->ports), now);
    struct switch_port *to =
        kit_eth_is_multicast(frame) ? NULL : switch_find(s, frame + KIT_ETH_DESTINATION, now);
    if (to != NULL) {
        if (to != from)
            switch_give(to, data, length);
        return 0;
    }
    from->counters[FLOODED]++;
    for (uint32_t i = 0; i < s->port_count; i++) {
        if (&s->ports[i] != from)
            switch_give(&s->ports[i], data, length);
    }
    return 0;
}

static int switch_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    return kit_frames_receive_one(&port_of(network)->ring, buffer, max_length);
}

static int switch_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return kit_ipv4_parse_pair(ip, netmask) ? 0 : KIT_EINVAL;
}

static int switch_send_batch(network_interface_t *network, const struct kit_frame *frames,
                             size_t count)
{
    size_t done = 0;
    int rc = 0;
    for (; done < count; done++) {
        bool offloaded = frames[done].flags != 0 || frames[done].gso_type != 0;
        rc = offloaded ? KIT_EIO : switch_send(network, frames[done].data, frames[done].length);
        if (rc != 0)
            break;
    }
    return done != 0 ? (int)done : rc;
}

static int switch_receive_batch(network_interface_t *network, struct kit_frame *frames,
                                size_t count)
{
    return kit_frames_receive(&port_of(network)->ring, frames, count, NULL);
}

static size_t switch_counters(const network_interface_t *network, uint64_t *values, size_t count)
{
    const struct switch_port *port = KIT_CONTAINER_OF(network, struct switch_port, network);
    for (size_t i = 0; i < count && i < COUNTERS; i++)
        values[i] = port->counters[i];
    return COUNTERS;
}

static size_t switch_size(const uint64_t *options, const network_interface_t *inner)
{
    uint64_t slots = options[OPTION_SLOTS], mtu = options[OPTION_MTU],
             table = options[OPTION_TABLE];
    if (inner != NULL || options[OPTION_PORTS] < 2 || options[OPTION_PORTS] > KIT_NETIF_ENDS_MAX ||
        slots > 65536 || !kit_is_power_of_two((size_t)slots) || mtu < 68 || mtu > 65521 ||
        table < WAYS || table > 1 << 20 || !kit_is_power_of_two((size_t)table))
        return 0;
    return kit_align_up(sizeof(struct net_switch), 64) +
           (size_t)table * sizeof(struct switch_entry) +
           (size_t)options[OPTION_PORTS] * (size_t)slots * kit_frames_stride((uint32_t)mtu);
}

static int switch_build(const uint64_t *options, void *memory, size_t size,
                        const struct kit_netif_base *base, network_interface_t **ends)
{
    size_t need = switch_size(options, base->inner);
    if (need == 0 || base->env == NULL || ((uintptr_t)memory & 63) != 0)
        return KIT_EINVAL;
    if (size < need)
        return KIT_ENOMEM;
    struct net_switch *s = memory;
    size_t table = (size_t)options[OPTION_TABLE] * sizeof(struct switch_entry);
    uint8_t *at = (uint8_t *)memory + kit_align_up(sizeof(*s), 64);
    uint32_t mtu = (uint32_t)options[OPTION_MTU], slots = (uint32_t)options[OPTION_SLOTS];
    *s = (struct net_switch){.env = base->env,
                             .table = (struct switch_entry *)(void *)at,
                             .sets = (uint32_t)options[OPTION_TABLE] / WAYS,
                             .port_count = (uint32_t)options[OPTION_PORTS],
                             .age_ns = options[OPTION_AGE]};
    memset(at, 0, table);
    at += table;
    for (uint32_t i = 0; i < s->port_count; i++) {
        struct switch_port *port = &s->ports[i];
        port->network = (network_interface_t){.send_packet = switch_send,
                                              .receive_packet = switch_receive,
                                              .configure = switch_configure,
                                              .send_batch = switch_send_batch,
                                              .receive_batch = switch_receive_batch,
                                              .mac = {0x02, 0x75, 0x6b, 0x73, 0, (uint8_t)(i + 1)},
                                              .mtu = (uint16_t)mtu};
        port->of = s;
        kit_frames_init(&port->ring, at, slots, mtu);
        at += (size_t)slots * kit_frames_stride(mtu);
        ends[i] = &port->network;
    }
    return 0;
}

const struct kit_netif_component kit_netif_switch = {
    .id = "netif.switch",
    .abi = KIT_NETIF_ABI,
    .ends = KIT_NETIF_ENDS_MAX,
    .build_size = switch_size,
    .build = switch_build,
    .counters = switch_counters,
};
