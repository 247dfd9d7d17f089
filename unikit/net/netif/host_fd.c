/* SPDX-License-Identifier: MIT */
/* One frame per read and write. A TAP or a packet socket hands out at most one frame per system
 * call, so a batch is a loop; it ends with the call that would block. Reads ask for one byte more
 * than the caller's buffer holds: a TAP cuts long frames silently, the spare byte tells. */
#include <unikit/net/netif/host_fd.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MTU_MIN = 68, MTU_MAX = 65521 }; /* RFC 791; 65535 with the Ethernet header */

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

static int fd_send(network_interface_t *network, const void *data, size_t length)
{
    struct host_fd *self = of(network);
    if (length < KIT_NETIF_HEADER || length > (size_t)network->mtu + KIT_NETIF_HEADER) {
        self->stats.dropped_size++;
        return KIT_EMSGSIZE;
    }
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
    struct in_addr address;
    return inet_pton(AF_INET, ip, &address) == 1 && inet_pton(AF_INET, netmask, &address) == 1
               ? 0
               : KIT_EINVAL;
}

static int fd_send_batch(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int rc = fd_send(network, frames[i].data, frames[i].length);
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
