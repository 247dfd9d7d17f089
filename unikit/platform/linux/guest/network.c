/* SPDX-License-Identifier: MIT */
/* The network is one file that carries an Ethernet frame per read and write: a TAP device (IFF_TAP,
 * IFF_NO_PI, no virtio header) or a socket that keeps packets apart (AF_UNIX SOCK_SEQPACKET or
 * SOCK_DGRAM). No offloads: frames are complete. */
#include <unikit/net/netif.h>
#include <unikit/platform/linux/guest/linux.h>

enum { ETHERNET_HEADER = 14, MTU_DEFAULT = 1500, MTU_MINIMUM = 68, MTU_MAXIMUM = 65521 };

static int failure(long result)
{
    switch (-result) {
    case LINUX_EAGAIN:
    case LINUX_EINTR:
    case LINUX_ENOBUFS:
        return KIT_EAGAIN;
    case LINUX_EPIPE:
    case LINUX_ECONNRESET:
    case LINUX_ECONNREFUSED:
    case LINUX_ENOTCONN:
        kit_linux.network_fd = -1;
        return KIT_ECLOSED;
    default:
        return KIT_EIO;
    }
}

int kit_linux_send_packet(network_interface_t *network, const void *data, size_t length)
{
    if (length < ETHERNET_HEADER || length > (size_t)network->mtu + ETHERNET_HEADER)
        return KIT_EMSGSIZE;
    if (kit_linux.network_fd < 0)
        return KIT_ECLOSED;
    long count = kit_syscall3(SYS_WRITE, (uintptr_t)kit_linux.network_fd, (uintptr_t)data, length);
    return count < 0 ? failure(count) : KIT_OK;
}

/* A file cuts a frame to the buffer without a word; the byte behind it tells. */
int kit_linux_receive_packet(network_interface_t *network, void *buffer, size_t max_length)
{
    (void)network;
    if (kit_linux.network_fd < 0)
        return KIT_ECLOSED;
    uint8_t beyond;
    struct linux_iovec parts[2] = {{buffer, max_length}, {&beyond, 1}};
    long count = kit_syscall3(SYS_READV, (uintptr_t)kit_linux.network_fd, (uintptr_t)parts, 2);
    if (count > 0)
        return (size_t)count > max_length ? KIT_EMSGSIZE : (int)count;
    if (count == 0) { /* SOCK_SEQPACKET: the other end is closed */
        kit_linux.network_fd = -1;
        return KIT_ECLOSED;
    }
    int code = failure(count);
    return code == KIT_EAGAIN ? 0 : code;
}

static bool is_plain(const struct kit_frame *frame)
{
    return frame->flags == 0 && frame->gso_type == 0;
}

int kit_linux_send_batch(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    size_t done = 0;
    for (; done < count; done++) {
        int code = is_plain(&frames[done])
                       ? kit_linux_send_packet(network, frames[done].data, frames[done].length)
                       : KIT_EINVAL;
        if (code < 0)
            return done == 0 ? code : (int)done;
    }
    return (int)done;
}

int kit_linux_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    size_t done = 0, oversized = 0;
    while (done < count && oversized < count) {
        struct kit_frame *frame = &frames[done];
        int length = kit_linux_receive_packet(network, frame->data, frame->capacity);
        if (length == KIT_EMSGSIZE) {
            oversized++;
            continue;
        }
        if (length <= 0)
            return done == 0 ? length : (int)done;
        *frame = (struct kit_frame){
            .data = frame->data, .capacity = frame->capacity, .length = (uint32_t)length};
        done++;
    }
    return (int)done;
}

/* «a.b.c.d», each 0 ... 255. */
static bool is_address(const char *text)
{
    for (unsigned part = 0; part < 4; part++) {
        unsigned value = 0, digits = 0;
        for (; *text >= '0' && *text <= '9' && digits < 3; text++, digits++)
            value = value * 10 + (unsigned)(*text - '0');
        if (digits == 0 || value > 255 || *text != (part < 3 ? '.' : 0))
            return false;
        text++;
    }
    return true;
}

int kit_linux_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return is_address(ip) && is_address(netmask) ? KIT_OK : KIT_EINVAL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_mac(const char *text, uint8_t mac[6])
{
    for (unsigned i = 0; i < 6; i++, text += 3) {
        int high = hex_digit(text[0]);
        int low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0 || text[2] != (i < 5 ? ':' : 0))
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    return (mac[0] & 1) == 0;
}

static void choose_mac(uint8_t mac[6])
{
    const char *text = kit_linux_option("net.mac");
    if (text != NULL && !parse_mac(text, mac))
        kit_linux_refuse("not a unicast Ethernet address such as 02:00:00:00:00:01: ", text);
    if (text != NULL)
        return;
    memcpy(mac, &kit_linux.random, 6);
    mac[0] = (uint8_t)((mac[0] & 0xfc) | 2); /* locally administered, unicast */
}

void kit_linux_network_open(void)
{
    uint64_t fd = kit_linux_number("net.fd", UINT64_MAX, 3, INT32_MAX);
    if (fd == UINT64_MAX)
        return;
    static network_interface_t interface;
    network_interface_t *network = &interface;
    network->mtu = (uint16_t)kit_linux_number("net.mtu", MTU_DEFAULT, MTU_MINIMUM, MTU_MAXIMUM);
    choose_mac(network->mac);
    long flags = kit_syscall3(SYS_FCNTL, fd, F_GETFL, 0);
    if (flags < 0 || kit_syscall3(SYS_FCNTL, fd, F_SETFL, (uintptr_t)flags | O_NONBLOCK) < 0)
        kit_linux_refuse("not an open file: ", "net.fd");
    KIT_NETIF_SET(network, send_packet, kit_linux_send_packet);
    KIT_NETIF_SET(network, receive_packet, kit_linux_receive_packet);
    KIT_NETIF_SET(network, configure, kit_linux_configure);
    KIT_NETIF_SET(network, send_batch, kit_linux_send_batch);
    KIT_NETIF_SET(network, receive_batch, kit_linux_receive_batch);
    kit_linux.network_fd = (int)fd;
    kit_linux.env.network = network;
}
