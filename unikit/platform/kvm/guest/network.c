/* SPDX-License-Identifier: MIT */
/* The network device of the sealed guest.
 *
 * Sending copies frames into the queue's buffers and usually tells nobody: either a thread of the
 * monitor is looking at the queue (used flags: NO_NOTIFY), or the image goes to sleep in a moment
 * and that call carries the frames out. A call costs tens of microseconds on hosts without
 * hardware virtualization, so it is made for frames alone only when they have waited for
 * UNSENT_NS and the image still runs; clock, console and network calls notice. The same calls
 * fetch frames when nobody serves the device while the image is busy. */
#include <unikit/net/netif.h>
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/x86_64/cpu.h>

#define UNSENT_NS 50000u
#define HEADER sizeof(struct kit_virtio_net_header)

static struct kvm_guest *guest_of(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct kvm_guest, network);
}

static void kick(struct kvm_guest *guest)
{
    guest->last_call_tsc = kit_cpu_tsc();
    guest->unsent_tsc = 0;
    kvm_bell(KIT_KVM_KICK, 0);
}

void kvm_network_tick(struct kvm_guest *guest)
{
    if (guest->unsent_tsc != 0 && kit_cpu_tsc() - guest->unsent_tsc > guest->patience_tsc)
        kick(guest);
}

void kvm_network_flush(struct kvm_guest *guest)
{
    if (guest->unsent_tsc != 0)
        kick(guest);
}

/* Frames were queued: is somebody looking? */
static void published(struct kvm_guest *guest)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (guest->net_tx.used->flags & KIT_VQ_USED_NO_NOTIFY)
        return;
    if (guest->unsent_tsc == 0)
        guest->unsent_tsc = kit_cpu_tsc() | 1;
    else
        kvm_network_tick(guest);
}

static bool has_room(struct kvm_guest *guest)
{
    if (kvm_queue_room(&guest->net_tx) != 0)
        return true;
    if (guest->net_tx.used->flags & KIT_VQ_USED_NO_NOTIFY)
        return false;
    kick(guest);
    return kvm_queue_room(&guest->net_tx) != 0;
}

static int check(const struct kvm_guest *guest, size_t length)
{
    size_t most = guest->net_tx.buffer_size - HEADER, frame = (size_t)guest->network.mtu + 14;
    if (guest->network.offloads == 0 && frame < most)
        most = frame;
    return length < 14 || length > most ? KIT_EMSGSIZE : 0;
}

int kit_kvm_send_batch(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    struct kvm_guest *guest = guest_of(network);
    struct kvm_queue *tx = &guest->net_tx;
    size_t done = 0;
    int rc = KIT_EAGAIN;
    for (; done < count && has_room(guest); done++) {
        const struct kit_frame *frame = &frames[done];
        rc = check(guest, frame->length);
        if (rc != 0)
            break;
        uint8_t *buffer = kvm_queue_buffer(tx, tx->next);
        const struct kit_virtio_net_header header = {
            .flags = frame->flags,
            .gso_type = frame->gso_type,
            .header_length = frame->header_length,
            .gso_size = frame->gso_size,
            .checksum_start = frame->checksum_start,
            .checksum_offset = frame->checksum_offset,
            .buffers = 1,
        };
        memcpy(buffer, &header, HEADER);
        memcpy(buffer + HEADER, frame->data, frame->length);
        kvm_queue_add(tx, buffer, (uint32_t)HEADER + frame->length, 0);
        rc = KIT_EAGAIN;
    }
    if (done == 0)
        return count == 0 ? 0 : rc;
    published(guest);
    return (int)done;
}

int kit_kvm_send_packet(network_interface_t *network, const void *data, size_t length)
{
    if (length > UINT32_MAX)
        return KIT_EMSGSIZE;
    const struct kit_frame frame = {.data = (uint8_t *)(uintptr_t)data, .length = (uint32_t)length};
    int rc = kit_kvm_send_batch(network, &frame, 1);
    return rc < 0 ? rc : 0;
}

