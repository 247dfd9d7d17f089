/* SPDX-License-Identifier: MIT */
/* Scheduler suite: many tasks with stacks at once, in order, at random, and dropped. */
#include <unikit/testing/suite_sched_bench.h>

enum { CROWD_SIZE = 32, CROWD_TURNS = 400, CROWD_SLEEPERS = 1000 };

struct actor {
    struct sched_bench *b;
    struct crowd *crowd;
    uint64_t deadline_ns;
    struct kit_task *task;
    bool blocks;
    uint32_t done;
};

struct sleeper {
    struct sched_bench *b;
    uint64_t deadline_ns;
    uint64_t *last_ns;
    size_t *woken;
};

static void sleeper_run(void *argument)
{
    struct sleeper *sleeper = argument;
    int rc = kit_sched_block(sleeper->b->s, sleeper->deadline_ns);
    KIT_CHECK_EQUAL(sleeper->b->report, rc, KIT_ETIMEDOUT);
    KIT_CHECK(sleeper->b->report, sleeper->b->clock->clock_ns == sleeper->deadline_ns);
    KIT_CHECK(sleeper->b->report, *sleeper->last_ns <= sleeper->deadline_ns);
    *sleeper->last_ns = sleeper->deadline_ns;
    ++*sleeper->woken;
}

static void sleepers_wake_in_order_of_their_deadlines(struct sched_bench *b)
{
    size_t size = CROWD_SLEEPERS * sizeof(struct sleeper), woken = 0;
    uint64_t last_ns = 0;
    struct sleeper *sleepers = kit_alloc_alloc(b->heap.inner, size, alignof(struct sleeper));
    if (!KIT_CHECK(b->report, sleepers != NULL))
        return;
    if (sched_bench_open(b, __func__)) {
        uint64_t now = b->clock->clock_ns;
        for (size_t i = 0; i < CROWD_SLEEPERS; i++) {
            uint64_t deadline = now + 1 + kit_suite_random(&b->random) % 3000;
            sleepers[i] = (struct sleeper){b, deadline, &last_ns, &woken};
            struct kit_task_spec spec = {.entry = sleeper_run,
                                         .argument = &sleepers[i],
                                         .stack_size = 4096,
                                         .flags = KIT_TASK_DETACHED};
            KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, NULL), 0);
        }
        sched_drain(b, 2 * CROWD_SLEEPERS + 10);
        KIT_CHECK_EQUAL(b->report, woken, CROWD_SLEEPERS);
        KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
        sched_bench_close(b);
    }
    kit_alloc_free(b->heap.inner, sleepers, size, alignof(struct sleeper));
}

static void idle_run(void *argument)
{
    struct actor *actor = argument;
    if (actor->blocks)
        kit_sched_block(actor->b->s, actor->deadline_ns);
    else
        kit_sched_yield(actor->b->s);
    actor->done++;
}

static void close_drops_tasks_as_they_stand(struct sched_bench *b)
{
    if (!sched_bench_open(b, __func__))
        return;
    struct actor actors[3] = {
        {.b = b},
        {.b = b, .blocks = true, .deadline_ns = KIT_NEVER},
        {.b = b, .blocks = true, .deadline_ns = b->clock->clock_ns + 10},
    };
    for (size_t i = 0; i < 3; i++)
        sched_spawn(b, idle_run, &actors[i], i == 0 ? KIT_TASK_DETACHED : 0);
    sched_step(b);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).runnable, 1);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 3);
    sched_bench_close(b);
    KIT_CHECK_EQUAL(b->report, actors[0].done + actors[1].done + actors[2].done, 0);
}

/* ---- at random ------------------------------------------------------------------------------ */

struct crowd {
    struct actor actors[CROWD_SIZE];
    uint64_t runs;
    bool stop;
};

static void crowd_run(void *argument)
{
    struct actor *actor = argument;
    struct sched_bench *b = actor->b;
    struct crowd *crowd = actor->crowd;
    while (!crowd->stop) {
        struct actor *other = &crowd->actors[kit_suite_random(&b->random) % CROWD_SIZE];
        uint64_t deadline = b->clock->clock_ns + kit_suite_random(&b->random) % 30;
        crowd->runs++;
        KIT_CHECK(b->report, kit_sched_current(b->s) == actor->task);
        switch (kit_suite_random(&b->random) % 4) {
        case 0:
            kit_sched_yield(b->s);
            break;
        case 1:
            if (kit_sched_block(b->s, deadline) == KIT_ETIMEDOUT)
                KIT_CHECK(b->report, b->clock->clock_ns >= deadline);
            break;
        case 2:
            kit_sched_wake(b->s, other->task);
            break;
        default:
            actor->deadline_ns = KIT_NEVER; /* somebody must wake it */
            kit_sched_block(b->s, crowd->stop ? 0 : KIT_NEVER);
            actor->deadline_ns = 0;
        }
    }
    actor->done = 1;
}

static void a_crowd_at_random_loses_nobody(struct sched_bench *b)
{
    struct crowd crowd = {.runs = 0};
    if (!sched_bench_open(b, __func__))
        return;
    for (size_t i = 0; i < CROWD_SIZE; i++) {
        crowd.actors[i] = (struct actor){.b = b, .crowd = &crowd};
        crowd.actors[i].task = sched_spawn(b, crowd_run, &crowd.actors[i], 0);
    }
    for (int turn = 0; turn < CROWD_TURNS; turn++) {
        sched_step(b);
        b->clock->clock_ns += kit_suite_random(&b->random) % 10;
        size_t i = (size_t)(kit_suite_random(&b->random) % CROWD_SIZE);
        if (crowd.actors[i].deadline_ns == KIT_NEVER)
            kit_sched_wake(b->s, crowd.actors[i].task);
        KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, CROWD_SIZE);
    }
    KIT_CHECK(b->report, crowd.runs > CROWD_TURNS);
    crowd.stop = true;
    for (size_t i = 0; i < CROWD_SIZE; i++)
        kit_sched_wake(b->s, crowd.actors[i].task);
    sched_drain(b, 8);
    for (size_t i = 0; i < CROWD_SIZE; i++) {
        KIT_CHECK_EQUAL(b->report, crowd.actors[i].done, 1);
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, crowd.actors[i].task, 0), 0);
    }
    sched_bench_close(b);
}

void sched_suite_crowd(struct sched_bench *b)
{
    sleepers_wake_in_order_of_their_deadlines(b);
    close_drops_tasks_as_they_stand(b);
    a_crowd_at_random_loses_nobody(b);
}
