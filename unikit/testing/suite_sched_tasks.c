/* SPDX-License-Identifier: MIT */
/* Scheduler suite: tasks as every scheduler has them, with stacks or without. */
#include <unikit/testing/suite_sched_bench.h>

enum { TASKS_MANY = 10000, TASKS_SWEEP = 40 };

struct job {
    struct sched_bench *b;
    char letter;
    struct kit_task *task;
    uint32_t ran;
    size_t *finished;
};

static void job_run(void *argument)
{
    struct job *job = argument;
    struct sched_bench *b = job->b;
    job->ran++;
    sched_log(b, job->letter);
    KIT_CHECK(b->report, kit_sched_current(b->s) != NULL);
    if (job->task != NULL)
        KIT_CHECK(b->report, kit_sched_current(b->s) == job->task);
    if (job->finished != NULL)
        ++*job->finished;
}

static void tasks_run_in_order_and_are_joined(struct sched_bench *b)
{
    struct job jobs[3];
    if (!sched_bench_open(b, __func__))
        return;
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), KIT_NEVER);
    for (size_t i = 0; i < 3; i++) {
        jobs[i] = (struct job){.b = b, .letter = (char)('a' + (int)i)};
        jobs[i].task = sched_spawn(b, job_run, &jobs[i], 0);
        KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), 0);
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, jobs[i].task, KIT_NEVER), KIT_EAGAIN);
    }
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 3);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).runnable, 3);
    KIT_CHECK(b->report, sched_step(b));
    sched_logged(b, "abc");
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).spawned, 3);
    for (size_t i = 0; i < 3; i++)
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, jobs[2 - i].task, 0), 0);
    KIT_CHECK(b->report, !sched_step(b));
    KIT_CHECK_EQUAL(b->report, sched_stats(b).turns, 1);
    sched_bench_close(b);
}

static void spawn_and_join_refuse_what_the_contract_excludes(struct sched_bench *b)
{
    struct kit_task *task = NULL;
    struct job job = {.b = b, .letter = 'a'};
    if (!sched_bench_open(b, __func__))
        return;
    struct kit_task_spec spec = {.argument = &job};
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, &task), KIT_EINVAL);
    spec.entry = job_run;
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, NULL), KIT_EINVAL);
    spec.flags = UINT32_C(1) << 31;
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, &task), KIT_EINVAL);
    KIT_CHECK(b->report, task == NULL);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).spawned, 0);
    spec.flags = KIT_TASK_DETACHED;
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, &task), 0);
    KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, task, 0), KIT_EINVAL);
    sched_step(b);
    sched_bench_close(b);
}

static void calls_of_tasks_are_harmless_outside_of_them(struct sched_bench *b)
{
    if (!sched_bench_open(b, __func__))
        return;
    kit_sched_yield(b->s);
    KIT_CHECK(b->report, kit_sched_current(b->s) == NULL);
    KIT_CHECK_EQUAL(b->report, kit_sched_block(b->s, 0), KIT_ENOTSUP);
    KIT_CHECK_EQUAL(b->report, kit_sched_block(b->s, KIT_NEVER), KIT_ENOTSUP);
    KIT_CHECK(b->report, !sched_step(b));
    sched_bench_close(b);
}

static void detached_tasks_leave_nothing_behind(struct sched_bench *b)
{
    size_t finished = 0;
    struct job job = {.b = b, .letter = '.', .finished = &finished};
    if (!sched_bench_open(b, __func__))
        return;
    size_t bytes = 0;
    for (size_t round = 0; round < 100; round++) {
        struct kit_task_spec spec = {
            .entry = job_run, .argument = &job, .flags = KIT_TASK_DETACHED};
        for (size_t i = 0; i < 10; i++)
            KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, NULL), 0);
        sched_settle(b, 4);
        KIT_CHECK_EQUAL(b->report, finished, (round + 1) * 10);
        if (round == 0)
            bytes = b->heap.bytes;
        KIT_CHECK_EQUAL(b->report, b->heap.bytes, bytes);
    }
    KIT_CHECK_EQUAL(b->report, sched_stats(b).spawned, 1000);
    sched_bench_close(b);
}

struct spawner {
    struct sched_bench *b;
    struct job child;
};

static void spawner_run(void *argument)
{
    struct spawner *spawner = argument;
    sched_log(spawner->b, 's');
    sched_spawn(spawner->b, job_run, &spawner->child, KIT_TASK_DETACHED);
}

