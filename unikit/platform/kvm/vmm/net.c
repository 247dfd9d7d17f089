/* SPDX-License-Identifier: MIT */
/* Moves frames between the guest's queues and a host interface, without copying: the interface
 * reads and writes guest buffers. Buffers that were taken stay taken until the interface used them
 * (tx) or filled them (rx), so each descriptor is checked once. Runs under the device's lock. */
#include <string.h>
#include <unikit/platform/kvm/vmm/internal.h>

enum {
    HEADER = sizeof(struct kit_virtio_net_header),
    FRAME_LEAST = 14,
    ROUNDS = 8,           /* batches per call: other work waits meanwhile */
    OFFLOAD_CHECKSUM = 3, /* VIRTIO_NET_F_CSUM, _GUEST_CSUM */
    NEEDS_CHECKSUM = 1
};

void vmm_net_open(struct vmm_net *net, const struct vmm_memory *memory,
                  struct kit_host_netif *netif, const struct kit_kvm_queue queues[KIT_KVM_QUEUES])
{
    net->netif = netif;
    if (netif == NULL)
        return;
    vmm_queue_open(&net->tx, memory, "network tx", &queues[KIT_KVM_NET_TX], false);
    vmm_queue_open(&net->rx, memory, "network rx", &queues[KIT_KVM_NET_RX], true);
    net->frame_limit = queues[KIT_KVM_NET_TX].buffer_size - HEADER;
}

/* One taken tx buffer as a frame. The header is copied before it is looked at. */
static int frame_of(const struct vmm_net *net, const struct vmm_buffer *buffer,
                    struct kit_frame *frame, struct vmm_fault *fault)
{
    if (buffer->length < HEADER + FRAME_LEAST || buffer->length - HEADER > net->frame_limit)
        return vmm_fault(fault, "network tx queue: a frame of %u bytes (allowed: %u...%u)",
                         buffer->length, HEADER + FRAME_LEAST, HEADER + net->frame_limit);
    struct kit_virtio_net_header header;
    memcpy(&header, buffer->data, HEADER);
    const uint8_t allowed = net->netif->network.offloads & OFFLOAD_CHECKSUM ? NEEDS_CHECKSUM : 0;
    if ((header.flags & ~allowed) || header.gso_type)
        return vmm_fault(fault, "network tx queue: offload flags %#x, type %u were not offered",
                         header.flags, header.gso_type);
    const uint32_t length = buffer->length - HEADER;
    if (header.flags && (header.checksum_start > length ||
                         header.checksum_offset + 2u > length - header.checksum_start))
        return vmm_fault(fault, "network tx queue: checksum at %u+%u of a frame of %u bytes",
                         header.checksum_start, header.checksum_offset, length);
    *frame = (struct kit_frame){
        .data = buffer->data + HEADER,
        .length = length,
        .capacity = length,
        .flags = header.flags,
        .checksum_start = header.checksum_start,
        .checksum_offset = header.checksum_offset,
    };
    return 0;
}

/* Refills the batch that waits to be sent. */
static int tx_take(struct vmm_net *net, struct vmm_fault *fault)
{
    if (net->tx_done < net->tx_count)
        return 0;
    net->tx_done = net->tx_count = 0;
    int rc = vmm_queue_take(&net->tx, net->tx_buffers, VMM_NET_BATCH, fault);
    if (rc <= 0)
        return rc;
    for (int i = 0; i < rc; i++) {
        int bad = frame_of(net, &net->tx_buffers[i], &net->tx_frames[i], fault);
        if (bad != 0)
            return bad;
    }
    net->tx_count = (uint32_t)rc;
    return 0;
}

static void tx_return(struct vmm_net *net, uint32_t count, bool sent)
{
    for (; count > 0; count--, net->tx_done++) {
        if (sent) {
            net->sent++;
            net->sent_bytes += net->tx_frames[net->tx_done].length;
        } else {
            net->dropped++;
        }
        vmm_queue_return(&net->tx, net->tx_buffers[net->tx_done].id, 0);
    }
}