/* A busy image has not called for a while and nobody serves the device: fetch. */
static void fetch(struct kvm_guest *guest)
{
    if (!guest->shared->served && kit_cpu_tsc() - guest->last_call_tsc > 4 * guest->patience_tsc)
        kick(guest);
}

int kit_kvm_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    struct kvm_guest *guest = guest_of(network);
    struct kvm_queue *rx = &guest->net_rx;
    size_t done = 0;
    kvm_network_tick(guest);
    if (kvm_queue_used(rx) == 0)
        fetch(guest);
    while (done < count && kvm_queue_used(rx) != 0) {
        const uint8_t *buffer = kvm_queue_buffer(rx, rx->taken);
        uint32_t length = rx->used->ring[rx->taken & (rx->size - 1)].length - (uint32_t)HEADER;
        struct kit_frame *frame = &frames[done];
        bool fits = length <= frame->capacity;
        if (fits) {
            struct kit_virtio_net_header header;
            memcpy(&header, buffer, HEADER);
            frame->flags = header.flags;
            frame->gso_type = header.gso_type;
            frame->header_length = header.header_length;
            frame->gso_size = header.gso_size;
            frame->checksum_start = header.checksum_start;
            frame->checksum_offset = header.checksum_offset;
            frame->length = length;
            memcpy(frame->data, buffer + HEADER, length);
            done++;
        }
        kvm_queue_add(rx, buffer, rx->buffer_size, KIT_VQ_DESC_WRITE);
        rx->taken++;
        if (!fits && count == 1)
            return KIT_EMSGSIZE;
    }
    return (int)done;
}

int kit_kvm_receive_packet(network_interface_t *network, void *buffer, size_t max_length)
{
    struct kit_frame frame = {
        .data = buffer, .capacity = max_length > UINT32_MAX ? UINT32_MAX : (uint32_t)max_length};
    int rc = kit_kvm_receive_batch(network, &frame, 1);
    return rc == 1 ? (int)frame.length : rc;
}

/* «a.b.c.d»: the number of parts is right and each is at most 255. */
static KVM_COLD bool dotted(const char *text)
{
    for (int part = 0; part < 4; part++) {
        unsigned value = 0, digits = 0;
        for (; *text >= '0' && *text <= '9' && digits < 4; text++, digits++)
            value = value * 10 + (unsigned)(*text - '0');
        if (digits == 0 || digits > 3 || value > 255 || *text != (part < 3 ? '.' : '\0'))
            return false;
        text++;
    }
    return true;
}

KVM_COLD int kit_kvm_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return dotted(ip) && dotted(netmask) ? 0 : KIT_EINVAL;
}

KVM_COLD void kvm_network_open(struct kvm_guest *guest)
{
    const struct kit_kvm_boot *boot = guest->boot;
    if (boot->queue[KIT_KVM_NET_TX].size == 0)
        return;
    struct kvm_queue *rx = &guest->net_rx;
    kvm_queue_open(&guest->net_tx, &boot->queue[KIT_KVM_NET_TX]);
    kvm_queue_open(rx, &boot->queue[KIT_KVM_NET_RX]);
    for (uint16_t i = 0; i < rx->size; i++)
        kvm_queue_add(rx, kvm_queue_buffer(rx, i), rx->buffer_size, KIT_VQ_DESC_WRITE);
    guest->patience_tsc = ((uint64_t)UNSENT_NS << KIT_KVM_CLOCK_SHIFT) / boot->clock.multiplier;
    network_interface_t *network = &guest->network;
    KIT_NETIF_SET(network, send_packet, kit_kvm_send_packet);
    KIT_NETIF_SET(network, receive_packet, kit_kvm_receive_packet);
    KIT_NETIF_SET(network, configure, kit_kvm_configure);
    KIT_NETIF_SET(network, send_batch, kit_kvm_send_batch);
    KIT_NETIF_SET(network, receive_batch, kit_kvm_receive_batch);
    memcpy(network->mac, boot->mac, sizeof network->mac);
    network->mtu = boot->mtu;
    network->offloads = boot->offloads;
    guest->env.network = network;
}
