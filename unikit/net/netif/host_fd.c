/* SPDX-License-Identifier: MIT */
/* One frame per read and write. A TAP hands out one frame per system call, so a batch is a loop
 * that ends with the call that would block; a packet socket moves up to SOCKET_BATCH with one call.
 * Reads ask for one byte more than the caller's buffer holds: a TAP cuts long frames silently, the
 * spare byte tells. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* recvmmsg, sendmmsg */
#endif
#include <unikit/net/netif/host_fd.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <unikit/net/wire/text.h>

enum { MTU_MIN = 68, MTU_MAX = 65521 }; /* RFC 791; 65535 with the Ethernet header */
enum { SOCKET_BATCH = 64 };

struct host_fd {
    struct kit_host_netif netif; /* first */
    struct kit_host_stats stats;
};

static struct host_fd *of(const network_interface_t *network)
{
    return (struct host_fd *)(uintptr_t)network;
}

static int failed(struct host_fd *self)
{
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
        self->stats.refused++;
        return KIT_EAGAIN;
    case EMSGSIZE:
        self->stats.dropped_size++;
        return KIT_EMSGSIZE;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOTCONN:
    case EBADF:
    case EBADFD: /* the TAP device was removed */
        return KIT_ECLOSED;
    default:
        self->stats.errors++;
        return KIT_EIO;
    }
}

/* Why the frame cannot be sent, or 0. */
static int refusal(struct host_fd *self, const struct kit_frame *frame)
{
    size_t most = (size_t)self->netif.network.mtu + KIT_NETIF_HEADER;
    if (frame->length < KIT_NETIF_HEADER || frame->length > most) {
        self->stats.dropped_size++;
        return KIT_EMSGSIZE;
    }
    return frame->flags || frame->gso_type ? KIT_EIO : 0; /* no offloads here */
}

static int fd_send(network_interface_t *network, const void *data, size_t length)
{
    struct host_fd *self = of(network);
    const struct kit_frame frame = {.length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length};
    int rc = refusal(self, &frame);
    if (rc)
        return rc;
    ssize_t done;
    do
        done = write(self->netif.fd, data, length);
    while (done < 0 && errno == EINTR);
    if (done < 0)
        return failed(self);
    self->stats.frames_out++;
    self->stats.bytes_out += length;
    return 0;
}

static int fd_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct host_fd *self = of(network);
    uint8_t spare;
    struct iovec parts[2] = {{buffer, max_length}, {&spare, 1}};
    ssize_t done;
    do
        done = readv(self->netif.fd, parts, 2);
    while (done < 0 && errno == EINTR);
    if (done < 0)
        return errno == EAGAIN ? 0 : failed(self);
    if (done == 0)
        return KIT_ECLOSED; /* a frame is never empty: the other end of the pair is gone */
    if ((size_t)done > max_length) {
        self->stats.dropped_size++;
        return KIT_EMSGSIZE;
    }
    self->stats.frames_in++;
    self->stats.bytes_in += (uint64_t)done;
    return (int)done;
}

static int fd_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return kit_ipv4_parse_pair(ip, netmask) ? 0 : KIT_EINVAL;
}

static int fd_send_batch(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int rc = refusal(of(network), &frames[i]);
        if (!rc)
            rc = fd_send(network, frames[i].data, frames[i].length);
        if (rc < 0)
            return i ? (int)i : rc;
    }
    return (int)count;
}

static int fd_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    size_t filled = 0;
    while (filled < count) {
        struct kit_frame *frame = &frames[filled];
        int rc = fd_receive(network, frame->data, frame->capacity);
        if (rc == KIT_EMSGSIZE)
            continue; /* dropped and counted */
        if (rc <= 0)
            return filled ? (int)filled : rc;
        *frame = (struct kit_frame){
            .data = frame->data, .length = (uint32_t)rc, .capacity = frame->capacity};
        filled++;
    }
    return (int)filled;
}

