/* SPDX-License-Identifier: MIT */
/* user_hostile SEED STEPS OPTION...: an image that means harm on netif.user. It sends noise, frames
 * it got with bits flipped, cut or turned around, and now and then answers honestly enough to get a
 * connection into its hands. What must hold: no memory error, the invariants, bounded memory, and
 * that the interface still serves an honest image afterwards. */
#include "services.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <unikit/net/netif/user/host_user.h>
#include <unikit/net/wire/arp.h>
#include <unikit/net/wire/checksum.h>
#include <unikit/testing/suite.h>

extern const struct kit_net_component IMAGE_STACK;

enum { CLIENTS = 16, FRAME = 1514, KEPT = 32 };

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t state;
static struct sockaddr_in address[2]; /* TCP, UDP */
static uint8_t kept[KEPT][FRAME];     /* frames the image got */
static size_t kept_length[KEPT];

static size_t below(size_t bound)
{
    return (size_t)(kit_suite_random(&state) % bound);
}

static int port(int type, struct sockaddr_in *at)
{
    socklen_t size = sizeof *at;
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    REQUIRE(fd >= 0 && !bind(fd, (struct sockaddr *)at, size));
    REQUIRE(type == SOCK_DGRAM || !listen(fd, 64));
    REQUIRE(!getsockname(fd, (struct sockaddr *)at, &size));
    return fd;
}

/* With a reset: after an orderly end a hostile image could keep the connection, and that is its
 * right. */
static void leave(int *fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(*fd);
    *fd = -1;
}

/* Clients that connect, write, read and leave. */
static void client(int *fd)
{
    uint8_t buffer[4096] = {0};
    if (*fd < 0) {
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        REQUIRE(*fd >= 0);
        connect(*fd, (struct sockaddr *)&address[0], sizeof address[0]);
    } else if (below(100) == 0) {
        leave(fd);
    } else if (below(2)) {
        send(*fd, buffer, below(sizeof buffer), MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        recv(*fd, buffer, sizeof buffer, MSG_DONTWAIT);
    }
}

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/* Makes the frame look as if it came from whom it went to, checksums valid. */
static void turn_around(uint8_t *frame, size_t length)
{
    swap(frame, frame + 6, 6);
    if (length >= 42 && frame[12] == 8 && frame[13] == 6) {
        memcpy(frame + 6, "\2\0\0\0\0\17", 6);
        frame[21] = (uint8_t)(1 + below(2));
        swap(frame + 22, frame + 32, 10);
        memcpy(frame + 22, frame + 6, 6);
    }
    if (length < 42 || frame[12] != 8 || frame[13] != 0)
        return;
    swap(frame + 26, frame + 30, 4);
    swap(frame + 34, frame + 36, 2);
    if (frame[23] != 6 || length < 54)
        return;
    swap(frame + 38, frame + 42, 4); /* what they acknowledged is what comes next */
    if (frame[47] & 2) {             /* SYN: accept it */
        uint32_t number;
        memcpy(&number, frame + 42, 4);
        number = htonl(ntohl(number) + 1);
        memcpy(frame + 42, &number, 4);
    }
    frame[47] = (uint8_t)(below(3) ? 0x10 | (frame[47] & 2) : below(256));
}

/* Gives IPv4 and TCP the checksums that make a stack look further. */
static void seal(uint8_t *frame, size_t length)
{
    size_t total = (size_t)frame[16] << 8 | frame[17];
    if (length < 42 || frame[12] != 8 || frame[13] != 0 || frame[14] != 0x45 ||
        total + 14 > length || total < 28)
        return;
    frame[24] = frame[25] = 0;
    uint16_t sum = kit_checksum(frame + 14, 20);
    frame[24] = (uint8_t)(sum >> 8);
    frame[25] = (uint8_t)sum;
    if (frame[23] == 17)
        frame[40] = frame[41] = 0; /* none (RFC 768) */
    if (frame[23] != 6 || total < 40)
        return;
    uint8_t pseudo[12 + FRAME] = {0};
    size_t segment = total - 20;
    memcpy(pseudo, frame + 26, 8);
    pseudo[9] = 6;
    pseudo[10] = (uint8_t)(segment >> 8);
    pseudo[11] = (uint8_t)segment;
    frame[50] = frame[51] = 0;
    memcpy(pseudo + 12, frame + 34, segment);
    sum = kit_checksum(pseudo, 12 + segment);
    frame[50] = (uint8_t)(sum >> 8);
    frame[51] = (uint8_t)sum;
}

static size_t forge(uint8_t *frame)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 15}, everyone[6] = {255, 255, 255, 255, 255, 255};
    if (below(100) == 0) { /* the one honest word that opens the door */
        kit_eth_write(frame, everyone, mac, KIT_ETH_ARP);
        kit_arp_write(frame + KIT_ETH_HEADER, KIT_ARP_REQUEST, mac, 0x0a00020f, everyone,
                      0x0a000202);
        return KIT_ETH_HEADER + KIT_ARP_SIZE;
    }
    size_t which = below(KEPT), length = kept_length[which];
    if (below(10) == 0 || !length) {
        length = 14 + below(FRAME - 14 + 1);
        for (size_t i = 0; i < length; i++)
            frame[i] = (uint8_t)kit_suite_random(&state);
        if (below(2))
            memcpy(frame + 12, below(2) ? "\10\0\105" : "\10\6\0", 3);
        return length;
    }
    memcpy(frame, kept[which], length);
    turn_around(frame, length);
    if (below(3) == 0)
        for (size_t flips = below(8); flips; flips--)
            frame[below(length)] ^= (uint8_t)(1u << below(8));
    if (below(8) == 0)
        length = 14 + below(length - 14 + 1);
    if (below(8))
        seal(frame, length);
    return length;
}

