/* SPDX-License-Identifier: MIT */
#include "services.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <unikit/rt/list.h>

enum { BUFFER = 16384, BACKLOG = 512 };

struct image {
    runtime_environment_t env;
    struct kit_alloc alloc;
    struct kit_net *net;
    struct kit_udp *udp;
    struct kit_list list; /* of connections */
    unsigned connections;
};

struct connection {
    struct kit_list link;
    struct kit_tcp *tcp;
    struct image *image;
    uint64_t count; /* bytes received, or left to send */
    uint64_t sent;
    uint16_t port;
    bool answering; /* the request was read */
    uint8_t request[8];
};

static const char HTTP_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Length: 612\r\nConnection: keep-alive"
                                "\r\n\r\n";

static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "image: %s: %d\n", what, rc);
        abort();
    }
}

static uint64_t now_ns(runtime_environment_t *env)
{
    (void)env;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * KIT_NS_PER_S + (uint64_t)t.tv_nsec;
}

static int entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    (void)env;
    return getrandom(buffer, size, 0) == (ssize_t)size ? 0 : KIT_EIO;
}

static void *image_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a;
    void *block = NULL;
    return posix_memalign(&block, align < 16 ? 16 : align, size ? size : 1) ? NULL : block;
}

static void image_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a;
    (void)size;
    (void)align;
    free(block);
}

static void *image_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                           size_t align)
{
    void *moved = image_alloc(a, new_size, align);
    if (moved && block) {
        memcpy(moved, block, old_size < new_size ? old_size : new_size);
        free(block);
    }
    return moved;
}

static const struct kit_alloc_ops alloc_ops = {
    .alloc = image_alloc, .free = image_free, .realloc = image_realloc};

static void drop(struct connection *c, struct kit_tcp *tcp, bool reset)
{
    c->image->connections--;
    kit_list_remove(&c->link);
    if (reset)
        kit_net_tcp_abort(tcp);
    else
        kit_net_tcp_close(tcp);
    free(c);
}

/* Sends what was peeked back; 1 as long as there may be more, 0: wait, -1: over. */
static int echo(struct connection *c, struct kit_tcp *tcp)
{
    const void *data;
    int length = kit_net_tcp_peek(tcp, &data);
    if (length == KIT_EAGAIN)
        return 0;
    if (length <= 0) {
        drop(c, tcp, length < 0);
        return -1;
    }
    int sent = kit_net_tcp_send(tcp, data, (size_t)length);
    if (sent == KIT_EAGAIN)
        return 0;
    if (sent < 0) {
        drop(c, tcp, true);
        return -1;
    }
    kit_net_tcp_consume(tcp, (size_t)sent);
    return 1;
}

static int discard(struct connection *c, struct kit_tcp *tcp)
{
    uint8_t buffer[BUFFER];
    int length = kit_net_tcp_receive(tcp, buffer, sizeof buffer);
    if (length > 0) {
        c->count += (uint64_t)length;
        return 1;
    }
    if (length == KIT_EAGAIN)
        return 0;
    if (length == 0)
        kit_net_tcp_send(tcp, &c->count, sizeof c->count);
    drop(c, tcp, length < 0);
    return -1;
}

static int generate(struct connection *c, struct kit_tcp *tcp)
{
    if (!c->answering) {
        int length = kit_net_tcp_receive(tcp, c->request + c->sent, 8 - (size_t)c->sent);
        if (length == KIT_EAGAIN)
            return 0;
        if (length <= 0) {
            drop(c, tcp, true);
            return -1;
        }
        c->sent += (uint64_t)length;
        if (c->sent < 8)
            return 1;
        memcpy(&c->count, c->request, 8);
        c->answering = true;
        c->sent = 0;
    }
    uint8_t buffer[BUFFER];
    size_t length = c->count - c->sent < BUFFER ? (size_t)(c->count - c->sent) : BUFFER;
    for (size_t i = 0; i < length; i++)
        buffer[i] = pattern(c->sent + i);
    int sent = length ? kit_net_tcp_send(tcp, buffer, length) : KIT_ECLOSED;
    if (sent == KIT_EAGAIN)
        return 0;
    if (sent < 0) {
        drop(c, tcp, sent != KIT_ECLOSED);
        return -1;
    }
    c->sent += (uint64_t)sent;
    return 1;
}

