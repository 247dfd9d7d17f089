/* SPDX-License-Identifier: MIT */
/* Chunked byte queues. Sizes of chunks follow use: 512 bytes for a short request, 2 KiB as a rule,
 * 16 KiB once a stream moves in bulk; each but the last is full or was cut from the front, so the
 * memory behind n bytes is at most n plus one chunk and 24 bytes per chunk. */
#include <unikit/net/inet/queue.h>

static uint32_t queue_capacity(const struct inet_queue *q, uint32_t length)
{
    uint32_t size = INET_CHUNK_SMALL;
    if (length > 4096 || q->length >= 8192)
        size = INET_CHUNK_LARGE;
    else if (q->first == NULL && length <= INET_CHUNK_TINY - sizeof(struct inet_chunk))
        size = INET_CHUNK_TINY;
    return size - (uint32_t)sizeof(struct inet_chunk);
}

static void queue_free(struct inet_memory *memory, struct inet_chunk *chunk)
{
    inet_give(memory, chunk, sizeof(*chunk) + chunk->capacity);
}

static struct inet_chunk *queue_grow(struct inet_memory *memory, struct inet_queue *q,
                                     uint32_t length)
{
    uint32_t capacity = queue_capacity(q, length);
    struct inet_chunk *chunk = inet_take(memory, sizeof(*chunk) + capacity);
    if (chunk == NULL)
        return NULL;
    chunk->next = NULL;
    chunk->start = chunk->end = 0;
    chunk->capacity = capacity;
    if (q->first == NULL)
        q->first = chunk;
    else
        q->last->next = chunk;
    q->last = chunk;
    return chunk;
}

uint32_t inet_queue_append(struct inet_memory *memory, struct inet_queue *q, const uint8_t *data,
                           uint32_t length)
{
    uint32_t done = 0;
    while (done < length) {
        struct inet_chunk *chunk = q->first == NULL ? NULL : q->last;
        if (chunk == NULL || chunk->end == chunk->capacity)
            chunk = queue_grow(memory, q, length - done);
        if (chunk == NULL)
            break;
        uint32_t room = chunk->capacity - chunk->end;
        uint32_t count = length - done < room ? length - done : room;
        memcpy(chunk->data + chunk->end, data + done, count);
        chunk->end += count;
        q->length += count;
        done += count;
    }
    return done;
}

void inet_queue_drop(struct inet_memory *memory, struct inet_queue *q, uint32_t length)
{
    q->length -= length;
    while (length != 0) {
        struct inet_chunk *chunk = q->first;
        uint32_t here = chunk->end - chunk->start;
        if (length < here) {
            chunk->start += length;
            return;
        }
        length -= here;
        q->first = chunk->next;
        queue_free(memory, chunk);
    }
}

void inet_queue_join(struct inet_queue *q, struct inet_queue *from)
{
    if (from->first == NULL)
        return;
    if (q->first == NULL)
        q->first = from->first;
    else
        q->last->next = from->first;
    q->last = from->last;
    q->length += from->length;
    *from = (struct inet_queue){0};
}

void inet_queue_clear(struct inet_memory *memory, struct inet_queue *q)
{
    while (q->first != NULL) {
        struct inet_chunk *chunk = q->first;
        q->first = chunk->next;
        queue_free(memory, chunk);
    }
    q->length = 0;
}

const struct inet_chunk *inet_queue_seek(const struct inet_chunk *at, uint32_t *offset)
{
    while (*offset >= at->end - at->start) {
        *offset -= at->end - at->start;
        at = at->next;
    }
    return at;
}

void inet_queue_copy(const struct inet_chunk *at, uint32_t offset, uint8_t *to, uint32_t length)
{
    while (length != 0) {
        uint32_t here = at->end - at->start - offset, count = length < here ? length : here;
        memcpy(to, at->data + at->start + offset, count);
        to += count;
        length -= count;
        offset = 0;
        at = at->next;
    }
}

size_t inet_queue_memory(const struct inet_queue *q)
{
    size_t bytes = 0;
    for (const struct inet_chunk *at = q->first; at != NULL; at = at->next)
        bytes += sizeof(*at) + at->capacity;
    return bytes;
}

bool inet_queue_sound(const struct inet_queue *q)
{
    uint32_t length = 0;
    for (const struct inet_chunk *at = q->first; at != NULL; at = at->next) {
        if (at->start >= at->end || at->end > at->capacity || (at->next == NULL) != (at == q->last))
            return false;
        length += at->end - at->start;
    }
    return length == q->length;
}
