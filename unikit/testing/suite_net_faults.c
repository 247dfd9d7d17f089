/* SPDX-License-Identifier: MIT */
/* The suite of stacks: transfers over bad cables, many connections, no memory, hostile frames. */
#include <unikit/testing/suite_net_world.h>

static const struct kit_wire_faults clean = {.delay_ns = 100000};

static bool faults_done(void *argument)
{
    struct world_peer **peers = argument;
    return peers[0]->done && peers[1]->done;
}

static void faults_transfer(struct world *w, struct kit_wire_faults faults, uint64_t seed,
                            uint64_t size, uint64_t limit_ms)
{
    struct world_peer client = {.seed = seed, .expect = seed + 1, .total = size},
                      server = {.seed = seed + 1, .expect = seed, .total = size / 2};
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l;
    if (!world_open(w, faults, seed))
        return;
    uint64_t memory = w->memory.used;
    if (world_pair(w, &l, &client, &server)) {
        KIT_CHECK(w->report, world_run(w, faults_done, both, limit_ms * KIT_NS_PER_MS));
        KIT_CHECK_EQUAL(w->report, server.received, size);
        KIT_CHECK_EQUAL(w->report, client.received, size / 2);
        KIT_CHECK(w->report, client.eof && server.eof);
        KIT_CHECK(w->report, !client.wrong && !server.wrong);
        KIT_CHECK(w->report, client.error == 0 && server.error == 0);
        kit_net_tcp_close(l.tcp);
        world_pass(w, WORLD_QUIET);
        KIT_CHECK_EQUAL(w->report, w->memory.used, memory);
    }
    world_close(w);
}

static void faults_test_transfers(struct world *w)
{
    static const struct {
        const char *name;
        struct kit_wire_faults faults;
        uint64_t size;
        uint64_t limit_ms; /* enough for buffers of 2 KiB, not for a stack that stalls */
    } cases[] = {
        {"a clean cable", {.delay_ns = 50000}, 3 << 20, 2000},
        {"a slow clean cable", {.delay_ns = 50000000}, 1 << 20, 200000},
        {"1 % loss", {.delay_ns = 50000, .drop = 100}, 3 << 20, 30000},
        {"10 % loss", {.delay_ns = 50000, .drop = 1000}, 1 << 19, 120000},
        {"reordering", {.delay_ns = 200000, .reorder = 2000}, 1 << 20, 5000},
        {"duplicates", {.delay_ns = 50000, .duplicate = 2000}, 1 << 20, 2000},
        {"damage", {.delay_ns = 50000, .corrupt = 200}, 1 << 20, 30000},
        {"all of it",
         {.delay_ns = 1000000, .drop = 100, .duplicate = 300, .reorder = 300, .corrupt = 100},
         1 << 19,
         30000},
    };
    for (unsigned i = 0; i < KIT_ARRAY_SIZE(cases); i++) {
        KIT_TEST(w->report, cases[i].name);
        faults_transfer(w, cases[i].faults, 100 + i, cases[i].size, cases[i].limit_ms);
    }
    KIT_TEST(w->report, "small transfers over bad cables of many seeds");
    for (unsigned i = 0; i < 30; i++)
        faults_transfer(w, cases[7].faults, 1000 + i, 5000 * i, 300000);
}

enum { TALKERS = 100 };

struct faults_talkers {
    struct world_peer clients[TALKERS];
    struct world_peer servers[TALKERS];
    size_t count;
};

static bool faults_all_done(void *argument)
{
    struct faults_talkers *t = argument;
    for (size_t i = 0; i < t->count; i++) {
        if (!t->clients[i].done)
            return false;
    }
    return true;
}

