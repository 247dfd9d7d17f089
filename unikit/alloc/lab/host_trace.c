/* SPDX-License-Identifier: MIT */
/* From a trace file to its events in one order. Three passes: chunks are found and sorted by
 * stream, streams are decoded and merged by time (a binary heap of cursors, so O(n log streams)),
 * identities become block numbers (host_tables.h).
 *
 * A realloc that moves is two things at two times, taking and giving, with other threads perhaps
 * in between; so the merge sees two entries, and the number of the block travels from one to the
 * other through `moving`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/alloc/lab/host_tables.h>
#include <unikit/alloc/lab/host_trace.h>
#include <unikit/rt/error.h>

enum { TAKE = 15 /* the first half of a realloc */, NONE = UINT32_MAX };

struct slot {
    const struct kit_trace_chunk *head;
    size_t used; /* of its payload, what the file really holds */
};

struct stream {
    size_t from, to; /* its entries */
};

struct entry {
    struct kit_trace_raw raw;
    uint32_t pair; /* TAKE and REALLOC: which realloc of all */
};

struct kit_trace_reader {
    struct kit_trace_header header;
    struct kit_trace_totals totals;
    struct slot *slots;
    size_t slot_count;
    struct stream *streams;
    struct entry *entries;
    size_t entry_count, entry_room;
    struct kit_trace_event *events;
    struct kit_trace_lives lives;
    struct kit_trace_sites sites;
    struct kit_trace_live *moving; /* per realloc */
    size_t pairs;
};

/* ---- finding the chunks --------------------------------------------------------------------- */

static int refuse(char *why, const char *text, size_t number)
{
    snprintf(why, 128, text, number);
    return KIT_EMALFORMED;
}

