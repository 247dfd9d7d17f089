/* SPDX-License-Identifier: MIT */
/* See host_sweep.h. What a task reserves is its work and, for its start and for each time that it
 * may be interrupted within a period, one switch and one call. Each release interrupts whoever
 * runs, if only to find that it goes on: one with a period T' comes at most ceil(T / T') times
 * within T. */
#include <unikit/sched/lab/host_sweep.h>

enum { SWEEP_TASKS = 64 };

static uint64_t sweep_reserve_ns(const struct kit_sweep *sweep, const uint64_t *periods_ns,
                                 uint32_t count, uint64_t work_ns, uint64_t period_ns)
{
    uint64_t starts = 1;
    for (uint32_t i = 0; i < count; i++)
        starts += (period_ns + periods_ns[i] - 1) / periods_ns[i];
    return work_ns + starts * (sweep->switch_ns + sweep->call_ns);
}

static void sweep_tasks(const struct kit_sweep *sweep, size_t first, uint32_t count,
                        struct kit_sim_task *tasks)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t period_ns = sweep->periods_ns[first + i];
        const uint64_t *work_ns = &sweep->works_ns[first + i];
        tasks[i] = (struct kit_sim_task){
            .offset_ns = sweep->offsets_ns[first + i], .work_ns = work_ns, .works = 1};
        if (sweep->lag_ns != 0) {
            tasks[i].share.weight = sweep->weights[first + i];
            continue;
        }
        tasks[i].period_ns = tasks[i].deadline_ns = tasks[i].share.period_ns = period_ns;
        tasks[i].share.slice_ns =
            sweep_reserve_ns(sweep, sweep->periods_ns + first, count, *work_ns, period_ns);
    }
}

/* The largest lag of tasks that all have work all the time; it is largest where somebody stops.
 * UINT64_MAX: not all segments were kept. */
static uint64_t sweep_lag_ns(const struct kit_sweep *sweep, const struct kit_sim *sim, size_t first)
{
    uint64_t used_ns[SWEEP_TASKS] = {0}, weight = 0, time_ns = 0, most_ns = 0;
    const uint32_t *weights = sweep->weights + first;
    if (sim->segment_count > sim->segments_max)
        return UINT64_MAX;
    for (size_t i = 0; i < sim->count; i++)
        weight += weights[i];
    for (size_t n = 0; n < sim->segment_count; n++) {
        const struct kit_sim_segment *each = &sim->segments[n];
        used_ns[each->task] += each->end_ns - each->start_ns;
        time_ns += each->end_ns - each->start_ns;
        for (size_t i = 0; i < sim->count; i++) {
            uint64_t due_ns = (uint64_t)((unsigned __int128)time_ns * weights[i] / weight);
            uint64_t lag_ns = due_ns > used_ns[i] ? due_ns - used_ns[i] : used_ns[i] - due_ns;
            most_ns = lag_ns > most_ns ? lag_ns : most_ns;
        }
    }
    return most_ns;
}

static uint8_t sweep_judge(struct kit_sweep *sweep, const struct kit_sim *sim, size_t first, int rc)
{
    if (rc != 0)
        return sim->refused != 0 ? KIT_SWEEP_REFUSED : KIT_SWEEP_BROKEN;
    sweep->jobs += sim->job_count;
    sweep->switches += sim->stats.switches;
    sweep->simulated_ns += sim->end_ns;
    sweep->overhead_ns += sim->overhead_ns;
    if (sweep->lag_ns == 0)
        return sim->missed != 0 ? KIT_SWEEP_MISSED : KIT_SWEEP_FINE;
    uint64_t lag_ns = sweep_lag_ns(sweep, sim, first);
    sweep->lag_most_ns = lag_ns > sweep->lag_most_ns ? lag_ns : sweep->lag_most_ns;
    return lag_ns > sweep->lag_ns ? KIT_SWEEP_MISSED : KIT_SWEEP_FINE;
}

int kit_sweep_run(struct kit_sweep *sweep, const struct kit_sched_component *component,
                  const uint64_t *options, struct kit_alloc *alloc)
{
    struct kit_sim_task tasks[SWEEP_TASKS];
    size_t first = 0;
    for (size_t set = 0; set < sweep->sets; first += sweep->counts[set++]) {
        uint32_t count = sweep->counts[set];
        if (count == 0 || count > SWEEP_TASKS)
            return KIT_EINVAL;
        sweep_tasks(sweep, first, count, tasks);
        struct kit_sim sim = {.tasks = tasks,
                              .count = count,
                              .end_ns = sweep->ends_ns[set],
                              .switch_ns = sweep->switch_ns,
                              .call_ns = sweep->call_ns,
                              .segments = sweep->segments,
                              .segments_max = sweep->segments_max};
        int rc = kit_sim_run(&sim, component, options, alloc);
        if (rc == KIT_ENOMEM && sim.refused == 0)
            return rc;
        uint8_t outcome = sweep_judge(sweep, &sim, first, rc);
        sweep->outcomes[set] = outcome;
        sweep->fine += outcome == KIT_SWEEP_FINE;
        sweep->refused += outcome == KIT_SWEEP_REFUSED;
        sweep->missed += outcome == KIT_SWEEP_MISSED;
        sweep->broken += outcome == KIT_SWEEP_BROKEN;
    }
    return 0;
}
