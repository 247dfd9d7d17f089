/* SPDX-License-Identifier: MIT */
/* See host_simulate.h. Each task of the set is a task of the scheduler, which waits for the release
 * of a job, lets the clock go on by the job's work, and waits again. While it works it stops where
 * the policy says (stop_ns), which is what preemption does to it in an image; so between two stops
 * nothing can happen that the policy would want to know of. */
#include <unikit/rt/assert.h>
#include <unikit/sched/lab/host_simulate.h>

enum { SIM_STUCK = 100000 }; /* yields in a row without time going on */

struct sim_world {
    runtime_environment_t env;
    struct kit_sim *sim;
    struct kit_sched *s;
    uint64_t now_ns;
    uint32_t last; /* task that ran last, plus 1 */
    uint32_t stuck;
    int rc;
};

struct sim_player {
    struct sim_world *world;
    const struct kit_sim_task *task;
    uint32_t number;
};

/* What the scheduler does takes place between its readings of the clock, so each of them lets the
 * time go on by as much: what it bills to whom comes out as on a real clock. */
static uint64_t sim_now_ns(runtime_environment_t *env)
{
    struct sim_world *world = KIT_CONTAINER_OF(env, struct sim_world, env);
    uint64_t now_ns = world->now_ns;
    world->now_ns += world->sim->call_ns;
    world->sim->overhead_ns += world->sim->call_ns;
    return now_ns;
}

static void sim_panic(runtime_environment_t *env, const char *message)
{
    (void)env;
    kit_panic(message);
}

/* ---- one job -----------------------------------------------------------------------------------
 */

/* Lets a task run for a time; the change to it is charged first. */
static void sim_spend(struct sim_world *world, uint32_t task, uint32_t job, uint64_t time_ns)
{
    struct kit_sim *sim = world->sim;
    struct kit_sim_segment *before =
        sim->segment_count > 0 && sim->segment_count <= sim->segments_max
            ? &sim->segments[sim->segment_count - 1]
            : NULL;
    uint64_t start_ns = world->now_ns;
    world->now_ns += time_ns;
    if (before != NULL && before->task == task && before->job == job &&
        before->end_ns == start_ns) {
        before->end_ns = world->now_ns;
        return;
    }
    if (sim->segment_count++ < sim->segments_max)
        sim->segments[sim->segment_count - 1] =
            (struct kit_sim_segment){start_ns, world->now_ns, task, job};
}

static void sim_switch(struct sim_world *world, uint32_t task)
{
    if (world->last == task + 1)
        return;
    world->last = task + 1;
    world->now_ns += world->sim->switch_ns;
    world->sim->overhead_ns += world->sim->switch_ns;
}

/* How long the running task goes on before it has to ask. */
static uint64_t sim_stretch(const struct sim_world *world, uint64_t left_ns)
{
    const struct kit_sim *sim = world->sim;
    if (sim->cooperative)
        return left_ns;
    uint64_t stop_ns = kit_sched_stop_ns(world->s);
    if (sim->tick_ns != 0 && stop_ns != KIT_NEVER) /* seen at the next tick */
        stop_ns = (stop_ns + sim->tick_ns - 1) / sim->tick_ns * sim->tick_ns;
    uint64_t most_ns = stop_ns > world->now_ns ? stop_ns - world->now_ns : 0;
    return most_ns < left_ns ? most_ns : left_ns;
}

/* Does a job's work; false: the end of time came first. */
static bool sim_work(struct sim_player *player, struct kit_sim_job *job, uint64_t work_ns)
{
    struct sim_world *world = player->world;
    for (uint64_t left_ns = work_ns; left_ns > 0;) {
        if (world->now_ns >= world->sim->end_ns || world->rc != 0)
            return false;
        sim_switch(world, player->number);
        uint64_t time_ns = sim_stretch(world, left_ns);
        if (time_ns > 0 && job->start_ns == KIT_NEVER)
            job->start_ns = world->now_ns;
        world->stuck = time_ns > 0 ? 0 : world->stuck + 1;
        if (world->stuck > SIM_STUCK)
            world->rc = KIT_ECORRUPT;
        sim_spend(world, player->number, job->number, time_ns);
        job->used_ns += time_ns;
        left_ns -= time_ns;
        if (left_ns > 0)
            kit_sched_yield(world->s);
    }
    return true;
}

/* Counts a deadline that passed before the job was done. */
static void sim_judge(struct sim_world *world, const struct kit_sim_job *job)
{
    uint64_t done_ns = job->finish_ns == KIT_NEVER ? world->sim->end_ns : job->finish_ns;
    world->sim->missed += done_ns > job->deadline_ns;
}