static int by_stream(const void *a, const void *b)
{
    const struct kit_trace_chunk *x = ((const struct slot *)a)->head,
                                 *y = ((const struct slot *)b)->head;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static int check_header(struct kit_trace_reader *reader, const uint8_t *data, size_t size,
                        char *why)
{
    if (size < sizeof reader->header || memcmp(data, KIT_TRACE_MAGIC, 8) != 0)
        return refuse(why, "it is no trace: a trace has %zu bytes or more and begins with KITTRACE",
                      sizeof reader->header);
    memcpy(&reader->header, data, sizeof reader->header);
    struct kit_trace_header copy = reader->header;
    copy.check = 0;
    if (reader->header.version != KIT_TRACE_VERSION)
        return refuse(why, "its format is version %zu, which this unikit does not know",
                      reader->header.version);
    if (reader->header.check && reader->header.check != kit_trace_check(&copy, sizeof copy))
        return refuse(why, "its header of %zu bytes is damaged", sizeof copy);
    if (reader->header.chunk <= KIT_TRACE_CHUNK_HEAD || reader->header.chunk & 7 ||
        reader->header.text_size > KIT_TRACE_TEXT)
        return refuse(why, "its header says that a slot has %zu bytes", reader->header.chunk);
    return 0;
}

/* Looks at one slot; false: it is empty or damaged. */
static bool take_slot(struct kit_trace_reader *reader, const uint8_t *at, size_t left, bool *bad)
{
    struct slot slot = {.head = (const struct kit_trace_chunk *)(const void *)at};
    size_t room = left < reader->header.chunk ? left : reader->header.chunk;
    if (room < KIT_TRACE_CHUNK_HEAD || slot.head->magic == 0)
        return false;
    slot.used = slot.head->used;
    *bad = slot.head->magic != KIT_TRACE_CHUNK_MAGIC || slot.used > room - KIT_TRACE_CHUNK_HEAD;
    if (slot.head->magic != KIT_TRACE_CHUNK_MAGIC)
        return false;
    if (*bad)
        slot.used = room - KIT_TRACE_CHUNK_HEAD;
    else if (slot.head->check && slot.head->check != kit_trace_check(slot.head + 1, slot.used))
        *bad = true;
    reader->slots[reader->slot_count++] = slot;
    return true;
}

static int find_chunks(struct kit_trace_reader *reader, const uint8_t *data, size_t size, char *why)
{
    size_t chunk = reader->header.chunk, bytes = 0, promised = 0, damage = 0;
    bool ended = false;
    reader->slots = calloc((size - KIT_TRACE_PAGE) / chunk + 1, sizeof *reader->slots);
    if (!reader->slots)
        return KIT_ENOMEM;
    for (size_t at = KIT_TRACE_PAGE; at < size; at += chunk) {
        bool bad = false;
        bool taken = take_slot(reader, data + at, size - at, &bad);
        if (bad && !damage)
            damage = at;
        if (!taken) {
            reader->totals.damaged += bad ? chunk : 0;
            continue;
        }
        const struct slot *slot = &reader->slots[reader->slot_count - 1];
        if (slot->head->kind == KIT_TRACE_END && slot->used == sizeof promised) {
            memcpy(&promised, slot->head + 1, sizeof promised);
            ended = true;
        }
        bytes += slot->head->kind == KIT_TRACE_EVENTS ? slot->used : 0;
    }
    if (ended && damage)
        return refuse(why, "it is damaged in the chunk at byte %zu", damage);
    if (ended && promised != bytes)
        return refuse(why, "%zu bytes of its events are missing", promised - bytes);
    reader->totals.complete = ended;
    qsort(reader->slots, reader->slot_count, sizeof *reader->slots, by_stream);
    return 0;
}

/* ---- decoding ------------------------------------------------------------------------------- */

static struct entry *add_entry(struct kit_trace_reader *reader)
{
    if (reader->entry_count == reader->entry_room) {
        size_t room = reader->entry_room ? reader->entry_room * 2 : 4096;
        struct entry *grown = realloc(reader->entries, room * sizeof *grown);
        if (!grown)
            return NULL;
        reader->entries = grown;
        reader->entry_room = room;
    }
    return &reader->entries[reader->entry_count++];
}

static int add_event(struct kit_trace_reader *reader, const struct kit_trace_raw *raw)
{
    if (raw->op == KIT_TRACE_THREAD)
        return 0;
    struct entry *entry;
    if (raw->op == KIT_TRACE_REALLOC) {
        if (!(entry = add_entry(reader)))
            return KIT_ENOMEM;
        *entry = (struct entry){*raw, (uint32_t)reader->pairs};
        entry->raw.op = TAKE;
        entry->raw.ticks -= raw->took < raw->ticks ? raw->took : raw->ticks;
    }
    if (!(entry = add_entry(reader)))
        return KIT_ENOMEM;
    *entry = (struct entry){*raw, (uint32_t)reader->pairs};
    reader->pairs += raw->op == KIT_TRACE_REALLOC;
    return 0;
}

static int decode_chunk(struct kit_trace_reader *reader, const struct slot *slot, char *why)
{
    struct kit_trace_state state;
    struct kit_trace_raw raw;
    const uint8_t *at = (const uint8_t *)(slot->head + 1), *end = at + slot->used;
    kit_trace_begin(&state, slot->head->ticks);
    state.thread = NONE;
    while (at < end) {
        const uint8_t *next = kit_trace_decode(&state, at, end, &raw);
        if (!next || raw.thread > UINT16_MAX) {
            if (reader->totals.complete)
                return refuse(why,
                              "it holds an event that is none, %zu bytes before the end of "
                              "its chunk",
                              (size_t)(end - at));
            reader->totals.damaged += (size_t)(end - at);
            return 0;
        }
        at = next;
        int code = add_event(reader, &raw);
        if (code < 0)
            return code;
    }
    return 0;
}

static int decode_streams(struct kit_trace_reader *reader, char *why)
{
    reader->streams = calloc(reader->slot_count + 1, sizeof *reader->streams);
    if (!reader->streams)
        return KIT_ENOMEM;
    uint32_t count = 0;
    for (size_t i = 0; i < reader->slot_count; i++) {
        const struct slot *slot = &reader->slots[i];
        if (slot->head->kind != KIT_TRACE_EVENTS)
            continue;
        if (!count || slot->head->stream != reader->slots[i - 1].head->stream ||
            reader->slots[i - 1].head->kind != KIT_TRACE_EVENTS)
            reader->streams[count++].from = reader->entry_count;
        int code = decode_chunk(reader, slot, why);
        if (code < 0)
            return code;
        reader->streams[count - 1].to = reader->entry_count;
    }
    reader->totals.streams = count;
    return 0;
}

/* ---- one order ------------------------------------------------------------------------------ */

static uint64_t nanoseconds(const struct kit_trace_header *header, uint64_t ticks)
{
    uint64_t since = ticks > header->first_ticks ? ticks - header->first_ticks : 0;
    if (header->last_ticks <= header->first_ticks || header->last_ns <= header->first_ns)
        return since;
    return (uint64_t)((unsigned __int128)since * (header->last_ns - header->first_ns) /
                      (header->last_ticks - header->first_ticks));
}

static struct kit_trace_event *emit(struct kit_trace_reader *reader,
                                    const struct kit_trace_raw *raw)
{
    struct kit_trace_event *event = &reader->events[reader->totals.events++];
    *event = (struct kit_trace_event){.time = nanoseconds(&reader->header, raw->ticks),
                                      .size = raw->size,
                                      .block = NONE,
                                      .thread = (uint16_t)raw->thread,
                                      .op = raw->op,
                                      .align = raw->align};
    if (raw->thread >= reader->totals.threads)
        reader->totals.threads = raw->thread + 1;
    return event;
}

static void emit_free(struct kit_trace_reader *reader, const struct kit_trace_raw *raw,
                      const struct kit_trace_live *live, uint8_t op)
{
    struct kit_trace_event *event = emit(reader, raw);
    event->op = op;
    event->block = live->block;
    event->size = reader->events[live->at].size;
    event->align = reader->events[live->at].align;
}

/* A block comes into being, or arrives where a realloc moved it. */
static int give(struct kit_trace_reader *reader, const struct entry *entry)
{
    const struct kit_trace_raw *raw = &entry->raw;
    uint32_t block = NONE, site = 0;
    int code = kit_trace_number_site(&reader->sites, raw->site, &site);
    if (code == 0)
        code = kit_trace_reserve(&reader->lives);
    if (code < 0)
        return code;
    struct kit_trace_live *live = kit_trace_find(&reader->lives, raw->identity);
    if (live->identity) {
        reader->totals.lost++;
        emit_free(reader, raw, live, KIT_TRACE_FREE);
        kit_trace_remove(&reader->lives, live);
        live = kit_trace_find(&reader->lives, raw->identity);
    }
    if (raw->op == KIT_TRACE_REALLOC)
        block = reader->moving[entry->pair].block;
    struct kit_trace_event *event = emit(reader, raw);
    if (block == NONE) {
        block = (uint32_t)reader->totals.blocks++;
        event->op = raw->op == KIT_TRACE_REALLOC ? KIT_TRACE_ALLOC : raw->op;
    }
    event->block = block;
    event->site = site;
    *live = (struct kit_trace_live){raw->identity + 1, block, (uint32_t)(event - reader->events)};
    reader->lives.filled++;
    return 0;
}

static void take(struct kit_trace_reader *reader, const struct entry *entry)
{
    const struct kit_trace_raw *raw = &entry->raw;
    bool moves = raw->op == TAKE;
    struct kit_trace_live *live =
        reader->lives.table ? kit_trace_find(&reader->lives, moves ? raw->old : raw->identity)
                            : NULL;
    if (moves)
        reader->moving[entry->pair].block = NONE;
    if (!live || !live->identity) {
        reader->totals.foreign++;
        return;
    }
    if (moves)
        reader->moving[entry->pair] = *live;
    else
        emit_free(reader, raw, live, raw->op);
    kit_trace_remove(&reader->lives, live);
}

static int resolve(struct kit_trace_reader *reader, const struct entry *entry)
{
    if (kit_trace_gives(entry->raw.op))
        return give(reader, entry);
    if (entry->raw.op == TAKE || entry->raw.op == KIT_TRACE_FREE ||
        entry->raw.op == KIT_TRACE_SIZED_FREE)
        take(reader, entry);
    else
        emit(reader, &entry->raw);
    return 0;
}

static bool earlier(const struct kit_trace_reader *reader, const struct stream *a,
                    const struct stream *b)
{
    uint64_t x = reader->entries[a->from].raw.ticks, y = reader->entries[b->from].raw.ticks;
    return x != y ? x < y : a < b;
}

static void sift(const struct kit_trace_reader *reader, struct stream **heap, size_t count,
                 size_t at)
{
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && earlier(reader, heap[child + 1], heap[child]))
            child++;
        if (!earlier(reader, heap[child], heap[at]))
            return;
        struct stream *swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
    }
}

