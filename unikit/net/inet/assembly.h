/* SPDX-License-Identifier: MIT */
/* Bytes of a stream that arrived before their turn, as runs of sequence space, and the blocks that
 * a selective acknowledgment reports of them (RFC 2018, section 4). */
#ifndef KIT_NET_INET_ASSEMBLY_H
#define KIT_NET_INET_ASSEMBLY_H

#include <unikit/net/inet/queue.h>
#include <unikit/net/wire/tcp.h>

enum { INET_RUNS_MAX = 128 };

/* A piece of sequence space, start inclusive, end exclusive; empty if they are equal. */
struct inet_range {
    uint32_t start;
    uint32_t end;
};

struct inet_run {
    struct inet_run *next;
    uint32_t start;
    uint32_t stamp; /* of the assembly when it changed last */
    struct inet_queue data;
};

struct inet_assembly {
    struct inet_run *first; /* in order, not touching */
    uint32_t bytes;
    uint32_t stamp;
    uint32_t runs;
};

/* Keeps what is new of data[0 ... length) at sequence number `seq`, which lies ahead of the stream;
 * the number of bytes kept. *duplicate: the first part that was there already, or empty. Less than
 * what is new is kept when memory is out or there are INET_RUNS_MAX runs. */
uint32_t inet_assembly_add(struct inet_memory *memory, struct inet_assembly *a, uint32_t seq,
                           const uint8_t *data, uint32_t length, struct inet_range *duplicate);
/* The stream has reached `next`: moves what continues it behind `to`, drops what is old, and
 * returns where the stream gets to. */
uint32_t inet_assembly_deliver(struct inet_memory *memory, struct inet_assembly *a, uint32_t next,
                               struct inet_queue *to);
/* Up to `count` blocks, that which changed last first; their number. */
unsigned inet_assembly_blocks(const struct inet_assembly *a, struct inet_range *blocks,
                              unsigned count);
void inet_assembly_clear(struct inet_memory *memory, struct inet_assembly *a);
size_t inet_assembly_memory(const struct inet_assembly *a);
bool inet_assembly_sound(const struct inet_assembly *a, uint32_t next);

#endif
