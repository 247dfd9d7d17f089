/* SPDX-License-Identifier: MIT */
/* The shape of a trace: what is alive over time, which sizes, how long blocks live, who asks.
 * One pass over the columns; time O(events), space O(blocks + sites). Hosted. */
#ifndef KIT_ALLOC_LAB_HOST_SHAPE_H
#define KIT_ALLOC_LAB_HOST_SHAPE_H

#include <unikit/alloc/lab/host_stats.h>

/* cdef: begin */
enum {
    KIT_SHAPE_SIZES = 256, /* classes of sizes: four to the doubling, the first 8 exact */
    KIT_SHAPE_LIVES = 48,  /* classes of lifetimes: class i holds 2^(i-1) ... 2^i - 1 ns */
    KIT_SHAPE_POWERS = 48  /* sizes by their doubling alone */
};

/* One stretch of time, all of equal length. */
struct kit_shape_moment {
    uint64_t live_bytes; /* requested and not freed at its end ... */
    uint64_t live_blocks;
    uint64_t top_bytes;   /* ... and the most of it within */
    uint64_t allocations; /* and reallocations */
    uint64_t frees;
    uint64_t bytes; /* requested */
};

struct kit_shape_size {
    uint64_t requests;
    uint64_t bytes;
    uint64_t peak_blocks; /* alive when the trace needed most memory */
    uint64_t peak_bytes;
};

struct kit_shape_site {
    uint64_t requests;
    uint64_t bytes;
    uint64_t frees;      /* of its blocks */
    uint64_t life;       /* sum of the lifetimes of those, ns */
    uint64_t peak_bytes; /* its part of what was alive when the trace needed most memory */
    uint64_t live_bytes; /* at the end */
    uint64_t live_blocks;
};

struct kit_shape {
    struct kit_shape_size sizes[256];
    uint64_t lives[48];      /* blocks freed, by lifetime */
    uint64_t life_bytes[48]; /* the same in bytes */
    uint64_t survivors[48];  /* blocks never freed, by the doubling of their size */
    uint64_t heat[48][48];   /* blocks freed: doubling of the size, lifetime */
    uint64_t grown;          /* reallocations to a larger size ... */
    uint64_t shrunk;         /* ... and to a smaller one */
    uint64_t peak_at;        /* index of the event of the peak */
    uint64_t peak_ns;
};

/* Fills `moments` (that many stretches between first and last event), `sites` (one per call site
 * and one for the unknown) and `out`. 0; KIT_ENOMEM; KIT_EINVAL: events that contradict each other,
 * or a site that is none. */
int kit_shape_look(const struct kit_stats_columns *columns, struct kit_shape_moment *moments,
                   size_t moment_count, struct kit_shape_site *sites, size_t site_count,
                   struct kit_shape *out);
/* The largest size of a class. */
uint64_t kit_shape_edge(uint32_t class_);
/* cdef: end */

#endif
