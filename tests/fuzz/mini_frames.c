/* SPDX-License-Identifier: MIT */
/* mini SEED STEPS OPTION...: hostile input for net.mini, under AddressSanitizer and UBSan.
 *
 * A stack serves echoes over TCP and UDP; its peer is a stack of the same kind that connects,
 * sends, reads and leaves. Frames of the peer are kept and come again spoilt: numbers, flags,
 * windows, options and lengths near what is valid, mostly with checksums made right again so that
 * they get past the first look; sometimes anything. Time is virtual, memory is refused now and
 * then. What must hold: no memory error, the invariants after every round, memory within a bound,
 * everything given back at the end, and an honest peer is served when the noise is over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/net/net.h>
#include <unikit/net/wire/bytes.h>
#include <unikit/net/wire/checksum.h>
#include <unikit/testing/suite.h>
#include <unikit/testing/virtual.h>

extern const struct kit_net_component COMPONENT;

enum { FRAME = 1514, QUEUE = 256, KEPT = 64, CLIENTS = 12, IP = 14, TCP = IP + 20, PORT = 7 };
enum { MEMORY_MAX = 8 << 20 };

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t state;
static struct kit_virtual virtual;

static size_t below(size_t bound)
{
    return (size_t)(kit_suite_random(&state) % bound);
}

/* ---- memory that may be refused ---------------------------------------------------------------
 */

static bool miserly;
static size_t held, peak;

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a, (void)align;
    if (miserly && below(50) == 0)
        return NULL;
    held += size;
    peak = held > peak ? held : peak;
    return malloc(size);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)align;
    held -= block != NULL ? size : 0;
    free(block);
}

static void *heap_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    void *moved = heap_alloc(a, new_size, align);
    if (moved == NULL || block == NULL)
        return moved;
    memcpy(moved, block, old_size < new_size ? old_size : new_size);
    heap_free(a, block, old_size, align);
    return moved;
}

static const struct kit_alloc_ops heap_ops = {
    .alloc = heap_alloc, .free = heap_free, .realloc = heap_realloc};
static struct kit_alloc heap = {&heap_ops};

/* ---- the cable: two queues ---------------------------------------------------------------------
 */

struct end {
    network_interface_t network;
    struct end *other;
    size_t first, count; /* frames that arrived here */
    size_t lengths[QUEUE];
    uint8_t frames[QUEUE][FRAME];
};

static struct end ends[2]; /* the stack under test, its peer */

static void arrive(struct end *end, const uint8_t *frame, size_t length)
{
    if (end->count == QUEUE)
        return;
    size_t slot = (end->first + end->count++) % QUEUE;
    memcpy(end->frames[slot], frame, length);
    end->lengths[slot] = length;
}

static int end_send_batch(network_interface_t *network, const struct kit_frame *frames,
                          size_t count)
{
    struct end *end = KIT_CONTAINER_OF(network, struct end, network);
    for (size_t i = 0; i < count; i++) {
        REQUIRE(frames[i].length >= IP && frames[i].length <= FRAME);
        arrive(end->other, frames[i].data, frames[i].length);
    }
    return (int)count;
}

static int end_send(network_interface_t *network, const void *data, size_t length)
{
    const struct kit_frame frame = {.data = (uint8_t *)(uintptr_t)data, .length = (uint32_t)length};
    return end_send_batch(network, &frame, 1) < 0 ? KIT_EAGAIN : 0;
}

static int end_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    struct end *end = KIT_CONTAINER_OF(network, struct end, network);
    size_t i = 0;
    for (; i < count && end->count != 0; i++, end->count--) {
        REQUIRE(frames[i].capacity >= FRAME);
        memcpy(frames[i].data, end->frames[end->first], end->lengths[end->first]);
        frames[i].length = (uint32_t)end->lengths[end->first];
        frames[i].flags = 0;
        frames[i].gso_type = 0;
        end->first = (end->first + 1) % QUEUE;
    }
    return (int)i;
}

static int end_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct kit_frame frame = {.data = buffer, .capacity = (uint32_t)max_length};
    return end_receive_batch(network, &frame, 1) == 1 ? (int)frame.length : 0;
}

