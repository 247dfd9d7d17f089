/* SPDX-License-Identifier: MIT */
/* Scheduler suite: deferred work and timers, against a brute-force model. */
#include <unikit/testing/suite_sched_bench.h>

/* ---- work ----------------------------------------------------------------------------------- */

struct work_item {
    struct kit_work work;
    struct sched_bench *b;
    char letter;
    struct work_item *posts; /* when it runs */
    struct work_item *drops;
};

static void work_run(struct kit_work *work)
{
    struct work_item *item = KIT_CONTAINER_OF(work, struct work_item, work);
    sched_log(item->b, item->letter);
    KIT_CHECK(item->b->report, !work->queued);
    KIT_CHECK(item->b->report, kit_sched_current(item->b->s) == NULL);
    if (item->posts != NULL)
        kit_sched_post(item->b->s, &item->posts->work);
    if (item->drops != NULL)
        KIT_CHECK(item->b->report, kit_sched_cancel_work(item->b->s, &item->drops->work));
}

static void work_make(struct sched_bench *b, struct work_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        items[i] =
            (struct work_item){.work = {.run = work_run}, .b = b, .letter = (char)('a' + (int)i)};
}

static void work_runs_once_in_order_of_posting(struct sched_bench *b)
{
    struct work_item items[4];
    if (!sched_bench_open(b, __func__))
        return;
    work_make(b, items, 4);
    for (size_t i = 0; i < 4; i++)
        kit_sched_post(b->s, &items[3 - i].work);
    kit_sched_post(b->s, &items[3].work); /* is queued: no-op */
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), 0);
    KIT_CHECK(b->report, sched_step(b));
    sched_logged(b, "dcba");
    KIT_CHECK(b->report, !sched_step(b));
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), KIT_NEVER);
    sched_bench_close(b);
}

static void work_posted_by_work_waits_for_the_next_turn(struct sched_bench *b)
{
    struct work_item items[2];
    if (!sched_bench_open(b, __func__))
        return;
    work_make(b, items, 2);
    items[0].posts = &items[0]; /* itself, for ever */
    items[1].posts = NULL;
    kit_sched_post(b->s, &items[0].work);
    kit_sched_post(b->s, &items[1].work);
    sched_step(b);
    sched_logged(b, "ab");
    sched_step(b);
    sched_step(b);
    sched_logged(b, "aa");
    KIT_CHECK(b->report, kit_sched_cancel_work(b->s, &items[0].work));
    KIT_CHECK(b->report, !sched_step(b));
    sched_bench_close(b);
}

static void work_can_be_cancelled_also_within_its_turn(struct sched_bench *b)
{
    struct work_item items[4];
    if (!sched_bench_open(b, __func__))
        return;
    work_make(b, items, 4);
    KIT_CHECK(b->report, !kit_sched_cancel_work(b->s, &items[0].work));
    for (size_t i = 0; i < 4; i++)
        kit_sched_post(b->s, &items[i].work);
    items[0].drops = &items[2];
    KIT_CHECK(b->report, kit_sched_cancel_work(b->s, &items[1].work));
    KIT_CHECK(b->report, !kit_sched_cancel_work(b->s, &items[1].work));
    sched_step(b);
    sched_logged(b, "ad");
    KIT_CHECK_EQUAL(b->report, sched_stats(b).work, 2);
    sched_bench_close(b);
}

/* ---- timers --------------------------------------------------------------------------------- */

enum { TIMER_COUNT = 100, TIMER_ROUNDS = 600 };

struct alarm {
    struct kit_timer timer;
    struct sched_bench *b;
    char letter;
    uint64_t again_ns; /* arms itself this much later; 0: not */
    struct alarm *drops;
    uint32_t fired;
};

static void alarm_run(struct kit_timer *timer)
{
    struct alarm *alarm = KIT_CONTAINER_OF(timer, struct alarm, timer);
    struct sched_bench *b = alarm->b;
    alarm->fired++;
    sched_log(b, alarm->letter);
    KIT_CHECK(b->report, timer->deadline_ns <= b->clock->clock_ns);
    KIT_CHECK(b->report, !kit_sched_cancel(b->s, timer)); /* it is no longer armed */
    if (alarm->again_ns != 0)
        kit_sched_arm(b->s, timer, timer->deadline_ns + alarm->again_ns);
    if (alarm->drops != NULL)
        KIT_CHECK(b->report, kit_sched_cancel(b->s, &alarm->drops->timer));
}

