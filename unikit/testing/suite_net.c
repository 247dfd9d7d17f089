/* SPDX-License-Identifier: MIT */
/* The conformance suite of TCP/IP stacks: the world the tests run in, and the entry. */
#include <unikit/testing/suite_net_world.h>

enum { CHUNK = 4096 };

static struct world_alloc *world_alloc_of(struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct world_alloc, alloc);
}

static bool world_alloc_fails(struct world_alloc *w)
{
    w->calls++;
    return w->fail_at != 0 && (w->calls == w->fail_at || (w->fail_after && w->calls > w->fail_at));
}

static void *world_alloc_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct world_alloc *w = world_alloc_of(a);
    void *block = world_alloc_fails(w) ? NULL : kit_alloc_alloc(w->inner, size, align);
    if (block != NULL) {
        w->used += size;
        memset(block, 0xa5, size); /* nobody may take it for zeroed */
    }
    return block;
}

static void world_alloc_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    struct world_alloc *w = world_alloc_of(a);
    if (block == NULL)
        return;
    w->used -= size;
    memset(block, 0x5a, size); /* nobody may read it any more */
    kit_alloc_free(w->inner, block, size, align);
}

static void *world_alloc_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                                 size_t align)
{
    struct world_alloc *w = world_alloc_of(a);
    void *moved =
        world_alloc_fails(w) ? NULL : kit_alloc_realloc(w->inner, block, old_size, new_size, align);
    if (moved != NULL)
        w->used += new_size - (block != NULL ? old_size : 0);
    return moved;
}

static const struct kit_alloc_ops world_alloc_ops = {
    .alloc = world_alloc_alloc, .free = world_alloc_free, .realloc = world_alloc_realloc};

struct kit_address world_address(uint32_t ip, uint16_t port)
{
    return (struct kit_address){
        .bytes = {(uint8_t)(ip >> 24), (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip},
        .port = port,
        .family = 4};
}

static int world_open_stack(struct world *w, unsigned which)
{
    struct kit_address address = world_address(which == 0 ? WORLD_A : WORLD_B, 0);
    int rc = w->component->open(w->options, &w->clock->env, &w->wire.ends[which].network,
                                &w->memory.alloc, &w->nets[which]);
    if (rc != 0) {
        w->nets[which] = NULL;
        return rc;
    }
    return kit_net_configure(w->nets[which], &address, 24, NULL);
}

bool world_open(struct world *w, struct kit_wire_faults faults, uint64_t seed)
{
    struct kit_alloc *inner = w->memory.inner;
    w->memory = (struct world_alloc){.inner = inner};
    w->memory.alloc.ops = &world_alloc_ops;
    w->nets[0] = w->nets[1] = NULL;
    w->corrupt = false;
    if (!KIT_CHECK_EQUAL(w->report, kit_wire_open(&w->wire, w->clock, inner, WORLD_SLOTS, seed), 0))
        return false;
    w->wire.faults = faults;
    if (KIT_CHECK_EQUAL(w->report, world_open_stack(w, 0), 0) &&
        KIT_CHECK_EQUAL(w->report, world_open_stack(w, 1), 0))
        return true;
    world_close(w);
    return false;
}

void world_close(struct world *w)
{
    for (unsigned i = 0; i < 2; i++) {
        if (w->nets[i] != NULL) {
            KIT_CHECK_EQUAL(w->report, kit_net_check(w->nets[i]), 0);
            kit_net_close(w->nets[i]);
        }
    }
    kit_wire_close(&w->wire);
    KIT_CHECK_EQUAL(w->report, w->memory.used, 0);
}

void world_step(struct world *w)
{
    bool busy = false;
    uint64_t next = kit_wire_deadline_ns(&w->wire);
    for (unsigned i = 0; i < 2; i++)
        busy |= kit_net_poll(w->nets[i]);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t deadline = kit_net_deadline_ns(w->nets[i]);
        next = deadline < next ? deadline : next;
        if (w->steps % 61 == 0 && !w->corrupt)
            w->corrupt = !KIT_CHECK_EQUAL(w->report, kit_net_check(w->nets[i]), 0);
    }
    w->steps++;
    uint64_t now = w->clock->clock_ns;
    if (busy || next <= now)
        kit_virtual_advance(w->clock, 10000);
    else if (next != KIT_NEVER)
        kit_virtual_advance(w->clock, next - now < WORLD_SECOND ? next - now : WORLD_SECOND);
    else
        kit_virtual_advance(w->clock, WORLD_SECOND / 100);
}

bool world_run(struct world *w, bool (*done)(void *argument), void *argument, uint64_t limit_ns)
{
    uint64_t end = w->clock->clock_ns + limit_ns;
    while (!done(argument) && w->clock->clock_ns < end && !w->corrupt)
        world_step(w);
    return done(argument);
}

static bool world_never(void *argument)
{
    (void)argument;
    return false;
}

void world_pass(struct world *w, uint64_t ns)
{
    world_run(w, world_never, NULL, ns);
}

/* ---- programs ------------------------------------------------------------------------------- */

static uint8_t world_byte(uint64_t seed, uint64_t at)
{
    return (uint8_t)((at + seed) * 131 + (at >> 8) * 7 + (at >> 16) + seed);
}