static int end_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network, (void)ip, (void)netmask;
    return 0;
}

static struct kit_net *open_stack(unsigned which, const uint64_t *options)
{
    struct kit_address address = {.bytes = {10, 0, 0, (uint8_t)(1 + which)}, .family = 4};
    struct kit_address none = {.family = 0};
    struct kit_net *net;
    ends[which].other = &ends[1 - which];
    ends[which].network = (network_interface_t){.send_packet = end_send,
                                                .receive_packet = end_receive,
                                                .configure = end_configure,
                                                .send_batch = end_send_batch,
                                                .receive_batch = end_receive_batch,
                                                .mac = {2, 0, 0, 0, 0, (uint8_t)(1 + which)},
                                                .mtu = 1500};
    REQUIRE(COMPONENT.open(options, &virtual.env, &ends[which].network, &heap, &net) == 0);
    REQUIRE(kit_net_configure(net, &address, 24, &none) == 0);
    return net;
}

/* ---- what the stack under test serves ----------------------------------------------------------
 */

static void on_server(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    (void)argument;
    if ((events & KIT_NET_ERROR) != 0 || below(200) == 0) {
        kit_net_tcp_abort(tcp);
        return;
    }
    for (;;) {
        const void *data;
        int length = kit_net_tcp_peek(tcp, &data);
        if (length == KIT_EAGAIN)
            return;
        if (length <= 0) {
            kit_net_tcp_close(tcp);
            return;
        }
        int sent = kit_net_tcp_send(tcp, data, (size_t)length);
        if (sent < 0) {
            if (sent != KIT_EAGAIN)
                kit_net_tcp_close(tcp);
            return;
        }
        kit_net_tcp_consume(tcp, (size_t)sent);
    }
}

static void on_accept(void *argument, struct kit_tcp *listener, uint32_t events)
{
    struct kit_tcp *tcp;
    (void)argument, (void)events;
    while ((tcp = kit_net_tcp_accept(listener)) != NULL) {
        kit_net_tcp_set_callback(tcp, on_server, NULL);
        on_server(NULL, tcp, 0);
    }
}

static void on_datagram(void *argument, struct kit_udp *udp)
{
    static uint8_t buffer[FRAME];
    struct kit_address from;
    bool answers = argument != NULL;
    int length;
    while ((length = kit_net_udp_receive(udp, &from, buffer, sizeof buffer)) >= 0)
        if (answers)
            kit_net_udp_send(udp, &from, buffer, (size_t)length);
}

/* ---- the peer ----------------------------------------------------------------------------------
 */

struct client {
    struct kit_tcp *tcp;
    bool failed;
    uint64_t got;
};

static struct client clients[CLIENTS];

static void on_client(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct client *client = argument;
    (void)tcp;
    client->failed |= (events & KIT_NET_ERROR) != 0;
}

static void act(struct kit_net *peer, struct client *client)
{
    static uint8_t bytes[4000];
    struct kit_address to = {.bytes = {10, 0, 0, 1}, .family = 4, .port = PORT};
    if (client->tcp == NULL) {
        *client = (struct client){0};
        to.port = below(20) == 0 ? 99 : PORT;
        if (kit_net_tcp_connect(peer, &to, on_client, client, &client->tcp) != 0)
            client->tcp = NULL;
        return;
    }
    int got = kit_net_tcp_receive(client->tcp, bytes, 1 + below(sizeof bytes));
    client->got += got > 0 ? (uint64_t)got : 0;
    size_t what = below(40);
    if (client->failed || what == 0) {
        kit_net_tcp_abort(client->tcp);
        client->tcp = NULL;
    } else if (what == 1) {
        kit_net_tcp_close(client->tcp);
        client->tcp = NULL;
    } else if (what == 2) {
        kit_net_tcp_shutdown(client->tcp);
    } else {
        kit_net_tcp_send(client->tcp, bytes, below(sizeof bytes));
    }
}

/* ---- mutation ----------------------------------------------------------------------------------
 */

static uint8_t kept[KEPT][FRAME];
static size_t kept_length[KEPT], kept_next;
static uint64_t mutated, reached;

