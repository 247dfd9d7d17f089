/* SPDX-License-Identifier: MIT */
/* The scoreboard (RFC 2018, 6675): one record of 16 bytes per transmission, in a ring that grows by
 * doubling and goes back to two built-in records when nothing is in flight. Records are split where
 * an acknowledgment cuts them. An acknowledgment costs the records it covers; a selective one a
 * binary search besides, and a split a move of the records behind it.
 *
 * Invariants: records cover [una, nxt) without gaps; SACKED excludes LOST and OUT; OUT implies
 * LOST; `sacked`, `lost` and `out` are the bytes of records with that flag. */
#include <unikit/net/inet/board.h>

void inet_board_open(struct inet_board *b)
{
    *b = (struct inet_board){.capacity = INET_BOARD_INNER};
    b->records = b->inner;
}

void inet_board_clear(struct inet_memory *memory, struct inet_board *b)
{
    if (b->records != b->inner)
        inet_give(memory, b->records, sizeof(*b->records) * b->capacity);
    inet_board_open(b);
}

struct inet_sent *inet_board_at(struct inet_board *b, uint32_t index)
{
    return &b->records[(b->head + index) & (b->capacity - 1)];
}

bool inet_board_reserve(struct inet_memory *memory, struct inet_board *b)
{
    if (b->count < b->capacity)
        return true;
    uint32_t capacity = b->capacity < 8 ? 16 : b->capacity * 2;
    struct inet_sent *records = inet_take(memory, sizeof(*records) * capacity);
    if (records == NULL)
        return false;
    for (uint32_t i = 0; i < b->count; i++)
        records[i] = *inet_board_at(b, i);
    if (b->records != b->inner)
        inet_give(memory, b->records, sizeof(*records) * b->capacity);
    b->records = records;
    b->capacity = capacity;
    b->head = 0;
    return true;
}

bool inet_board_push(struct inet_memory *memory, struct inet_board *b, uint32_t start, uint32_t end,
                     uint32_t now_us)
{
    if (!inet_board_reserve(memory, b))
        return false;
    *inet_board_at(b, b->count) = (struct inet_sent){start, end, now_us, 0};
    b->count++;
    return true;
}

bool inet_board_split(struct inet_memory *memory, struct inet_board *b, uint32_t index,
                      uint32_t length)
{
    if (!inet_board_reserve(memory, b))
        return false;
    for (uint32_t i = b->count; i > index; i--)
        *inet_board_at(b, i) = *inet_board_at(b, i - 1);
    b->count++;
    struct inet_sent *first = inet_board_at(b, index), *second = inet_board_at(b, index + 1);
    first->end = second->start = first->start + length;
    return true;
}

/* Takes the flags off `length` bytes of a record as they leave the board or change. */
static void board_uncount(struct inet_board *b, uint32_t flags, uint32_t length)
{
    if ((flags & INET_SENT_SACKED) != 0)
        b->sacked -= length;
    if ((flags & INET_SENT_LOST) != 0)
        b->lost -= length;
    if ((flags & INET_SENT_OUT) != 0)
        b->out -= length;
}

/* The peer has this record, which it had not said before. */
static void board_deliver(struct inet_rack *rack, const struct inet_sent *s,
                          struct inet_delivery *d)
{
    if ((s->flags & INET_SENT_AGAIN) == 0) {
        uint32_t rtt = d->now_us - s->sent_us;
        if (kit_seq_le(s->end, d->limit))
            d->original += inet_sent_length(s);
        if (d->rtt_us == 0)
            d->rtt_us = rtt == 0 ? 1 : rtt;
    }
    if (d->largest < inet_sent_length(s))
        d->largest = inet_sent_length(s);
    inet_rack_delivered(rack, s, d);
}

void inet_board_ack(struct inet_memory *memory, struct inet_board *b, struct inet_rack *rack,
                    uint32_t una, struct inet_delivery *d)
{
    while (b->count != 0) {
        struct inet_sent *s = inet_board_at(b, 0), part = *s;
        if (!kit_seq_lt(s->start, una))
            break;
        if (kit_seq_lt(una, s->end))
            part.end = una;
        if ((s->flags & INET_SENT_SACKED) == 0) {
            d->acked += inet_sent_length(&part);
            board_deliver(rack, &part, d);
        }
        board_uncount(b, s->flags, inet_sent_length(&part));
        if (part.end != s->end) {
            s->start = una;
            return;
        }
        b->head = (b->head + 1) & (b->capacity - 1);
        b->count--;
    }
    if (b->count == 0 && b->records != b->inner)
        inet_board_clear(memory, b);
}

