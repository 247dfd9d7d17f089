/* SPDX-License-Identifier: MIT */
/* The wire as the outer stack sees it. Towards the stack nothing is queued: it takes the frames of
 * the image's send call while that call runs. Towards the image there is a ring of frames; when it
 * is full the stack hears KIT_EAGAIN and keeps its data, so nothing is lost. */
#include <unikit/net/netif/user/host.h>

#include <stdlib.h>
#include <string.h>

#include <unikit/net/wire/text.h>

static struct user_wire *of(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct user_wire, end);
}

static int wire_send(network_interface_t *network, const void *data, size_t length)
{
    struct user_wire *wire = of(network);
    if (length > wire->slot_size)
        return KIT_EMSGSIZE;
    if (user_wire_full(wire)) {
        wire->dropped++;
        return KIT_EAGAIN;
    }
    uint32_t slot = wire->tail++ & (USER_QUEUE - 1);
    memcpy(wire->slots + slot * wire->slot_size, data, length);
    wire->lengths[slot] = (uint32_t)length;
    return 0;
}

static int wire_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct user_wire *wire = of(network);
    if (!wire->arrived_count)
        return 0;
    const struct kit_frame *frame = wire->arrived++;
    wire->arrived_count--;
    if (frame->length > max_length)
        return KIT_EMSGSIZE;
    memcpy(buffer, frame->data, frame->length);
    return (int)frame->length;
}

static int wire_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network;
    return kit_ipv4_parse_pair(ip, netmask) ? 0 : KIT_EINVAL;
}

static int wire_send_batch(network_interface_t *network, const struct kit_frame *frames,
                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int rc = wire_send(network, frames[i].data, frames[i].length);
        if (rc < 0)
            return i ? (int)i : rc;
    }
    return (int)count;
}

static int wire_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    size_t filled = 0;
    while (filled < count && of(network)->arrived_count) {
        struct kit_frame *frame = &frames[filled];
        int rc = wire_receive(network, frame->data, frame->capacity);
        if (rc <= 0)
            continue; /* longer than the mtu allows: dropped */
        *frame = (struct kit_frame){
            .data = frame->data, .length = (uint32_t)rc, .capacity = frame->capacity};
        filled++;
    }
    return (int)filled;
}

int user_wire_take(struct user_wire *wire, void *buffer, size_t max_length)
{
    if (user_wire_empty(wire))
        return 0;
    uint32_t slot = wire->head++ & (USER_QUEUE - 1);
    uint32_t length = wire->lengths[slot];
    if (length > max_length)
        return KIT_EMSGSIZE;
    memcpy(buffer, wire->slots + slot * wire->slot_size, length);
    return (int)length;
}

int user_wire_open(struct user_wire *wire, uint32_t mtu)
{
    wire->end = (network_interface_t){
        .send_packet = wire_send,
        .receive_packet = wire_receive,
        .configure = wire_configure,
        .send_batch = wire_send_batch,
        .receive_batch = wire_receive_batch,
        .mac = {0x02, 'u', 'n', 'i', 'k', 0x02}, /* alone on its wire with the image's */
        .mtu = (uint16_t)mtu,
    };
    wire->slot_size = (size_t)mtu + KIT_NETIF_HEADER;
    wire->slots = malloc(wire->slot_size * USER_QUEUE);
    return wire->slots ? 0 : KIT_ENOMEM;
}

void user_wire_close(struct user_wire *wire)
{
    free(wire->slots);
}
