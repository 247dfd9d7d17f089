/* SPDX-License-Identifier: MIT */
/* The suite of stacks: opening and closing TCP connections in all ways, events, limits. */
#include <unikit/testing/suite_net_world.h>

static const struct kit_wire_faults clean = {.delay_ns = 100000};

static bool tcp_is_done(void *argument)
{
    struct world_peer **peers = argument;
    return peers[0]->done && peers[1]->done;
}

static bool tcp_failed(void *argument)
{
    return ((struct world_peer *)argument)->error != 0;
}

/* After everything is closed nothing may be left but TIME_WAIT, and after that nothing at all. */
static void tcp_expect_quiet(struct world *w, uint64_t memory)
{
    world_pass(w, WORLD_QUIET);
    for (unsigned i = 0; i < 2; i++) {
        KIT_CHECK_EQUAL(w->report, world_stats(w, i).tcp_open, 0);
        KIT_CHECK(w->report, kit_net_deadline_ns(w->nets[i]) == KIT_NEVER);
    }
    KIT_CHECK_EQUAL(w->report, w->memory.used, memory);
}

static void tcp_test_open_close(struct world *w)
{
    struct world_peer client = {.seed = 1, .expect = 2, .total = 10},
                      server = {.seed = 2, .expect = 1, .total = 20};
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l;
    KIT_TEST(w->report, "a connection opens, carries data both ways, and closes in good order");
    if (!world_open(w, clean, 10))
        return;
    uint64_t memory = w->memory.used;
    if (world_pair(w, &l, &client, &server)) {
        KIT_CHECK(w->report, world_run(w, tcp_is_done, both, 10 * WORLD_SECOND));
        KIT_CHECK(w->report, (client.events & KIT_NET_CONNECTED) != 0);
        KIT_CHECK(w->report, (client.events & KIT_NET_CLOSED) != 0);
        KIT_CHECK(w->report, (server.events & KIT_NET_CLOSED) != 0);
        KIT_CHECK(w->report, client.eof && server.eof && !client.wrong && !server.wrong);
        KIT_CHECK_EQUAL(w->report, client.received, 20);
        KIT_CHECK_EQUAL(w->report, server.received, 10);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 0).connected, 1);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 1).accepted, 1);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 0).resets_out + world_stats(w, 1).resets_out, 0);
        kit_net_tcp_close(l.tcp);
        tcp_expect_quiet(w, memory);
    }
    world_close(w);
}

static void tcp_test_info(struct world *w)
{
    struct world_peer client = {.total = 1000, .keep_open = true},
                      server = {.keep_open = true, .silent = true};
    struct world_listener l;
    struct kit_tcp_info info;
    KIT_TEST(w->report, "info tells addresses, state and what waits");
    if (!world_open(w, clean, 11))
        return;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, WORLD_SECOND);
        kit_net_tcp_info(client.tcp, &info);
        struct kit_address remote = world_address(WORLD_B, 80);
        KIT_CHECK(w->report, memcmp(&info.remote, &remote, sizeof remote) == 0);
        KIT_CHECK_EQUAL(w->report, info.local.family, 4);
        KIT_CHECK_EQUAL(w->report, info.state, KIT_TCP_ESTABLISHED);
        KIT_CHECK_EQUAL(w->report, info.unacknowledged, 0);
        KIT_CHECK_EQUAL(w->report, info.mss, 1460);
        KIT_CHECK(w->report, info.send_space > 0 && info.srtt_us >= 200 && info.srtt_us < 100000);
        kit_net_tcp_info(server.tcp, &info);
        KIT_CHECK_EQUAL(w->report, info.receive_ready, 1000);
        KIT_CHECK_EQUAL(w->report, info.local.port, 80);
        kit_net_tcp_info(l.tcp, &info);
        KIT_CHECK_EQUAL(w->report, info.state, KIT_TCP_LISTEN);
    }
    world_close(w);
}

