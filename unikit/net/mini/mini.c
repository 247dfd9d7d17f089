/* SPDX-License-Identifier: MIT */
/* net.mini: a small TCP/IP stack for one IPv4 address on one Ethernet interface.
 *
 * ARP, IPv4 without fragments, ICMP echo and errors, UDP, and TCP after RFC 9293 with window
 * scaling, reassembly, Reno congestion control with fast recovery (RFC 5681, 6582), RFC 6298
 * timers, RFC 5961 and 6528 hardening. Not in it: IPv6, timestamps, selective acknowledgment,
 * SYN cookies, offloads. mini.h tells which file does what.
 *
 * Cost: a segment of a connection seen before costs a hash look-up at most; timers O(log
 * connections); memory 432 bytes per connection plus its buffers, which grow with use. */
#include <unikit/net/mini/mini.h>

extern const struct kit_net_component kit_net_mini;

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
    OPTION_ARP_ENTRIES
};

void *mini_alloc(struct mini *m, size_t size)
{
    void *block = kit_alloc_alloc(m->alloc, size, 0);
    if (block != NULL)
        m->stats.memory += size;
    return block;
}

void mini_free(struct mini *m, void *block, size_t size)
{
    if (block == NULL)
        return;
    m->stats.memory -= size;
    kit_alloc_free(m->alloc, block, size, 0);
}

static bool mini_poll(struct kit_net *net)
{
    struct mini *m = mini_of(net);
    m->now_ns = kit_env_now_ns(m->env);
    bool blocked = mini_link_blocked(m);
    bool any = blocked && mini_link_flush(m);
    any |= mini_link_receive(m) != 0;
    any |= mini_timers_run(m);
    mini_arp_timers(m);
    mini_time_wait_expire(m);
    any |= mini_events_deliver(m);
    any |= mini_udp_deliver(m);
    while (!kit_list_empty(&m->output)) {
        struct mini_tcp *t = KIT_CONTAINER_OF(m->output.next, struct mini_tcp, output_link);
        if (!mini_tcp_output(m, t))
            break;
        kit_list_remove(&t->output_link);
        any = true;
    }
    mini_link_flush(m);
    return any;
}

static uint64_t mini_deadline_ns(struct kit_net *net)
{
    struct mini *m = mini_of(net);
    if (mini_link_blocked(m)) /* the interface says nothing when it has room again */
        return kit_env_now_ns(m->env) + MINI_BLOCKED_NS;
    if (!kit_list_empty(&m->output) || !kit_list_empty(&m->events) ||
        !kit_list_empty(&m->udp_events))
        return 0;
    uint64_t deadline = m->arp_deadline_ns;
    if (m->heap_count != 0 && m->heap[1]->heap_deadline < deadline)
        deadline = m->heap[1]->heap_deadline;
    if (!kit_list_empty(&m->time_waits)) { /* in no hurry: wake once for many */
        struct mini_time_wait *w =
            KIT_CONTAINER_OF(m->time_waits.next, struct mini_time_wait, link);
        if (w->deadline_ns + KIT_NS_PER_S < deadline)
            deadline = w->deadline_ns + KIT_NS_PER_S;
    }
    return deadline;
}

/* Ends every connection: their address is not ours any more. */
MINI_COLD static void mini_end_all(struct mini *m, int error)
{
    for (size_t i = 0; i <= m->bucket_mask; i++) {
        while (m->buckets[i] != NULL)
            mini_tcp_end(m, m->buckets[i], error);
    }
    while (!kit_list_empty(&m->time_waits))
        mini_time_wait_free(m, KIT_CONTAINER_OF(m->time_waits.next, struct mini_time_wait, link));
    mini_reap(m);
}

MINI_COLD static bool mini_is_host_address(uint32_t address)
{
    return address != 0 && address >> 24 != 0 && address >> 28 < 14;
}

