/* SPDX-License-Identifier: MIT */
/* Scheduler suite: policies with reservations. Tasks spend time by moving the virtual clock. */
#include <unikit/testing/suite_sched_bench.h>

enum { WORKERS = 8, MS = 1000000, STEP_NS = 50000 };

struct plant;

struct worker {
    struct plant *plant;
    struct kit_task_share share;
    uint64_t used_ns;
    uint64_t jobs, missed;
    uint64_t overrun_ns; /* spent beyond the slice, in one go, in each job */
    uint64_t start_ns;
    struct kit_task *task;
};

struct plant {
    struct sched_bench *b;
    struct worker workers[WORKERS];
    size_t count;
    uint64_t end_ns;
    uint64_t late_ns; /* what a step that was begun may take */
};

/* Spawns a worker; the return code of spawn. */
static int plant_try(struct plant *plant, struct kit_task_share share, void (*entry)(void *))
{
    struct worker *worker = &plant->workers[plant->count];
    *worker =
        (struct worker){.plant = plant, .share = share, .start_ns = plant->b->clock->clock_ns};
    const struct kit_task_spec spec = {
        .entry = entry, .argument = worker, .name = "worker", .share = &worker->share};
    int rc = kit_sched_spawn(plant->b->s, &spec, &worker->task);
    plant->count += rc == 0;
    return rc;
}

static struct worker *plant_add(struct plant *plant, uint64_t slice_ns, uint64_t period_ns,
                                uint32_t flags, void (*entry)(void *))
{
    const struct kit_task_share share = {
        .slice_ns = slice_ns, .period_ns = period_ns, .flags = flags};
    KIT_CHECK_EQUAL(plant->b->report, plant_try(plant, share, entry), 0);
    return &plant->workers[plant->count - 1];
}

/* Runs until all have seen the end of time. */
static void plant_run(struct sched_bench *b)
{
    for (int turns = 0; turns < 100000 && sched_stats(b).tasks > 0; turns++) {
        uint64_t next = kit_sched_deadline_ns(b->s);
        if (next > b->clock->clock_ns && next != KIT_NEVER)
            b->clock->clock_ns = next;
        sched_step(b);
    }
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
}

static void plant_close(struct plant *plant)
{
    struct sched_bench *b = plant->b;
    plant_run(b);
    for (size_t i = 0; i < plant->count; i++)
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, plant->workers[i].task, 0), 0);
    sched_bench_close(b);
}

static void spend(struct worker *worker, uint64_t time_ns)
{
    worker->plant->b->clock->clock_ns += time_ns;
    worker->used_ns += time_ns;
}

/* One job of a slice in each period, in small steps; then sleeps until the next period. */
static void periodic_run(void *argument)
{
    struct worker *worker = argument;
    struct plant *plant = worker->plant;
    struct kit_sched *s = plant->b->s;
    uint64_t release_ns = worker->start_ns;
    while (release_ns < plant->end_ns) {
        for (uint64_t left = worker->share.slice_ns; left > 0;) {
            uint64_t step = left < STEP_NS ? left : STEP_NS;
            spend(worker, step);
            left -= step;
            if (left > 0)
                kit_sched_yield(s); /* where preemption would be */
        }
        uint64_t relative =
            worker->share.deadline_ns ? worker->share.deadline_ns : worker->share.period_ns;
        worker->jobs++;
        worker->missed += plant->b->clock->clock_ns > release_ns + relative + plant->late_ns;
        release_ns += worker->share.period_ns;
        while (plant->b->clock->clock_ns < release_ns)
            kit_sched_block(s, release_ns);
    }
}

/* Takes all it can get. */
static void greedy_run(void *argument)
{
    struct worker *worker = argument;
    while (worker->plant->b->clock->clock_ns < worker->plant->end_ns) {
        spend(worker, STEP_NS + worker->overrun_ns);
        kit_sched_yield(worker->plant->b->s);
    }
}

/* ---- tests --------------------------------------------------------------------------------------
 */