static int merge(struct kit_trace_reader *reader)
{
    size_t count = 0;
    int code = 0;
    struct stream **heap = calloc(reader->totals.streams + 1, sizeof *heap);
    /* at most one event more per entry: the free put before a lost block's address */
    reader->events = calloc(2 * reader->entry_count + 1, sizeof *reader->events);
    reader->moving = calloc(reader->pairs + 1, sizeof *reader->moving);
    if (!heap || !reader->events || !reader->moving || reader->entry_count >= NONE / 2) {
        free(heap);
        return KIT_ENOMEM;
    }
    for (uint32_t i = 0; i < reader->totals.streams; i++)
        if (reader->streams[i].from < reader->streams[i].to)
            heap[count++] = &reader->streams[i];
    for (size_t i = count; i-- > 0;)
        sift(reader, heap, count, i);
    while (count && code == 0) {
        code = resolve(reader, &reader->entries[heap[0]->from++]);
        if (heap[0]->from == heap[0]->to)
            heap[0] = heap[--count];
        sift(reader, heap, count, 0);
    }
    free(heap);
    return code;
}

KIT_HIDDEN int kit_trace_open(const void *data, size_t size, struct kit_trace_reader **out,
                              char *why)
{
    struct kit_trace_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return KIT_ENOMEM;
    int code = check_header(reader, data, size, why);
    if (code == 0)
        code = find_chunks(reader, data, size, why);
    if (code == 0)
        code = decode_streams(reader, why);
    if (code == 0)
        code = merge(reader);
    if (code < 0) {
        kit_trace_close(reader);
        return code;
    }
    *out = reader;
    return 0;
}

