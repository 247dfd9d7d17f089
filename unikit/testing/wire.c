/* SPDX-License-Identifier: MIT */
/* The cable: one pool of frames, one queue per end sorted by the time of arrival. */
#include <unikit/testing/suite.h>
#include <unikit/testing/wire.h>

struct wire_frame {
    struct kit_list link;
    uint64_t due_ns;
    uint32_t length;
    uint8_t data[KIT_WIRE_FRAME];
};

static struct kit_wire_end *wire_end(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct kit_wire_end, network);
}

static bool wire_chance(struct kit_wire *wire, uint32_t per_10000)
{
    return per_10000 != 0 && kit_suite_random(&wire->random) % 10000 < per_10000;
}

static void wire_damage(struct kit_wire *wire, struct wire_frame *f)
{
    if (f->length <= 34 || f->data[12] != 8 || f->data[13] != 0)
        return;
    uint64_t bit = kit_suite_random(&wire->random) % ((f->length - 14) * UINT64_C(8));
    f->data[14 + bit / 8] ^= (uint8_t)(1u << bit % 8);
}

static void wire_put(struct kit_wire_end *from, const uint8_t *data, uint32_t length)
{
    struct kit_wire *wire = from->wire;
    struct kit_wire_end *to = &wire->ends[from == &wire->ends[0]];
    struct kit_list *free = kit_list_pop_front(&wire->idle);
    if (free == NULL)
        return; /* only a duplicate comes here without a slot */
    struct wire_frame *f = KIT_CONTAINER_OF(free, struct wire_frame, link);
    f->due_ns = wire->clock->clock_ns + wire->faults.delay_ns;
    if (wire_chance(wire, wire->faults.reorder))
        f->due_ns += kit_suite_random(&wire->random) % (8 * wire->faults.delay_ns + 1);
    f->length = length;
    memcpy(f->data, data, length);
    if (wire_chance(wire, wire->faults.corrupt))
        wire_damage(wire, f);
    struct kit_list *at = to->arriving.prev;
    while (at != &to->arriving && KIT_CONTAINER_OF(at, struct wire_frame, link)->due_ns > f->due_ns)
        at = at->prev;
    kit_list_insert_after(at, &f->link);
}

static int wire_send(network_interface_t *network, const void *data, size_t length)
{
    struct kit_wire_end *end = wire_end(network);
    struct kit_wire *wire = end->wire;
    if (length < KIT_NETIF_HEADER || length > KIT_WIRE_FRAME)
        return KIT_EMSGSIZE;
    if (kit_list_empty(&wire->idle))
        return KIT_EAGAIN;
    end->sent++;
    if (wire->watch != NULL)
        wire->watch(wire->context, end == &wire->ends[1], data, length);
    if (end->cut || wire_chance(wire, wire->faults.drop))
        return 0;
    wire_put(end, data, (uint32_t)length);
    if (wire_chance(wire, wire->faults.duplicate))
        wire_put(end, data, (uint32_t)length);
    return 0;
}

static int wire_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct kit_wire_end *end = wire_end(network);
    if (kit_list_empty(&end->arriving))
        return 0;
    struct wire_frame *f = KIT_CONTAINER_OF(end->arriving.next, struct wire_frame, link);
    if (f->due_ns > end->wire->clock->clock_ns)
        return 0;
    kit_list_remove(&f->link);
    kit_list_push_back(&end->wire->idle, &f->link);
    if (f->length > max_length)
        return KIT_EMSGSIZE;
    memcpy(buffer, f->data, f->length);
    return (int)f->length;
}

static int wire_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    (void)network, (void)ip, (void)netmask;
    return 0;
}

static int wire_send_batch(network_interface_t *network, const struct kit_frame *frames,
                           size_t count)
{
    size_t done = 0;
    int rc = 0;
    while (done < count && (rc = wire_send(network, frames[done].data, frames[done].length)) == 0)
        done++;
    return done != 0 ? (int)done : rc;
}

static int wire_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    size_t done = 0;
    int length;
    while (done < count &&
           (length = wire_receive(network, frames[done].data, frames[done].capacity)) > 0) {
        frames[done].length = (uint32_t)length;
        frames[done++].flags = 0;
    }
    return (int)done;
}

int kit_wire_open(struct kit_wire *wire, struct kit_virtual *clock, struct kit_alloc *alloc,
                  size_t slots, uint64_t seed)
{
    *wire = (struct kit_wire){.clock = clock, .alloc = alloc, .random = seed, .slots = slots};
    wire->memory_size = slots * sizeof(struct wire_frame);
    wire->memory = kit_alloc_alloc(alloc, wire->memory_size, 0);
    if (wire->memory == NULL)
        return KIT_ENOMEM;
    kit_list_init(&wire->idle);
    for (size_t i = 0; i < slots; i++)
        kit_list_push_back(&wire->idle, &((struct wire_frame *)wire->memory)[i].link);
    for (unsigned i = 0; i < 2; i++) {
        wire->ends[i] =
            (struct kit_wire_end){.network = {.send_packet = wire_send,
                                              .receive_packet = wire_receive,
                                              .configure = wire_configure,
                                              .send_batch = wire_send_batch,
                                              .receive_batch = wire_receive_batch,
                                              .mac = {0x02, 0x75, 0x6b, 0x77, 0, (uint8_t)(i + 1)},
                                              .mtu = KIT_WIRE_FRAME - KIT_NETIF_HEADER},
                                  .wire = wire};
        kit_list_init(&wire->ends[i].arriving);
    }
    return 0;
}

uint64_t kit_wire_deadline_ns(const struct kit_wire *wire)
{
    uint64_t deadline = KIT_NEVER;
    for (unsigned i = 0; i < 2; i++) {
        const struct kit_list *first = wire->ends[i].arriving.next;
        if (first == &wire->ends[i].arriving)
            continue;
        uint64_t due = KIT_CONTAINER_OF(first, struct wire_frame, link)->due_ns;
        deadline = due < deadline ? due : deadline;
    }
    return deadline;
}

void kit_wire_close(struct kit_wire *wire)
{
    kit_alloc_free(wire->alloc, wire->memory, wire->memory_size, 0);
}
