/* SPDX-License-Identifier: MIT */
/* The network card: virtio-net (virtio 1.2, 5.1) with one pair of queues. Frames are copied; a
 * frame that was queued is announced at once unless the device looks by itself, interrupts are
 * asked for only while the image sleeps. */
#include <unikit/net/netif.h>
#include <unikit/net/wire/text.h>
#include <unikit/platform/qemu/guest/virtio.h>
#include <unikit/rt/bits.h>

enum { FEATURE_MTU = 3, FEATURE_MAC = 5 };
enum { CONFIG_MAC = 0, CONFIG_MTU = 10 };
enum { RX = 0, TX = 1, BUFFER = 2048, MTU_DEFAULT = 1500 };

static struct {
    network_interface_t interface;
    struct virtio_device device;
    struct virtio_queue rx, tx;
    uint32_t header; /* bytes before each frame: a legacy device has no `buffers` word */
} card;

static void reclaim(void)
{
    uint16_t slot;
    uint32_t length;
    while (virtio_take(&card.tx, &slot, &length))
        card.tx.free[card.tx.spare++] = slot;
}

int kit_pvh_send_batch(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    size_t done = 0;
    int rc = card.device.broken ? KIT_EIO : KIT_EAGAIN;
    reclaim();
    for (; done < count; done++) {
        const struct kit_frame *frame = &frames[done];
        uint16_t slot;
        if (frame->length < 14 || frame->length > (uint32_t)network->mtu + 14) {
            rc = KIT_EMSGSIZE;
            break;
        }
        if (!virtio_free(&card.tx, &slot))
            break;
        uint8_t *buffer = virtio_buffer(&card.tx, slot);
        memset(buffer, 0, card.header);
        memcpy(buffer + card.header, frame->data, frame->length);
        virtio_give(&card.tx, slot, card.header + frame->length, 0);
    }
    if (done != 0)
        virtio_notify(&card.tx);
    return done != 0 ? (int)done : count == 0 ? 0 : rc;
}

int kit_pvh_send_packet(network_interface_t *network, const void *data, size_t length)
{
    if (length > UINT32_MAX)
        return KIT_EMSGSIZE;
    const struct kit_frame frame = {.data = (uint8_t *)(uintptr_t)data, .length = (uint32_t)length};
    int rc = kit_pvh_send_batch(network, &frame, 1);
    return rc < 0 ? rc : 0;
}

int kit_pvh_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    (void)network;
    size_t done = 0, returned = 0;
    uint16_t slot;
    uint32_t length;
    bool cut = false;
    while (done < count && virtio_take(&card.rx, &slot, &length)) {
        struct kit_frame *frame = &frames[done];
        uint32_t bytes = length > card.header ? length - card.header : 0;
        if (bytes != 0 && bytes <= frame->capacity) {
            memcpy(frame->data, virtio_buffer(&card.rx, slot) + card.header, bytes);
            *frame = (struct kit_frame){
                .data = frame->data, .length = bytes, .capacity = frame->capacity};
            done++;
        } else {
            cut = bytes != 0;
        }
        virtio_give(&card.rx, slot, BUFFER, KIT_VQ_DESC_WRITE);
        returned++;
        if (cut && count == 1)
            break;
    }
    if (returned != 0)
        virtio_notify(&card.rx);
    return done == 0 && cut && count == 1 ? KIT_EMSGSIZE : (int)done;
}

int kit_pvh_receive_packet(network_interface_t *network, void *buffer, size_t max_length)
{
    struct kit_frame frame = {
        .data = buffer, .capacity = max_length > UINT32_MAX ? UINT32_MAX : (uint32_t)max_length};
    int rc = kit_pvh_receive_batch(network, &frame, 1);
    return rc == 1 ? (int)frame.length : rc;
}

PVH_COLD int kit_pvh_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return kit_ipv4_parse_pair(ip, netmask) ? 0 : KIT_EINVAL;
}

bool pvh_network_ready(void)
{
    return card.rx.size != 0 && virtio_pending(&card.rx);
}

void pvh_network_arm(bool sleeping)
{
    if (card.rx.size == 0 || card.device.broken)
        return;
    virtio_interrupts(&card.rx, sleeping);
    if (sleeping)
        virtio_acknowledge(&card.device);
}

/* Queues and buffers from the end of the heap: a sixteenth of it at most. */
static PVH_COLD bool open_queues(void)
{
    struct pvh_range *heap = &kit_pvh.heap;
    uint32_t size = VIRTIO_QUEUE_MAX;
    while (size > 8 && 2 * virtio_queue_bytes(size, BUFFER) > (heap->end - heap->start) / 16)
        size /= 2;
    size_t bytes = virtio_queue_bytes(size, BUFFER);
    if (heap->end - heap->start < 4 * bytes)
        return false;
    heap->end -= 2 * bytes;
    uint8_t *memory = (uint8_t *)heap->end;
    return virtio_queue_open(&card.rx, &card.device, RX, size, BUFFER, memory) == 0 &&
           virtio_queue_open(&card.tx, &card.device, TX, size, BUFFER, memory + bytes) == 0;
}

static PVH_COLD void read_configuration(network_interface_t *network)
{
    static const uint8_t local[6] = {2, 0, 0, 0, 0, 1}; /* a card without an address */
    memcpy(network->mac, local, sizeof local);
    if ((card.device.features >> FEATURE_MAC & 1) != 0)
        for (unsigned i = 0; i < 6; i++)
            network->mac[i] = virtio_config(&card.device, CONFIG_MAC + i);
    uint32_t mtu = MTU_DEFAULT;
    if ((card.device.features >> FEATURE_MTU & 1) != 0)
        mtu = virtio_config(&card.device, CONFIG_MTU) |
              (uint32_t)virtio_config(&card.device, CONFIG_MTU + 1) << 8;
    network->mtu = (uint16_t)(mtu >= 68 && mtu <= BUFFER - 14 - 12 ? mtu : MTU_DEFAULT);
}

void pvh_network_open(void)
{
    struct virtio_device *device = &card.device;
    if (virtio_open(device, VIRTIO_NET, UINT64_C(1) << FEATURE_MTU | UINT64_C(1) << FEATURE_MAC) !=
        0)
        return;
    if (!open_queues()) {
        virtio_break(device);
        card.rx.size = 0;
        return;
    }
    card.header = (uint32_t)sizeof(struct kit_virtio_net_header) - (device->legacy ? 2 : 0);
    network_interface_t *network = &card.interface;
    read_configuration(network);
    virtio_start(device);
    uint16_t slot;
    while (virtio_free(&card.rx, &slot))
        virtio_give(&card.rx, slot, BUFFER, KIT_VQ_DESC_WRITE);
    virtio_notify(&card.rx);
    KIT_NETIF_SET(network, send_packet, kit_pvh_send_packet);
    KIT_NETIF_SET(network, receive_packet, kit_pvh_receive_packet);
    KIT_NETIF_SET(network, configure, kit_pvh_configure);
    KIT_NETIF_SET(network, send_batch, kit_pvh_send_batch);
    KIT_NETIF_SET(network, receive_batch, kit_pvh_receive_batch);
    kit_pvh.env.network = network;
}
