/* SPDX-License-Identifier: MIT */
/* Frames: MINI_BATCH slots to receive into and as many to send from, in one allocation. What the
 * interface does not take stays in its slot until the next poll; while all slots are taken
 * nothing new is built, so TCP waits instead of losing. Cost per frame: no copy. */
#include <unikit/net/mini/mini.h>

MINI_COLD int mini_link_open(struct mini *m)
{
    m->slot_size = kit_align_up((size_t)m->mtu + KIT_ETH_HEADER, 64);
    m->slots = mini_alloc(m, m->slot_size * MINI_BATCH * 2);
    if (m->slots == NULL)
        return KIT_ENOMEM;
    for (unsigned i = 0; i < MINI_BATCH; i++) {
        m->rx[i] = (struct kit_frame){.data = m->slots + m->slot_size * i,
                                      .capacity = (uint32_t)m->slot_size};
        m->tx[i] = (struct kit_frame){.data = m->slots + m->slot_size * (MINI_BATCH + i)};
    }
    return 0;
}

__attribute__((noinline)) uint64_t mini_sum(uint64_t sum, const uint8_t *data, size_t length)
{
    return kit_checksum_add(sum, data, length);
}

uint8_t *mini_link_begin(struct mini *m)
{
    if (m->tx_tail - m->tx_head == MINI_BATCH)
        mini_link_flush(m);
    if (m->tx_tail - m->tx_head == MINI_BATCH)
        return NULL;
    return m->tx[m->tx_tail % MINI_BATCH].data;
}

void mini_link_commit(struct mini *m, size_t length)
{
    m->tx[m->tx_tail % MINI_BATCH].length = (uint32_t)length;
    m->tx_tail++;
}

bool mini_link_blocked(const struct mini *m)
{
    return m->tx_tail != m->tx_head;
}

bool mini_link_flush(struct mini *m)
{
    while (m->tx_tail != m->tx_head) {
        uint32_t first = m->tx_head % MINI_BATCH;
        uint32_t count = mini_min(m->tx_tail - m->tx_head, MINI_BATCH - first);
        int taken = kit_netif_send_batch(m->network, &m->tx[first], count);
        if (taken == 0 || taken == KIT_EAGAIN)
            return false;
        if (taken < 0) { /* the device refuses the first one for good: lost, as on a wire */
            m->stats.dropped_full++;
            m->tx_head++;
            continue;
        }
        for (int i = 0; i < taken && (uint32_t)i < count; i++) {
            m->stats.frames_out++;
            m->stats.bytes_out += m->tx[first + (uint32_t)i].length;
        }
        m->tx_head += mini_min((uint32_t)taken, count);
    }
    return true;
}

static void link_take(struct mini *m, const struct kit_frame *frame)
{
    m->stats.frames_in++;
    m->stats.bytes_in += frame->length;
    if (frame->length < KIT_ETH_HEADER || frame->length > m->slot_size) {
        m->stats.dropped_malformed++;
        return;
    }
    uint16_t type = kit_load16(frame->data + KIT_ETH_TYPE);
    if (!kit_eth_is_multicast(frame->data) && !kit_eth_equal(frame->data, m->mac))
        m->stats.dropped_unwanted++;
    else if (type == KIT_ETH_IPV4)
        mini_ipv4_input(m, frame);
    else if (type == KIT_ETH_ARP)
        mini_arp_input(m, frame->data, frame->length);
    else
        m->stats.dropped_unwanted++;
}

size_t mini_link_receive(struct mini *m)
{
    for (unsigned i = 0; i < MINI_BATCH; i++) {
        m->rx[i].length = 0;
        m->rx[i].flags = 0;
    }
    int count = kit_netif_receive_batch(m->network, m->rx, MINI_BATCH);
    if (count <= 0)
        return 0;
    if (count > MINI_BATCH)
        count = MINI_BATCH;
    for (int i = 0; i < count; i++) {
        struct kit_frame *frame = &m->rx[i];
        if (kit_netif_noted(m->network)) {
            struct kit_net_stats before = m->stats;
            link_take(m, frame);
            mini_note_in(m, frame, &before);
        } else {
            link_take(m, frame);
        }
        mini_reap(m);
    }
    return (size_t)count;
}
