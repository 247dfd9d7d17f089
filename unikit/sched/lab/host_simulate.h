/* SPDX-License-Identifier: MIT */
/* A task set on a scheduler in virtual time: the component itself runs, on stacks of its own; only
 * the work is not done but charged to the clock. Nothing here reads a real clock, so that the same
 * input gives the same schedule. */
#ifndef KIT_SCHED_LAB_HOST_SIMULATE_H
#define KIT_SCHED_LAB_HOST_SIMULATE_H

#include <unikit/sched/sched.h>

/* cdef: begin */
struct kit_sim_task {
    struct kit_task_share share;
    uint64_t offset_ns;      /* release of the first job */
    uint64_t period_ns;      /* between releases; 0: one job only */
    uint64_t deadline_ns;    /* of a job, from its release; 0: none */
    const uint64_t *work_ns; /* what the jobs take, used in turn */
    size_t works;            /* how many of them, > 0 */
    uint64_t jobs;           /* at most; 0: as many as there is time for */
};

struct kit_sim_segment { /* one task ran without a break */
    uint64_t start_ns;
    uint64_t end_ns;
    uint32_t task;
    uint32_t job;
};

struct kit_sim_job {
    uint64_t release_ns;
    uint64_t start_ns;    /* KIT_NEVER: it did not run */
    uint64_t finish_ns;   /* KIT_NEVER: not before the end */
    uint64_t deadline_ns; /* absolute; KIT_NEVER: none */
    uint64_t used_ns;
    uint32_t task;
    uint32_t number;
};

struct kit_sim {
    /* what is to be done */
    const struct kit_sim_task *tasks;
    size_t count;
    uint64_t end_ns;
    uint64_t switch_ns; /* that each change of the running task costs */
    uint64_t call_ns;   /* that the scheduler takes from one reading of the clock to the next */
    uint64_t tick_ns;   /* a running task is stopped at multiples of this; 0: exactly in time */
    bool cooperative;   /* tasks are never stopped within a job */
    struct kit_sim_segment *segments; /* room for `segments_max`, 0: not kept */
    size_t segments_max;
    struct kit_sim_job *jobs;
    size_t jobs_max;
    /* what came of it */
    size_t segment_count; /* more than fit are counted and not kept */
    size_t job_count;
    uint64_t missed; /* deadlines of jobs, also of those not finished by then */
    uint64_t idle_ns;
    uint64_t overhead_ns; /* of switches and calls */
    size_t refused;       /* tasks that the policy did not admit; their number plus 1, 0: none */
    struct kit_sched_stats stats;
};

/* Runs it. 0; KIT_ENOMEM: alloc has not enough; an error of open or spawn; KIT_EINVAL: no task, or
 * work that takes no time; KIT_ECORRUPT: the scheduler's check failed, or it lets tasks take turns
 * without time going on. */
int kit_sim_run(struct kit_sim *sim, const struct kit_sched_component *component,
                const uint64_t *options, struct kit_alloc *alloc);
/* cdef: end */

#endif