static bool is_tcp(const uint8_t *frame, size_t length)
{
    return length >= TCP + 20 && kit_load16(frame + 12) == 0x0800 && frame[IP] == 0x45 &&
           frame[IP + 9] == 6;
}

static void nudge(uint8_t *at)
{
    static const uint32_t steps[] = {1, 2, 536, 1460, 4096, 65535, 0x7fffffff, 0x80000000};
    uint32_t step = steps[below(KIT_ARRAY_SIZE(steps))];
    kit_store32(at, kit_load32(at) + (below(2) ? step : 0 - step));
}

static size_t spoil_tcp(uint8_t *frame, size_t length)
{
    switch (below(9)) {
    case 0:
        nudge(frame + TCP + 4);
        break;
    case 1:
        nudge(frame + TCP + 8);
        break;
    case 2:
        frame[TCP + 13] = (uint8_t)below(256);
        break;
    case 3:
        frame[TCP + 13] ^= (uint8_t)(1u << below(6));
        break;
    case 4: /* windows: closed, tiny, huge */
        kit_store16(frame + TCP + 14, (uint16_t)(below(3) ? below(4) : 65535));
        break;
    case 5: /* options: the bytes behind the header become some */
        frame[TCP + 12] = (uint8_t)((5 + below(11)) << 4);
        for (size_t i = TCP + 20; i < length && i < TCP + 60; i++)
            frame[i] = (uint8_t)(below(2) ? below(10) : below(256));
        break;
    case 6: /* shorter */
        length = TCP + 20 + below(length - TCP - 20 + 1);
        break;
    case 7: /* longer */
        for (size_t more = below(FRAME - length + 1); more != 0; more--)
            frame[length++] = (uint8_t)more;
        break;
    default: /* urgent */
        frame[TCP + 13] |= 0x20;
        kit_store16(frame + TCP + 18, (uint16_t)below(65536));
        break;
    }
    return length;
}

/* Makes lengths and checksums of IPv4 and TCP right again. */
static void seal(uint8_t *frame, size_t length)
{
    if (length < TCP + 8 || kit_load16(frame + 12) != 0x0800 || frame[IP] != 0x45)
        return;
    kit_store16(frame + IP + 2, (uint16_t)(length - IP));
    kit_store16(frame + IP + 10, 0);
    kit_store16(frame + IP + 10, kit_checksum(frame + IP, 20));
    if (!is_tcp(frame, length))
        return;
    static uint8_t text[12 + FRAME];
    memcpy(text, frame + IP + 12, 8);
    text[8] = 0;
    text[9] = 6;
    kit_store16(text + 10, (uint16_t)(length - TCP));
    kit_store16(frame + TCP + 16, 0);
    memcpy(text + 12, frame + TCP, length - TCP);
    kit_store16(frame + TCP + 16, kit_checksum(text, 12 + length - TCP));
}

static size_t forge(uint8_t *frame)
{
    size_t which = below(KEPT), length = kept_length[which];
    if (length == 0 || below(40) == 0) {
        length = IP + below(FRAME - IP + 1);
        for (size_t i = 0; i < length; i++)
            frame[i] = (uint8_t)kit_suite_random(&state);
        memcpy(frame, ends[0].network.mac, 6);
        if (below(4))
            memcpy(frame + 12, below(4) ? "\10\0\105" : "\10\6\0", 3);
        return length;
    }
    memcpy(frame, kept[which], length);
    if (is_tcp(frame, length))
        for (size_t count = 1 + below(2); count != 0; count--)
            length = spoil_tcp(frame, length);
    if (below(8) == 0 || !is_tcp(frame, length))
        for (size_t flips = 1 + below(4); flips != 0; flips--)
            frame[below(4) ? IP + below(length - IP) : below(length)] ^= (uint8_t)(1u << below(8));
    if (below(10) == 0)
        length = IP + below(length - IP + 1);
    if (below(10))
        seal(frame, length);
    return length;
}

static uint64_t refusals(const struct kit_net *net)
{
    struct kit_net_stats stats;
    kit_net_stats(net, &stats);
    return stats.dropped_malformed + stats.dropped_unwanted + stats.dropped_full;
}