static void faults_test_talkers(struct world *w)
{
    struct faults_talkers *t = kit_alloc_alloc(w->memory.inner, sizeof *t, 0);
    struct world_listener l;
    KIT_TEST(w->report, "many connections at once over a bad cable");
    KIT_REQUIRE(w->report, t != NULL);
    memset(t, 0, sizeof *t);
    if (world_open(w, (struct kit_wire_faults){.delay_ns = 1000000, .drop = 500, .reorder = 500},
                   250)) {
        l = (struct world_listener){.peers = t->servers, .count = TALKERS};
        KIT_CHECK_EQUAL(
            w->report, kit_net_tcp_listen(w->nets[1], 80, TALKERS, world_on_accept, &l, &l.tcp), 0);
        for (size_t i = 0; i < TALKERS;
             i++) { /* who talks to whom is not known, so all say alike */
            t->clients[i] = (struct world_peer){.total = 20000, .seed = 8, .expect = 9};
            t->servers[i] =
                (struct world_peer){.world = w, .total = 100 * (i + 1), .seed = 9, .expect = 8};
            if (world_connect(w, 0, 80, &t->clients[t->count]) != 0)
                break;
            t->count++;
            world_step(w);
        }
        KIT_CHECK(w->report, t->count >= 8);
        KIT_CHECK(w->report, world_run(w, faults_all_done, t, 600 * WORLD_SECOND));
        for (size_t i = 0; i < t->count; i++) {
            KIT_CHECK_EQUAL(w->report, t->clients[i].error, 0);
            KIT_CHECK_EQUAL(w->report, t->servers[i].received, 20000);
            KIT_CHECK(w->report, !t->clients[i].wrong && !t->servers[i].wrong);
        }
        world_close(w);
    }
    kit_alloc_free(w->memory.inner, t, sizeof *t, 0);
}

/* What lossless short connections need at least and a stalled one much exceeds. */
static void faults_test_many(struct world *w, uint64_t connections)
{
    struct world_peer client, server;
    struct world_peer *both[2] = {&client, &server};
    struct world_listener l = {.peers = &server, .count = 1};
    KIT_TEST(w->report, "short connections one after another never stall");
    if (!world_open(w, clean, 200))
        return;
    uint64_t memory = w->memory.used, longest = 0;
    KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 4, world_on_accept, &l, &l.tcp),
                    0);
    for (uint64_t i = 0; i < connections; i++) {
        /* the closing side, which keeps TIME_WAIT, is now the one, now the other */
        client = (struct world_peer){.seed = i, .total = 100, .keep_open = i % 3 == 0};
        server = (struct world_peer){.world = w, .expect = i, .keep_open = i % 3 == 1};
        l.accepted = 0;
        uint64_t start = w->clock->clock_ns;
        if (!KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &client), 0))
            break;
        while (!(server.received == 100 && (client.eof || server.eof)) &&
               w->clock->clock_ns - start < 60 * WORLD_SECOND)
            world_step(w);
        client.keep_open = server.keep_open = false;
        world_feed(&client);
        world_feed(&server);
        if (!KIT_CHECK(w->report, world_run(w, faults_done, both, 60 * WORLD_SECOND)))
            break;
        KIT_CHECK(w->report, !server.wrong && client.error == 0 && server.error == 0);
        if (w->clock->clock_ns - start > longest)
            longest = w->clock->clock_ns - start;
    }
    KIT_CHECK(w->report, longest < WORLD_SECOND / 10);
    KIT_CHECK_EQUAL(w->report, world_stats(w, 1).accepted, connections);
    kit_net_tcp_close(l.tcp);
    world_pass(w, WORLD_QUIET);
    KIT_CHECK_EQUAL(w->report, w->memory.used, memory);
    world_close(w);
}

enum { CROWD = 2000 };