static void alarm_make(struct sched_bench *b, struct alarm *alarms, size_t count)
{
    for (size_t i = 0; i < count; i++)
        alarms[i] = (struct alarm){
            .timer = {.run = alarm_run}, .b = b, .letter = (char)('a' + (int)(i % 26))};
}

static void timers_fire_by_deadline_then_by_order_of_arming(struct sched_bench *b)
{
    struct alarm alarms[6];
    uint64_t now = b->clock->clock_ns + 1000; /* open lets time pass */
    const uint64_t after[6] = {30, 10, 20, 10, 30, 10};
    if (!sched_bench_open(b, __func__))
        return;
    alarm_make(b, alarms, 6);
    for (size_t i = 0; i < 6; i++)
        KIT_CHECK_EQUAL(b->report, kit_sched_arm(b->s, &alarms[i].timer, now + after[i]), 0);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), now + 10);
    b->clock->clock_ns = now + 9;
    KIT_CHECK(b->report, !sched_step(b));
    b->clock->clock_ns = now + 10;
    sched_step(b);
    sched_logged(b, "bdf");
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), now + 20);
    b->clock->clock_ns = now + 1000;
    sched_step(b);
    sched_logged(b, "cae");
    KIT_CHECK_EQUAL(b->report, sched_stats(b).timers, 6);
    sched_bench_close(b);
}

static void timers_rearm_and_cancel_from_their_function(struct sched_bench *b)
{
    struct alarm alarms[3];
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t now = b->clock->clock_ns;
    alarm_make(b, alarms, 3);
    alarms[0].again_ns = 5;
    alarms[0].drops = &alarms[2];
    kit_sched_arm(b->s, &alarms[0].timer, now + 5);
    kit_sched_arm(b->s, &alarms[1].timer, now + 5);
    kit_sched_arm(b->s, &alarms[2].timer, now + 5);
    b->clock->clock_ns = now + 5;
    sched_step(b);
    sched_logged(b, "ab"); /* c was due in the same turn, and a cancelled it */
    alarms[0].drops = NULL;
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), now + 10);
    b->clock->clock_ns = now + 10;
    sched_step(b);
    sched_logged(b, "a");
    kit_sched_arm(b->s, &alarms[0].timer, now + 100); /* later ... */
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), now + 100);
    kit_sched_arm(b->s, &alarms[0].timer, now + 50); /* ... and earlier again */
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), now + 50);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).armed, 1);
    KIT_CHECK(b->report, kit_sched_cancel(b->s, &alarms[0].timer));
    KIT_CHECK(b->report, !kit_sched_cancel(b->s, &alarms[0].timer));
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), KIT_NEVER);
    sched_bench_close(b);
}

static void rearmed_alarm_run(struct kit_timer *timer)
{
    struct alarm *alarm = KIT_CONTAINER_OF(timer, struct alarm, timer);
    sched_log(alarm->b, alarm->letter);
    kit_sched_arm(alarm->b->s, timer, 0);
}

static void timer_armed_for_the_past_does_not_starve_others(struct sched_bench *b)
{
    struct alarm alarms[3];
    if (!sched_bench_open(b, __func__))
        return;
    alarm_make(b, alarms, 3);
    alarms[0].timer.run = rearmed_alarm_run;
    kit_sched_arm(b->s, &alarms[0].timer, 0);
    kit_sched_arm(b->s, &alarms[1].timer, b->clock->clock_ns);
    KIT_CHECK(b->report, kit_sched_deadline_ns(b->s) <= b->clock->clock_ns);
    sched_step(b);
    sched_logged(b, "ab");
    kit_sched_arm(b->s, &alarms[2].timer, 1);
    sched_step(b);
    sched_logged(b, "ac");
    kit_sched_cancel(b->s, &alarms[0].timer);
    sched_bench_close(b);
}

struct timer_model {
    struct alarm alarms[TIMER_COUNT];
    uint64_t deadline[TIMER_COUNT]; /* KIT_NEVER: not armed */
    uint32_t fired[TIMER_COUNT];
};

