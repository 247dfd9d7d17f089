/* SPDX-License-Identifier: MIT */
/* netif.loopback: one end that receives what it sends, through one ring of frames (frames.h). A
 * full ring refuses. Memory: slots * (mtu + 22 rounded up to 64) bytes. */
#include <unikit/net/netif/frames.h>
#include <unikit/net/wire/text.h>

extern const struct kit_netif_component kit_netif_loopback;

enum { OPTION_SLOTS, OPTION_MTU };

struct loopback {
    network_interface_t network;
    struct kit_frames ring;
};

static struct kit_frames *loopback_ring(network_interface_t *network)
{
    return &KIT_CONTAINER_OF(network, struct loopback, network)->ring;
}

static int loopback_send(network_interface_t *network, const void *data, size_t length)
{
    return kit_frames_send_one(loopback_ring(network), data, length);
}

static int loopback_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    return kit_frames_receive_one(loopback_ring(network), buffer, max_length);
}

static int loopback_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return kit_ipv4_parse_pair(ip, netmask) ? 0 : KIT_EINVAL;
}

static int loopback_send_batch(network_interface_t *network, const struct kit_frame *frames,
                               size_t count)
{
    return kit_frames_send(loopback_ring(network), frames, count);
}

static int loopback_receive_batch(network_interface_t *network, struct kit_frame *frames,
                                  size_t count)
{
    return kit_frames_receive(loopback_ring(network), frames, count, NULL);
}

static size_t loopback_memory_size(const uint64_t *options)
{
    uint64_t slots = options[OPTION_SLOTS], mtu = options[OPTION_MTU];
    if (slots > 65536 || !kit_is_power_of_two((size_t)slots) || mtu < 68 || mtu > 65521)
        return 0;
    return sizeof(struct loopback) + (size_t)slots * kit_frames_stride((uint32_t)mtu);
}

static int loopback_open(const uint64_t *options, void *memory, size_t size,
                         network_interface_t **ends)
{
    size_t need = loopback_memory_size(options);
    if (need == 0 || ((uintptr_t)memory & 63) != 0)
        return KIT_EINVAL;
    if (size < need)
        return KIT_ENOMEM;
    struct loopback *l = memory;
    uint32_t mtu = (uint32_t)options[OPTION_MTU];
    l->network = (network_interface_t){.send_packet = loopback_send,
                                       .receive_packet = loopback_receive,
                                       .configure = loopback_configure,
                                       .send_batch = loopback_send_batch,
                                       .receive_batch = loopback_receive_batch,
                                       .mac = {0x02, 0x75, 0x6b, 0x6c, 0, 1},
                                       .mtu = (uint16_t)mtu};
    kit_frames_init(&l->ring, (uint8_t *)memory + sizeof(*l), (uint32_t)options[OPTION_SLOTS], mtu);
    ends[0] = &l->network;
    return 0;
}

const struct kit_netif_component kit_netif_loopback = {
    .id = "netif.loopback",
    .abi = KIT_NETIF_ABI,
    .features = KIT_NETIF_LOSSLESS,
    .ends = 1,
    .memory_size = loopback_memory_size,
    .open = loopback_open,
};