/* How many frames left the queue. */
static int tx_service(struct vmm_net *net, struct vmm_fault *fault)
{
    int moved = 0;
    net->blocked = false;
    for (unsigned round = 0; round < ROUNDS && !net->blocked; round++) {
        int rc = tx_take(net, fault);
        if (rc != 0)
            return rc;
        uint32_t count = net->tx_count - net->tx_done;
        if (count == 0)
            break;
        rc = net->dead
                 ? KIT_EIO
                 : kit_netif_send_batch(&net->netif->network, &net->tx_frames[net->tx_done], count);
        if (rc == KIT_EAGAIN || rc == 0) {
            net->blocked = true;
            break;
        }
        if (rc == KIT_ECLOSED || rc == KIT_EIO)
            net->dead = true;
        /* A frame that the interface refuses is lost, as on a wire. */
        uint32_t gone = rc > 0 && (uint32_t)rc <= count ? (uint32_t)rc : 1;
        tx_return(net, gone, rc > 0);
        moved += (int)gone;
    }
    return moved;
}

/* Has empty buffers ready, as many as there are. */
static int rx_take(struct vmm_net *net, struct vmm_fault *fault)
{
    if (net->rx_done < net->rx_count)
        return 0;
    net->rx_done = net->rx_count = 0;
    int rc = vmm_queue_take(&net->rx, net->rx_buffers, VMM_NET_BATCH, fault);
    if (rc <= 0)
        return rc;
    for (int i = 0; i < rc; i++) {
        if (net->rx_buffers[i].length < (uint32_t)(HEADER + FRAME_LEAST) + net->netif->network.mtu)
            return vmm_fault(fault, "network rx queue: a buffer of %u bytes is too small",
                             net->rx_buffers[i].length);
        net->rx_frames[i] = (struct kit_frame){
            .data = net->rx_buffers[i].data + HEADER,
            .capacity = net->rx_buffers[i].length - HEADER,
        };
    }
    net->rx_count = (uint32_t)rc;
    return 0;
}

static void rx_return(struct vmm_net *net, uint32_t count)
{
    for (; count > 0; count--, net->rx_done++) {
        const struct kit_frame *frame = &net->rx_frames[net->rx_done];
        const struct kit_virtio_net_header header = {
            .flags = frame->flags,
            .checksum_start = frame->checksum_start,
            .checksum_offset = frame->checksum_offset,
            .buffers = 1,
        };
        memcpy(net->rx_buffers[net->rx_done].data, &header, HEADER);
        net->received++;
        net->received_bytes += frame->length;
        vmm_queue_return(&net->rx, net->rx_buffers[net->rx_done].id, HEADER + frame->length);
    }
}

static int rx_service(struct vmm_net *net, struct vmm_fault *fault)
{
    int moved = 0;
    for (unsigned round = 0; round < ROUNDS && !net->dead; round++) {
        int rc = rx_take(net, fault);
        if (rc != 0)
            return rc;
        uint32_t count = net->rx_count - net->rx_done;
        if (count == 0)
            break;
        rc = kit_netif_receive_batch(&net->netif->network, &net->rx_frames[net->rx_done], count);
        if (rc == KIT_ECLOSED || rc == KIT_EIO)
            net->dead = true;
        if (rc <= 0)
            break;
        rx_return(net, (uint32_t)rc < count ? (uint32_t)rc : count);
        moved += rc;
        if ((uint32_t)rc < count)
            break;
    }
    return moved;
}

int vmm_net_service(struct vmm_net *net, struct vmm_fault *fault)
{
    if (net->netif == NULL)
        return 0;
    int sent = tx_service(net, fault);
    if (sent < 0)
        return sent;
    int received = rx_service(net, fault);
    return received < 0 ? received : sent + received;
}

bool vmm_net_has_room(const struct vmm_net *net)
{
    return net->netif != NULL && !net->dead &&
           (net->rx_done < net->rx_count || vmm_queue_pending(&net->rx));
}