static int socket_send_batch(network_interface_t *network, const struct kit_frame *frames,
                             size_t count)
{
    struct host_fd *self = of(network);
    struct mmsghdr messages[SOCKET_BATCH];
    struct iovec parts[SOCKET_BATCH];
    size_t ready = 0;
    int rc = 0;
    for (; ready < count && ready < SOCKET_BATCH; ready++) {
        rc = refusal(self, &frames[ready]);
        if (rc)
            break;
        parts[ready] = (struct iovec){frames[ready].data, frames[ready].length};
        messages[ready] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[ready], .msg_iovlen = 1}};
    }
    if (!ready)
        return rc;
    int done;
    do
        done = sendmmsg(self->netif.fd, messages, (unsigned)ready, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    if (done < 0)
        return failed(self);
    for (int i = 0; i < done; i++)
        self->stats.bytes_out += frames[i].length;
    self->stats.frames_out += (uint64_t)done;
    return done;
}

/* Keeps the received frames that are whole, each in a buffer of its own; their number. */
static size_t keep_whole(struct host_fd *self, const struct mmsghdr *messages,
                         struct kit_frame *frames, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (messages[i].msg_hdr.msg_flags & MSG_TRUNC) {
            self->stats.dropped_size++;
            continue;
        }
        const struct kit_frame whole = frames[i];
        frames[i] = frames[kept];
        frames[kept++] = (struct kit_frame){
            .data = whole.data, .length = messages[i].msg_len, .capacity = whole.capacity};
        self->stats.bytes_in += messages[i].msg_len;
    }
    self->stats.frames_in += kept;
    return kept;
}

static int socket_receive_batch(network_interface_t *network, struct kit_frame *frames,
                                size_t count)
{
    struct host_fd *self = of(network);
    struct mmsghdr messages[SOCKET_BATCH];
    struct iovec parts[SOCKET_BATCH];
    size_t room = count < SOCKET_BATCH ? count : SOCKET_BATCH;
    for (size_t i = 0; i < room; i++) {
        parts[i] = (struct iovec){frames[i].data, frames[i].capacity};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
    }
    int done;
    do
        done = recvmmsg(self->netif.fd, messages, (unsigned)room, MSG_DONTWAIT, NULL);
    while (done < 0 && errno == EINTR);
    if (done < 0)
        return errno == EAGAIN ? 0 : failed(self);
    size_t got = (size_t)done;
    while (got && messages[got - 1].msg_len == 0)
        got--; /* the other end is gone: that reads as empty messages, for ever */
    if (done && !got)
        return KIT_ECLOSED;
    return (int)keep_whole(self, messages, frames, got);
}

static bool is_socket(int fd)
{
    int type;
    socklen_t size = sizeof type;
    return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
}

int kit_host_fd_open(int fd, const uint8_t *mac, uint32_t mtu, struct kit_host_netif **out)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || mtu < MTU_MIN || mtu > MTU_MAX || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return KIT_EINVAL;
    struct host_fd *self = calloc(1, sizeof *self);
    if (!self)
        return KIT_ENOMEM;
    self->netif = (struct kit_host_netif){
        .network = {.send_packet = fd_send,
                    .receive_packet = fd_receive,
                    .configure = fd_configure,
                    .send_batch = fd_send_batch,
                    .receive_batch = fd_receive_batch,
                    .mtu = (uint16_t)mtu},
        .fd = fd,
    };
    if (is_socket(fd)) {
        self->netif.network.send_batch = socket_send_batch;
        self->netif.network.receive_batch = socket_receive_batch;
    }
    memcpy(self->netif.network.mac, mac, sizeof self->netif.network.mac);
    *out = &self->netif;
    return 0;
}

void kit_host_fd_stats(const struct kit_host_netif *netif, struct kit_host_stats *out)
{
    *out = of(&netif->network)->stats;
}

void kit_host_fd_close(struct kit_host_netif *netif)
{
    free(of(&netif->network));
}