MINI_COLD static int mini_set_address(struct mini *m, uint32_t address, unsigned prefix,
                                      uint32_t gateway)
{
    if (prefix < 1 || prefix > 32 || !mini_is_host_address(address) ||
        (gateway != 0 && (!mini_is_host_address(gateway) || gateway == address)))
        return KIT_EINVAL;
    uint32_t mask = UINT32_MAX << (32 - prefix);
    if (prefix < 31 && ((address & ~mask) == 0 || (address | mask) == UINT32_MAX))
        return KIT_EINVAL; /* the network itself, or its broadcast address */
    if (gateway != 0 && ((gateway ^ address) & mask) != 0)
        return KIT_EINVAL;
    m->now_ns = kit_env_now_ns(m->env);
    if (address != m->address)
        mini_end_all(m, KIT_EUNREACH);
    mini_arp_clear(m);
    m->address = address;
    m->mask = mask;
    m->gateway = gateway;
    mini_arp_announce(m);
    return 0;
}

MINI_COLD static int mini_configure(struct kit_net *net, const struct kit_address *address,
                                    unsigned prefix, const struct kit_address *gateway)
{
    bool routed = gateway != NULL && gateway->family != 0;
    if (address->family != 4 || (routed && gateway->family != 4))
        return address->family == 6 || (routed && gateway->family == 6) ? KIT_ENOTSUP : KIT_EINVAL;
    return mini_set_address(mini_of(net), kit_load32(address->bytes), prefix,
                            routed ? kit_load32(gateway->bytes) : 0);
}

MINI_COLD static int mini_address(const struct kit_net *net, uint8_t family,
                                  struct kit_address *out)
{
    const struct mini *m = mini_of(net);
    if (family != 4 || m->address == 0)
        return KIT_ENOENT;
    *out = (struct kit_address){.family = 4};
    kit_store32(out->bytes, m->address);
    return 0;
}

MINI_COLD static void mini_stats(const struct kit_net *net, struct kit_net_stats *out)
{
    const struct mini *m = mini_of(net);
    *out = m->stats;
    out->tcp_open = (uint32_t)m->open;
    out->udp_open = m->udp_count;
}

/* Gives back what mini_open took: all there is to do when it fails, before the first socket. */
MINI_COLD static void mini_release(struct mini *m)
{
    size_t buckets = (m->bucket_mask + 1) * sizeof(void *);
    mini_free(m, m->slots, m->slot_size * MINI_BATCH * 2);
    mini_free(m, m->arps, sizeof(struct mini_arp) * m->arp_count);
    mini_free(m, m->buckets, buckets);
    mini_free(m, m->tw_buckets, buckets);
    mini_free(m, m->heap, sizeof(void *) * (m->connections + 1));
    kit_alloc_free(m->alloc, m, sizeof(*m), 0);
}

MINI_COLD static void mini_close(struct kit_net *net)
{
    struct mini *m = mini_of(net);
    mini_close_sockets(m);
    mini_arp_clear(m);
    mini_release(m);
}

MINI_COLD static void *mini_alloc_zeroed(struct mini *m, size_t size)
{
    void *block = mini_alloc(m, size);
    return block != NULL ? memset(block, 0, size) : NULL;
}

MINI_COLD static int mini_open_tables(struct mini *m)
{
    size_t buckets = (m->bucket_mask + 1) * sizeof(void *);
    m->buckets = mini_alloc_zeroed(m, buckets);
    m->tw_buckets = mini_alloc_zeroed(m, buckets);
    m->heap = mini_alloc(m, sizeof(void *) * (m->connections + 1));
    m->arp_last = m->arps = mini_alloc_zeroed(m, sizeof(struct mini_arp) * m->arp_count);
    if (m->buckets == NULL || m->tw_buckets == NULL || m->heap == NULL || m->arps == NULL)
        return KIT_ENOMEM;
    return mini_link_open(m);
}