KIT_HIDDEN void kit_trace_totals(const struct kit_trace_reader *reader,
                                 struct kit_trace_totals *out)
{
    *out = reader->totals;
    out->sites = reader->sites.count;
}

KIT_HIDDEN void kit_trace_columns(const struct kit_trace_reader *reader, uint64_t *time,
                                  uint64_t *size, uint32_t *block, uint32_t *site, uint16_t *thread,
                                  uint8_t *op, uint8_t *align)
{
    for (size_t i = 0; i < reader->totals.events; i++) {
        const struct kit_trace_event *event = &reader->events[i];
        if (time)
            time[i] = event->time;
        if (size)
            size[i] = event->size;
        if (block)
            block[i] = event->block;
        if (site)
            site[i] = event->site;
        if (thread)
            thread[i] = event->thread;
        if (op)
            op[i] = event->op;
        if (align)
            align[i] = event->align;
    }
}

KIT_HIDDEN void kit_trace_addresses(const struct kit_trace_reader *reader, uint64_t *out)
{
    if (reader->sites.count)
        memcpy(out, reader->sites.list, reader->sites.count * sizeof *out);
}

KIT_HIDDEN void kit_trace_close(struct kit_trace_reader *reader)
{
    if (!reader)
        return;
    free(reader->slots);
    free(reader->streams);
    free(reader->entries);
    free(reader->events);
    free(reader->lives.table);
    free(reader->sites.table);
    free(reader->sites.numbers);
    free(reader->sites.list);
    free(reader->moving);
    free(reader);
}
