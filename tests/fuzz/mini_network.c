/* SPDX-License-Identifier: MIT */
/* A hostile network and a restless application around one stack, net.mini unless -DCOMPONENT says
 * otherwise, in virtual time. Arguments: seed, steps. Segments are made to fit the connections that
 * the stack has, as far as the frames it sends tell, with every field now right, now a little
 * wrong, now random; checksums are mostly put right, so that the damage gets deep. Whatever the
 * stack sends is verified, its invariants are checked all along, and its memory must stay below
 * what the options allow. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/net/net.h>
#include <unikit/net/wire/arp.h>
#include <unikit/net/wire/icmp.h>
#include <unikit/net/wire/ipv4.h>
#include <unikit/net/wire/tcp.h>
#include <unikit/net/wire/udp.h>
#include <unikit/testing/suite.h>
#include <unikit/testing/virtual.h>

#ifndef COMPONENT
#define COMPONENT kit_net_mini
#define OVERHEAD 1024 /* bytes a connection may hold beside what its buffers may */
#endif

extern const struct kit_net_component COMPONENT;
extern const struct kit_netif_component kit_netif_pipe;

enum { FLOWS = 12, SOCKETS = 24, OURS = 0x0a000002, THEIRS = 0x0a000001, BUFFER = 4096 };

struct flow {
    uint16_t own_port;
    uint16_t port;
    uint32_t seq; /* what the stack acknowledged last */
    uint32_t ack; /* end of what it sent */
};

static struct kit_virtual host;
static network_interface_t *raw;
static struct kit_net *net;
static uint64_t state, sent;
static struct flow flows[FLOWS];
static struct kit_tcp *sockets[SOCKETS], *listener;
static struct kit_udp *udp;
static uint8_t mac[6];
static const uint8_t own_mac[6] = {2, 0, 0, 0, 0, 1};

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a, (void)align;
    return kit_suite_random(&state) % 200 == 0 ? NULL : malloc(size);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static uint32_t pick(uint32_t bound)
{
    return (uint32_t)(kit_suite_random(&state) % bound);
}

