/* SPDX-License-Identifier: MIT */
/* Byte rings of connections. They start empty, double on demand up to the option's size and keep
 * their size until the connection ends: an idle connection costs its control block alone.
 *
 * The receive ring also holds segments that came early, at their final place: a byte of sequence
 * number s lies (s - rcv_nxt) bytes behind the bytes in order. The pieces are noted as ranges of
 * sequence space, in order; more than MINI_RANGES of them are not kept. */
#include <unikit/net/mini/mini.h>

MINI_COLD uint32_t mini_buffer_size(uint64_t size)
{
    return size <= MINI_RING_MIN ? MINI_RING_MIN : UINT32_C(2) << kit_fls64(size - 1);
}

MINI_COLD bool mini_ring_reserve(struct mini *m, struct mini_ring *r, uint32_t need, uint32_t limit)
{
    if (need <= r->capacity)
        return true;
    uint32_t capacity = mini_min(mini_buffer_size(need), limit);
    uint8_t *data = need > limit ? NULL : mini_alloc(m, capacity);
    if (data == NULL)
        return false;
    if (r->capacity != 0) {
        uint32_t first = r->capacity - r->head;
        memcpy(data, r->data + r->head, first);
        memcpy(data + first, r->data, r->head);
        mini_free(m, r->data, r->capacity);
    }
    *r = (struct mini_ring){.data = data, .capacity = capacity, .length = r->length};
    return true;
}

MINI_COLD void mini_ring_free(struct mini *m, struct mini_ring *r)
{
    if (r->capacity != 0)
        mini_free(m, r->data, r->capacity);
    *r = (struct mini_ring){0};
}

void mini_ring_put(struct mini_ring *r, uint32_t offset, const uint8_t *data, uint32_t length)
{
    if (length == 0)
        return;
    uint32_t at = (r->head + offset) & (r->capacity - 1);
    uint32_t first = mini_min(length, r->capacity - at);
    memcpy(r->data + at, data, first);
    if (first < length)
        memcpy(r->data, data + first, length - first);
}

void mini_ring_get(const struct mini_ring *r, uint32_t offset, uint8_t *data, uint32_t length)
{
    if (length == 0)
        return;
    uint32_t at = (r->head + offset) & (r->capacity - 1);
    uint32_t first = mini_min(length, r->capacity - at);
    memcpy(data, r->data + at, first);
    if (first < length)
        memcpy(data + first, r->data, length - first);
}

void mini_ring_drop(struct mini_ring *r, uint32_t length)
{
    r->length -= length;
    if (r->capacity != 0)
        r->head = (r->head + length) & (r->capacity - 1);
}

MINI_COLD bool mini_ranges_add(struct mini_tcp *t, uint32_t start, uint32_t end)
{
    unsigned i = 0, j;
    while (i < t->range_count && kit_seq_lt(t->ranges[i].end, start))
        i++; /* the first that touches or lies behind */
    for (j = i; j < t->range_count && kit_seq_le(t->ranges[j].start, end); j++) {
        if (kit_seq_lt(t->ranges[j].start, start))
            start = t->ranges[j].start;
        if (kit_seq_lt(end, t->ranges[j].end))
            end = t->ranges[j].end;
    }
    if (i == j && t->range_count == MINI_RANGES)
        return false;
    /* ranges i ... j - 1 become one */
    memmove(&t->ranges[i + 1], &t->ranges[j], sizeof(t->ranges[0]) * (t->range_count - j));
    t->ranges[i] = (struct mini_range){start, end};
    t->range_count = (uint8_t)(t->range_count + 1 - (j - i));
    return true;
}

MINI_COLD uint32_t mini_ranges_advance(struct mini_tcp *t, uint32_t next)
{
    unsigned used = 0;
    for (; used < t->range_count && kit_seq_le(t->ranges[used].start, next); used++) {
        if (kit_seq_lt(next, t->ranges[used].end))
            next = t->ranges[used].end;
    }
    t->range_count = (uint8_t)(t->range_count - used);
    memmove(&t->ranges[0], &t->ranges[used], sizeof(t->ranges[0]) * t->range_count);
    return next;
}
