/* SPDX-License-Identifier: MIT */
/* Statistics over a trace's columns; one pass each, in C because traces are long. Hosted. */
#ifndef KIT_ALLOC_LAB_HOST_STATS_H
#define KIT_ALLOC_LAB_HOST_STATS_H

#include <unikit/alloc/lab/host_trace.h>

/* cdef: begin */
/* The columns of a trace that statistics look at. */
struct kit_stats_columns {
    size_t events;
    size_t blocks;
    const uint64_t *time;
    const uint64_t *size;
    const uint32_t *block;
    const uint32_t *site;
    const uint16_t *thread;
    const uint8_t *op;
};

struct kit_stats_survey {
    uint64_t operations[16]; /* by operation */
    uint64_t requested;      /* bytes of all requests that were granted */
    uint64_t live_bytes;     /* at the end ... */
    uint64_t live_blocks;
    uint64_t peak_bytes; /* ... and the most at any time */
    uint64_t peak_blocks;
    uint64_t peak_at; /* index of the event that made peak_bytes */
    uint64_t largest; /* request */
    uint64_t remote;  /* frees by another thread than the one that asked */
};

/* 0; KIT_ENOMEM; KIT_EINVAL: a free or realloc of a block that is not alive. */
int kit_stats_survey(const struct kit_stats_columns *columns, struct kit_stats_survey *out);
/* cdef: end */

#endif
