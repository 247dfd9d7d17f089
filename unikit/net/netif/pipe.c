/* SPDX-License-Identifier: MIT */
/* netif.pipe: two ends joined by two rings of frames (frames.h), one per direction; what goes into
 * one end comes out of the other, in order, nothing lost. A full ring refuses. Two threads may
 * use it, one per end. Memory: 2 * slots * (mtu + 22 rounded up to 64) bytes. */
#include <unikit/net/netif/frames.h>
#include <unikit/net/wire/text.h>

extern const struct kit_netif_component kit_netif_pipe;

enum { OPTION_SLOTS, OPTION_MTU };

struct pipe_end {
    network_interface_t network;
    struct kit_frames *out;
    struct kit_frames *in;
};

struct pipe {
    struct kit_frames rings[2];
    struct pipe_end ends[2];
};

static struct pipe_end *pipe_of(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct pipe_end, network);
}

static int pipe_send(network_interface_t *network, const void *data, size_t length)
{
    return kit_frames_send_one(pipe_of(network)->out, data, length);
}

static int pipe_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    return kit_frames_receive_one(pipe_of(network)->in, buffer, max_length);
}

static int pipe_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return kit_ipv4_parse_pair(ip, netmask) ? 0 : KIT_EINVAL;
}

static int pipe_send_batch(network_interface_t *network, const struct kit_frame *frames,
                           size_t count)
{
    return kit_frames_send(pipe_of(network)->out, frames, count);
}

static int pipe_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    return kit_frames_receive(pipe_of(network)->in, frames, count, NULL);
}

static size_t pipe_memory_size(const uint64_t *options)
{
    uint64_t slots = options[OPTION_SLOTS], mtu = options[OPTION_MTU];
    if (slots > 65536 || !kit_is_power_of_two((size_t)slots) || mtu < 68 || mtu > 65521)
        return 0;
    return sizeof(struct pipe) + 2 * (size_t)slots * kit_frames_stride((uint32_t)mtu);
}

static int pipe_open(const uint64_t *options, void *memory, size_t size, network_interface_t **ends)
{
    size_t need = pipe_memory_size(options);
    if (need == 0 || ((uintptr_t)memory & 63) != 0)
        return KIT_EINVAL;
    if (size < need)
        return KIT_ENOMEM;
    struct pipe *p = memory;
    uint32_t slots = (uint32_t)options[OPTION_SLOTS], mtu = (uint32_t)options[OPTION_MTU];
    uint8_t *frames = (uint8_t *)memory + sizeof(*p);
    for (unsigned i = 0; i < 2; i++) {
        kit_frames_init(&p->rings[i], frames + (size_t)i * slots * kit_frames_stride(mtu), slots,
                        mtu);
        p->ends[i] =
            (struct pipe_end){.network = {.send_packet = pipe_send,
                                          .receive_packet = pipe_receive,
                                          .configure = pipe_configure,
                                          .send_batch = pipe_send_batch,
                                          .receive_batch = pipe_receive_batch,
                                          .mac = {0x02, 0x75, 0x6b, 0x70, 0, (uint8_t)(i + 1)},
                                          .mtu = (uint16_t)mtu},
                              .out = &p->rings[i],
                              .in = &p->rings[1 - i]};
        ends[i] = &p->ends[i].network;
    }
    return 0;
}

const struct kit_netif_component kit_netif_pipe = {
    .id = "netif.pipe",
    .abi = KIT_NETIF_ABI,
    .features = KIT_NETIF_LOSSLESS,
    .ends = 2,
    .memory_size = pipe_memory_size,
    .open = pipe_open,
};
