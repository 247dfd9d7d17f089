/* SPDX-License-Identifier: MIT */
/* The suite of stacks: opening, addresses, UDP. */
#include <unikit/testing/suite_net_world.h>

static const struct kit_wire_faults clean = {.delay_ns = 100000};

static void on_datagram(void *argument, struct kit_udp *udp)
{
    (void)udp;
    ++*(unsigned *)argument;
}

static void udp_test_open(struct world *w)
{
    KIT_TEST(w->report, "a stack says what it is, opens, and closes without a trace");
    KIT_CHECK(w->report, w->component->id != NULL && w->component->abi == KIT_NET_ABI);
    if (!world_open(w, clean, 1))
        return;
    KIT_CHECK_EQUAL(w->report, world_stats(w, 0).memory + world_stats(w, 1).memory, w->memory.used);
    KIT_CHECK_EQUAL(w->report, world_stats(w, 0).tcp_open, 0);
    KIT_CHECK_EQUAL(w->report, world_stats(w, 0).udp_open, 0);
    world_pass(w, 5 * WORLD_SECOND);
    KIT_CHECK(w->report, kit_net_deadline_ns(w->nets[0]) == KIT_NEVER);
    KIT_CHECK(w->report, !kit_net_poll(w->nets[0]));
    world_close(w);
}

static void udp_test_configure(struct world *w)
{
    struct kit_address address = world_address(WORLD_A, 0), out, none = {.family = 0};
    KIT_TEST(w->report, "an address is a host's, a gateway a neighbour");
    if (!world_open(w, clean, 2))
        return;
    struct kit_net *net = w->nets[0];
    KIT_CHECK_EQUAL(w->report, kit_net_address(net, 4, &out), 0);
    KIT_CHECK(w->report, memcmp(&out, &address, sizeof out) == 0);
    KIT_CHECK_EQUAL(w->report, kit_net_address(net, 5, &out), KIT_ENOENT);
    struct kit_address far = world_address(0x0a000101, 0), broadcast = world_address(0x0a0000ff, 0),
                       network = world_address(0x0a000000, 0), group = world_address(0xe0000001, 0);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &address, 24, &far), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &address, 0, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &address, 33, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &broadcast, 24, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &network, 24, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &group, 24, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &none, 24, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &address, 16, &far), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_configure(net, &address, 24, &none), 0);
    world_close(w);
}

static void udp_test_ports(struct world *w)
{
    struct kit_udp *first, *second, *third;
    KIT_TEST(w->report, "a port has one owner; port 0 means a free one");
    if (!world_open(w, clean, 3))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 53, NULL, NULL, &first), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_port(first), 53);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 53, NULL, NULL, &second), KIT_EEXIST);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 0, NULL, NULL, &second), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 0, NULL, NULL, &third), 0);
    KIT_CHECK(w->report, kit_net_udp_port(second) != 0);
    KIT_CHECK(w->report, kit_net_udp_port(second) != kit_net_udp_port(third));
    KIT_CHECK_EQUAL(w->report, world_stats(w, 0).udp_open, 3);
    kit_net_udp_close(first);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 53, NULL, NULL, &first), 0);
    world_close(w); /* with ports open */
}

static void udp_test_datagrams(struct world *w)
{
    struct kit_udp *client, *server;
    struct kit_address to = world_address(WORLD_B, 53), from = {.family = 0};
    uint8_t data[2000];
    unsigned calls = 0;
    KIT_TEST(w->report, "datagrams keep their borders and tell their sender");
    if (!world_open(w, clean, 4))
        return;
    memset(data, 7, sizeof data);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 1000, NULL, NULL, &client), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[1], 53, on_datagram, &calls, &server), 0);
    static const size_t lengths[] = {0, 1, 1472};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(lengths); i++)
        KIT_CHECK_EQUAL(w->report, kit_net_udp_send(client, &to, data, lengths[i]), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_send(client, &to, data, 1473), KIT_EMSGSIZE);
    world_pass(w, WORLD_SECOND);
    KIT_CHECK(w->report, calls >= 1 && calls <= 3);
    memset(data, 0, sizeof data);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(lengths); i++)
        KIT_CHECK_EQUAL(w->report, kit_net_udp_receive(server, &from, data, sizeof data),
                        lengths[i]);
    KIT_CHECK(w->report, data[1471] == 7 && data[1472] == 0);
    struct kit_address sender = world_address(WORLD_A, 1000);
    KIT_CHECK(w->report, memcmp(&from, &sender, sizeof from) == 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_receive(server, &from, data, 1), KIT_EAGAIN);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_send(client, &to, data, 100), 0);
    world_pass(w, WORLD_SECOND);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_receive(server, NULL, data, 10), 100); /* cut */
    KIT_CHECK_EQUAL(w->report, kit_net_udp_receive(server, NULL, data, 10), KIT_EAGAIN);
    kit_net_udp_close(server);
    kit_net_udp_close(client);
    world_close(w);
}

static void udp_test_refusals(struct world *w)
{
    struct kit_udp *udp;
    struct kit_address far = world_address(0x0b000001, 53), six = {.family = 6, .port = 53},
                       zero = world_address(WORLD_B, 0), silent = world_address(0x0a000063, 53);
    KIT_TEST(w->report, "datagrams that cannot be sent are refused with the reason");
    if (!world_open(w, clean, 5))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 0, NULL, NULL, &udp), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_send(udp, &far, "x", 1), KIT_EUNREACH);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_send(udp, &zero, "x", 1), KIT_EINVAL);
    if ((w->component->features & KIT_NET_IPV6) == 0)
        KIT_CHECK(w->report, kit_net_udp_send(udp, &six, "x", 1) < 0);
    for (unsigned i = 0; i < 1000; i++) /* a neighbour that is not there costs bounded memory */
        KIT_CHECK(w->report, kit_net_udp_send(udp, &silent, "x", 1) != KIT_ENOMEM);
    KIT_CHECK(w->report, world_stats(w, 0).memory < w->memory.used);
    world_pass(w, 60 * WORLD_SECOND);
    kit_net_udp_close(udp);
    world_close(w);
}

static void udp_test_flood(struct world *w)
{
    struct kit_udp *client, *server;
    struct kit_address to = world_address(WORLD_B, 53);
    uint8_t data[1000];
    KIT_TEST(w->report, "a port nobody reads holds a bounded number of datagrams");
    if (!world_open(w, clean, 6))
        return;
    memset(data, 1, sizeof data);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[0], 0, NULL, NULL, &client), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_open(w->nets[1], 53, NULL, NULL, &server), 0);
    uint64_t before = world_stats(w, 1).memory;
    for (unsigned i = 0; i < 3000; i++) {
        kit_net_udp_send(client, &to, data, sizeof data);
        world_step(w);
    }
    world_pass(w, WORLD_SECOND);
    KIT_CHECK(w->report, world_stats(w, 1).memory - before < 1u << 20);
    KIT_CHECK(w->report, world_stats(w, 1).dropped_full > 0);
    unsigned count = 0;
    while (kit_net_udp_receive(server, NULL, data, sizeof data) == sizeof data)
        count++;
    KIT_CHECK(w->report, count > 0);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_send(client, &to, data, 5), 0);
    world_pass(w, WORLD_SECOND);
    KIT_CHECK_EQUAL(w->report, kit_net_udp_receive(server, NULL, data, sizeof data), 5);
    world_close(w);
}

void kit_suite_net_udp(struct world *w)
{
    udp_test_open(w);
    udp_test_configure(w);
    udp_test_ports(w);
    udp_test_datagrams(w);
    udp_test_refusals(w);
    udp_test_flood(w);
}