static void tcp_test_misuse(struct world *w)
{
    struct kit_tcp *listener, *other;
    struct kit_address zero = world_address(WORLD_B, 0), far = world_address(0x0b000001, 80),
                       group = world_address(0xe0000001, 80), none = {.family = 0, .port = 80};
    KIT_TEST(w->report, "calls that make no sense are refused with the reason");
    if (!world_open(w, clean, 12))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[0], 0, 1, NULL, NULL, &other),
                    KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[0], 80, 1, NULL, NULL, &listener), 0);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[0], 80, 1, NULL, NULL, &other),
                    KIT_EEXIST);
    KIT_CHECK(w->report, kit_net_tcp_accept(listener) == NULL);
    KIT_CHECK(w->report, kit_net_tcp_send(listener, "x", 1) < 0);
    KIT_CHECK(w->report, kit_net_tcp_receive(listener, &zero, 1) < 0);
    KIT_CHECK(w->report, kit_net_tcp_shutdown(listener) < 0);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_connect(w->nets[0], &zero, NULL, NULL, &other),
                    KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_connect(w->nets[0], &none, NULL, NULL, &other),
                    KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_connect(w->nets[0], &group, NULL, NULL, &other),
                    KIT_EINVAL);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_connect(w->nets[0], &far, NULL, NULL, &other),
                    KIT_EUNREACH);
    kit_net_tcp_abort(listener);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[0], 80, 1, NULL, NULL, &listener), 0);
    world_close(w);
}

static void tcp_test_refused(struct world *w)
{
    struct world_peer client = {0}, lost = {.world = w};
    struct kit_address nobody = world_address(0x0a000063, 80);
    KIT_TEST(w->report, "nobody listens: refused; nobody is there: unreachable");
    if (!world_open(w, clean, 13))
        return;
    KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 81, &client), 0);
    KIT_CHECK(w->report, world_run(w, tcp_failed, &client, WORLD_SECOND));
    KIT_CHECK_EQUAL(w->report, client.error, KIT_EREFUSED);
    KIT_CHECK_EQUAL(w->report,
                    kit_net_tcp_connect(w->nets[0], &nobody, world_callback, &lost, &lost.tcp), 0);
    KIT_CHECK(w->report, world_run(w, tcp_failed, &lost, 30 * WORLD_SECOND));
    KIT_CHECK_EQUAL(w->report, lost.error, KIT_EUNREACH);
    KIT_CHECK(w->report, client.done && lost.done);
    world_close(w);
}

static void tcp_test_half_close(struct world *w)
{
    struct world_peer client = {.seed = 1, .expect = 2},
                      server = {.seed = 2, .expect = 1, .total = 300000};
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l;
    KIT_TEST(w->report, "after one direction ended the other goes on");
    if (!world_open(w, clean, 14))
        return;
    server.keep_open = true;
    server.total = 0;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, WORLD_SECOND);
        KIT_CHECK(w->report, server.eof && !client.eof);
        KIT_CHECK_EQUAL(w->report, world_state(&client), KIT_TCP_FIN_WAIT_2);
        KIT_CHECK_EQUAL(w->report, world_state(&server), KIT_TCP_CLOSE_WAIT);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_send(client.tcp, "x", 1), KIT_ECLOSED);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_shutdown(client.tcp), KIT_ECLOSED);
        world_pass(w, 600 * WORLD_SECOND); /* however long */
        server.keep_open = false;
        server.total = 300000;
        world_feed(&server);
        KIT_CHECK(w->report, world_run(w, tcp_is_done, both, 60 * WORLD_SECOND));
        KIT_CHECK_EQUAL(w->report, client.received, 300000);
        KIT_CHECK(w->report, client.eof && !client.wrong && client.error == 0);
    }
    world_close(w);
}

static void tcp_test_simultaneous_close(struct world *w)
{
    struct world_peer client = {.keep_open = true}, server = {.keep_open = true};
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l;
    KIT_TEST(w->report, "both sides close at once");
    if (!world_open(w, clean, 15))
        return;
    uint64_t memory = w->memory.used;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, WORLD_SECOND);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_shutdown(client.tcp), 0);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_shutdown(server.tcp), 0);
        KIT_CHECK(w->report, world_run(w, tcp_is_done, both, 10 * WORLD_SECOND));
        KIT_CHECK(w->report, client.eof && server.eof && client.error == 0 && server.error == 0);
        kit_net_tcp_close(l.tcp);
        tcp_expect_quiet(w, memory);
    }
    world_close(w);
}

