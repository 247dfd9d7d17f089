/* SPDX-License-Identifier: MIT */
/* The parts of net.inet that know no stack, against models too simple to be wrong: a byte per
 * sequence number, floating point, a list. Argument: seed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/net/inet/board.h>
#include <unikit/net/inet/flow.h>
#include <unikit/net/inet/table.h>
#include <unikit/testing/suite.h>

enum { SPAN = 6000, KEYS = 3000 };

static uint64_t state;
static bool failing; /* memory is out from time to time */

#define EXPECT(condition)                                                                          \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), exit(1)))

static uint32_t pick(uint32_t bound)
{
    return (uint32_t)(kit_suite_random(&state) % bound);
}

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a, (void)align;
    return failing && pick(8) == 0 ? NULL : malloc(size);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static const struct kit_alloc_ops ops = {.alloc = heap_alloc, .free = heap_free};
static struct kit_alloc heap = {&ops};

/* ---- assembly and queue --------------------------------------------------------------------- */

static uint8_t stream[SPAN];
static bool have[SPAN];

static uint32_t count_new(uint32_t at, uint32_t length)
{
    uint32_t fresh = 0;
    for (uint32_t i = at; i < at + length; i++)
        fresh += !have[i];
    return fresh;
}

/* The blocks are the model's runs, and the first holds what came last. */
static void check_blocks(const struct inet_assembly *a, uint32_t base, uint32_t last)
{
    struct inet_range blocks[INET_RUNS_MAX];
    unsigned count = inet_assembly_blocks(a, blocks, INET_RUNS_MAX), runs = 0;
    for (uint32_t i = 1; i < SPAN; i++)
        runs += have[i] && !have[i - 1];
    EXPECT(count == runs);
    for (unsigned i = 0; i < count; i++) {
        uint32_t start = blocks[i].start - base, end = blocks[i].end - base;
        EXPECT(start < end && !have[start - 1] && (end == SPAN || !have[end]));
        EXPECT(count_new(start, end - start) == 0);
    }
    if (last != 0 && have[last])
        EXPECT(blocks[0].start - base <= last && last < blocks[0].end - base);
}

static void test_assembly(void)
{
    struct inet_memory memory = {.alloc = &heap};
    struct inet_assembly a = {0};
    struct inet_queue out = {0};
    uint32_t base = (uint32_t)kit_suite_random(&state), next = 0;
    memset(have, 0, sizeof have);
    for (uint32_t i = 0; i < SPAN; i++)
        stream[i] = (uint8_t)kit_suite_random(&state);
    while (next < SPAN) {
        uint32_t at = next + 1 + pick(SPAN - next), length = 1 + pick(pick(4) ? 40 : 700);
        struct inet_range duplicate;
        if (at >= SPAN || pick(12) == 0) { /* in order: as tcp_data.c does */
            length = length < SPAN - next ? length : SPAN - next;
            uint32_t taken = inet_queue_append(&memory, &out, stream + next, length);
            EXPECT(failing || taken == length);
            memset(have + next, 1, taken);
            next = inet_assembly_deliver(&memory, &a, base + next + taken, &out) - base;
            while (next < SPAN && have[next])
                EXPECT(!"the model has more");
            EXPECT(next == out.length);
        } else {
            length = length < SPAN - at ? length : SPAN - at;
            uint32_t fresh = count_new(at, length), runs = a.runs;
            uint32_t kept =
                inet_assembly_add(&memory, &a, base + at, stream + at, length, &duplicate);
            EXPECT(kept <= fresh);
            EXPECT(kept == fresh || failing || runs == INET_RUNS_MAX);
            EXPECT((duplicate.start != duplicate.end) <= (fresh < length));
            if (kept == fresh)
                memset(have + at, 1, length);
            if (kept != fresh)
                break;             /* what was kept of it is checked below */
            memset(have, 0, next); /* the runs alone */
            check_blocks(&a, base, at);
            memset(have, 1, next);
        }
        EXPECT(inet_queue_sound(&out) && inet_assembly_sound(&a, base + next));
        EXPECT(memory.used == inet_queue_memory(&out) + inet_assembly_memory(&a));
    }
    uint8_t *copy = malloc(SPAN);
    if (out.length != 0)
        inet_queue_copy(out.first, 0, copy, out.length);
    EXPECT(memcmp(copy, stream, out.length) == 0);
    if (out.length != 0) { /* from anywhere */
        uint32_t from = pick(out.length), offset = from;
        const struct inet_chunk *at = inet_queue_seek(out.first, &offset);
        inet_queue_copy(at, offset, copy, out.length - from);
        EXPECT(memcmp(copy, stream + from, out.length - from) == 0);
    }
    for (struct inet_run *run = a.first; run != NULL; run = run->next) {
        inet_queue_copy(run->data.first, 0, copy, run->data.length);
        EXPECT(memcmp(copy, stream + (run->start - base), run->data.length) == 0);
    }
    while (out.length != 0) { /* dropped in pieces, it is still sound */
        inet_queue_drop(&memory, &out, 1 + pick(out.length));
        EXPECT(inet_queue_sound(&out));
    }
    inet_assembly_clear(&memory, &a);
    inet_queue_clear(&memory, &out);
    EXPECT(memory.used == 0);
    free(copy);
}