static void what_is_admitted_is_served_in_time(struct sched_bench *b)
{
    for (int round = 0; round < 20; round++) {
        struct plant plant = {.b = b, .late_ns = STEP_NS};
        if (!sched_bench_open(b, __func__))
            return;
        plant.end_ns = b->clock->clock_ns + 300 * MS;
        for (int tries = 0; tries < 40 && plant.count < WORKERS - 1; tries++) {
            uint64_t period = (uint64_t)MS * (2 + kit_suite_random(&b->random) % 40);
            struct kit_task_share share = {.period_ns = period};
            if (kit_suite_random(&b->random) % 3 == 0)
                share.deadline_ns = period - kit_suite_random(&b->random) % (period / 2);
            share.slice_ns = STEP_NS + kit_suite_random(&b->random) % (period / 3);
            int rc = plant_try(&plant, share, periodic_run);
            KIT_CHECK(b->report, rc == 0 || rc == KIT_ENOMEM);
        }
        plant_add(&plant, 0, 0, 0, greedy_run); /* always wants the processor */
        KIT_CHECK(b->report, plant.count > 2);
        plant_run(b);
        for (size_t i = 0; i + 1 < plant.count; i++) {
            KIT_CHECK(b->report, plant.workers[i].jobs > 0);
            KIT_CHECK_SAYS(b->report, plant.workers[i].missed == 0, "a deadline was missed");
        }
        plant_close(&plant);
    }
}

static void more_than_there_is_is_refused(struct sched_bench *b)
{
    struct plant plant = {.b = b, .late_ns = STEP_NS};
    const struct kit_task_share half = {.slice_ns = 5 * MS, .period_ns = 10 * MS};
    const struct kit_task_share third = {.slice_ns = 3 * MS, .period_ns = 9 * MS};
    const struct kit_task_share wrong[] = {{.period_ns = MS},
                                           {.slice_ns = 2 * MS, .period_ns = MS},
                                           {.slice_ns = MS, .period_ns = UINT64_MAX},
                                           {.slice_ns = MS, .period_ns = 9 * MS, .deadline_ns = 1},
                                           {.slice_ns = 1, .period_ns = 9, .deadline_ns = 10},
                                           {.deadline_ns = MS},
                                           {.flags = 8}};
    struct kit_task_share share;
    if (!sched_bench_open(b, __func__))
        return;
    KIT_CHECK_EQUAL(b->report, plant_try(&plant, half, periodic_run), 0);
    KIT_CHECK_EQUAL(b->report, plant_try(&plant, third, periodic_run), 0);
    KIT_CHECK_EQUAL(b->report, plant_try(&plant, third, periodic_run), KIT_ENOMEM);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(wrong); i++) {
        KIT_CHECK_EQUAL(b->report, plant_try(&plant, wrong[i], periodic_run), KIT_EINVAL);
        KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, plant.workers[0].task, &wrong[i]),
                        KIT_EINVAL);
    }
    KIT_CHECK_EQUAL(b->report, kit_sched_get_share(b->s, plant.workers[0].task, &share), 0);
    KIT_CHECK(b->report, share.slice_ns == half.slice_ns && share.period_ns == half.period_ns);
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, plant.workers[0].task, &third), 0);
    plant.workers[0].share = third;
    KIT_CHECK_EQUAL(
        b->report,
        plant_try(&plant, (struct kit_task_share){MS, 0, MS, 4 * MS, 0, 0}, periodic_run),
        0);              /* there is room now */
    plant_close(&plant); /* the end of time is already there: they end at once */
    if (!sched_bench_open(b, __func__))
        return;
    plant = (struct plant){.b = b};
    for (int i = 0; i < 4; i++) { /* what ended tasks had is free again */
        KIT_CHECK_EQUAL(b->report, plant_try(&plant, half, periodic_run), 0);
        sched_settle(b, 4);
    }
    plant_close(&plant);
}

/* One that never stops by itself runs over by 3 ms each time; the others keep what they have, late
 * by no more than that. */
static void an_overrun_hurts_nobody_else(struct sched_bench *b)
{
    struct plant plant = {.b = b, .late_ns = STEP_NS};
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t start = b->clock->clock_ns;
    plant.end_ns = start + 400 * MS;
    struct worker *first = plant_add(&plant, 2 * MS, 10 * MS, KIT_SHARE_STRICT, periodic_run);
    struct worker *second = plant_add(&plant, 8 * MS, 40 * MS, KIT_SHARE_STRICT, periodic_run);
    struct worker *wild = plant_add(&plant, 2 * MS, 20 * MS, KIT_SHARE_STRICT, greedy_run);
    wild->overrun_ns = 3 * MS;
    plant.late_ns = 3 * MS + STEP_NS;
    plant_run(b);
    KIT_CHECK_EQUAL(b->report, first->jobs, 40);
    KIT_CHECK_EQUAL(b->report, second->jobs, 10);
    KIT_CHECK_EQUAL(b->report, first->missed, 0);
    KIT_CHECK_EQUAL(b->report, second->missed, 0);
    KIT_CHECK(b->report, wild->used_ns <= 400 * MS / 10 + 6 * MS); /* its tenth, and one go */
    KIT_CHECK(b->report, wild->used_ns >= 400 * MS / 10 - 6 * MS);
    plant_close(&plant);
}

