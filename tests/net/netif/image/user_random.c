/* SPDX-License-Identifier: MIT */
/* user_random SEED STEPS OPTION...: netif.user between real sockets with random habits and an image
 * with real services, in one thread; every byte is checked, and the invariants all the time.
 *
 * Each client talks to one service: it sends a random number of bytes of a pattern in random
 * pieces, reads now and then, ends its stream, closes, resets or just waits. What must hold: what
 * comes back is what that service sends, complete if the client did not break off; refused ports
 * reset; and when all is over nothing is left on either side. */
#include "services.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <unikit/net/netif/user/host_user.h>

extern const struct kit_net_component IMAGE_STACK;

enum { CLIENTS = 40, LIMIT = 24 /* relays: fewer than clients, so that the pause is used */ };

static const uint16_t services[] = {ECHO_PORT,  DISCARD_PORT, GENERATE_PORT, CLOSE_PORT,
                                    RESET_PORT, STALL_PORT,   REFUSED_PORT};
enum { SERVICES = sizeof services / sizeof services[0] };

struct client {
    int fd; /* -1: none */
    uint16_t service;
    uint64_t length; /* bytes to send in all (GENERATE: to ask for) */
    uint64_t sent;
    uint64_t received;
    bool ended;
    uint8_t tail[8]; /* DISCARD's answer */
    unsigned age;
};

static uint64_t state;
static struct sockaddr_in ports[SERVICES], udp_port;
static unsigned completed[SERVICES], broken_off, resets;

static uint64_t random_below(uint64_t bound)
{
    state ^= state << 13; /* xorshift64, Marsaglia 2003 */
    state ^= state >> 7;
    state ^= state << 17;
    return (state * UINT64_C(2685821657736338717) >> 11) % bound;
}

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);      \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static int listening(int type, struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    REQUIRE(fd >= 0 && !bind(fd, (struct sockaddr *)address, size));
    REQUIRE(type == SOCK_DGRAM || !listen(fd, 64));
    REQUIRE(!getsockname(fd, (struct sockaddr *)address, &size));
    return fd;
}

static void begin(struct client *c)
{
    unsigned which = (unsigned)random_below(SERVICES);
    *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
                         .service = services[which],
                         .length = random_below(random_below(4) ? 3000 : 400000)};
    REQUIRE(c->fd >= 0);
    int rc = connect(c->fd, (struct sockaddr *)&ports[which], sizeof ports[which]);
    REQUIRE(rc == 0 || errno == EINPROGRESS);
}

static void finish(struct client *c, bool reset)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(c->fd);
    c->fd = -1;
}

static uint8_t outgoing(const struct client *c, uint64_t at)
{
    return c->service == GENERATE_PORT ? ((const uint8_t *)&c->length)[at] : pattern(at + 1);
}

/* A reset came: only some services do that (an end of stream crossing our data is one). */
static void broken(struct client *c)
{
    REQUIRE(errno == ECONNRESET || errno == EPIPE);
    REQUIRE(c->service != ECHO_PORT && c->service != DISCARD_PORT && c->service != STALL_PORT);
    resets++;
    finish(c, false);
}

static void send_some(struct client *c)
{
    uint8_t buffer[20000];
    uint64_t total = c->service == GENERATE_PORT ? 8 : c->length;
    uint64_t want = 1 + random_below(random_below(2) ? 200 : sizeof buffer - 1);
    if (want > total - c->sent)
        want = total - c->sent;
    for (uint64_t i = 0; i < want; i++)
        buffer[i] = outgoing(c, c->sent + i);
    ssize_t done = want ? send(c->fd, buffer, want, MSG_NOSIGNAL) : 0;
    if (done > 0)
        c->sent += (uint64_t)done;
    if (done < 0 && errno != EAGAIN && errno != ENOTCONN) {
        broken(c);
        return;
    }
    if (c->sent == total && !c->ended) {
        c->ended = true;
        shutdown(c->fd, SHUT_WR);
    }
}

/* The stream ended in good order: it must have been complete. */
static void complete(struct client *c)
{
    uint64_t count;
    memcpy(&count, c->tail, sizeof count);
    if (c->service == ECHO_PORT || c->service == GENERATE_PORT)
        REQUIRE(c->received == c->length);
    if (c->service == DISCARD_PORT)
        REQUIRE(c->received == 8 && count == c->length);
    if (c->service == CLOSE_PORT)
        REQUIRE(c->received == 3);
    REQUIRE(c->service != STALL_PORT && c->service != REFUSED_PORT);
    for (unsigned i = 0; i < SERVICES; i++)
        completed[i] += services[i] == c->service;
    finish(c, false);
}

static void receive_some(struct client *c)
{
    uint8_t buffer[20000];
    ssize_t got = recv(c->fd, buffer, 1 + random_below(sizeof buffer - 1), 0);
    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN))
        return;
    if (got < 0) {
        broken(c);
        return;
    }
    for (ssize_t i = 0; i < got; i++, c->received++) {
        if (c->service == ECHO_PORT)
            REQUIRE(buffer[i] == pattern(c->received + 1));
        else if (c->service == GENERATE_PORT)
            REQUIRE(buffer[i] == pattern(c->received));
        else if (c->service == DISCARD_PORT)
            c->tail[c->received] = buffer[i];
        else
            REQUIRE(c->service == CLOSE_PORT && buffer[i] == (uint8_t) "bye"[c->received]);
    }
    if (got == 0)
        complete(c);
}