static void task_spawned_by_a_task_runs_in_the_next_turn(struct sched_bench *b)
{
    struct spawner spawner = {.b = b, .child = {.b = b, .letter = 'c'}};
    struct job other = {.b = b, .letter = 'o'};
    if (!sched_bench_open(b, __func__))
        return;
    sched_spawn(b, spawner_run, &spawner, KIT_TASK_DETACHED);
    sched_spawn(b, job_run, &other, KIT_TASK_DETACHED);
    sched_step(b);
    sched_logged(b, "so");
    sched_step(b);
    sched_logged(b, "c");
    sched_bench_close(b);
}

/* Whatever request fails, the call that needed it says so and leaves everything as it was. */
static void every_failing_allocation_is_survived(struct sched_bench *b)
{
    uint64_t failing = 0, made;
    KIT_TEST(b->report, __func__);
    do {
        struct kit_task *tasks[TASKS_SWEEP];
        struct job job = {.b = b, .letter = '.'};
        struct kit_task_spec spec = {.entry = job_run, .argument = &job, .name = "sweep"};
        size_t alive = 0, refused = 0;
        b->heap.calls = 0;
        b->heap.fail_at = ++failing;
        int rc = b->component->open(b->options, &b->clock->env, &b->heap.base, &b->s);
        KIT_CHECK(b->report, rc == 0 || rc == KIT_ENOMEM);
        for (size_t i = 0; rc == 0 && i < TASKS_SWEEP; i++) {
            size_t bytes = b->heap.bytes;
            int spawned = kit_sched_spawn(b->s, &spec, &tasks[alive]);
            KIT_CHECK(b->report, spawned == 0 || spawned == KIT_ENOMEM);
            alive += spawned == 0;
            refused += spawned != 0;
            KIT_CHECK(b->report, spawned == 0 || b->heap.bytes >= bytes);
            KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, alive);
            KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
        }
        made = b->heap.calls;
        b->heap.fail_at = 0;
        if (rc == 0) {
            KIT_CHECK_EQUAL(b->report, refused, failing <= made);
            sched_settle(b, 4);
            KIT_CHECK_EQUAL(b->report, job.ran, alive);
            for (size_t i = 0; i < alive; i++)
                KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, tasks[i], 0), 0);
            kit_sched_close(b->s);
        }
        KIT_CHECK_EQUAL(b->report, b->heap.blocks, 0);
    } while (failing <= made && b->report->failures == 0);
}

static void ten_thousand_tasks(struct sched_bench *b)
{
    size_t finished = 0, spawned = 0;
    struct job job = {.b = b, .letter = '.', .finished = &finished};
    if (!sched_bench_open(b, __func__))
        return;
    struct kit_task_spec spec = {
        .entry = job_run, .argument = &job, .stack_size = 4096, .flags = KIT_TASK_DETACHED};
    while (spawned < TASKS_MANY && kit_sched_spawn(b->s, &spec, NULL) == 0)
        spawned++;
    KIT_CHECK(b->report, spawned >= 100);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, spawned);
    KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
    KIT_CHECK(b->report, sched_step(b));
    KIT_CHECK_EQUAL(b->report, finished, spawned);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    sched_bench_close(b);
}

static void close_frees_tasks_in_every_state(struct sched_bench *b)
{
    struct job job = {.b = b, .letter = '.'};
    if (!sched_bench_open(b, __func__))
        return;
    sched_spawn(b, job_run, &job, 0); /* will be finished and not joined */
    sched_step(b);
    sched_spawn(b, job_run, &job, 0); /* will not have run */
    sched_spawn(b, job_run, &job, KIT_TASK_DETACHED);
    sched_bench_close(b);
    KIT_CHECK_EQUAL(b->report, job.ran, 1);
}

void sched_suite_tasks(struct sched_bench *b)
{
    tasks_run_in_order_and_are_joined(b);
    spawn_and_join_refuse_what_the_contract_excludes(b);
    calls_of_tasks_are_harmless_outside_of_them(b);
    detached_tasks_leave_nothing_behind(b);
    task_spawned_by_a_task_runs_in_the_next_turn(b);
    every_failing_allocation_is_survived(b);
    ten_thousand_tasks(b);
    close_frees_tasks_in_every_state(b);
}
