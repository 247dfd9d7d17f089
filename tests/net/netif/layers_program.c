/* SPDX-License-Identifier: MIT */
/* Random traffic through netif.fault over netif.pcap over netif.pipe, and through netif.switch,
 * with every misfortune at once, for the sanitizers to watch. Ends with «ok» and what was counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/net/netif.h>
#include <unikit/testing/suite.h>
#include <unikit/testing/virtual.h>

extern const struct kit_netif_component kit_netif_fault, kit_netif_pcap, kit_netif_pipe,
    kit_netif_switch;

enum { ROUNDS = 20000, LONGEST = 1514 };

static struct kit_virtual virtual;
static uint64_t word = 1;
static size_t written;
static void *kept[8]; /* to the end of the program */
static size_t kept_count;

static void *memory_of(size_t size)
{
    return kept[kept_count++] = aligned_alloc(64, (size + 63) / 64 * 64);
}

static uint64_t below(uint64_t limit)
{
    return kit_suite_random(&word) % limit;
}

static void sink_write(void *context, const void *data, size_t length)
{
    (void)context;
    uint8_t last = 0;
    memcpy(&last, (const uint8_t *)data + length - 1, 1); /* readable to its end */
    written += length + (last & 0);
}

static network_interface_t *build(const struct kit_netif_component *component,
                                  const uint64_t *options, network_interface_t *inner,
                                  network_interface_t **ends)
{
    struct kit_netif_sink sink = {.write = sink_write};
    struct kit_netif_base base = {kit_virtual_environment(&virtual), inner, &sink};
    size_t size = component->build_size(options, inner);
    void *memory = memory_of(size);
    if (component->build(options, memory, size - 1, &base, ends) != KIT_ENOMEM ||
        component->build(options, memory, size, &base, ends) != 0)
        abort();
    return ends[0];
}

static void send_random(network_interface_t *network)
{
    uint8_t *frame = malloc(LONGEST);
    size_t length = 14 + below(LONGEST - 13);
    for (size_t i = 0; i < length; i++)
        frame[i] = (uint8_t)below(256);
    frame[12] = below(2) ? 0x08 : 0x86;
    frame[13] = frame[12] == 0x08 ? 0x00 : 0xdd;
    (void)kit_netif_send(network, frame, length);
    free(frame);
}

static size_t receive_random(network_interface_t *network)
{
    size_t room = 14 + below(LONGEST), count = 0;
    uint8_t *buffer = malloc(room);
    int got;
    while ((got = kit_netif_receive(network, buffer, room)) != 0)
        count += got > 0;
    free(buffer);
    return count;
}

int main(void)
{
    kit_virtual_open(&virtual, NULL, 0, 1);
    const uint64_t some = UINT64_C(1) << 29; /* one in eight */
    uint64_t pipe[] = {8, 1500}, snap[] = {100};
    uint64_t faults[] = {7,    0,    some,   some,   some,     some / 2, some, some, 1000000,
                         some, some, 500000, 300000, 50000000, 5,        2,    12};
    uint64_t ports[] = {16, 4, 1500, 64, 1000000};
    network_interface_t *ends[KIT_NETIF_ENDS_MAX], *one = NULL;
    size_t size = kit_netif_pipe.memory_size(pipe), moved = 0;
    if (kit_netif_pipe.open(pipe, memory_of(size), size, ends) != 0)
        return 1;
    network_interface_t *far = ends[1];
    network_interface_t *captured = build(&kit_netif_pcap, snap, ends[0], &one);
    network_interface_t *bad = build(&kit_netif_fault, faults, captured, &one);
    for (size_t i = 0; i < ROUNDS; i++) {
        send_random(below(2) ? bad : far);
        kit_virtual_advance(&virtual, below(400000));
        moved += receive_random(below(2) ? bad : far);
    }
    kit_netif_pcap.close(captured);
    build(&kit_netif_switch, ports, NULL, ends);
    for (size_t i = 0; i < ROUNDS; i++) {
        send_random(ends[below(16)]);
        kit_virtual_advance(&virtual, below(1000));
        moved += receive_random(ends[below(16)]);
    }
    printf("ok %zu frames, %zu bytes captured\n", moved, written);
    return moved > ROUNDS && written > ROUNDS ? 0 : 1;
}