static void tcp_test_close_delivers(struct world *w)
{
    struct world_peer client = {.seed = 1, .total = 50000, .keep_open = true},
                      server = {.expect = 1};
    struct world_listener l;
    KIT_TEST(w->report, "close gives the handle up, and what was queued still arrives");
    if (!world_open(w, clean, 16))
        return;
    uint64_t memory = w->memory.used;
    server.keep_open = true;
    if (world_pair(w, &l, &client, &server)) {
        client.total = client.sent; /* whatever was taken so far */
        world_peer_close(&client);
        world_pass(w, 5 * WORLD_SECOND);
        KIT_CHECK(w->report, server.eof && !server.wrong);
        KIT_CHECK_EQUAL(w->report, server.received, client.sent);
        world_peer_close(&server);
        kit_net_tcp_close(l.tcp);
        tcp_expect_quiet(w, memory);
    }
    world_close(w);
}

static void tcp_test_abort(struct world *w)
{
    struct world_peer client = {.keep_open = true, .keep_handle = true},
                      server = {.seed = 5, .total = 100, .keep_open = true};
    struct world_listener l;
    uint8_t data[200];
    KIT_TEST(w->report, "an abort resets; what came before can still be read");
    client.silent = true;
    if (!world_open(w, clean, 17))
        return;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, WORLD_SECOND);
        kit_net_tcp_abort(server.tcp);
        server.tcp = NULL;
        KIT_CHECK(w->report, world_run(w, tcp_failed, &client, WORLD_SECOND));
        KIT_CHECK_EQUAL(w->report, client.error, KIT_ERESET);
        KIT_CHECK_EQUAL(w->report, world_state(&client), KIT_TCP_CLOSED);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_send(client.tcp, "x", 1), KIT_ERESET);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_receive(client.tcp, data, sizeof data), 100);
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_receive(client.tcp, data, sizeof data), KIT_ERESET);
        world_peer_close(&client);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 1).resets_out, 1);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 0).resets_in, 1);
    }
    world_close(w);
}

static void tcp_test_zero_window(struct world *w)
{
    struct world_peer client = {.seed = 1, .total = 4 << 20},
                      server = {.expect = 1, .silent = true};
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l;
    KIT_TEST(w->report, "a reader that stops stops the sender, and going on loses nothing");
    if (!world_open(w, clean, 18))
        return;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, 600 * WORLD_SECOND); /* probes are answered: that may last */
        KIT_CHECK_EQUAL(w->report, client.error, 0);
        KIT_CHECK(w->report, client.sent < client.total);
        struct kit_tcp_info info;
        kit_net_tcp_info(server.tcp, &info);
        KIT_CHECK(w->report, info.receive_ready > 1000);
        server.silent = false;
        world_drain(&server); /* its window opens, and it says so by itself */
        KIT_CHECK(w->report, world_run(w, tcp_is_done, both, 10 * WORLD_SECOND));
        KIT_CHECK_EQUAL(w->report, server.received, client.total);
        KIT_CHECK(w->report, !server.wrong);
    }
    world_close(w);
}

static void tcp_test_small_reads(struct world *w)
{
    struct world_peer client = {.seed = 1, .total = 8 << 20},
                      server = {.expect = 1, .silent = true, .keep_handle = true};
    struct world_listener l;
    uint8_t byte[7];
    KIT_TEST(w->report, "a slow reader is not fed in crumbs (silly window)");
    if (!world_open(w, clean, 19))
        return;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, 5 * WORLD_SECOND);
        uint64_t frames = world_stats(w, 0).frames_out;
        for (unsigned i = 0; i < 2000; i++) {
            KIT_CHECK_EQUAL(w->report, kit_net_tcp_receive(server.tcp, byte, sizeof byte), 7);
            world_step(w);
        }
        /* 14000 bytes became free: ten segments and some probes between, not two thousand */
        KIT_CHECK(w->report, world_stats(w, 0).frames_out - frames < 200);
    }
    world_close(w);
}

static void tcp_test_vanished(struct world *w)
{
    struct world_peer client = {.keep_open = true}, late = {0}, server = {.keep_open = true};
    struct world_listener l;
    KIT_TEST(w->report, "a peer that vanished is given up after minutes, not for ever");
    if (!world_open(w, clean, 20))
        return;
    if (world_pair(w, &l, &client, &server)) {
        world_pass(w, WORLD_SECOND);
        w->wire.ends[1].cut = true;
        client.total = 1000;
        world_feed(&client);
        uint64_t start = w->clock->clock_ns;
        KIT_CHECK(w->report, world_run(w, tcp_failed, &client, 3600 * WORLD_SECOND));
        KIT_CHECK_EQUAL(w->report, client.error, KIT_ETIMEDOUT);
        KIT_CHECK(w->report, w->clock->clock_ns - start > 100 * WORLD_SECOND); /* RFC 1122 */
        KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &late), 0);
        KIT_CHECK(w->report, world_run(w, tcp_failed, &late, 3600 * WORLD_SECOND));
        KIT_CHECK(w->report, late.error == KIT_ETIMEDOUT || late.error == KIT_EUNREACH);
    }
    world_close(w);
}

