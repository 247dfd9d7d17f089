/* SPDX-License-Identifier: MIT */
/* From events to the chunks of a file: one stream, as many slots as it takes. */
#include <string.h>
#include <time.h>

#include <unikit/alloc/lab/host_trace.h>
#include <unikit/rt/error.h>

KIT_HIDDEN uint32_t kit_trace_check(const void *data, size_t size)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 256; i-- > 0;) {
            uint32_t word = i;
            for (int bit = 0; bit < 8; bit++)
                word = (word >> 1) ^ (UINT32_C(0xEDB88320) & (0 - (word & 1)));
            table[i] = word;
        }
    uint32_t check = UINT32_MAX;
    for (const uint8_t *at = data, *end = at + size; at < end; at++)
        check = table[(check ^ *at) & 0xFF] ^ (check >> 8);
    return ~check;
}

struct writer {
    struct kit_trace_state state;
    struct kit_trace_chunk *head;
    uint8_t *at, *next, *end; /* in the chunk; behind it; behind all there is */
    uint32_t chunk, sequence, thread;
};

static void finish_chunk(struct writer *writer)
{
    if (!writer->head)
        return;
    const uint8_t *payload = (const uint8_t *)(writer->head + 1);
    writer->head->used = (uint32_t)(writer->at - payload);
    memset(writer->at, 0, (size_t)(writer->next - writer->at));
    writer->head->check = kit_trace_check(payload, writer->head->used);
}

static bool next_chunk(struct writer *writer, uint64_t ticks)
{
    finish_chunk(writer);
    if ((size_t)(writer->end - writer->next) < writer->chunk)
        return false;
    writer->head = (struct kit_trace_chunk *)(void *)writer->next;
    *writer->head = (struct kit_trace_chunk){.magic = KIT_TRACE_CHUNK_MAGIC,
                                             .kind = KIT_TRACE_EVENTS,
                                             .sequence = writer->sequence++,
                                             .ticks = ticks};
    writer->at = (uint8_t *)(writer->head + 1);
    writer->next += writer->chunk;
    writer->thread = UINT32_MAX;
    kit_trace_begin(&writer->state, ticks);
    return true;
}

static bool write_event(struct writer *writer, const struct kit_trace_raw *event)
{
    if (writer->next - writer->at < 2 * KIT_TRACE_EVENT_MAX && !next_chunk(writer, event->ticks))
        return false;
    if (event->thread != writer->thread) {
        struct kit_trace_raw turn = {
            .ticks = event->ticks, .size = event->thread, .op = KIT_TRACE_THREAD};
        writer->at = kit_trace_encode(&writer->state, writer->at, &turn);
        writer->thread = event->thread;
    }
    writer->at = kit_trace_encode(&writer->state, writer->at, event);
    return true;
}

KIT_HIDDEN int64_t kit_trace_write(const uint64_t *time, const uint64_t *size,
                                   const uint32_t *block, const uint32_t *site,
                                   const uint16_t *thread, const uint8_t *op, const uint8_t *align,
                                   size_t events, const uint64_t *addresses, uint32_t chunk,
                                   void *out, size_t room)
{
    struct writer writer = {.chunk = chunk, .at = out, .next = out, .end = (uint8_t *)out + room};
    for (size_t i = 0; i < events; i++) {
        struct kit_trace_raw event = {.ticks = time[i],
                                      .identity = block[i],
                                      .old = block[i],
                                      .size = size[i],
                                      .thread = thread[i],
                                      .op = op[i]};
        if (kit_trace_gives(op[i]) && site[i])
            event.site = addresses[site[i] - 1];
        event.align = kit_trace_gives(op[i]) ? align[i] : 0;
        if (!write_event(&writer, &event))
            return KIT_EMSGSIZE;
    }
    finish_chunk(&writer);
    return writer.next - (uint8_t *)out;
}

KIT_HIDDEN void kit_trace_moment(uint64_t *ticks, uint64_t *ns)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    *ticks = __builtin_ia32_rdtsc();
    *ns = (uint64_t)time.tv_sec * KIT_NS_PER_S + (uint64_t)time.tv_nsec;
}
