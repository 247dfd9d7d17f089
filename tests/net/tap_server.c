/* SPDX-License-Identifier: MIT */
/* A hosted program for tests against the kernel's TCP: a stack (-DCOMPONENT) on a descriptor that
 * carries frames (a TAP), with small services. Arguments: descriptor, address as a number, drop
 * rate per 10000 frames each way, seed, and for an active open: address and port (numbers) to send
 * `bytes` to. It ends when standard input does; then it prints counters, one «name value» per line.
 *
 *   7  echo    9  discard    19  sends until the peer closes    80  HTTP keep-alive, 612 bytes
 *   UDP 7  echo */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <unikit/net/net.h>
#include <unikit/net/netif/host_fd.h>

#ifndef COMPONENT
#define COMPONENT kit_net_mini
#endif

extern const struct kit_net_component COMPONENT;

struct lossy {
    network_interface_t network;
    network_interface_t *inner;
    uint32_t per_10000;
    uint64_t state;
    uint64_t dropped;
};

static struct kit_net *net;
static uint64_t client_left, client_done, allocated;
static char http_reply[1024];
static size_t http_length;

static uint64_t now_ns(runtime_environment_t *env)
{
    struct timespec now;
    (void)env;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    (void)env;
    return getentropy(buffer, size) == 0 ? 0 : KIT_EIO;
}

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a, (void)align;
    allocated += size;
    return malloc(size);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)align;
    if (block != NULL)
        allocated -= size;
    free(block);
}

static bool lost(struct lossy *l)
{
    l->state = l->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    bool drop = (l->state >> 33) % 10000 < l->per_10000;
    l->dropped += drop;
    return drop;
}

static int lossy_send(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    struct lossy *l = (struct lossy *)network;
    if (l->per_10000 == 0)
        return l->inner->send_batch(l->inner, frames, count);
    size_t done = 0;
    for (; done < count; done++) {
        if (!lost(l)) {
            int rc = l->inner->send_batch(l->inner, &frames[done], 1);
            if (rc < 1)
                return done != 0 ? (int)done : rc;
        }
    }
    return (int)done;
}

static int lossy_receive(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    struct lossy *l = (struct lossy *)network;
    int got = l->inner->receive_batch(l->inner, frames, count);
    for (int i = 0; l->per_10000 != 0 && i < got; i++) {
        if (lost(l))
            frames[i].length = 14, memset(frames[i].data, 0, 14); /* nobody wants this frame */
    }
    return got;
}

static void on_echo(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    const void *data;
    int ready, taken;
    (void)argument;
    if ((events & KIT_NET_ERROR) != 0) {
        kit_net_tcp_close(tcp);
        return;
    }
    while ((ready = kit_net_tcp_peek(tcp, &data)) > 0) {
        if ((taken = kit_net_tcp_send(tcp, data, (size_t)ready)) <= 0)
            return;
        kit_net_tcp_consume(tcp, (size_t)taken);
    }
    if (ready == 0)
        kit_net_tcp_close(tcp);
}

static void on_discard(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    const void *data;
    int ready;
    (void)argument;
    while ((events & KIT_NET_ERROR) == 0 && (ready = kit_net_tcp_peek(tcp, &data)) != KIT_EAGAIN) {
        if (ready <= 0)
            break;
        kit_net_tcp_consume(tcp, (size_t)ready);
    }
    if ((events & KIT_NET_ERROR) != 0 || ready <= 0)
        if ((events & KIT_NET_ERROR) != 0 || ready != KIT_EAGAIN)
            kit_net_tcp_close(tcp);
}

static void on_chargen(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    static uint8_t block[65536];
    (void)argument;
    if ((events & (KIT_NET_ERROR | KIT_NET_CLOSED)) != 0) {
        kit_net_tcp_close(tcp);
        return;
    }
    const void *data;
    if (kit_net_tcp_peek(tcp, &data) == 0) { /* the peer has enough */
        kit_net_tcp_close(tcp);
        return;
    }
    while (kit_net_tcp_send(tcp, block, sizeof(block)) > 0)
        ;
}

static void on_http(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    const char *data;
    int ready;
    (void)argument;
    if ((events & KIT_NET_ERROR) != 0) {
        kit_net_tcp_close(tcp);
        return;
    }
    while ((ready = kit_net_tcp_peek(tcp, (const void **)&data)) > 0) {
        const char *end = memmem(data, (size_t)ready, "\r\n\r\n", 4);
        if (end == NULL) /* tests send whole requests */
            return;
        size_t length = (size_t)(end + 4 - data);
        bool last = memmem(data, length, "Connection: close", 17) != NULL;
        kit_net_tcp_consume(tcp, length);
        if (kit_net_tcp_send(tcp, http_reply, http_length) != (int)http_length || last) {
            kit_net_tcp_close(tcp);
            return;
        }
    }
    if (ready == 0)
        kit_net_tcp_close(tcp);
}

static void on_client(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    static uint8_t block[65536];
    (void)argument;
    if ((events & KIT_NET_ERROR) != 0) {
        struct kit_tcp_info info;
        kit_net_tcp_info(tcp, &info);
        fprintf(stderr, "client: error %d\n", info.error);
        kit_net_tcp_close(tcp);
        return;
    }
    int taken = 1;
    while (client_left != 0 && taken > 0) {
        size_t length = client_left < sizeof(block) ? (size_t)client_left : sizeof(block);
        taken = kit_net_tcp_send(tcp, block, length);
        client_left -= taken > 0 ? (uint64_t)taken : 0;
    }
    if (client_left == 0)
        kit_net_tcp_shutdown(tcp);
    const void *data;
    if (kit_net_tcp_peek(tcp, &data) == 0) {
        client_done = 1;
        kit_net_tcp_close(tcp);
    }
}