struct tcp_crowd {
    struct world_peer clients[8];
    struct world_peer servers[8];
};

static void tcp_test_backlog(struct world *w)
{
    struct tcp_crowd crowd = {0};
    struct kit_tcp *listener;
    struct world_listener l = {.peers = crowd.servers, .count = 8};
    KIT_TEST(w->report, "a full backlog keeps peers waiting, and none is lost");
    if (!world_open(w, clean, 21))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 2, NULL, NULL, &listener), 0);
    for (unsigned i = 0; i < 8; i++) {
        crowd.clients[i] = (struct world_peer){.seed = i, .total = 1};
        crowd.servers[i] = (struct world_peer){.world = w, .expect = i};
        KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &crowd.clients[i]), 0);
        if (i == 0)
            world_pass(w, WORLD_SECOND); /* one is there, so two that come at once are too many */
    }
    world_pass(w, 10 * WORLD_SECOND);
    KIT_CHECK(w->report, world_stats(w, 1).accepted <= 2);
    KIT_CHECK(w->report, world_stats(w, 1).dropped_full > 0);
    for (unsigned round = 0; round < 200 && l.accepted < 8; round++) {
        world_on_accept(&l, listener, KIT_NET_ACCEPT);
        world_pass(w, WORLD_SECOND);
    }
    KIT_CHECK_EQUAL(w->report, l.accepted, 8);
    for (unsigned i = 0; i < 8; i++) {
        KIT_CHECK_EQUAL(w->report, crowd.servers[i].received, 1);
        KIT_CHECK_EQUAL(w->report, crowd.clients[i].error, 0);
    }
    world_close(w);
}

static void tcp_test_listener_close(struct world *w)
{
    struct world_peer clients[3] = {{.keep_open = true}, {.keep_open = true}, {.keep_open = true}};
    struct kit_tcp *listener;
    KIT_TEST(w->report, "closing a listener resets those that nobody accepted");
    if (!world_open(w, clean, 22))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 4, NULL, NULL, &listener), 0);
    uint64_t memory = world_stats(w, 1).memory;
    for (unsigned i = 0; i < 3; i++)
        KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &clients[i]), 0);
    world_pass(w, WORLD_SECOND);
    kit_net_tcp_close(kit_net_tcp_accept(listener));
    kit_net_tcp_close(listener);
    world_pass(w, WORLD_SECOND);
    KIT_CHECK_EQUAL(w->report, clients[1].error, KIT_ERESET);
    KIT_CHECK_EQUAL(w->report, clients[2].error, KIT_ERESET);
    world_peer_close(&clients[0]);
    world_pass(w, WORLD_QUIET);
    KIT_CHECK_EQUAL(w->report, clients[0].error, 0);
    KIT_CHECK(w->report, world_stats(w, 1).memory <= memory);
    world_close(w);
}

/* A callback that closes its own socket, at the first event of a kind. */
static void on_close_at(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct world_peer *p = argument;
    p->events |= events;
    if ((events & p->expect) != 0) {
        kit_net_tcp_close(tcp);
        p->done = true;
    }
}

static void tcp_test_close_inside(struct world *w)
{
    static const uint32_t kinds[] = {KIT_NET_CONNECTED, KIT_NET_READABLE, KIT_NET_ERROR};
    KIT_TEST(w->report, "a callback may close its own socket");
    for (unsigned i = 0; i < KIT_ARRAY_SIZE(kinds); i++) {
        struct world_peer client = {.expect = kinds[i]}, server = {.total = 100000};
        struct kit_address to = world_address(WORLD_B, kinds[i] == KIT_NET_ERROR ? 81 : 80);
        struct world_listener l = {.peers = &server, .count = 1};
        server.world = w;
        if (!world_open(w, clean, 23 + i))
            return;
        KIT_CHECK_EQUAL(w->report,
                        kit_net_tcp_listen(w->nets[1], 80, 1, world_on_accept, &l, &l.tcp), 0);
        KIT_CHECK_EQUAL(w->report,
                        kit_net_tcp_connect(w->nets[0], &to, on_close_at, &client, &client.tcp), 0);
        world_pass(w, 5 * WORLD_SECOND);
        KIT_CHECK(w->report, client.done && (client.events & kinds[i]) != 0);
        world_pass(w, WORLD_QUIET);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 0).tcp_open, 0);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 1).tcp_open, 0);
        world_close(w);
    }
}