void world_feed(struct world_peer *p)
{
    uint8_t chunk[CHUNK];
    while (p->tcp != NULL && p->sent < p->total) {
        size_t count = p->total - p->sent < CHUNK ? (size_t)(p->total - p->sent) : CHUNK;
        for (size_t i = 0; i < count; i++)
            chunk[i] = world_byte(p->seed, p->sent + i);
        int taken = kit_net_tcp_send(p->tcp, chunk, count);
        if (taken == KIT_EAGAIN)
            return;
        if (taken <= 0) {
            p->error = taken;
            return;
        }
        p->sent += (uint64_t)taken;
    }
    if (p->tcp != NULL && !p->keep_open)
        kit_net_tcp_shutdown(p->tcp); /* once; again it says so and does nothing */
}

static void world_compare(struct world_peer *p, const uint8_t *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        p->wrong |= data[i] != world_byte(p->expect, p->received + i);
    p->received += count;
}

void world_drain(struct world_peer *p)
{
    uint8_t chunk[CHUNK];
    const void *data;
    int got = 1;
    while (got > 0) { /* both ways of reading in turn */
        if (p->received % 2 == 0) {
            got = kit_net_tcp_receive(p->tcp, chunk, CHUNK - 1);
            if (got > 0)
                world_compare(p, chunk, (size_t)got);
        } else {
            got = kit_net_tcp_peek(p->tcp, &data);
            if (got > 0) {
                world_compare(p, data, (size_t)got);
                kit_net_tcp_consume(p->tcp, (size_t)got);
            }
        }
    }
    p->eof |= got == 0;
    if (got < 0 && got != KIT_EAGAIN)
        p->error = got;
}

void world_peer_close(struct world_peer *p)
{
    if (p->tcp != NULL)
        kit_net_tcp_close(p->tcp);
    p->tcp = NULL;
    p->done = true;
}

void world_callback(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct world_peer *p = argument;
    p->events |= events;
    KIT_CHECK(p->world->report, tcp == p->tcp);
    if ((events & KIT_NET_ERROR) != 0) {
        struct kit_tcp_info info;
        kit_net_tcp_info(tcp, &info);
        p->error = info.error;
        if (!p->silent)
            world_drain(p);
        p->error = info.error;
        if (!p->keep_handle)
            world_peer_close(p);
        return;
    }
    if (!p->silent)
        world_drain(p);
    world_feed(p);
    if ((events & KIT_NET_CLOSED) != 0 && !p->keep_handle)
        world_peer_close(p);
}

void world_on_accept(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct world_listener *l = argument;
    struct kit_tcp *accepted;
    (void)events;
    while (l->accepted < l->count && (accepted = kit_net_tcp_accept(tcp)) != NULL) {
        struct world_peer *p = &l->peers[l->accepted++];
        p->tcp = accepted;
        kit_net_tcp_set_callback(accepted, world_callback, p);
        world_callback(p, accepted, KIT_NET_WRITABLE);
    }
}

int world_connect(struct world *w, unsigned from, uint16_t port, struct world_peer *p)
{
    struct kit_address to = world_address(from == 0 ? WORLD_B : WORLD_A, port);
    p->world = w;
    int rc = kit_net_tcp_connect(w->nets[from], &to, world_callback, p, &p->tcp);
    if (rc != 0)
        p->tcp = NULL;
    return rc;
}

static bool world_is_pair(void *argument)
{
    struct world_peer **peers = argument;
    return (peers[0]->events & (KIT_NET_CONNECTED | KIT_NET_ERROR)) != 0 &&
           (peers[1]->tcp != NULL || peers[1]->done);
}

bool world_pair(struct world *w, struct world_listener *l, struct world_peer *client,
                struct world_peer *server)
{
    struct world_peer *both[2] = {client, server};
    server->world = w;
    *l = (struct world_listener){.peers = server, .count = 1};
    return KIT_CHECK_EQUAL(w->report,
                           kit_net_tcp_listen(w->nets[1], 80, 4, world_on_accept, l, &l->tcp), 0) &&
           KIT_CHECK_EQUAL(w->report, world_connect(w, 0, 80, client), 0) &&
           KIT_CHECK(w->report, world_run(w, world_is_pair, both, 60 * WORLD_SECOND));
}

uint32_t world_state(const struct world_peer *p)
{
    struct kit_tcp_info info;
    if (p->tcp == NULL)
        return KIT_TCP_CLOSED;
    kit_net_tcp_info(p->tcp, &info);
    return info.state;
}

struct kit_net_stats world_stats(const struct world *w, unsigned which)
{
    struct kit_net_stats stats;
    kit_net_stats(w->nets[which], &stats);
    return stats;
}

int kit_suite_net(const struct kit_net_component *component, const uint64_t *options,
                  struct kit_alloc *alloc, struct kit_virtual *clock, uint64_t connections,
                  struct kit_report *report)
{
    int before = report->failures;
    struct world w = {.report = report,
                      .component = component,
                      .options = options,
                      .clock = clock,
                      .memory.inner = alloc};
    void *room = kit_alloc_alloc(alloc, 8u << 20, 0);
    if (room == NULL)
        return KIT_ENOMEM;
    kit_alloc_free(alloc, room, 8u << 20, 0);
    if ((component->features & KIT_NET_UDP) != 0)
        kit_suite_net_udp(&w);
    if ((component->features & KIT_NET_TCP) != 0) {
        kit_suite_net_tcp(&w);
        kit_suite_net_faults(&w, connections);
    }
    return report->failures - before;
}