MINI_COLD static int mini_open_options(struct mini *m, const uint64_t *options)
{
    if (m->network->mtu < 68 || options[OPTION_CONNECTIONS] < 1 ||
        options[OPTION_CONNECTIONS] > 65536 || options[OPTION_SEND_BUFFER] > 16u << 20 ||
        options[OPTION_RECEIVE_BUFFER] > 16u << 20 || options[OPTION_ARP_ENTRIES] < 1 ||
        options[OPTION_ARP_ENTRIES] > 4096 || options[OPTION_UDP_SOCKETS] > 1024 ||
        options[OPTION_UDP_BUFFER] > 16u << 20 || options[OPTION_TIME_WAIT] > 600 * KIT_NS_PER_S)
        return KIT_EINVAL;
    m->connections = (size_t)options[OPTION_CONNECTIONS];
    m->bucket_mask = m->connections == 1 ? 0 : ((size_t)2 << kit_fls64(m->connections - 1)) - 1;
    m->send_buffer = mini_buffer_size(options[OPTION_SEND_BUFFER]);
    m->receive_buffer = mini_buffer_size(options[OPTION_RECEIVE_BUFFER]);
    m->nagle = options[OPTION_NAGLE] != 0;
    m->time_wait_ns = options[OPTION_TIME_WAIT];
    m->udp_limit = (uint32_t)options[OPTION_UDP_SOCKETS];
    m->udp_buffer = (uint32_t)options[OPTION_UDP_BUFFER];
    m->arp_count = (uint32_t)options[OPTION_ARP_ENTRIES];
    m->mtu = m->network->mtu;
    memcpy(m->mac, m->network->mac, KIT_ETH_ADDRESS);
    return 0;
}

MINI_COLD static int mini_open(const uint64_t *options, runtime_environment_t *env,
                               network_interface_t *network, struct kit_alloc *alloc,
                               struct kit_net **out)
{
    struct mini *m = kit_alloc_alloc(alloc, sizeof(*m), 0);
    if (m == NULL)
        return KIT_ENOMEM;
    *m = (struct mini){.env = env, .network = network, .alloc = alloc};
    m->stats.memory = sizeof(*m);
    m->arp_deadline_ns = KIT_NEVER;
    struct kit_list *lists[] = {&m->listeners, &m->events,     &m->output, &m->dead,
                                &m->held,      &m->time_waits, &m->udps,   &m->udp_events};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(lists); i++)
        kit_list_init(lists[i]);
    int rc = mini_open_options(m, options);
    if (rc == 0)
        rc = mini_open_tables(m);
    if (rc == 0)
        rc = kit_env_entropy(env, m->key, sizeof(m->key));
    uint64_t prefix = options[OPTION_ADDRESS];
    if (rc == 0 && prefix != 0)
        rc = mini_set_address(m, KIT_OPT_PREFIX_ADDRESS(prefix), KIT_OPT_PREFIX_LENGTH(prefix),
                              (uint32_t)options[OPTION_GATEWAY]);
    if (rc != 0) {
        mini_release(m);
        return rc;
    }
    m->next_port = (uint16_t)(49152 + (m->key[0] & 0x3fff)); /* RFC 6056 */
    KIT_NET_BIND(&m->net, kit_net_mini.ops);
    *out = &m->net;
    return 0;
}

static const struct kit_net_ops mini_ops = {
    .poll = mini_poll,
    .deadline_ns = mini_deadline_ns,
    .configure = mini_configure,
    .address = mini_address,
    .tcp_listen = mini_tcp_listen,
    .tcp_accept = mini_tcp_accept,
    .tcp_set_callback = mini_tcp_set_callback,
    .tcp_connect = mini_tcp_connect,
    .tcp_send = mini_tcp_send,
    .tcp_receive = mini_tcp_receive,
    .tcp_peek = mini_tcp_peek,
    .tcp_consume = mini_tcp_consume,
    .tcp_shutdown = mini_tcp_shutdown,
    .tcp_close = mini_tcp_close,
    .tcp_abort = mini_tcp_abort,
    .tcp_info = mini_tcp_info,
    .udp_open = mini_udp_open,
    .udp_port = mini_udp_port,
    .udp_send = mini_udp_send,
    .udp_receive = mini_udp_receive,
    .udp_close = mini_udp_close,
    .stats = mini_stats,
    .check = mini_check,
    .close = mini_close,
};

const struct kit_net_component kit_net_mini = {
    .id = "net.mini",
    .abi = KIT_NET_ABI,
    .features = KIT_NET_TCP | KIT_NET_UDP | KIT_NET_IPV4 | KIT_NET_CONNECT,
    .ops = &mini_ops,
    .open = mini_open,
};
