/* SPDX-License-Identifier: MIT */
/* Frames: slots to receive into and as many to send from, in one allocation. What the interface
 * does not take stays in its slot until the next poll; while all slots are taken nothing new is
 * built, so TCP waits instead of losing. Where the interface takes super-frames (virtio 1.2,
 * section 5.1.6.2) slots have 64 KiB and there are fewer of them. Cost per frame: no copy. */
#include <unikit/net/inet/calls.h>

static size_t link_bytes(const struct inet *m)
{
    return (m->rx_size + m->tx_size) * m->batch + sizeof(struct kit_frame) * m->batch * 2;
}

INET_COLD int inet_link_open(struct inet *m)
{
    size_t plain = kit_align_up((size_t)m->mtu + KIT_ETH_HEADER, 64);
    size_t large = kit_align_up((size_t)INET_SUPER + KIT_ETH_HEADER, 64);
    bool super_out = (m->offloads & INET_OFFLOAD_TSO4) != 0;
    bool super_in = (m->offloads & INET_OFFLOAD_LRO4) != 0;
    m->batch = super_out || super_in ? INET_BATCH_LARGE : INET_BATCH;
    m->rx_size = super_in ? large : plain;
    m->tx_size = super_out ? large : plain;
    m->slots = inet_take(&m->memory, link_bytes(m));
    if (m->slots == NULL)
        return KIT_ENOMEM;
    m->rx = (struct kit_frame *)(void *)(m->slots + (m->rx_size + m->tx_size) * m->batch);
    m->tx = m->rx + m->batch;
    for (uint32_t i = 0; i < m->batch; i++) {
        m->rx[i] =
            (struct kit_frame){.data = m->slots + m->rx_size * i, .capacity = (uint32_t)m->rx_size};
        m->tx[i] = (struct kit_frame){.data = m->slots + m->rx_size * m->batch + m->tx_size * i};
    }
    return 0;
}

INET_COLD void inet_link_close(struct inet *m)
{
    inet_give(&m->memory, m->slots, link_bytes(m));
}

__attribute__((noinline)) uint64_t inet_sum(uint64_t sum, const uint8_t *data, size_t length)
{
    return kit_checksum_add(sum, data, length);
}

struct kit_frame *inet_link_begin(struct inet *m)
{
    if (m->tx_tail - m->tx_head == m->batch)
        inet_link_flush(m);
    if (m->tx_tail - m->tx_head == m->batch)
        return NULL;
    struct kit_frame *frame = &m->tx[m->tx_tail & (m->batch - 1)];
    *frame = (struct kit_frame){.data = frame->data};
    return frame;
}

void inet_link_commit(struct inet *m)
{
    m->tx_tail++;
}

bool inet_link_blocked(const struct inet *m)
{
    return m->tx_tail != m->tx_head;
}

bool inet_link_flush(struct inet *m)
{
    while (m->tx_tail != m->tx_head) {
        uint32_t first = m->tx_head & (m->batch - 1);
        uint32_t count = inet_min(m->tx_tail - m->tx_head, m->batch - first);
        int taken = kit_netif_send_batch(m->network, &m->tx[first], count);
        if (taken == 0 || taken == KIT_EAGAIN)
            return false;
        if (taken < 0) { /* the device refuses the first one for good: lost, as on a wire */
            m->counts[INET_SEND_DEVICE]++;
            m->tx_head++;
            continue;
        }
        for (int i = 0; i < taken && (uint32_t)i < count; i++) {
            const struct kit_frame *frame = &m->tx[first + (uint32_t)i];
            m->stats.frames_out++;
            m->stats.bytes_out += frame->length;
            m->counts[INET_SUPER_OUT] += frame->gso_type != 0;
        }
        m->tx_head += inet_min((uint32_t)taken, count);
    }
    return true;
}

static void link_input(struct inet *m, struct kit_frame *frame)
{
    m->stats.frames_in++;
    m->stats.bytes_in += frame->length;
    if (frame->length < KIT_ETH_HEADER || frame->length > m->rx_size) {
        m->counts[INET_FRAME_SHORT]++;
        return;
    }
    m->counts[INET_SUPER_IN] += frame->gso_type != 0;
    uint16_t type = kit_load16(frame->data + KIT_ETH_TYPE);
    if (!kit_eth_is_multicast(frame->data) && !kit_eth_equal(frame->data, m->mac))
        m->counts[INET_FRAME_OTHER]++;
    else if (type == KIT_ETH_IPV4)
        inet_ip_input(m, frame);
    else if (type == KIT_ETH_ARP)
        inet_arp_input(m, frame->data, frame->length);
    else
        m->counts[INET_FRAME_OTHER]++;
    inet_reap(m);
}

size_t inet_link_receive(struct inet *m)
{
    for (uint32_t i = 0; i < m->rx_used; i++) { /* the others are as they were made */
        m->rx[i].length = 0;
        m->rx[i].flags = m->rx[i].gso_type = 0;
    }
    int count = kit_netif_receive_batch(m->network, m->rx, m->batch);
    m->rx_used = 0;
    if (count <= 0)
        return 0;
    if ((uint32_t)count > m->batch)
        count = (int)m->batch;
    m->rx_used = (uint32_t)count;
    for (int i = 0; i < count; i++)
        link_input(m, &m->rx[i]);
    return (size_t)count;
}
