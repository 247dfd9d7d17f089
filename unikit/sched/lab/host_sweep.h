/* SPDX-License-Identifier: MIT */
/* Many task sets in a row, each on a scheduler of its own: what a claim about all task sets is
 * tested with. Only what went wrong is kept. */
#ifndef KIT_SCHED_LAB_HOST_SWEEP_H
#define KIT_SCHED_LAB_HOST_SWEEP_H

#include <unikit/sched/lab/host_simulate.h>

/* cdef: begin */
enum { KIT_SWEEP_FINE, KIT_SWEEP_REFUSED, KIT_SWEEP_MISSED, KIT_SWEEP_BROKEN };

struct kit_sweep {
    /* what is to be done; the tasks of all sets stand one behind the other */
    size_t sets;
    const uint32_t *counts;   /* tasks of each set */
    const uint64_t *ends_ns;  /* of each set's simulation */
    const uint64_t *works_ns; /* of each task; endless where lags are judged */
    const uint64_t *periods_ns;
    const uint64_t *offsets_ns;
    const uint32_t *weights;
    uint64_t switch_ns; /* as in struct kit_sim */
    uint64_t call_ns;
    /* 0: each task reserves its work and what switching may cost it, and deadlines are judged;
     * else tasks have weights, work without end, and lags are judged: this is the bound. */
    uint64_t lag_ns;
    struct kit_sim_segment *segments; /* for lags: room for those of one set */
    size_t segments_max;
    /* what came of it */
    uint8_t *outcomes; /* of each set: KIT_SWEEP_... */
    size_t fine, refused, missed, broken;
    uint64_t jobs;
    uint64_t switches;
    uint64_t simulated_ns;
    uint64_t overhead_ns;
    uint64_t lag_most_ns; /* the largest lag of any task at any time, either way */
};

/* Runs them all. 0, KIT_ENOMEM, KIT_EINVAL. */
int kit_sweep_run(struct kit_sweep *sweep, const struct kit_sched_component *component,
                  const uint64_t *options, struct kit_alloc *alloc);
/* cdef: end */

#endif