/* Gives the stack one frame alone and sees whether a connection or a listener took it. */
static void harm(struct kit_net *net)
{
    static uint8_t frame[FRAME];
    while (ends[0].count != 0)
        kit_net_poll(net);
    size_t length = forge(frame);
    uint64_t before = refusals(net);
    arrive(&ends[0], frame, length);
    kit_net_poll(net);
    mutated++;
    reached += is_tcp(frame, length) && refusals(net) == before;
}

/* Keeps what waits at the stack under test; the newest fit the connections there are. */
static void keep(void)
{
    for (size_t i = 0; i < ends[0].count; i++) {
        size_t slot = (ends[0].first + i) % QUEUE;
        kept_length[kept_next % KEPT] = ends[0].lengths[slot];
        memcpy(kept[kept_next++ % KEPT], ends[0].frames[slot], ends[0].lengths[slot]);
    }
}

/* Honest again: a fresh connection carries bytes there and back. */
static void serve_honestly(struct kit_net *net, struct kit_net *peer)
{
    struct kit_address to = {.bytes = {10, 0, 0, 1}, .family = 4, .port = PORT};
    struct client client = {0};
    char bytes[4] = {0};
    bool asked = false;
    miserly = false;
    for (unsigned i = 0; i < 200000; i++) {
        if (client.tcp == NULL || client.failed) {
            if (client.tcp != NULL)
                kit_net_tcp_abort(client.tcp);
            client = (struct client){0};
            asked = false;
            if (kit_net_tcp_connect(peer, &to, on_client, &client, &client.tcp) != 0)
                client.tcp = NULL;
        } else if (!asked) {
            asked = kit_net_tcp_send(client.tcp, "ping", 4) == 4;
        } else if (kit_net_tcp_receive(client.tcp, bytes, 4) == 4) {
            break;
        }
        kit_net_poll(net);
        kit_net_poll(peer);
        virtual.clock_ns += KIT_NS_PER_MS;
    }
    REQUIRE(memcmp(bytes, "ping", 4) == 0);
    kit_net_tcp_abort(client.tcp);
}

static void round_trip(struct kit_net *net, struct kit_net *peer)
{
    act(peer, &clients[below(CLIENTS)]);
    kit_net_poll(peer);
    keep();
    for (size_t count = below(4); count != 0; count--)
        harm(net);
    kit_net_poll(net);
    virtual.clock_ns += below(200) == 0 ? below(20) * KIT_NS_PER_S : below(3 * KIT_NS_PER_MS);
    REQUIRE(kit_net_check(net) == 0 && kit_net_check(peer) == 0);
}

int main(int argc, char **argv)
{
    static uint64_t options[64];
    struct kit_tcp *listener;
    struct kit_udp *echo, *source;
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 0);
    uint64_t steps = strtoull(argv[2], NULL, 0);
    for (int i = 3; i < argc && i < 60; i++)
        options[i - 3] = strtoull(argv[i], NULL, 0);
    kit_virtual_open(&virtual, NULL, 0, state);
    struct kit_net *net = open_stack(0, options), *peer = open_stack(1, options);
    REQUIRE(kit_net_tcp_listen(net, PORT, 8, on_accept, NULL, &listener) == 0);
    REQUIRE(kit_net_udp_open(net, PORT, on_datagram, &ends[0], &echo) == 0);
    REQUIRE(kit_net_udp_open(peer, 5000, on_datagram, NULL, &source) == 0);
    const struct kit_address to = {.bytes = {10, 0, 0, 1}, .family = 4, .port = PORT};
    miserly = true;
    for (uint64_t step = 0; step < steps; step++) {
        round_trip(net, peer);
        if (below(16) == 0)
            kit_net_udp_send(source, &to, options, below(sizeof options));
        REQUIRE(held < MEMORY_MAX);
    }
    serve_honestly(net, peer);
    struct kit_net_stats stats;
    kit_net_stats(net, &stats);
    printf("%llu frames, %llu reached a connection, %llu accepted, %zu bytes at most\n",
           (unsigned long long)mutated, (unsigned long long)reached,
           (unsigned long long)stats.accepted, peak);
    kit_net_close(net);
    kit_net_close(peer);
    REQUIRE(held == 0);
    return 0;
}
