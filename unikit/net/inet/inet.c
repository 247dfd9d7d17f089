/* SPDX-License-Identifier: MIT */
/* net.inet: the full TCP/IP stack. inet.h tells which file does what, docs/design/inet.rst why.
 *
 * Cost: a segment costs one hash look-up at most, whatever the number of connections, listeners and
 * TIME-WAITs; timers O(log connections). An idle connection holds its control block alone. All
 * memory is counted and bounded by options. */
#include <unikit/net/inet/calls.h>

extern const struct kit_net_component kit_net_inet;

/* The options in the record's order. */
enum {
    OPTION_ADDRESS,
    OPTION_GATEWAY,
    OPTION_CONNECTIONS,
    OPTION_SEND_BUFFER,
    OPTION_RECEIVE_BUFFER,
    OPTION_NAGLE,
    OPTION_TIME_WAIT,
    OPTION_UDP_SOCKETS,
    OPTION_UDP_BUFFER,
    OPTION_NEIGHBOURS,
    OPTION_CONGESTION,
    OPTION_ECN,
    OPTION_KEEPALIVE,
    OPTION_USER_TIMEOUT,
    OPTION_MEMORY,
    OPTION_FRAGMENTS
};

enum { BUFFER_MIN = 2048, BUFFER_MAX = 256 << 20, CONNECTIONS_MAX = 4 << 20 };

void inet_clock(struct inet *m)
{
    m->now_ns = kit_env_now_ns(m->env);
    m->now_us = (uint32_t)(m->now_ns / KIT_NS_PER_US);
    m->now_ms = (uint32_t)(m->now_ns / KIT_NS_PER_MS);
}

static bool inet_poll(struct kit_net *net)
{
    struct inet *m = inet_of(net);
    inet_clock(m);
    bool any = inet_link_blocked(m) && inet_link_flush(m);
    size_t received = inet_link_receive(m);
    any |= received != 0;
    /* A full batch: more waits, and with it perhaps what a timer waits for. */
    if (received < m->batch || m->now_ns - m->timers_ns > INET_LATE_NS) {
        m->timers_ns = m->now_ns;
        any |= inet_tcp_timers(m);
    }
    inet_neighbour_timers(m);
    inet_fragment_timers(m);
    inet_time_wait_expire(m);
    any |= inet_events_deliver(m);
    any |= inet_udp_deliver(m);
    while (!kit_list_empty(&m->output)) {
        struct inet_tcp *t = KIT_CONTAINER_OF(m->output.next, struct inet_tcp, output_link);
        if (!inet_tcp_output(m, t))
            break;
        kit_list_remove(&t->output_link);
        any = true;
    }
    inet_link_flush(m);
    return any;
}

static uint64_t inet_deadline_ns(struct kit_net *net)
{
    struct inet *m = inet_of(net);
    if (inet_link_blocked(m)) /* the interface says nothing when it has room again */
        return kit_env_now_ns(m->env) + INET_BLOCKED_NS;
    if (!kit_list_empty(&m->output) || !kit_list_empty(&m->events) ||
        !kit_list_empty(&m->udp_events))
        return 0;
    uint64_t deadline = m->neighbour_deadline_ns, fragments = inet_fragment_deadline_ns(m);
    if (fragments < deadline)
        deadline = fragments;
    if (m->heap_count != 0 && m->heap[1]->heap_deadline < deadline)
        deadline = m->heap[1]->heap_deadline;
    if (!kit_list_empty(&m->time_waits)) { /* in no hurry: wake once for many */
        struct inet_time_wait *w =
            KIT_CONTAINER_OF(m->time_waits.next, struct inet_time_wait, link);
        if (w->deadline_ns + KIT_NS_PER_S < deadline)
            deadline = w->deadline_ns + KIT_NS_PER_S;
    }
    return deadline;
}

/* Ends every connection: their address is not ours any more. */
INET_COLD static void inet_end_all(struct inet *m, int error)
{
    for (uint32_t i = 0; i < m->flows.used;) {
        struct inet_entry *entry = m->flows.buckets[i];
        if (entry == NULL)
            i++;
        else if (entry->kind == INET_KIND_TIME_WAIT)
            inet_time_wait_free(m, KIT_CONTAINER_OF(entry, struct inet_time_wait, entry));
        else
            inet_tcp_end(m, KIT_CONTAINER_OF(entry, struct inet_tcp, entry), error);
    }
    inet_reap(m);
}

INET_COLD static bool inet_is_host_address(uint32_t address)
{
    return address >> 24 != 0 && address >> 28 < 14;
}

