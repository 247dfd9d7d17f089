/* SPDX-License-Identifier: MIT */
/* Byte streams in chunks: what a connection has to send and what it received. Chunks are taken when
 * bytes come and given back when they go, so an idle connection holds none. */
#ifndef KIT_NET_INET_QUEUE_H
#define KIT_NET_INET_QUEUE_H

#include <unikit/net/inet/memory.h>

enum { INET_CHUNK_TINY = 512, INET_CHUNK_SMALL = 2048, INET_CHUNK_LARGE = 16384 };

struct inet_chunk {
    struct inet_chunk *next;
    uint32_t start; /* bytes in use: data[start ... end) */
    uint32_t end;
    uint32_t capacity;
    uint8_t data[];
};

struct inet_queue {
    struct inet_chunk *first;
    struct inet_chunk *last; /* undefined while first is NULL */
    uint32_t length;
};

/* Copies bytes to the end; how many: fewer than asked for when memory is out. */
uint32_t inet_queue_append(struct inet_memory *memory, struct inet_queue *q, const uint8_t *data,
                           uint32_t length);
/* Drops bytes from the front, at most q->length. */
void inet_queue_drop(struct inet_memory *memory, struct inet_queue *q, uint32_t length);
/* Moves all of `from` behind `q`. */
void inet_queue_join(struct inet_queue *q, struct inet_queue *from);
void inet_queue_clear(struct inet_memory *memory, struct inet_queue *q);
/* The chunk that holds byte `*offset`, counted from the start of `at`, and *offset within it; the
 * byte MUST be there. */
const struct inet_chunk *inet_queue_seek(const struct inet_chunk *at, uint32_t *offset);
/* Copies `length` bytes from `offset` behind the start of chunk `at` on; they MUST be there. */
void inet_queue_copy(const struct inet_chunk *at, uint32_t offset, uint8_t *to, uint32_t length);
/* Bytes of memory behind it. */
size_t inet_queue_memory(const struct inet_queue *q);
bool inet_queue_sound(const struct inet_queue *q);

#endif
