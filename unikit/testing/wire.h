/* SPDX-License-Identifier: MIT */
/* A cable with faults between two network interfaces, in virtual time: frames are delayed, lost,
 * doubled, overtaken by others and damaged, all following from a seed. */
#ifndef KIT_TESTING_WIRE_H
#define KIT_TESTING_WIRE_H

#include <unikit/alloc/alloc.h>
#include <unikit/net/netif.h>
#include <unikit/rt/list.h>
#include <unikit/testing/virtual.h>

/* cdef: begin */
enum { KIT_WIRE_FRAME = 1514 };

/* Rates are per 10000 frames. */
struct kit_wire_faults {
    uint64_t delay_ns; /* each way */
    uint32_t drop;
    uint32_t duplicate;
    uint32_t reorder; /* delayed by up to eight times as much more */
    uint32_t corrupt; /* one bit flipped behind the Ethernet header; IPv4 only */
};

struct kit_wire_end {
    network_interface_t network;
    struct kit_wire *wire;
    struct kit_list arriving; /* in order of time */
    uint64_t sent;
    bool cut; /* what this end sends is lost */
};

struct kit_wire {
    struct kit_wire_end ends[2];
    struct kit_wire_faults faults; /* may be changed at any time */
    struct kit_virtual *clock;
    struct kit_alloc *alloc;
    uint64_t random;
    struct kit_list idle;
    size_t slots;
    void *memory;
    size_t memory_size;
    /* optional: sees every frame given to an end, before any fault. */
    void (*watch)(void *context, unsigned end, const uint8_t *frame, size_t length);
    void *context;
};

/* `slots` frames may be under way in all; more are refused. 0 or KIT_ENOMEM. */
int kit_wire_open(struct kit_wire *wire, struct kit_virtual *clock, struct kit_alloc *alloc,
                  size_t slots, uint64_t seed);
/* When the next frame arrives somewhere; KIT_NEVER: none is under way. */
uint64_t kit_wire_deadline_ns(const struct kit_wire *wire);
void kit_wire_close(struct kit_wire *wire);
/* cdef: end */

#endif