/* Index of the first record that ends behind `seq`; count: none. */
static uint32_t board_find(struct inet_board *b, uint32_t seq)
{
    uint32_t low = 0, high = b->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (kit_seq_lt(seq, inet_board_at(b, middle)->end))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void inet_board_sack(struct inet_memory *memory, struct inet_board *b, struct inet_rack *rack,
                     uint32_t start, uint32_t end, struct inet_delivery *d)
{
    for (uint32_t i = board_find(b, start); i < b->count; i++) {
        struct inet_sent *s = inet_board_at(b, i);
        if (!kit_seq_lt(s->start, end))
            break;
        if ((s->flags & INET_SENT_SACKED) != 0)
            continue;
        if (kit_seq_lt(s->start, start)) {
            if (!inet_board_split(memory, b, i, start - s->start))
                continue; /* without memory only whole records count: safe, and slower */
            s = inet_board_at(b, ++i);
        }
        if (kit_seq_lt(end, s->end)) {
            if (!inet_board_split(memory, b, i, end - s->start))
                continue;
            s = inet_board_at(b, i);
        }
        board_uncount(b, s->flags, inet_sent_length(s));
        board_deliver(rack, s, d);
        s->flags = (s->flags & INET_SENT_AGAIN) | INET_SENT_SACKED;
        b->sacked += inet_sent_length(s);
        d->sacked += inet_sent_length(s);
    }
}

struct inet_sent *inet_board_next_lost(struct inet_board *b, uint32_t *index)
{
    if (b->lost == b->out)
        return NULL;
    for (uint32_t i = 0; i < b->count; i++) {
        struct inet_sent *s = inet_board_at(b, i);
        if ((s->flags & (INET_SENT_LOST | INET_SENT_OUT)) == INET_SENT_LOST) {
            *index = i;
            return s;
        }
    }
    return NULL;
}

void inet_board_mark_lost(struct inet_board *b, struct inet_sent *s)
{
    board_uncount(b, s->flags & (INET_SENT_LOST | INET_SENT_OUT), inet_sent_length(s));
    s->flags = (s->flags & ~(uint32_t)INET_SENT_OUT) | INET_SENT_LOST;
    b->lost += inet_sent_length(s);
}

void inet_board_mark_sent(struct inet_board *b, struct inet_sent *s, uint32_t now_us)
{
    if ((s->flags & INET_SENT_OUT) == 0 && (s->flags & INET_SENT_LOST) != 0) {
        b->out += inet_sent_length(s);
        s->flags |= INET_SENT_OUT;
    }
    s->flags |= INET_SENT_AGAIN;
    s->sent_us = now_us;
}

void inet_board_timeout(struct inet_board *b, uint32_t now_us, uint32_t age_us)
{
    bool reneged = b->count != 0 && (inet_board_at(b, 0)->flags & INET_SENT_SACKED) != 0;
    for (uint32_t i = 0; i < b->count; i++) {
        struct inet_sent *s = inet_board_at(b, i);
        if (reneged && (s->flags & INET_SENT_SACKED) != 0) {
            board_uncount(b, s->flags, inet_sent_length(s));
            s->flags &= ~(uint32_t)INET_SENT_SACKED;
            inet_board_mark_lost(b, s);
        }
        if ((s->flags & INET_SENT_SACKED) == 0 && (i == 0 || now_us - s->sent_us >= age_us))
            inet_board_mark_lost(b, s);
    }
}

void inet_board_undo(struct inet_board *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        inet_board_at(b, i)->flags &= ~(uint32_t)(INET_SENT_LOST | INET_SENT_OUT);
    b->lost = b->out = 0;
}

bool inet_board_sound(const struct inet_board *b, uint32_t una, uint32_t nxt)
{
    struct inet_board counted = {0};
    for (uint32_t i = 0; i < b->count; i++) {
        const struct inet_sent *s = &b->records[(b->head + i) & (b->capacity - 1)];
        uint32_t length = inet_sent_length(s);
        if (s->start != una || !kit_seq_lt(s->start, s->end) ||
            ((s->flags & INET_SENT_SACKED) != 0 &&
             (s->flags & (INET_SENT_LOST | INET_SENT_OUT)) != 0) ||
            (s->flags & (INET_SENT_LOST | INET_SENT_OUT)) == INET_SENT_OUT)
            return false;
        una = s->end;
        counted.sacked += (s->flags & INET_SENT_SACKED) != 0 ? length : 0;
        counted.lost += (s->flags & INET_SENT_LOST) != 0 ? length : 0;
        counted.out += (s->flags & INET_SENT_OUT) != 0 ? length : 0;
    }
    return una == nxt && counted.sacked == b->sacked && counted.lost == b->lost &&
           counted.out == b->out && b->count <= b->capacity;
}
