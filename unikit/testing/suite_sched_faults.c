/* SPDX-License-Identifier: MIT */
/* Scheduler suite: each request for memory is refused once, the first in one run, the second in the
 * next, and so on until none is left to refuse. Whoever asked is told KIT_ENOMEM, nothing has
 * changed, and the same call made again works, as does everything afterwards. */
#include <unikit/testing/suite_sched_bench.h>

enum { FAULT_TASKS = 6, FAULT_LIMIT = 64, FAULT_STACK = 65536 };

struct faults {
    struct sched_bench *b;
    struct kit_task *tasks[FAULT_TASKS];
    uint64_t refusals; /* in this run */
    uint32_t started;
    uint32_t ended;
};

static void faults_run(void *argument);

/* Whether a refusal came; then, what nobody got must not be missing anywhere. */
static bool faults_refused(struct faults *faults, int rc, const struct kit_sched_stats *before)
{
    struct sched_bench *b = faults->b;
    if (rc == 0)
        return false;
    KIT_CHECK_EQUAL(b->report, rc, KIT_ENOMEM);
    KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
    struct kit_sched_stats after = sched_stats(b);
    KIT_CHECK_EQUAL(b->report, after.tasks, before->tasks);
    KIT_CHECK_EQUAL(b->report, after.runnable, before->runnable);
    KIT_CHECK_EQUAL(b->report, after.armed, before->armed);
    KIT_CHECK_EQUAL(b->report, after.spawned, before->spawned);
    KIT_CHECK_EQUAL(b->report, ++faults->refusals, 1);
    return true;
}

/* From outside, and from tasks: the first half makes the other. */
static void faults_spawn(struct faults *faults, size_t i)
{
    struct sched_bench *b = faults->b;
    struct kit_task_spec spec = {.entry = faults_run,
                                 .argument = faults,
                                 .name = "fault",
                                 .stack_size = i % 2 == 0 ? 0 : FAULT_STACK,
                                 .flags = i % 3 == 0 ? KIT_TASK_DETACHED : 0};
    struct kit_sched_stats before = sched_stats(b);
    struct kit_task *task = NULL;
    if (faults_refused(faults, kit_sched_spawn(b->s, &spec, &task), &before)) {
        KIT_CHECK(b->report, task == NULL);
        KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, &task), 0);
    }
    faults->tasks[i] = i % 3 == 0 ? NULL : task;
}

static void faults_run(void *argument)
{
    struct faults *faults = argument;
    struct sched_bench *b = faults->b;
    uint32_t number = faults->started++;
    if (number < FAULT_TASKS / 2)
        faults_spawn(faults, FAULT_TASKS / 2 + number);
    int rc = kit_sched_block(b->s, b->clock->clock_ns + 10 + number);
    KIT_CHECK_EQUAL(b->report, rc, KIT_ETIMEDOUT);
    faults->ended++;
}

struct fault_timer {
    struct kit_timer timer;
    uint32_t fired;
};

static void fault_timer_run(struct kit_timer *timer)
{
    KIT_CONTAINER_OF(timer, struct fault_timer, timer)->fired++;
}

static void faults_arm(struct faults *faults, struct kit_timer *timer)
{
    struct sched_bench *b = faults->b;
    struct kit_sched_stats before = sched_stats(b);
    uint64_t deadline_ns = b->clock->clock_ns + 100;
    if (faults_refused(faults, kit_sched_arm(b->s, timer, deadline_ns), &before)) {
        KIT_CHECK(b->report, !kit_sched_cancel(b->s, timer));
        KIT_CHECK_EQUAL(b->report, kit_sched_arm(b->s, timer, deadline_ns), 0);
    }
}

static bool faults_open(struct faults *faults)
{
    struct sched_bench *b = faults->b;
    int rc = b->component->open(b->options, &b->clock->env, &b->heap.base, &b->s);
    if (rc == 0)
        return true;
    KIT_CHECK_EQUAL(b->report, rc, KIT_ENOMEM);
    KIT_CHECK_EQUAL(b->report, b->heap.blocks, 0);
    KIT_CHECK_EQUAL(b->report, ++faults->refusals, 1);
    rc = b->component->open(b->options, &b->clock->env, &b->heap.base, &b->s);
    return KIT_CHECK_EQUAL(b->report, rc, 0);
}

/* One life of a scheduler with the n-th request refused; false: there were fewer. */
static bool faults_live(struct sched_bench *b, uint64_t n, bool timer_first)
{
    struct faults faults = {.b = b};
    struct fault_timer late = {.timer = {.run = fault_timer_run}};
    uint64_t fail_at = b->heap.calls + n;
    b->clock->clock_ns += 1000;
    b->heap.fail_at = fail_at;
    if (!faults_open(&faults))
        return false;
    if (timer_first)
        faults_arm(&faults, &late.timer);
    for (size_t i = 0; i < FAULT_TASKS / 2; i++)
        faults_spawn(&faults, i);
    if (!timer_first)
        faults_arm(&faults, &late.timer);
    sched_drain(b, 64);
    KIT_CHECK_EQUAL(b->report, faults.started, FAULT_TASKS);
    KIT_CHECK_EQUAL(b->report, faults.ended, FAULT_TASKS);
    KIT_CHECK_EQUAL(b->report, late.fired, 1);
    for (size_t i = 0; i < FAULT_TASKS; i++)
        if (faults.tasks[i] != NULL)
            KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, faults.tasks[i], 0), 0);
    bool reached = b->heap.calls >= fail_at;
    KIT_CHECK_EQUAL(b->report, faults.refusals, reached ? 1 : 0);
    b->heap.fail_at = 0;
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    sched_bench_close(b);
    return reached;
}

static void faults_sweep(struct sched_bench *b, const char *test, bool timer_first)
{
    KIT_TEST(b->report, test);
    uint64_t n = 1;
    while (n < FAULT_LIMIT && faults_live(b, n, timer_first))
        n++;
    /* The scheduler, its timers, and tasks of two sizes asked at least. */
    KIT_CHECK(b->report, n > 4 && n < FAULT_LIMIT);
}

void sched_suite_faults(struct sched_bench *b)
{
    faults_sweep(b, "each_request_refused_once_tasks_first", false);
    faults_sweep(b, "each_request_refused_once_timers_first", true);
}
