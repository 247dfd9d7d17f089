/* SPDX-License-Identifier: MIT */
/* Notes on frames, for an interface that wants them, such as a capture: the state of the connection
 * as the frame leaves or after it was taken in, and why it was dropped. Nothing of it is reached in
 * an image whose stack runs on the platform's device. */
#include <unikit/net/mini/mini.h>

static void note_connection(struct kit_packet_note *note, const struct mini_tcp *t)
{
    note->state = t->socket.state;
    note->cwnd = t->cwnd;
    note->ssthresh = t->ssthresh != UINT32_MAX ? t->ssthresh : 0;
    note->flight = mini_flight(t);
    note->srtt_us = t->srtt_us;
    note->rto_us = (uint32_t)(t->rto_ns / KIT_NS_PER_US);
}

MINI_COLD void mini_note_out(struct mini *m, const struct mini_tcp *t, const uint8_t *frame)
{
    struct kit_packet_note note = {.frame = frame, .outbound = 1};
    note_connection(&note, t);
    m->network->note(m->network, &note);
}

/* The connection that a frame belongs to, or NULL. */
static const struct mini_tcp *note_find(struct mini *m, const struct kit_frame *frame)
{
    const uint8_t *ip = frame->data + KIT_ETH_HEADER;
    if (frame->length < MINI_PAYLOAD + KIT_TCP_HEADER ||
        kit_load16(frame->data + KIT_ETH_TYPE) != KIT_ETH_IPV4 ||
        ip[KIT_IPV4_PROTOCOL] != KIT_IPV4_TCP || ip[0] != 0x45)
        return NULL;
    uint32_t hash;
    const uint8_t *tcp = frame->data + MINI_PAYLOAD;
    return mini_find(m, kit_load32(ip + KIT_IPV4_SOURCE), kit_load16(tcp + KIT_TCP_SOURCE),
                     kit_load16(tcp + KIT_TCP_DESTINATION), &hash);
}

MINI_COLD void mini_note_in(struct mini *m, const struct kit_frame *frame,
                            const struct kit_net_stats *before)
{
    struct kit_packet_note note = {.frame = frame->data};
    const struct mini_tcp *t = note_find(m, frame);
    if (t != NULL)
        note_connection(&note, t);
    if (m->stats.dropped_malformed != before->dropped_malformed)
        note.drop = KIT_DROP_MALFORMED;
    else if (m->stats.dropped_unwanted != before->dropped_unwanted)
        note.drop = KIT_DROP_UNWANTED;
    else if (m->stats.dropped_full != before->dropped_full)
        note.drop = KIT_DROP_FULL;
    m->network->note(m->network, &note);
}