static void sim_play(void *argument)
{
    struct sim_player *player = argument;
    struct sim_world *world = player->world;
    const struct kit_sim_task *task = player->task;
    struct kit_sim *sim = world->sim;
    uint64_t release_ns = task->offset_ns;
    for (uint32_t n = 0; release_ns < sim->end_ns && (task->jobs == 0 || n < task->jobs); n++) {
        while (world->now_ns < release_ns)
            kit_sched_block(world->s, release_ns);
        struct kit_sim_job job = {.release_ns = release_ns,
                                  .start_ns = KIT_NEVER,
                                  .finish_ns = KIT_NEVER,
                                  .deadline_ns = task->deadline_ns ? release_ns + task->deadline_ns
                                                                   : KIT_NEVER,
                                  .task = player->number,
                                  .number = n};
        bool done = sim_work(player, &job, task->work_ns[n % task->works]);
        if (done)
            job.finish_ns = world->now_ns;
        sim_judge(world, &job);
        if (sim->job_count++ < sim->jobs_max)
            sim->jobs[sim->job_count - 1] = job;
        if (!done || task->period_ns == 0)
            return;
        release_ns += task->period_ns;
    }
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

static int sim_spawn(struct sim_world *world, struct sim_player *players)
{
    struct kit_sim *sim = world->sim;
    for (size_t i = 0; i < sim->count; i++) {
        const struct kit_sim_task *task = &sim->tasks[i];
        players[i] = (struct sim_player){world, task, (uint32_t)i};
        const struct kit_task_spec spec = {.entry = sim_play,
                                           .argument = &players[i],
                                           .name = "simulated",
                                           .priority = task->share.priority,
                                           .flags = KIT_TASK_DETACHED,
                                           .share = &task->share};
        int rc = kit_sched_spawn(world->s, &spec, NULL);
        if (rc != 0) {
            sim->refused = i + 1;
            return rc;
        }
    }
    return 0;
}

/* Turns, time jumping to the next deadline while there is nothing to do. */
static void sim_loop(struct sim_world *world)
{
    struct kit_sim *sim = world->sim;
    while (world->rc == 0) {
        kit_sched_turn(world->s);
        kit_sched_stats(world->s, &sim->stats);
        if (sim->stats.tasks == 0)
            return;
        uint64_t next_ns = kit_sched_deadline_ns(world->s);
        if (next_ns <= world->now_ns)
            continue;
        if (world->now_ns >= sim->end_ns || next_ns >= sim->end_ns) {
            sim->idle_ns += sim->end_ns > world->now_ns ? sim->end_ns - world->now_ns : 0;
            return;
        }
        sim->idle_ns += next_ns - world->now_ns;
        world->now_ns = next_ns;
        world->last = 0;
    }
}

static bool sim_valid(const struct kit_sim *sim)
{
    for (size_t i = 0; i < sim->count; i++) {
        const struct kit_sim_task *task = &sim->tasks[i];
        if (task->works == 0)
            return false;
        for (size_t n = 0; n < task->works; n++)
            if (task->work_ns[n] == 0)
                return false;
    }
    return sim->count > 0 && sim->count < UINT32_MAX && sim->end_ns < KIT_NEVER / 4;
}

int kit_sim_run(struct kit_sim *sim, const struct kit_sched_component *component,
                const uint64_t *options, struct kit_alloc *alloc)
{
    struct sim_world world = {.env = {.now_ns = sim_now_ns, .panic_handler = sim_panic},
                              .sim = sim};
    sim->segment_count = sim->job_count = sim->refused = 0;
    sim->missed = sim->idle_ns = sim->overhead_ns = 0;
    if (!sim_valid(sim))
        return KIT_EINVAL;
    size_t size = sim->count * sizeof(struct sim_player);
    struct sim_player *players = kit_alloc_alloc(alloc, size, 0);
    if (players == NULL)
        return KIT_ENOMEM;
    int rc = component->open(options, &world.env, alloc, &world.s);
    if (rc == 0) {
        rc = sim_spawn(&world, players);
        if (rc == 0) {
            sim_loop(&world);
            kit_sched_stats(world.s, &sim->stats);
            rc = world.rc != 0 ? world.rc : kit_sched_check(world.s);
        }
        kit_sched_close(world.s);
    }
    kit_alloc_free(alloc, players, size, 0);
    return rc;
}