static void what_is_left_is_shared(struct sched_bench *b)
{
    struct plant plant = {.b = b, .late_ns = STEP_NS};
    if (!sched_bench_open(b, __func__))
        return;
    plant.end_ns = b->clock->clock_ns + 400 * MS;
    struct worker *strict = plant_add(&plant, 2 * MS, 10 * MS, KIT_SHARE_STRICT, greedy_run);
    struct worker *loose = plant_add(&plant, 2 * MS, 10 * MS, 0, greedy_run);
    struct worker *without = plant_add(&plant, 0, 0, 0, greedy_run);
    plant_run(b);
    KIT_CHECK(b->report, strict->used_ns >= 79 * MS && strict->used_ns <= 83 * MS);
    KIT_CHECK(b->report, loose->used_ns >= 195 * MS && loose->used_ns <= 205 * MS);
    KIT_CHECK(b->report, without->used_ns >= 115 * MS && without->used_ns <= 125 * MS);
    plant_close(&plant);
}

/* Strict tasks alone leave the processor idle, and the scheduler says until when. */
static void strict_tasks_let_the_processor_idle(struct sched_bench *b)
{
    struct plant plant = {.b = b, .late_ns = STEP_NS};
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t start = b->clock->clock_ns;
    plant.end_ns = start + 100 * MS;
    struct worker *only = plant_add(&plant, MS, 10 * MS, KIT_SHARE_STRICT, greedy_run);
    sched_settle(b, 100);
    KIT_CHECK_EQUAL(b->report, only->used_ns, MS);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), start + 10 * MS);
    plant_close(&plant);
    KIT_CHECK(b->report, only->used_ns >= 10 * MS && only->used_ns <= 11 * MS);
}

static void sleeper_run(void *argument)
{
    struct worker *worker = argument;
    kit_sched_block(worker->plant->b->s, worker->plant->b->clock->clock_ns + 9 * MS);
    greedy_run(worker);
}

/* A task that wakes late in its period with a full budget must not use it all before the end of the
 * period and another one right after: two slices in a row would be more than its share. */
static void a_late_waker_gets_no_double_slice(struct sched_bench *b)
{
    struct plant plant = {.b = b, .late_ns = STEP_NS};
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t start = b->clock->clock_ns;
    plant.end_ns = start + 12 * MS;
    struct worker *late = plant_add(&plant, 4 * MS, 10 * MS, KIT_SHARE_STRICT, sleeper_run);
    struct worker *other = plant_add(&plant, 0, 0, 0, greedy_run);
    while (b->clock->clock_ns < start + 18 * MS && sched_stats(b).tasks > 0) {
        plant.end_ns = start + 18 * MS;
        sched_step(b);
    }
    KIT_CHECK(b->report, late->used_ns <= 4 * MS + STEP_NS);
    KIT_CHECK(b->report, other->used_ns >= 13 * MS);
    plant_close(&plant);
}

static void urgent_run(void *argument)
{
    struct worker *worker = argument;
    struct sched_bench *b = worker->plant->b;
    for (int i = 0; i < 20; i++) {
        uint64_t wish_ns = b->clock->clock_ns + 777777;
        while (b->clock->clock_ns < wish_ns)
            kit_sched_block(b->s, wish_ns);
        worker->missed += b->clock->clock_ns > wish_ns + STEP_NS;
        spend(worker, STEP_NS);
    }
}

/* Many that are ready must not stand between a timer and the task that it wakes. */
static void who_wakes_waits_for_one_run_at_most(struct sched_bench *b)
{
    struct plant plant = {.b = b};
    if (!sched_bench_open(b, __func__))
        return;
    plant.end_ns = b->clock->clock_ns + 100 * MS;
    struct worker *urgent = plant_add(&plant, MS, 2 * MS, 0, urgent_run);
    while (plant.count < WORKERS)
        plant_add(&plant, 0, 0, 0, greedy_run);
    plant_run(b);
    KIT_CHECK_EQUAL(b->report, urgent->missed, 0);
    plant_close(&plant);
}

void sched_suite_reserve(struct sched_bench *b)
{
    if (!(b->component->features & KIT_SCHED_RESERVATIONS))
        return;
    more_than_there_is_is_refused(b);
    what_is_admitted_is_served_in_time(b);
    an_overrun_hurts_nobody_else(b);
    what_is_left_is_shared(b);
    strict_tasks_let_the_processor_idle(b);
    a_late_waker_gets_no_double_slice(b);
    who_wakes_waits_for_one_run_at_most(b);
}