INET_COLD static int inet_set_address(struct inet *m, uint32_t address, unsigned prefix,
                                      uint32_t gateway)
{
    if (prefix < 1 || prefix > 32 || !inet_is_host_address(address) ||
        (gateway != 0 && (!inet_is_host_address(gateway) || gateway == address)))
        return KIT_EINVAL;
    uint32_t mask = UINT32_MAX << (32 - prefix);
    if (prefix < 31 && ((address & ~mask) == 0 || (address | mask) == UINT32_MAX))
        return KIT_EINVAL; /* the network itself, or its broadcast address */
    if (gateway != 0 && ((gateway ^ address) & mask) != 0)
        return KIT_EINVAL;
    inet_clock(m);
    struct inet_network network = {.address = inet_v4(address),
                                   .gateway = inet_v4(gateway),
                                   .prefix = 96 + prefix,
                                   .routed = gateway != 0};
    if (!inet_ip_equal(&network.address, &m->networks[0].address))
        inet_end_all(m, KIT_EUNREACH);
    inet_neighbour_clear(m);
    inet_paths_clear(m);
    inet_fragment_clear(m);
    m->networks[0] = network;
    inet_neighbour_announce(m);
    return 0;
}

INET_COLD static int inet_configure(struct kit_net *net, const struct kit_address *address,
                                    unsigned prefix, const struct kit_address *gateway)
{
    bool routed = gateway != NULL && gateway->family != 0;
    if (address->family != 4 || (routed && gateway->family != 4))
        return address->family == 6 || (routed && gateway->family == 6) ? KIT_ENOTSUP : KIT_EINVAL;
    return inet_set_address(inet_of(net), kit_load32(address->bytes), prefix,
                            routed ? kit_load32(gateway->bytes) : 0);
}

INET_COLD static int inet_address(const struct kit_net *net, uint8_t family,
                                  struct kit_address *out)
{
    const struct inet *m = inet_of(net);
    if (family != 4 || m->networks[0].prefix == 0)
        return KIT_ENOENT;
    inet_address_out(out, &m->networks[0].address, 0);
    return 0;
}

INET_COLD static void inet_close(struct kit_net *net)
{
    struct inet *m = inet_of(net);
    struct kit_alloc *alloc = m->memory.alloc;
    inet_close_sockets(m);
    inet_neighbour_clear(m);
    inet_paths_clear(m);
    inet_fragment_clear(m);
    inet_link_close(m);
    kit_alloc_free(alloc, m, sizeof(*m), 0);
}

INET_COLD static int inet_open_options(struct inet *m, const uint64_t *options)
{
    if (m->network->mtu < 68 || options[OPTION_CONNECTIONS] < 1 ||
        options[OPTION_CONNECTIONS] > CONNECTIONS_MAX || options[OPTION_SEND_BUFFER] > BUFFER_MAX ||
        options[OPTION_RECEIVE_BUFFER] > BUFFER_MAX || options[OPTION_NEIGHBOURS] < 1 ||
        options[OPTION_NEIGHBOURS] > 65536 || options[OPTION_UDP_SOCKETS] > 16384 ||
        options[OPTION_UDP_BUFFER] > BUFFER_MAX || options[OPTION_TIME_WAIT] > 600 * KIT_NS_PER_S ||
        options[OPTION_CONGESTION] >= KIT_ARRAY_SIZE(inet_congestions) ||
        options[OPTION_ECN] > INET_ECN_ASK || options[OPTION_KEEPALIVE] > 86400 * KIT_NS_PER_S ||
        options[OPTION_USER_TIMEOUT] < 100 * KIT_NS_PER_S ||
        options[OPTION_USER_TIMEOUT] > 86400 * KIT_NS_PER_S)
        return KIT_EINVAL;
    m->connections = (uint32_t)options[OPTION_CONNECTIONS];
    m->send_buffer = inet_max((uint32_t)options[OPTION_SEND_BUFFER], BUFFER_MIN);
    m->receive_buffer = inet_max((uint32_t)options[OPTION_RECEIVE_BUFFER], BUFFER_MIN);
    m->nagle = options[OPTION_NAGLE] != 0;
    m->time_wait_ns = options[OPTION_TIME_WAIT];
    m->udp_limit = (uint32_t)options[OPTION_UDP_SOCKETS];
    m->udp_buffer = (uint32_t)options[OPTION_UDP_BUFFER];
    m->neighbour_limit = (uint32_t)options[OPTION_NEIGHBOURS];
    m->congestion = inet_congestions[options[OPTION_CONGESTION]];
    m->ecn = (uint8_t)options[OPTION_ECN];
    m->keepalive_ms = (uint32_t)(options[OPTION_KEEPALIVE] / KIT_NS_PER_MS);
    m->patience_ms = (uint32_t)(options[OPTION_USER_TIMEOUT] / KIT_NS_PER_MS);
    m->memory.limit = options[OPTION_MEMORY];
    m->fragment_limit = options[OPTION_FRAGMENTS];
    m->mtu = m->network->mtu;
    m->offloads = m->network->offloads;
    if ((m->offloads & INET_OFFLOAD_CHECKSUM) == 0)
        m->offloads = 0; /* nothing works without it (virtio 1.2, 5.1.3.1) */
    memcpy(m->mac, m->network->mac, KIT_ETH_ADDRESS);
    return 0;
}