/* ---- the scoreboard ------------------------------------------------------------------------- */

static uint8_t flags[SPAN]; /* INET_SENT_* of each byte */

static void check_board(struct inet_board *b, uint32_t base, uint32_t una, uint32_t nxt)
{
    uint32_t sacked = 0, lost = 0, out = 0, index;
    for (uint32_t i = una; i < nxt; i++) {
        sacked += (flags[i] & INET_SENT_SACKED) != 0;
        lost += (flags[i] & INET_SENT_LOST) != 0;
        out += (flags[i] & INET_SENT_OUT) != 0;
    }
    EXPECT(inet_board_sound(b, base + una, base + nxt));
    EXPECT(b->sacked == sacked && b->lost == lost && b->out == out);
    EXPECT(inet_board_pipe(b, nxt - una) == nxt - una - sacked - lost + out);
    const struct inet_sent *s = inet_board_next_lost(b, &index);
    uint32_t first = una;
    while (first < nxt && (flags[first] & (INET_SENT_LOST | INET_SENT_OUT)) != INET_SENT_LOST)
        first++;
    EXPECT((s == NULL) == (first == nxt) && (s == NULL || s->start - base == first));
}

static void board_sack(struct inet_memory *memory, struct inet_board *b, struct inet_rack *rack,
                       uint32_t base, uint32_t una, uint32_t nxt, struct inet_delivery *d)
{
    uint32_t start = una + pick(nxt - una), end = start + 1 + pick(nxt - start), fresh = 0;
    for (uint32_t i = start; i < end; i++) {
        fresh += (flags[i] & INET_SENT_SACKED) == 0;
        flags[i] = (uint8_t)((flags[i] & INET_SENT_AGAIN) | INET_SENT_SACKED);
    }
    d->sacked = 0;
    inet_board_sack(memory, b, rack, base + start, base + end, d);
    EXPECT(d->sacked == fresh);
}

static void test_board(void)
{
    struct inet_memory memory = {.alloc = &heap};
    struct inet_board b;
    struct inet_rack rack = {0};
    uint32_t base = (uint32_t)kit_suite_random(&state), una = 0, nxt = 0, now = pick(1u << 31);
    inet_board_open(&b);
    memset(flags, 0, sizeof flags);
    while (una < SPAN) {
        struct inet_delivery d = {.now_us = now += pick(1000), .limit = base + SPAN};
        uint32_t length = 1 + pick(200), index;
        switch (pick(6)) {
        case 0:
        case 1:
            length = length < SPAN - nxt ? length : SPAN - nxt;
            if (length != 0 && inet_board_push(&memory, &b, base + nxt, base + nxt + length, now))
                nxt += length;
            break;
        case 2:
            if (pick(3) == 0 && una < nxt) {
                uint32_t to = una + 1 + pick(nxt - una), fresh = 0;
                for (uint32_t i = una; i < to; i++)
                    fresh += (flags[i] & INET_SENT_SACKED) == 0;
                inet_board_ack(&memory, &b, &rack, base + to, &d);
                EXPECT(d.acked == fresh);
                una = to;
            }
            break;
        case 3:
            if (una < nxt)
                board_sack(&memory, &b, &rack, base, una, nxt, &d);
            break;
        default:
            if (b.count == 0)
                break;
            index = pick(b.count);
            struct inet_sent *s = inet_board_at(&b, index);
            if ((s->flags & INET_SENT_SACKED) != 0)
                break;
            if (pick(3) == 0 && inet_sent_length(s) > 1 &&
                inet_board_split(&memory, &b, index, 1 + pick(inet_sent_length(s) - 1)))
                s = inet_board_at(&b, index);
            bool lose = pick(2) == 0;
            for (uint32_t i = s->start - base; i < s->end - base; i++) {
                if (lose)
                    flags[i] = (uint8_t)((flags[i] & INET_SENT_AGAIN) | INET_SENT_LOST);
                else if ((flags[i] & INET_SENT_LOST) != 0)
                    flags[i] |= INET_SENT_OUT | INET_SENT_AGAIN;
                else
                    flags[i] |= INET_SENT_AGAIN;
            }
            if (lose)
                inet_board_mark_lost(&b, s);
            else
                inet_board_mark_sent(&b, s, now);
        }
        check_board(&b, base, una, nxt);
    }
    inet_board_clear(&memory, &b);
    EXPECT(memory.used == 0);
}