static void faults_test_limit(struct world *w)
{
    struct kit_address to = world_address(WORLD_B, 80);
    struct world_peer after = {0};
    unsigned opened = 0;
    int rc = 0;
    KIT_TEST(w->report, "too many connections are refused, and closing some makes room");
    struct kit_tcp **handles = kit_alloc_alloc(w->memory.inner, sizeof(*handles) * CROWD, 0);
    KIT_REQUIRE(w->report, handles != NULL);
    if (world_open(w, clean, 201)) {
        struct kit_tcp *listener, *accepted;
        KIT_CHECK_EQUAL(w->report, kit_net_tcp_listen(w->nets[1], 80, 64, NULL, NULL, &listener),
                        0);
        while (opened < CROWD && rc == 0) {
            rc = kit_net_tcp_connect(w->nets[0], &to, NULL, NULL, &handles[opened]);
            opened += rc == 0;
            world_step(w);
            while ((accepted = kit_net_tcp_accept(listener)) != NULL)
                kit_net_tcp_close(accepted);
        }
        KIT_CHECK(w->report, rc == 0 || rc == KIT_ENOMEM);
        KIT_CHECK(w->report, opened > 4);
        world_pass(w, WORLD_SECOND);
        for (unsigned i = 0; i < opened; i++)
            kit_net_tcp_abort(handles[i]);
        KIT_CHECK_EQUAL(w->report, world_stats(w, 0).tcp_open, 0);
        world_pass(w, WORLD_QUIET);
        KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, &after), 0);
        world_pass(w, WORLD_SECOND);
        KIT_CHECK(w->report, (after.events & KIT_NET_CONNECTED) != 0);
        world_close(w);
    }
    kit_alloc_free(w->memory.inner, handles, sizeof(*handles) * CROWD, 0);
}

/* One life with a failing allocator. Whether an allocation failed at all. */
static bool faults_starve(struct world *w, uint64_t fail_at, bool fail_after)
{
    struct world_peer client = {.seed = 1, .expect = 2, .total = 20000},
                      server = {.world = w, .seed = 2, .expect = 1, .total = 20000};
    struct world_listener l = {.peers = &server, .count = 1};
    struct kit_udp *udp;
    struct kit_address to = world_address(WORLD_B, 9);
    if (!world_open(w, clean, 300))
        return false;
    w->memory.calls = 0;
    w->memory.fail_at = fail_at;
    w->memory.fail_after = fail_after;
    int listening = kit_net_tcp_listen(w->nets[1], 80, 4, world_on_accept, &l, &l.tcp);
    int connecting = world_connect(w, 0, 80, &client);
    KIT_CHECK(w->report, listening == 0 || listening == KIT_ENOMEM);
    KIT_CHECK(w->report, connecting == 0 || connecting == KIT_ENOMEM);
    if (kit_net_udp_open(w->nets[0], 9, NULL, NULL, &udp) == 0)
        kit_net_udp_send(udp, &to, "x", 1);
    world_pass(w, 5 * WORLD_SECOND);
    bool failed = w->memory.calls >= fail_at;
    w->memory.fail_at = 0; /* memory is back */
    world_feed(&client);
    world_feed(&server);
    world_pass(w, 200 * WORLD_SECOND);
    KIT_CHECK(w->report, !client.wrong && !server.wrong);
    if (listening == 0 && connecting == 0 && client.error == 0 && server.error == 0) {
        KIT_CHECK_EQUAL(w->report, server.received, client.total);
        KIT_CHECK_EQUAL(w->report, client.received, server.total);
    }
    world_close(w);
    return failed;
}

static void faults_test_starved_open(struct world *w)
{
    KIT_TEST(w->report, "opening without memory fails cleanly");
    struct kit_net *net;
    for (uint64_t n = 1; n < 100; n++) {
        w->memory = (struct world_alloc){
            .inner = w->memory.inner, .alloc.ops = w->memory.alloc.ops, .fail_at = n};
        KIT_REQUIRE(w->report, kit_wire_open(&w->wire, w->clock, w->memory.inner, 4, 1) == 0);
        int rc = w->component->open(w->options, &w->clock->env, &w->wire.ends[0].network,
                                    &w->memory.alloc, &net);
        if (rc == 0)
            kit_net_close(net);
        kit_wire_close(&w->wire);
        KIT_CHECK_EQUAL(w->report, w->memory.used, 0);
        if (w->memory.calls < n) {
            KIT_CHECK_EQUAL(w->report, rc, 0);
            return;
        }
        KIT_CHECK_EQUAL(w->report, rc, KIT_ENOMEM);
    }
}

