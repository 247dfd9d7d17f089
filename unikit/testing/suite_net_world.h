/* SPDX-License-Identifier: MIT */
/* What the tests of stacks share: two stacks on a cable, and programs that talk over them. */
#ifndef KIT_TESTING_SUITE_NET_WORLD_H
#define KIT_TESTING_SUITE_NET_WORLD_H

#include <unikit/testing/suite_net.h>
#include <unikit/testing/wire.h>

#define WORLD_SECOND KIT_NS_PER_S
/* After so long without traffic nothing may be left, TIME_WAIT included. */
#define WORLD_QUIET (1300 * KIT_NS_PER_S)
enum { WORLD_A = 0x0a000001, WORLD_B = 0x0a000002, WORLD_SLOTS = 512 };

/* An allocator that counts, and fails on demand. */
struct world_alloc {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    size_t used;
    uint64_t calls;
    uint64_t fail_at; /* the call that fails; 0: none */
    bool fail_after;  /* and all behind it */
};

struct world {
    struct kit_report *report;
    const struct kit_net_component *component;
    const uint64_t *options;
    struct kit_virtual *clock;
    struct world_alloc memory;
    struct kit_wire wire;
    struct kit_net *nets[2]; /* 10.0.0.1 and 10.0.0.2, the second listens as a rule */
    uint64_t steps;
    bool corrupt; /* a check failed: stop */
};

/* A program at one end of a connection. It sends `total` bytes that follow from `seed`, then shuts
 * down; it compares what it receives with what follows from `expect`. */
struct world_peer {
    struct world *world;
    struct kit_tcp *tcp; /* NULL: closed, or not there yet */
    uint64_t seed;
    uint64_t total;
    uint64_t sent;
    uint64_t expect;
    uint64_t received;
    uint32_t events; /* all that came */
    int error;
    bool silent;      /* does not read */
    bool keep_open;   /* does not shut down after `total` */
    bool keep_handle; /* does not close at the end */
    bool eof;
    bool wrong; /* bytes differ */
    bool done;  /* closed by itself */
};

struct world_listener {
    struct kit_tcp *tcp;
    struct world_peer *peers; /* given to connections in order */
    size_t count;
    size_t accepted;
};

/* Opens the cable and both stacks; false: a check failed, and everything is closed again. */
bool world_open(struct world *w, struct kit_wire_faults faults, uint64_t seed);
/* Closes both stacks and checks that all memory came back. */
void world_close(struct world *w);
/* One round: both stacks poll, time passes. */
void world_step(struct world *w);
/* Steps until `done` says so, for at most `limit_ns`; its last word. */
bool world_run(struct world *w, bool (*done)(void *argument), void *argument, uint64_t limit_ns);
/* Steps for so long. */
void world_pass(struct world *w, uint64_t ns);
struct kit_address world_address(uint32_t ip, uint16_t port);
void world_callback(void *argument, struct kit_tcp *tcp, uint32_t events);
void world_on_accept(void *argument, struct kit_tcp *tcp, uint32_t events);
/* Sends what is due, as far as it goes. */
void world_feed(struct world_peer *p);
/* Reads what is there. */
void world_drain(struct world_peer *p);
void world_peer_close(struct world_peer *p);
/* Starts to connect from stack `from` to the other one. */
int world_connect(struct world *w, unsigned from, uint16_t port, struct world_peer *p);
/* Connects client and server over port 80; false: a check failed. */
bool world_pair(struct world *w, struct world_listener *l, struct world_peer *client,
                struct world_peer *server);
uint32_t world_state(const struct world_peer *p);
struct kit_net_stats world_stats(const struct world *w, unsigned which);

void kit_suite_net_tcp(struct world *w);
void kit_suite_net_faults(struct world *w, uint64_t connections);
void kit_suite_net_udp(struct world *w);

#endif