static void broken(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

/* ---- the application ------------------------------------------------------------------------- */

static void on_event(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    static uint8_t block[8192];
    struct kit_tcp **slot = argument;
    if (*slot != tcp)
        broken("an event of a closed socket");
    switch (pick(8)) {
    case 0:
        kit_net_tcp_close(tcp);
        *slot = NULL;
        return;
    case 1:
        kit_net_tcp_abort(tcp);
        *slot = NULL;
        return;
    case 2:
        kit_net_tcp_shutdown(tcp);
        return;
    case 3: { /* read by looking */
        const void *data;
        int ready = kit_net_tcp_peek(tcp, &data);
        if (ready > 0)
            kit_net_tcp_consume(tcp, pick((uint32_t)ready + 1));
        return;
    }
    case 4:
        kit_net_tcp_send(tcp, block, pick(sizeof block));
        return;
    default:
        while ((events & KIT_NET_READABLE) != 0 && kit_net_tcp_receive(tcp, block, 1000) > 0)
            ;
    }
}

static struct kit_tcp **free_slot(void)
{
    for (unsigned i = 0; i < SOCKETS; i++)
        if (sockets[i] == NULL)
            return &sockets[i];
    struct kit_tcp **slot = &sockets[pick(SOCKETS)];
    kit_net_tcp_abort(*slot);
    *slot = NULL;
    return slot;
}

static void on_accept(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct kit_tcp *accepted;
    (void)argument, (void)events;
    while (pick(4) != 0 && (accepted = kit_net_tcp_accept(tcp)) != NULL) {
        struct kit_tcp **slot = free_slot();
        *slot = accepted;
        kit_net_tcp_set_callback(accepted, on_event, slot);
    }
}

static void act(void)
{
    struct kit_address to = {{10, 0, 0, (uint8_t)(1 + pick(3) * 8)}, (uint16_t)pick(9), 4, 0};
    struct kit_tcp **slot = &sockets[pick(SOCKETS)];
    uint8_t block[2000];
    memset(block, 7, sizeof block);
    switch (pick(12)) {
    case 0:
        slot = free_slot();
        if (kit_net_tcp_connect(net, &to, on_event, slot, slot) != 0)
            *slot = NULL;
        return;
    case 1:
        if (listener != NULL)
            kit_net_tcp_close(listener);
        if (kit_net_tcp_listen(net, 80, pick(6), on_accept, NULL, &listener) != 0)
            listener = NULL;
        return;
    case 2:
        if (udp != NULL)
            kit_net_udp_close(udp);
        if (kit_net_udp_open(net, (uint16_t)(pick(2) * 53), NULL, NULL, &udp) != 0)
            udp = NULL;
        return;
    case 3:
    case 4:
        if (udp != NULL) {
            kit_net_udp_send(udp, &to, block, pick(1600));
            kit_net_udp_receive(udp, &to, block, pick(sizeof block));
        }
        return;
    case 5:
        if (pick(50) == 0) {
            struct kit_address own = {{10, 0, 0, 2}, 0, 4, 0};
            kit_net_configure(net, &own, 24, NULL);
        }
        return;
    default:
        if (*slot != NULL)
            on_event(slot, *slot, pick(64));
    }
}

/* ---- the network ------------------------------------------------------------------------------
 */

/* Checks a frame of the stack and learns from it. */
static void verify(const uint8_t *frame, size_t length)
{
    const uint8_t *ip = frame + 14, *tcp;
    sent++;
    if (!kit_eth_equal(frame + 6, mac))
        broken("a foreign source address");
    if (kit_load16(frame + 12) == KIT_ETH_ARP)
        return;
    if (!kit_ipv4_fits(ip, length - 14) || kit_checksum(ip, 20) != 0 ||
        kit_load16(ip + 2) != length - 14)
        broken("a broken IPv4 header");
    if (ip[9] == KIT_IPV4_ICMP && kit_checksum(ip + 20, length - 34) != 0)
        broken("a broken ICMP checksum");
    if (ip[9] != KIT_IPV4_TCP)
        return;
    tcp = ip + 20;
    uint64_t sum = kit_checksum_pseudo(kit_load32(ip + 12), kit_load32(ip + 16), KIT_IPV4_TCP,
                                       (uint16_t)(length - 34));
    if (kit_checksum_end(kit_checksum_add(sum, tcp, length - 34)) != 0)
        broken("a broken TCP checksum");
    struct flow *f = &flows[pick(FLOWS)];
    for (unsigned i = 0; i < FLOWS; i++)
        if (flows[i].own_port == kit_load16(tcp + 2) && flows[i].port == kit_load16(tcp))
            f = &flows[i];
    uint32_t size = (uint32_t)(length - 34 - (tcp[12] >> 4) * 4u);
    f->own_port = kit_load16(tcp + 2);
    f->port = kit_load16(tcp);
    f->ack = kit_load32(tcp + 4) + size + ((tcp[13] & (KIT_TCP_SYN | KIT_TCP_FIN)) != 0);
    if ((tcp[13] & KIT_TCP_ACK) != 0)
        f->seq = kit_load32(tcp + 8);
}

static uint32_t near(uint32_t value)
{
    switch (pick(12)) {
    case 0:
        return value + pick(3000);
    case 1:
        return value - pick(3000);
    case 2:
        return value + 65535 - pick(5);
    case 3:
        return (uint32_t)kit_suite_random(&state);
    case 4:
        return value + (pick(2) ? 1 : UINT32_MAX);
    default:
        return value;
    }
}

static size_t make_tcp(uint8_t *tcp)
{
    static const uint8_t kinds[] = {2, 16, 16, 16, 24, 17, 17, 4, 20, 18, 1, 0, 63, 3};
    struct flow *f = &flows[pick(FLOWS)];
    if (pick(20) == 0)
        *f = (struct flow){.own_port = (uint16_t)pick(60), .port = pick(8) ? 80 : 7};
    size_t options = pick(4) == 0 ? pick(11) * 4 : 0, data = pick(3) == 0 ? pick(1400) : 0;
    kit_store16(tcp, f->own_port);
    kit_store16(tcp + 2, f->port);
    kit_store32(tcp + 4, near(f->seq));
    kit_store32(tcp + 8, near(f->ack));
    tcp[12] = (uint8_t)((5 + options / 4) << 4);
    tcp[13] = kinds[pick(sizeof kinds)];
    kit_store16(tcp + 14, (uint16_t)(pick(3) ? 65535 : pick(4) ? pick(65536) : pick(2) * 100));
    kit_store32(tcp + 16, 0);
    for (size_t i = 0; i < options; i++)
        tcp[20 + i] = (uint8_t)(pick(2) ? pick(10) : pick(256));
    memset(tcp + 20 + options, 'x', data);
    return 20 + options + data;
}

/* An ICMP error that quotes something of ours, or an echo. */
static size_t make_icmp(uint8_t *icmp)
{
    const struct flow *f = &flows[pick(FLOWS)];
    size_t length = 8 + pick(60);
    memset(icmp, 0, 80);
    icmp[0] = pick(2) ? 3 : (uint8_t)pick(20);
    icmp[1] = (uint8_t)(pick(2) ? 4 : pick(6));
    kit_store16(icmp + 6, (uint16_t)pick(1600));
    kit_ipv4_write(icmp + 8, pick(5) ? OURS : THEIRS, THEIRS, pick(9) ? 6 : 17, 40);
    kit_store16(icmp + 28, f->port);
    kit_store16(icmp + 30, f->own_port);
    kit_store32(icmp + 32, near(f->ack - 1));
    return length;
}

static size_t make_packet(uint8_t *frame)
{
    uint8_t *ip = frame + 14, *payload = frame + 34;
    uint32_t source = pick(10) ? THEIRS : THEIRS + pick(20);
    uint8_t protocol = pick(6) ? 6 : pick(3) ? 17 : pick(3) ? 1 : (uint8_t)pick(256);
    size_t length = 8 + pick(40);
    memset(frame, 0, 1600);
    if (protocol == 6) {
        length = make_tcp(payload);
    } else if (protocol == 1) {
        length = make_icmp(payload);
    } else if (protocol == 17) {
        kit_store16(payload, (uint16_t)pick(100));
        kit_store16(payload + 2, pick(2) ? 53 : (uint16_t)pick(100));
        kit_store16(payload + 4, (uint16_t)(pick(8) ? length : pick(100)));
    }
    kit_eth_write(frame, mac, own_mac, KIT_ETH_IPV4);
    kit_ipv4_write(ip, source, pick(30) ? OURS : 0x0a0000ff, protocol, (uint16_t)length);
    for (unsigned i = pick(8) ? 0 : pick(4); i > 0; i--)
        frame[14 + pick((uint32_t)length + 20)] = (uint8_t)pick(256);
    if (pick(20) != 0) { /* make it look sound again */
        kit_store16(ip + 10, 0);
        kit_store16(ip + 10, kit_checksum(ip, 20));
        size_t at = protocol == 6 ? 16 : protocol == 17 ? 6 : 2;
        uint64_t sum = protocol == 1 ? 0
                                     : kit_checksum_pseudo(kit_load32(ip + 12), kit_load32(ip + 16),
                                                           protocol, (uint16_t)length);
        kit_store16(payload + at, 0);
        kit_store16(payload + at, kit_checksum_end(kit_checksum_add(sum, payload, length)));
    }
    return 34 + length - (pick(50) ? 0 : pick((uint32_t)length));
}

static size_t make_frame(uint8_t *frame)
{
    if (pick(15) != 0)
        return make_packet(frame);
    size_t length = 14 + pick(60);
    for (size_t i = 0; i < length; i++)
        frame[i] = (uint8_t)pick(256);
    kit_eth_write(frame, mac, own_mac, pick(2) ? KIT_ETH_ARP : KIT_ETH_IPV4);
    if (pick(2) != 0) {
        length = 42;
        kit_eth_write(frame, mac, own_mac, KIT_ETH_ARP);
        kit_arp_write(frame + 14, (uint16_t)(1 + pick(3)), own_mac, THEIRS + pick(20), mac,
                      OURS + pick(2));
    }
    return length;
}

static void step(void)
{
    static unsigned deaf; /* so long nobody takes what the stack sends */
    uint8_t frame[2048];
    for (unsigned i = pick(20); i > 0; i--) {
        size_t length = make_frame(frame);
        for (unsigned times = pick(4) ? 1 : 1 + pick(6); times > 0; times--)
            (void)kit_netif_send(raw, frame, length);
    }
    if (pick(3) == 0)
        act();
    for (unsigned i = 0; i < 4; i++)
        kit_net_poll(net);
    int length;
    deaf = deaf != 0 ? deaf - 1 : pick(200) ? 0 : pick(300);
    while (deaf == 0 && (length = kit_netif_receive(raw, frame, sizeof frame)) > 0)
        verify(frame, (size_t)length);
    kit_virtual_advance(&host, pick(100) ? pick(1000000) : pick(100) * KIT_NS_PER_S);
}

int main(int argc, char **argv)
{
    static const struct kit_alloc_ops ops = {.alloc = heap_alloc, .free = heap_free};
    struct kit_alloc alloc = {&ops};
    uint64_t pipe_options[] = {64, 1500}, steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
    uint64_t options[16] = {OURS | UINT64_C(24) << 32, 0, 16,   BUFFER, BUFFER, 0,
                            10 * KIT_NS_PER_S,         2, 4000, 4};
    network_interface_t *ends[2];
    size_t size = kit_netif_pipe.memory_size(pipe_options);
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    kit_virtual_open(&host, NULL, 0, state);
    options[5] = state & 1;
    for (int i = 10; i < 16 && i < argc - 3 + 10; i++) /* those that not every stack has */
        options[i] = strtoull(argv[i - 10 + 3], NULL, 0);
    if (kit_netif_pipe.open(pipe_options, memory, size, ends) != 0)
        return 2;
    raw = ends[0];
    memcpy(mac, ends[1]->mac, 6);
    while (COMPONENT.open(options, &host.env, ends[1], &alloc, &net) != 0)
        ; /* one allocation in 200 fails */
    struct kit_net_stats stats;
    kit_net_stats(net, &stats);
    uint64_t bound = stats.memory + 16 * (OVERHEAD + 2 * BUFFER) + 64 * 128 + 2 * 8192 +
                     4 * 4 * 1600 + SOCKETS * (OVERHEAD + BUFFER);
    for (uint64_t i = 0; i < steps; i++) {
        step();
        kit_net_stats(net, &stats);
        if (kit_net_check(net) != 0)
            broken("a broken invariant");
        if (stats.memory > bound)
            broken("memory beyond the bound");
    }
    printf("sent %llu, accepted %llu, connected %llu, malformed %llu, resets %llu\n",
           (unsigned long long)sent, (unsigned long long)stats.accepted,
           (unsigned long long)stats.connected, (unsigned long long)stats.dropped_malformed,
           (unsigned long long)stats.resets_in);
    kit_net_close(net);
    free(memory);
    return stats.accepted == 0 || stats.connected == 0;
}