/* RFC 8985: what was sent before something delivered, and is late by the window, is lost. */
static void test_rack(void)
{
    struct inet_memory memory = {.alloc = &heap};
    struct inet_board b;
    struct inet_rack rack = {0};
    uint32_t base = (uint32_t)kit_suite_random(&state), now = (uint32_t)kit_suite_random(&state);
    uint32_t count = 2 + pick(40), sent[42], rtt = 10000, window = pick(3000), lost;
    inet_board_open(&b);
    for (uint32_t i = 0; i < count; i++) {
        EXPECT(inet_board_push(&memory, &b, base + 100 * i, base + 100 * i + 100, now));
        sent[i] = now;
        now += pick(500);
    }
    uint32_t hit = 1 + pick(count - 1);
    now = sent[hit] + rtt + pick(4000);
    struct inet_delivery d = {.now_us = now, .limit = base};
    inet_board_sack(&memory, &b, &rack, base + 100 * hit, base + 100 * hit + 100, &d);
    uint32_t again = inet_rack_detect(&rack, &b, now, window, &lost), expected = 0, later = 0;
    for (uint32_t i = 0; i < hit; i++) { /* rack.rtt is that of the one delivered */
        int32_t left = (int32_t)(sent[i] + (now - sent[hit]) + window - now);
        expected += left <= 0 ? 100 : 0;
        later = left > 0 && (uint32_t)left > later ? (uint32_t)left : later;
    }
    EXPECT(lost == expected && b.lost == expected && again == later);
    EXPECT(!rack.reordered);
    d.now_us = now + later;
    if (hit > 1 && lost == 0) { /* one sent before arrives after it */
        struct inet_rack other = rack;
        struct inet_sent early = {base, base + 100, sent[0], 0};
        inet_rack_delivered(&other, &early, &d);
        EXPECT(other.reordered);
    }
    (void)inet_rack_detect(&rack, &b, now + later, window, &lost);
    EXPECT(b.lost == 100 * hit); /* and after that time the rest */
    inet_board_clear(&memory, &b);
}

/* ---- arithmetic ----------------------------------------------------------------------------- */

static void test_cubic(void)
{
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t value = kit_suite_random(&state) >> (1 + pick(62));
        uint64_t root = inet_cubic_root(value);
        EXPECT(root * root * root <= value);
        EXPECT(root == 2097151 || (root + 1) * (root + 1) * (root + 1) > value);
        struct inet_cubic c = {.w_max = 3000 + pick(50000000), .k_ms = pick(60000)};
        uint32_t mss = 500 + pick(1000), t_ms = pick(150000);
        double t = ((double)t_ms - c.k_ms) / 1000, wanted = 0.4 * t * t * t * mss + c.w_max;
        wanted = wanted < 0 ? 0 : wanted > 1073741824.0 ? 1073741824.0 : wanted;
        if (fabs(t) < 100)
            EXPECT(fabs(inet_cubic_window(&c, mss, t_ms) - wanted) <= 3 + fabs(t) + wanted / 1e5);
    }
}

/* A reduction, then a loss-free path: the window is back at K, and Reno is never far ahead. */
static void test_cubic_epoch(void)
{
    const struct inet_congestion *cubic = inet_congestions[0];
    struct inet_flow f = {.cwnd = 1000000, .mss = 1000};
    uint32_t now_ms = 12345, rtt_ms = 50;
    cubic->reset(&f);
    f.ssthresh = f.cwnd = cubic->reduce(&f, f.cwnd);
    EXPECT(f.cwnd == 700000);
    double k = cbrt(300 / 0.4);
    uint32_t start = now_ms, before = 0;
    while (now_ms - start < k * 1000) {
        for (uint32_t acked = 0; acked < f.cwnd; acked += 2000) {
            before = f.cwnd;
            inet_flow_grow(&f, cubic, 2000, now_ms, rtt_ms * 1000);
            EXPECT(f.cwnd >= before);
        }
        now_ms += rtt_ms;
    }
    EXPECT(f.cwnd > 980000 && f.cwnd < 1020000);
}

