/* SPDX-License-Identifier: MIT */
/* Reading and writing whole traces: from the bytes of a file to events in one order, in which
 * blocks and call sites have small numbers, and back. Hosted. */
#ifndef KIT_ALLOC_LAB_HOST_TRACE_H
#define KIT_ALLOC_LAB_HOST_TRACE_H

#include <unikit/alloc/lab/trace.h>
#include <unikit/ffi/hooks/guard.h>

/* cdef: begin */
/* One event of a whole trace. */
struct kit_trace_event {
    uint64_t time;  /* ns since the beginning */
    uint64_t size;  /* of the block from now on; START: id of the thread in the system; FAILED:
                     * what was asked for; frees: of the block until now */
    uint32_t block; /* number of the block in the order of births; UINT32_MAX: none */
    uint32_t site;  /* index into the call sites; 0: none */
    uint16_t thread;
    uint8_t op;
    uint8_t align; /* logarithm of what was asked for; frees: of the block; 0: the minimum */
};

struct kit_trace_totals {
    uint64_t events;
    uint64_t blocks;
    uint64_t foreign; /* frees and reallocs of blocks that the trace does not know: left out */
    uint64_t lost;    /* blocks whose address was given out again: a free was put before it */
    uint64_t damaged; /* bytes that could not be read */
    uint32_t threads;
    uint32_t sites;    /* without number 0 */
    uint32_t complete; /* whether the end marker is there and right */
    uint32_t streams;
};

struct kit_trace_reader;

/* Reads the bytes of a file. 0 and *out, to be closed; KIT_ENOMEM; KIT_EMALFORMED: `why` (of at
 * least 128 bytes) says what is wrong. Nothing of `data` is needed afterwards. */
int kit_trace_open(const void *data, size_t size, struct kit_trace_reader **out, char *why);
void kit_trace_totals(const struct kit_trace_reader *reader, struct kit_trace_totals *out);
/* Copies all events out: to arrays of `events` elements, any of which may be NULL. */
void kit_trace_columns(const struct kit_trace_reader *reader, uint64_t *time, uint64_t *size,
                       uint32_t *block, uint32_t *site, uint16_t *thread, uint8_t *op,
                       uint8_t *align);
/* Copies the addresses of the call sites out, number 1 first. */
void kit_trace_addresses(const struct kit_trace_reader *reader, uint64_t *out);
void kit_trace_close(struct kit_trace_reader *reader);

/* Writes events as the chunks of a file with KIT_TRACE_BLOCKS, the first with `sequence` 0, slots
 * of `chunk` bytes; a tick is a nanosecond. `addresses`: of the call sites, number 1 first. The
 * bytes written, or KIT_EMSGSIZE: more than `room`. */
int64_t kit_trace_write(const uint64_t *time, const uint64_t *size, const uint32_t *block,
                        const uint32_t *site, const uint16_t *thread, const uint8_t *op,
                        const uint8_t *align, size_t events, const uint64_t *addresses,
                        uint32_t chunk, void *out, size_t room);
/* This moment by both clocks that the header of a trace knows. */
void kit_trace_moment(uint64_t *ticks, uint64_t *ns);
/* CRC-32 as in the chunks. */
uint32_t kit_trace_check(const void *data, size_t size);
/* cdef: end */

#endif