INET_COLD static void inet_open_tables(struct inet *m)
{
    struct kit_list *lists[] = {&m->events,    &m->output,          &m->dead,
                                &m->held,      &m->time_waits,      &m->udp_events,
                                &m->datagrams, &m->neighbours_used, &m->paths_used};
    struct inet_table *tables[] = {&m->flows, &m->listeners, &m->neighbours, &m->paths, &m->ports};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(lists); i++)
        kit_list_init(lists[i]);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(tables); i++)
        inet_table_open(tables[i]);
    m->neighbour_deadline_ns = KIT_NEVER;
}

INET_COLD static int inet_open_keys(struct inet *m)
{
    uint32_t words[2];
    int rc = kit_env_entropy(m->env, &m->key, sizeof(m->key));
    if (rc == 0)
        rc = kit_env_entropy(m->env, &m->secret, sizeof(m->secret));
    if (rc == 0)
        rc = kit_env_entropy(m->env, words, sizeof(words));
    if (rc != 0)
        return rc;
    m->port_offset = words[0] & 0xffff; /* RFC 6056 */
    m->identification = (uint16_t)words[1];
    return 0;
}

INET_COLD static int inet_open(const uint64_t *options, runtime_environment_t *env,
                               network_interface_t *network, struct kit_alloc *alloc,
                               struct kit_net **out)
{
    struct inet *m = kit_alloc_alloc(alloc, sizeof(*m), 0);
    if (m == NULL)
        return KIT_ENOMEM;
    memset(m, 0, sizeof(*m));
    m->env = env;
    m->network = network;
    m->memory = (struct inet_memory){.alloc = alloc, .used = sizeof(*m)};
    inet_open_tables(m);
    int rc = inet_open_options(m, options);
    if (rc == 0)
        rc = inet_link_open(m);
    if (rc == 0)
        rc = inet_open_keys(m);
    uint64_t prefix = options[OPTION_ADDRESS];
    if (rc == 0 && prefix != 0)
        rc = inet_set_address(m, KIT_OPT_PREFIX_ADDRESS(prefix), KIT_OPT_PREFIX_LENGTH(prefix),
                              (uint32_t)options[OPTION_GATEWAY]);
    if (rc != 0) {
        inet_link_close(m);
        kit_alloc_free(alloc, m, sizeof(*m), 0);
        return rc;
    }
    KIT_NET_BIND(&m->net, kit_net_inet.ops);
    *out = &m->net;
    return 0;
}

static const struct kit_net_ops inet_ops = {
    .poll = inet_poll,
    .deadline_ns = inet_deadline_ns,
    .configure = inet_configure,
    .address = inet_address,
    .tcp_listen = inet_tcp_listen,
    .tcp_accept = inet_tcp_accept,
    .tcp_set_callback = inet_tcp_set_callback,
    .tcp_connect = inet_tcp_connect,
    .tcp_send = inet_tcp_send,
    .tcp_receive = inet_tcp_receive,
    .tcp_peek = inet_tcp_peek,
    .tcp_consume = inet_tcp_consume,
    .tcp_shutdown = inet_tcp_shutdown,
    .tcp_close = inet_tcp_close,
    .tcp_abort = inet_tcp_abort,
    .tcp_info = inet_tcp_info,
    .udp_open = inet_udp_open,
    .udp_port = inet_udp_port,
    .udp_send = inet_udp_send,
    .udp_receive = inet_udp_receive,
    .udp_close = inet_udp_close,
    .stats = inet_stats,
    .check = inet_check,
    .close = inet_close,
    .tcp_option = inet_tcp_option,
    .counter = inet_counter,
};

const struct kit_net_component kit_net_inet = {
    .id = "net.inet",
    .abi = KIT_NET_ABI,
    .features = KIT_NET_TCP | KIT_NET_UDP | KIT_NET_IPV4 | KIT_NET_CONNECT,
    .ops = &inet_ops,
    .open = inet_open,
};
