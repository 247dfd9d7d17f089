/* SPDX-License-Identifier: MIT */
/* Reassembly of a TCP stream. Runs form a sorted list; a segment costs a walk over the runs before
 * it, of which there are INET_RUNS_MAX at most, so that no peer can make the walk long. Bytes that
 * were kept are never replaced: the first copy counts. */
#include <unikit/net/inet/assembly.h>

static uint32_t run_end(const struct inet_run *run)
{
    return run->start + run->data.length;
}

static void run_free(struct inet_memory *memory, struct inet_assembly *a, struct inet_run *run)
{
    a->bytes -= run->data.length;
    a->runs--;
    inet_queue_clear(memory, &run->data);
    inet_give(memory, run, sizeof(*run));
}

/* What is left of a segment while it is being taken in. */
struct rest {
    uint32_t seq;
    const uint8_t *data;
    uint32_t length;
};

static void rest_skip(struct rest *r, uint32_t count)
{
    r->seq += count;
    r->data += count;
    r->length -= count;
}

/* A run of its own between `*link` and what follows; bytes kept. */
static uint32_t assembly_insert(struct inet_memory *memory, struct inet_assembly *a,
                                struct inet_run **link, const struct rest *r)
{
    struct inet_run *run = a->runs == INET_RUNS_MAX ? NULL : inet_take(memory, sizeof(*run));
    if (run == NULL)
        return 0;
    *run = (struct inet_run){.start = r->seq, .stamp = a->stamp};
    uint32_t kept = inet_queue_append(memory, &run->data, r->data, r->length);
    if (kept == 0) {
        inet_give(memory, run, sizeof(*run));
        return 0;
    }
    run->next = *link;
    *link = run;
    a->runs++;
    a->bytes += kept;
    return kept;
}

/* Puts `count` bytes in front of a run, all or none. */
static bool assembly_prepend(struct inet_memory *memory, struct inet_assembly *a,
                             struct inet_run *run, const struct rest *r, uint32_t count)
{
    struct inet_queue front = {0};
    if (inet_queue_append(memory, &front, r->data, count) != count) {
        inet_queue_clear(memory, &front);
        return false;
    }
    inet_queue_join(&front, &run->data);
    run->data = front;
    run->start = r->seq;
    a->bytes += count;
    return true;
}

/* Appends to a run what fits before the next one, and merges the two if they touch now. False:
 * memory is out. */
static bool assembly_extend(struct inet_memory *memory, struct inet_assembly *a,
                            struct inet_run *run, struct rest *r, uint32_t *kept)
{
    struct inet_run *next = run->next;
    uint32_t room = r->length;
    if (next != NULL && next->start - r->seq < room)
        room = next->start - r->seq;
    uint32_t count = inet_queue_append(memory, &run->data, r->data, room);
    rest_skip(r, count);
    a->bytes += count;
    *kept += count;
    if (count < room)
        return false;
    if (next != NULL && next->start == run_end(run)) {
        inet_queue_join(&run->data, &next->data);
        run->next = next->next;
        a->runs--;
        inet_give(memory, next, sizeof(*next));
    }
    return true;
}

uint32_t inet_assembly_add(struct inet_memory *memory, struct inet_assembly *a, uint32_t seq,
                           const uint8_t *data, uint32_t length, struct inet_range *duplicate)
{
    struct rest r = {seq, data, length};
    struct inet_run **link = &a->first;
    uint32_t kept = 0;
    *duplicate = (struct inet_range){seq, seq};
    a->stamp++;
    while (*link != NULL && kit_seq_lt(run_end(*link), seq))
        link = &(*link)->next;
    while (r.length != 0) {
        struct inet_run *run = *link; /* the first that ends at or behind r.seq */
        if (run == NULL || kit_seq_lt(r.seq + r.length, run->start))
            return kept + assembly_insert(memory, a, link, &r);
        run->stamp = a->stamp;
        if (kit_seq_lt(r.seq, run->start)) {
            uint32_t gap = run->start - r.seq;
            if (!assembly_prepend(memory, a, run, &r, gap))
                return kept;
            kept += gap;
            rest_skip(&r, gap);
        }
        uint32_t known = run_end(run) - r.seq < r.length ? run_end(run) - r.seq : r.length;
        if (known != 0 && duplicate->start == duplicate->end)
            *duplicate = (struct inet_range){r.seq, r.seq + known};
        rest_skip(&r, known);
        if (r.length != 0 && !assembly_extend(memory, a, run, &r, &kept))
            return kept;
    }
    return kept;
}

uint32_t inet_assembly_deliver(struct inet_memory *memory, struct inet_assembly *a, uint32_t next,
                               struct inet_queue *to)
{
    while (a->first != NULL && kit_seq_le(a->first->start, next)) {
        struct inet_run *run = a->first;
        a->first = run->next;
        if (kit_seq_lt(next, run_end(run))) {
            uint32_t old = next - run->start;
            inet_queue_drop(memory, &run->data, old);
            a->bytes -= old + run->data.length;
            next += run->data.length;
            inet_queue_join(to, &run->data);
        }
        run_free(memory, a, run);
    }
    return next;
}

unsigned inet_assembly_blocks(const struct inet_assembly *a, struct inet_range *blocks,
                              unsigned count)
{
    uint32_t before = a->stamp + 1; /* stamps of blocks already chosen are not below it */
    unsigned found = 0;
    while (found < count) {
        const struct inet_run *best = NULL;
        for (const struct inet_run *run = a->first; run != NULL; run = run->next) {
            if (kit_seq_lt(run->stamp, before) &&
                (best == NULL || kit_seq_lt(best->stamp, run->stamp)))
                best = run;
        }
        if (best == NULL)
            break;
        blocks[found++] = (struct inet_range){best->start, run_end(best)};
        before = best->stamp;
    }
    return found;
}

void inet_assembly_clear(struct inet_memory *memory, struct inet_assembly *a)
{
    while (a->first != NULL) {
        struct inet_run *run = a->first;
        a->first = run->next;
        run_free(memory, a, run);
    }
}

size_t inet_assembly_memory(const struct inet_assembly *a)
{
    size_t bytes = 0;
    for (const struct inet_run *run = a->first; run != NULL; run = run->next)
        bytes += sizeof(*run) + inet_queue_memory(&run->data);
    return bytes;
}

bool inet_assembly_sound(const struct inet_assembly *a, uint32_t next)
{
    uint32_t bytes = 0, runs = 0;
    for (const struct inet_run *run = a->first; run != NULL; run = run->next) {
        if (!inet_queue_sound(&run->data) || run->data.length == 0 || !kit_seq_lt(next, run->start))
            return false;
        next = run_end(run);
        bytes += run->data.length;
        runs++;
    }
    return bytes == a->bytes && runs == a->runs && runs <= INET_RUNS_MAX;
}