static void harm(network_interface_t *network)
{
    uint8_t frame[FRAME + 64];
    int got;
    while ((got = kit_netif_receive(network, frame, sizeof frame)) > 0) {
        size_t slot = below(KEPT);
        memcpy(kept[slot], frame, (size_t)got);
        kept_length[slot] = (size_t)got;
    }
    REQUIRE(got == 0);
    for (size_t count = below(16); count; count--) {
        size_t length = forge(frame);
        struct kit_frame batch[2] = {{.data = frame, .length = (uint32_t)length},
                                     {.data = frame, .length = (uint32_t)below(3000)}};
        int rc = kit_netif_send_batch(network, batch, 1 + (batch[1].length <= sizeof frame));
        REQUIRE(rc != KIT_EPANIC);
    }
}

/* An honest image takes over; somebody must be served. */
static void serve_honestly(struct kit_host_netif *user, const uint64_t *options)
{
    struct image *image = image_open(&IMAGE_STACK, options, &user->network, "10.0.2.15");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    char bytes[4] = {0};
    connect(fd, (struct sockaddr *)&address[0], sizeof address[0]);
    for (unsigned i = 0; i < 20000; i++) {
        image_run(image);
        send(fd, "ping", i == 100 ? 4 : 0, MSG_NOSIGNAL);
        if (recv(fd, bytes, 4, MSG_DONTWAIT) == 4)
            break;
        usleep(500);
    }
    REQUIRE(!memcmp(bytes, "ping", 4));
    close(fd);
    for (unsigned i = 0; i < 20000 && image_connections(image); i++) {
        image_run(image);
        usleep(500);
    }
    REQUIRE(!image_connections(image));
    image_close(image);
}

int main(int argc, char **argv)
{
    uint64_t options[64] = {0};
    int clients[CLIENTS];
    struct kit_user_port ports[2];
    struct kit_host_netif *user;
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 0);
    for (int i = 3; i < argc && i < 60; i++)
        options[i - 3] = strtoull(argv[i], NULL, 0);
    ports[0] = (struct kit_user_port){
        .fd = port(SOCK_STREAM, &address[0]), .protocol = KIT_USER_TCP, .image_port = ECHO_PORT};
    ports[1] = (struct kit_user_port){
        .fd = port(SOCK_DGRAM, &address[1]), .protocol = KIT_USER_UDP, .image_port = ECHO_PORT};
    const struct kit_user_config config = {.stack = &IMAGE_STACK,
                                           .stack_options = options,
                                           .outer_address = 0x0a000202,
                                           .image_address = 0x0a00020f,
                                           .prefix = 24,
                                           .mtu = 1500,
                                           .connections = 64,
                                           .sessions = 8,
                                           .session_ns = KIT_NS_PER_S,
                                           .memory = 8 << 20,
                                           .mac = {2, 0, 0, 0, 0, 15}};
    REQUIRE(!kit_host_user_open(&config, ports, 2, &user));
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = -1;
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    unsigned long steps = strtoul(argv[2], NULL, 0);
    for (unsigned long step = 0; step < steps; step++) {
        client(&clients[below(CLIENTS)]);
        if (below(4) == 0)
            sendto(udp, &state, sizeof state, 0, (struct sockaddr *)&address[1], sizeof address[1]);
        harm(&user->network);
        if (step % 32 == 0)
            REQUIRE(!kit_host_user_check(user));
    }
    struct kit_user_stats stats;
    kit_host_user_stats(user, &stats);
    fprintf(stderr, "accepted %lu, frames in %lu out %lu, datagrams out %lu, memory %lu\n",
            (unsigned long)stats.accepted, (unsigned long)stats.frames_in,
            (unsigned long)stats.frames_out, (unsigned long)stats.datagrams_out,
            (unsigned long)stats.memory);
    REQUIRE(stats.accepted > 50 && stats.accepted > stats.refused && stats.datagrams_out > 50);
    for (unsigned i = 0; i < CLIENTS; i++)
        if (clients[i] >= 0)
            leave(&clients[i]);
    serve_honestly(user, options);
    kit_host_user_close(user);
    close(udp);
    close(ports[0].fd);
    close(ports[1].fd);
    return 0;
}