static void act(struct client *c, bool quitting)
{
    if (c->fd < 0) {
        if (!quitting && random_below(50) == 0)
            begin(c);
        return;
    }
    c->age++;
    uint64_t choice = random_below(2000);
    if (choice < 3 || (c->service == STALL_PORT && c->age > 300) || c->age > 60000) {
        REQUIRE(c->age <= 60000);
        broken_off++;
        finish(c, c->service == STALL_PORT || (choice & 1)); /* it would never see an end */
    } else if (choice < 900) {
        send_some(c);
    } else {
        receive_some(c);
    }
}

static void udp_act(int fd)
{
    static uint32_t serial;
    uint8_t buffer[1472];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    if (random_below(4) == 0) {
        size_t length = 4 + random_below(sizeof buffer - 4);
        serial++;
        for (size_t i = 4; i < length; i++)
            buffer[i] = pattern(serial + i);
        memcpy(buffer, &serial, 4);
        sendto(fd, buffer, length, 0, (struct sockaddr *)&udp_port, sizeof udp_port);
    }
    ssize_t got =
        recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (got < 0)
        return;
    uint32_t number;
    memcpy(&number, buffer, 4);
    REQUIRE(got >= 4 && number <= serial && from.sin_port == udp_port.sin_port);
    for (size_t i = 4; i < (size_t)got; i++)
        REQUIRE(buffer[i] == pattern(number + i));
}

int main(int argc, char **argv)
{
    struct kit_user_port forwards[SERVICES + 1];
    struct client clients[CLIENTS];
    uint64_t options[64] = {0};
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 0) * 2 + 1;
    for (int i = 3; i < argc && i < 60; i++)
        options[i - 3] = strtoull(argv[i], NULL, 0);
    for (unsigned i = 0; i < SERVICES; i++)
        forwards[i] = (struct kit_user_port){.fd = listening(SOCK_STREAM, &ports[i]),
                                             .protocol = KIT_USER_TCP,
                                             .image_port = services[i]};
    forwards[SERVICES] = (struct kit_user_port){
        .fd = listening(SOCK_DGRAM, &udp_port), .protocol = KIT_USER_UDP, .image_port = ECHO_PORT};
    const struct kit_user_config config = {.stack = &IMAGE_STACK,
                                           .stack_options = options,
                                           .outer_address = 0x0a000202,
                                           .image_address = 0x0a00020f,
                                           .prefix = 24,
                                           .mtu = 1500,
                                           .connections = LIMIT,
                                           .sessions = 3,
                                           .session_ns = 20 * KIT_NS_PER_MS,
                                           .memory = 64 << 20,
                                           .mac = {2, 0, 0, 0, 0, 15}};
    struct kit_host_netif *user;
    REQUIRE(!kit_host_user_open(&config, forwards, SERVICES + 1, &user));
    struct image *image = image_open(&IMAGE_STACK, options, &user->network, "10.0.2.15");
    int udp[5];
    for (unsigned i = 0; i < 5; i++)
        udp[i] = socket(AF_INET, SOCK_DGRAM, 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i].fd = -1;
    uint64_t steps = strtoull(argv[2], NULL, 0), open = 0;
    for (uint64_t step = 0; step < steps || (open && step < steps + 200000); step++) {
        open = 0;
        for (unsigned i = 0; i < CLIENTS; i++) {
            act(&clients[i], step >= steps);
            open += clients[i].fd >= 0;
        }
        udp_act(udp[random_below(5)]);
        if (random_below(8)) /* the image is slow now and then */
            image_run(image);
        if (step % 64 == 0)
            REQUIRE(!kit_host_user_check(user) && !kit_net_check(image_net(image)));
    }
    REQUIRE(!open);
    for (unsigned i = 0; i < 20000 && image_connections(image); i++) {
        image_run(image);
        usleep(1000);
    }
    struct kit_user_stats stats;
    kit_host_user_stats(user, &stats);
    fprintf(stderr,
            "echo %u discard %u generate %u close %u, %u resets, %u broken off; refused %lu, "
            "datagrams %lu/%lu, relays left %u, image connections left %u\n",
            completed[0], completed[1], completed[2], completed[3], resets, broken_off,
            (unsigned long)stats.refused, (unsigned long)stats.datagrams_in,
            (unsigned long)stats.datagrams_out, stats.connections, image_connections(image));
    image_report(image);
    REQUIRE(stats.connections == 0 && image_connections(image) == 0);
    REQUIRE(completed[0] && completed[1] && completed[2] && completed[3] && resets && broken_off);
    REQUIRE(stats.datagrams_out > 0 && stats.datagrams_out <= stats.datagrams_in);
    kit_host_user_close(user);
    image_close(image);
    for (unsigned i = 0; i < 5; i++)
        close(udp[i]);
    for (unsigned i = 0; i <= SERVICES; i++)
        close(forwards[i].fd);
    return 0;
}