static void test_round_trips(void)
{
    struct inet_rtt r = {0};
    double smooth = 0, variation = 0;
    for (unsigned i = 0; i < 500; i++) {
        uint32_t rtt = 100 + pick(100000), samples = 1 + pick(20);
        inet_rtt_sample(&r, rtt, samples);
        if (i == 0) {
            smooth = rtt;
            variation = rtt / 2.0;
        } else {
            variation += (fabs(smooth - rtt) - variation) / (4 * samples);
            smooth += (rtt - smooth) / (8 * samples);
        }
        EXPECT(fabs(inet_rtt_us(&r) - smooth) < 20 && fabs(r.variation / 16.0 - variation) < 20);
        double timeout = smooth + fmax(4 * variation, 200000);
        EXPECT(fabs(inet_rtt_timeout_us(&r, 200000) - timeout) < 100);
    }
}

/* RFC 6937: at no time is more sent than the share of what was delivered, while pipe is above the
 * threshold; at the end pipe is at it. */
static void test_reduction(void)
{
    uint32_t mss = 1000, flight = mss * (10 + pick(500)), ssthresh = flight / 10 * 7, pipe = flight;
    struct inet_prr p = {.flight = flight};
    uint32_t left = flight, lost = mss * (1 + pick(4));
    pipe -= lost;
    left -= lost;
    while (left != 0) {
        uint32_t delivered = left < mss ? left : mss;
        pipe -= delivered;
        left -= delivered;
        bool above = pipe > ssthresh;
        uint32_t allow = inet_prr_allow(&p, pipe, ssthresh, mss, delivered, true);
        allow = allow / mss * mss;
        p.out += allow;
        pipe += allow;
        if (above)
            EXPECT(p.out <= (uint64_t)p.delivered * ssthresh / flight + 1);
        EXPECT(above || pipe <= ssthresh);
        EXPECT(p.delivered == flight - lost - left);
    }
    EXPECT(pipe + 2 * mss >= ssthresh && pipe <= ssthresh + mss);
}

/* ---- tables --------------------------------------------------------------------------------- */

static void test_table(void)
{
    struct inet_memory memory = {.alloc = &heap};
    struct inet_table table;
    static struct inet_entry entries[KEYS];
    static bool in[KEYS];
    uint32_t count = 0;
    memset(in, 0, sizeof in);
    inet_table_open(&table);
    for (unsigned i = 0; i < 6 * KEYS; i++) {
        uint32_t at = pick(KEYS);
        bool grow = i < 3 * KEYS ? pick(4) != 0 : pick(4) == 0;
        if (grow && !in[at]) {
            entries[at].hash = (uint32_t)kit_suite_random(&state) & (pick(2) ? UINT32_MAX : 0xff);
            inet_table_insert(&memory, &table, &entries[at]);
            in[at] = true;
            count++;
        } else if (!grow && in[at]) {
            inet_table_remove(&memory, &table, &entries[at]);
            in[at] = false;
            count--;
        }
        EXPECT(table.count == count);
        if (i % 97 == 0)
            EXPECT(inet_table_sound(&table) && memory.used == inet_table_memory(&table));
    }
    for (uint32_t at = 0; at < KEYS; at++) {
        bool found = false;
        for (struct inet_entry *e = *inet_table_chain(&table, entries[at].hash); e; e = e->next)
            found |= e == &entries[at];
        EXPECT(found == in[at]);
        if (in[at])
            inet_table_remove(&memory, &table, &entries[at]);
    }
    EXPECT(memory.used == 0);
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    for (unsigned i = 0; i < 60; i++) {
        failing = i % 3 == 2;
        test_assembly();
        failing = false; /* a scoreboard without memory is checked by the suite of stacks */
        test_board();
        for (unsigned j = 0; j < 50; j++)
            test_rack();
        test_reduction();
        test_round_trips();
    }
    failing = true;
    test_table();
    failing = false;
    test_cubic();
    test_cubic_epoch();
    puts("all parts agree with their models");
    return 0;
}