static void on_accept(void *argument, struct kit_tcp *listener, uint32_t events)
{
    struct kit_tcp *tcp;
    (void)events;
    while ((tcp = kit_net_tcp_accept(listener)) != NULL) {
        kit_net_tcp_set_callback(tcp, *(kit_tcp_callback *)argument, NULL);
        (*(kit_tcp_callback *)argument)(NULL, tcp, KIT_NET_WRITABLE);
    }
}

static void on_udp(void *argument, struct kit_udp *udp)
{
    struct kit_address from;
    uint8_t buffer[2048];
    int length;
    (void)argument;
    while ((length = kit_net_udp_receive(udp, &from, buffer, sizeof(buffer))) >= 0)
        kit_net_udp_send(udp, &from, buffer, (size_t)length);
}

static void serve(int fd)
{
    struct pollfd polled[] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        bool busy = kit_net_poll(net);
        uint64_t now = now_ns(NULL), deadline = kit_net_deadline_ns(net);
        uint64_t wait = busy || deadline <= now ? 0 : deadline - now;
        if (wait > 1000000000)
            wait = 1000000000;
        if (busy)
            continue;
        struct timespec timeout = {.tv_nsec = (long)(wait % 1000000000),
                                   .tv_sec = (time_t)(wait / 1000000000)};
        ppoll(polled, 2, &timeout, NULL);
        if ((polled[1].revents & (POLLIN | POLLHUP)) != 0)
            return;
    }
}

static void print_counters(const struct lossy *l)
{
    struct kit_net_stats s;
    kit_net_stats(net, &s);
    printf("check %d\nframes_in %" PRIu64 "\nframes_out %" PRIu64 "\nretransmits %" PRIu64
           "\naccepted %" PRIu64 "\nmalformed %" PRIu64 "\nfull %" PRIu64 "\nopen %" PRIu32
           "\nmemory %" PRIu64 "\ndropped %" PRIu64 "\nclient_done %" PRIu64 "\n",
           kit_net_check(net), s.frames_in, s.frames_out, s.retransmits, s.accepted,
           s.dropped_malformed, s.dropped_full, s.tcp_open, s.memory, l->dropped, client_done);
}

int main(int argc, char **argv)
{
    static const struct kit_alloc_ops ops = {.alloc = heap_alloc, .free = heap_free};
    static kit_tcp_callback services[] = {on_echo, on_discard, on_chargen, on_http};
    static const uint16_t ports[] = {7, 9, 19, 80};
    static const uint8_t mac[6] = {2, 0x75, 0x6b, 0, 0, 9};
    struct kit_alloc alloc = {&ops};
    runtime_environment_t env = {.now_ns = now_ns, .entropy = entropy};
    struct kit_host_netif *host;
    if (argc < 5 || kit_host_fd_open(atoi(argv[1]), mac, 1500, &host) != 0)
        return 2;
    struct lossy l = {.network = host->network,
                      .inner = &host->network,
                      .per_10000 = (uint32_t)atoi(argv[3]),
                      .state = strtoull(argv[4], NULL, 0)};
    l.network.send_batch = lossy_send;
    l.network.receive_batch = lossy_receive;
    uint64_t options[16] = {strtoull(argv[2], NULL, 0) | UINT64_C(24) << 32,
                            0,
                            512,
                            256 << 10,
                            256 << 10,
                            0,
                            UINT64_C(60000000000),
                            32,
                            32768,
                            32,
                            0, /* from here on those of net.inet */
                            1,
                            0,
                            UINT64_C(300000000000),
                            0,
                            65536};
    if (COMPONENT.open(options, &env, &l.network, &alloc, &net) != 0)
        return 3;
    http_length = (size_t)snprintf(http_reply, sizeof(http_reply),
                                   "HTTP/1.1 200 OK\r\nContent-Length: 612\r\n\r\n%0612d", 0);
    for (unsigned i = 0; i < 4; i++) {
        struct kit_tcp *listener;
        if (kit_net_tcp_listen(net, ports[i], 128, on_accept, &services[i], &listener) != 0)
            return 4;
    }
    struct kit_udp *udp;
    struct kit_tcp *tcp;
    if (kit_net_udp_open(net, 7, on_udp, NULL, &udp) != 0)
        return 4;
    if (argc == 8) {
        struct kit_address to = {.family = 4, .port = (uint16_t)atoi(argv[6])};
        uint32_t ip = (uint32_t)strtoul(argv[5], NULL, 0);
        for (unsigned i = 0; i < 4; i++)
            to.bytes[i] = (uint8_t)(ip >> (24 - 8 * i));
        client_left = strtoull(argv[7], NULL, 0);
        if (kit_net_tcp_connect(net, &to, on_client, NULL, &tcp) != 0)
            return 5;
    }
    puts("ready");
    fflush(stdout);
    serve(host->fd);
    print_counters(&l);
    kit_net_close(net);
    kit_host_fd_close(host);
    printf("left %" PRIu64 "\n", allocated);
    return 0;
}