static void faults_test_starved(struct world *w)
{
    KIT_TEST(w->report, "an allocation that fails, whichever, costs time but nothing else");
    for (uint64_t n = 1; n < 200 && faults_starve(w, n, false); n++)
        ;
    KIT_TEST(w->report, "the same when memory stays away for a while");
    for (uint64_t n = 1; n < 200 && faults_starve(w, n, true); n += 3)
        ;
}

struct faults_tape {
    uint8_t frames[64][128];
    size_t lengths[64];
    size_t count;
};

static void faults_record(void *context, unsigned end, const uint8_t *frame, size_t length)
{
    struct faults_tape *tape = context;
    (void)end;
    size_t at = tape->count++ % 64;
    tape->lengths[at] = length < 128 ? length : 128;
    memcpy(tape->frames[at], frame, tape->lengths[at]);
}

/* Frames made of real ones by damage, cuts and noise, with headers that pass the first checks. */
static size_t faults_mutate(struct faults_tape *tape, uint64_t *random, uint8_t *out)
{
    uint64_t r = kit_suite_random(random);
    size_t pick = r % 64, length = tape->lengths[pick];
    memcpy(out, tape->frames[pick], sizeof tape->frames[pick]);
    for (unsigned i = (r >> 8) % 4; i > 0 && length > 14; i--) {
        uint64_t noise = kit_suite_random(random);
        out[12 + noise % (length - 12)] = (uint8_t)(noise >> 32);
    }
    if ((r >> 16) % 4 == 0)
        length = 14 + (r >> 24) % (sizeof tape->frames[0] - 13);
    return length < 14 ? 14 : length;
}

static void faults_test_hostile(struct world *w)
{
    struct world_peer client = {.seed = 1, .expect = 2, .total = 1 << 20},
                      server = {.seed = 2, .expect = 1, .total = 1 << 20};
    struct world_listener l;
    uint64_t random = 77;
    uint8_t frame[256];
    KIT_TEST(w->report, "hostile frames neither break the stack nor make it grow");
    struct faults_tape *tape = kit_alloc_alloc(w->memory.inner, sizeof *tape, 0);
    KIT_REQUIRE(w->report, tape != NULL);
    memset(tape, 0, sizeof *tape);
    if (world_open(w, clean, 400)) {
        w->wire.watch = faults_record;
        w->wire.context = tape;
        if (world_pair(w, &l, &client, &server)) {
            for (unsigned i = 0; i < 30000 && !w->corrupt; i++) {
                if (i % 8 == 0)
                    world_step(w);
                size_t length = faults_mutate(tape, &random, frame);
                network_interface_t *from = &w->wire.ends[i % 2].network;
                if (tape->lengths[0] != 0)
                    (void)kit_netif_send(from, frame, length);
            }
        }
        w->wire.watch = NULL;
        world_pass(w, WORLD_SECOND);
        KIT_CHECK(w->report, !client.wrong && !server.wrong);
        KIT_CHECK(w->report, w->memory.used < 4u << 20);
        world_close(w);
    }
    kit_alloc_free(w->memory.inner, tape, sizeof *tape, 0);
}

void kit_suite_net_faults(struct world *w, uint64_t connections)
{
    faults_test_transfers(w);
    faults_test_talkers(w);
    faults_test_many(w, connections);
    faults_test_limit(w);
    faults_test_starved_open(w);
    faults_test_starved(w);
    faults_test_hostile(w);
}
