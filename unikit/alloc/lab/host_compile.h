/* SPDX-License-Identifier: MIT */
/* From the columns of a trace to the operations of a replay. Hosted. */
#ifndef KIT_ALLOC_LAB_HOST_COMPILE_H
#define KIT_ALLOC_LAB_HOST_COMPILE_H

#include <unikit/alloc/lab/host_stats.h>
#include <unikit/alloc/lab/replay.h>

/* cdef: begin */
/* Writes the operations, thread starts, ends and refused requests left out, to `ops` (room for all
 * events). With `starts` (room for `threads` + 1 numbers) those of each thread together, blocks
 * with turns; without it in one order, slots used anew. Returns how many operations there are, or
 * KIT_ENOMEM; *slots: how many slots they use. */
int64_t kit_replay_compile(const struct kit_stats_columns *columns, const uint8_t *align,
                           uint32_t threads, struct kit_replay_op *ops, uint64_t *starts,
                           uint32_t *slots);
/* cdef: end */

#endif