static void model_change(struct sched_bench *b, struct timer_model *model)
{
    size_t i = (size_t)(kit_suite_random(&b->random) % TIMER_COUNT);
    uint64_t deadline = b->clock->clock_ns + 1 + kit_suite_random(&b->random) % 200;
    if (kit_suite_random(&b->random) % 3 == 0) {
        bool armed = kit_sched_cancel(b->s, &model->alarms[i].timer);
        KIT_CHECK_EQUAL(b->report, armed, model->deadline[i] != KIT_NEVER);
        model->deadline[i] = KIT_NEVER;
        return;
    }
    KIT_CHECK_EQUAL(b->report, kit_sched_arm(b->s, &model->alarms[i].timer, deadline), 0);
    model->deadline[i] = deadline;
}

static void model_compare(struct sched_bench *b, struct timer_model *model)
{
    uint64_t first = KIT_NEVER;
    size_t armed = 0;
    for (size_t i = 0; i < TIMER_COUNT; i++) {
        if (model->deadline[i] <= b->clock->clock_ns) {
            model->deadline[i] = KIT_NEVER;
            model->fired[i]++;
        }
        KIT_CHECK_EQUAL(b->report, model->alarms[i].fired, model->fired[i]);
        armed += model->deadline[i] != KIT_NEVER;
        first = model->deadline[i] < first ? model->deadline[i] : first;
    }
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), first);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).armed, armed);
}

static void timers_agree_with_a_list_of_all(struct sched_bench *b)
{
    struct timer_model *model =
        kit_alloc_alloc(b->heap.inner, sizeof(*model), alignof(struct timer_model));
    if (!KIT_CHECK(b->report, model != NULL))
        return;
    if (sched_bench_open(b, __func__)) {
        alarm_make(b, model->alarms, TIMER_COUNT);
        for (size_t i = 0; i < TIMER_COUNT; i++) {
            model->deadline[i] = KIT_NEVER;
            model->fired[i] = 0;
        }
        for (int round = 0; round < TIMER_ROUNDS; round++) {
            for (uint64_t n = kit_suite_random(&b->random) % 8; n > 0; n--)
                model_change(b, model);
            b->clock->clock_ns += kit_suite_random(&b->random) % 20;
            sched_step(b);
            model_compare(b, model);
        }
        sched_bench_close(b);
    }
    kit_alloc_free(b->heap.inner, model, sizeof(*model), alignof(struct timer_model));
}

static void arming_without_memory_has_no_effect(struct sched_bench *b)
{
    struct alarm alarms[TIMER_COUNT];
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t now = b->clock->clock_ns;
    size_t armed = 0;
    alarm_make(b, alarms, TIMER_COUNT);
    for (size_t i = 0; i < TIMER_COUNT; i++) {
        b->heap.fail_at = b->heap.calls + 1; /* every other try fails where memory is needed */
        int rc = kit_sched_arm(b->s, &alarms[i].timer, now + 1 + i);
        KIT_CHECK(b->report, rc == 0 || rc == KIT_ENOMEM);
        b->heap.fail_at = 0;
        if (rc != 0) {
            KIT_CHECK_EQUAL(b->report, sched_stats(b).armed, armed);
            KIT_CHECK_EQUAL(b->report, kit_sched_arm(b->s, &alarms[i].timer, now + 1 + i), 0);
        }
        KIT_CHECK_EQUAL(b->report, sched_stats(b).armed, ++armed);
        KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
    }
    b->clock->clock_ns = now + TIMER_COUNT;
    sched_step(b);
    for (size_t i = 0; i < TIMER_COUNT; i++)
        KIT_CHECK_EQUAL(b->report, alarms[i].fired, 1);
    sched_bench_close(b);
}

static void close_frees_with_work_and_timers_left(struct sched_bench *b)
{
    struct work_item items[2];
    struct alarm alarms[40];
    if (!sched_bench_open(b, __func__))
        return;
    work_make(b, items, 2);
    alarm_make(b, alarms, 40);
    for (size_t i = 0; i < 40; i++)
        kit_sched_arm(b->s, &alarms[i].timer, KIT_NEVER - i);
    kit_sched_post(b->s, &items[0].work);
    sched_bench_close(b);
}

void sched_suite_events(struct sched_bench *b)
{
    work_runs_once_in_order_of_posting(b);
    work_posted_by_work_waits_for_the_next_turn(b);
    work_can_be_cancelled_also_within_its_turn(b);
    timers_fire_by_deadline_then_by_order_of_arming(b);
    timers_rearm_and_cancel_from_their_function(b);
    timer_armed_for_the_past_does_not_starve_others(b);
    timers_agree_with_a_list_of_all(b);
    arming_without_memory_has_no_effect(b);
    close_frees_with_work_and_timers_left(b);
}