static void tcp_test_events_before_accept(struct world *w)
{
    struct world_peer client = {.seed = 3, .total = 500}, server = {.world = w, .expect = 3};
    struct kit_tcp *listener;
    KIT_TEST(w->report, "events that came before accept are reported after it");
    if (!world_open(w, clean, 30))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 1, NULL, NULL, &listener), 0);
    KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &client), 0);
    world_pass(w, WORLD_SECOND);
    server.tcp = kit_net_tcp_accept(listener);
    if (KIT_CHECK(w->report, server.tcp != NULL)) {
        kit_net_tcp_set_callback(server.tcp, world_callback, &server);
        KIT_CHECK_EQUAL(w->report, kit_net_deadline_ns(w->nets[1]), 0);
        world_pass(w, WORLD_SECOND);
        KIT_CHECK(w->report, (server.events & KIT_NET_READABLE) != 0);
        KIT_CHECK(w->report, server.received == 500 && server.eof && !server.wrong);
    }
    world_close(w);
}

static void tcp_test_early_shutdown(struct world *w)
{
    struct world_peer client = {.seed = 4, .total = 10}, server = {.world = w, .expect = 4};
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l = {.peers = &server, .count = 1};
    KIT_TEST(w->report, "what is sent, and shut down, before the peer answered is delivered");
    if (!world_open(w, clean, 31))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 1, world_on_accept, &l, &l.tcp),
                    0);
    KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &client), 0);
    world_feed(&client);
    KIT_CHECK_EQUAL(w->report, client.sent, 10);
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_send(client.tcp, "x", 1), KIT_ECLOSED);
    KIT_CHECK(w->report, world_run(w, tcp_is_done, both, 10 * WORLD_SECOND));
    KIT_CHECK(w->report, server.received == 10 && server.eof && !server.wrong);
    KIT_CHECK_EQUAL(w->report, client.error, 0);
    world_close(w);
}

static void tcp_test_close_while_opening(struct world *w)
{
    struct world_peer client = {0};
    struct kit_tcp *listener;
    KIT_TEST(w->report, "a connection closed before it opened leaves nothing behind");
    if (!world_open(w, clean, 32))
        return;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 1, NULL, NULL, &listener), 0);
    uint64_t memory = w->memory.used;
    for (unsigned i = 0; i < 20; i++) {
        KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &client), 0);
        for (unsigned step = 0; step < i / 2; step++)
            world_step(w);
        if (client.tcp != NULL && i % 2 == 0)
            kit_net_tcp_close(client.tcp);
        else if (client.tcp != NULL)
            kit_net_tcp_abort(client.tcp);
        struct kit_tcp *accepted;
        world_pass(w, WORLD_QUIET);
        while ((accepted = kit_net_tcp_accept(listener)) != NULL)
            kit_net_tcp_close(accepted);
        world_pass(w, WORLD_QUIET);
        KIT_CHECK_EQUAL(w->report, w->memory.used, memory);
    }
    world_close(w);
}

void kit_suite_net_tcp(struct world *w)
{
    tcp_test_early_shutdown(w);
    tcp_test_close_while_opening(w);
    tcp_test_open_close(w);
    tcp_test_info(w);
    tcp_test_misuse(w);
    tcp_test_refused(w);
    tcp_test_half_close(w);
    tcp_test_simultaneous_close(w);
    tcp_test_close_delivers(w);
    tcp_test_abort(w);
    tcp_test_zero_window(w);
    tcp_test_small_reads(w);
    tcp_test_vanished(w);
    tcp_test_backlog(w);
    tcp_test_listener_close(w);
    tcp_test_close_inside(w);
    tcp_test_events_before_accept(w);
}
