/* SPDX-License-Identifier: MIT */
/* What the reader of traces looks up: live blocks by identity, call sites by address. Hash tables,
 * open addressing, at most half full. Hosted. */
#ifndef KIT_ALLOC_LAB_HOST_TABLES_H
#define KIT_ALLOC_LAB_HOST_TABLES_H

#include <unikit/ffi/hooks/guard.h>
#include <unikit/rt/types.h>

struct kit_trace_live {
    uint64_t identity; /* + 1; 0: empty */
    uint32_t block;
    uint32_t at; /* index of the event that gave it: size and alignment stand there */
};

/* Start with zeros; `table` is freed by the owner. */
struct kit_trace_lives {
    struct kit_trace_live *table;
    size_t mask, filled; /* whoever fills an entry counts it */
};

struct kit_trace_sites {
    uint64_t *table;   /* addresses ... */
    uint32_t *numbers; /* ... and their numbers */
    uint64_t *list;    /* by number, from 1 */
    size_t mask;
    uint32_t count;
};

/* Makes room for one entry. 0 or KIT_ENOMEM. */
KIT_HIDDEN int kit_trace_reserve(struct kit_trace_lives *lives);
/* The entry of an identity, or the empty one where it belongs; there MUST be a table. */
KIT_HIDDEN struct kit_trace_live *kit_trace_find(const struct kit_trace_lives *lives,
                                                 uint64_t identity);
KIT_HIDDEN void kit_trace_remove(struct kit_trace_lives *lives, struct kit_trace_live *live);
/* The number of a call site, a new one for a new address; 0 for 0. 0 or KIT_ENOMEM. */
KIT_HIDDEN int kit_trace_number_site(struct kit_trace_sites *sites, uint64_t site,
                                     uint32_t *number);

#endif