static int http(struct connection *c, struct kit_tcp *tcp)
{
    char buffer[BUFFER];
    int length = kit_net_tcp_receive(tcp, buffer, sizeof buffer);
    if (length == KIT_EAGAIN)
        return 0;
    if (length <= 0) {
        drop(c, tcp, length < 0);
        return -1;
    }
    memcpy(buffer, HTTP_HEAD, sizeof HTTP_HEAD - 1);
    memset(buffer + sizeof HTTP_HEAD - 1, 'x', 612);
    kit_net_tcp_send(tcp, buffer, sizeof HTTP_HEAD - 1 + 612);
    return 1;
}

static int serve(struct connection *c, struct kit_tcp *tcp)
{
    uint8_t byte;
    switch (c->port) {
    case ECHO_PORT:
        return echo(c, tcp);
    case DISCARD_PORT:
        return discard(c, tcp);
    case GENERATE_PORT:
        return generate(c, tcp);
    case HTTP_PORT:
        return http(c, tcp);
    case CLOSE_PORT:
        kit_net_tcp_send(tcp, "bye", 3);
        drop(c, tcp, false);
        return -1;
    case RESET_PORT:
        if (kit_net_tcp_receive(tcp, &byte, 1) == KIT_EAGAIN)
            return 0;
        drop(c, tcp, true);
        return -1;
    default:
        return 0;
    }
}

static void connection_event(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct connection *c = argument;
    if (events & KIT_NET_ERROR) {
        drop(c, tcp, true);
        return;
    }
    while (serve(c, tcp) > 0)
        ;
}

static void listener_event(void *argument, struct kit_tcp *listener, uint32_t events)
{
    (void)events;
    struct kit_tcp *tcp;
    while ((tcp = kit_net_tcp_accept(listener))) {
        struct kit_tcp_info info;
        kit_net_tcp_info(tcp, &info);
        struct connection *c = calloc(1, sizeof *c);
        c->image = argument;
        c->port = info.local.port;
        c->image->connections++;
        c->tcp = tcp;
        kit_list_push_back(&c->image->list, &c->link);
        kit_net_tcp_set_callback(tcp, connection_event, c);
        if (c->port == CLOSE_PORT)
            serve(c, tcp);
    }
}

static void udp_event(void *argument, struct kit_udp *udp)
{
    static uint8_t buffer[65536];
    struct kit_address from;
    int length;
    (void)argument;
    while ((length = kit_net_udp_receive(udp, &from, buffer, sizeof buffer)) >= 0)
        kit_net_udp_send(udp, &from, buffer, (size_t)length);
}

struct image *image_open(const struct kit_net_component *stack, const uint64_t *options,
                         network_interface_t *network, const char *address)
{
    static const uint16_t ports[] = {ECHO_PORT,  DISCARD_PORT, GENERATE_PORT, CLOSE_PORT,
                                     RESET_PORT, STALL_PORT,   HTTP_PORT};
    struct image *image = calloc(1, sizeof *image);
    struct kit_address own = {.family = 4}, none = {.family = 0};
    struct kit_tcp *listener;
    image->env = (runtime_environment_t){
        .now_ns = now_ns, .entropy = entropy, .network = network, .cpus = 1, .platform = "test"};
    image->alloc.ops = &alloc_ops;
    kit_list_init(&image->list);
    must(stack->open(options, &image->env, network, &image->alloc, &image->net), "open");
    must(inet_pton(AF_INET, address, own.bytes) - 1, "address");
    must(kit_net_configure(image->net, &own, 24, &none), "configure");
    for (size_t i = 0; i < KIT_ARRAY_SIZE(ports); i++)
        must(kit_net_tcp_listen(image->net, ports[i], BACKLOG, listener_event, image, &listener),
             "listen");
    must(kit_net_udp_open(image->net, ECHO_PORT, udp_event, image, &image->udp), "udp");
    return image;
}

struct kit_net *image_net(struct image *image)
{
    return image->net;
}

bool image_run(struct image *image)
{
    return kit_net_poll(image->net);
}

unsigned image_connections(const struct image *image)
{
    return image->connections;
}

void image_report(const struct image *image)
{
    for (const struct kit_list *at = image->list.next; at != &image->list; at = at->next) {
        const struct connection *c = (const struct connection *)at;
        struct kit_tcp_info info;
        kit_net_tcp_info(c->tcp, &info);
        fprintf(stderr,
                "image: port %u, peer %u, state %u, ready %u, unacknowledged %u, received %lu, "
                "sent %lu\n",
                c->port, info.remote.port, info.state, info.receive_ready, info.unacknowledged,
                (unsigned long)c->count, (unsigned long)c->sent);
    }
}

void image_close(struct image *image)
{
    kit_net_close(image->net);
    free(image);
}
