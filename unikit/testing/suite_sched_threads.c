/* SPDX-License-Identifier: MIT */
/* Scheduler suite: tasks that have stacks and may stop anywhere. */
#include <unikit/rt/x86_64/context.h>
#include <unikit/testing/suite_sched_bench.h>

struct actor {
    struct sched_bench *b;
    char letter;
    uint32_t count; /* what it should do how often */
    uint64_t deadline_ns;
    struct kit_task *task;
    struct kit_task *other;
    uint32_t done;
    int rc;
};

static void actors_make(struct sched_bench *b, struct actor *actors, size_t count)
{
    for (size_t i = 0; i < count; i++)
        actors[i] = (struct actor){.b = b, .letter = (char)('a' + (int)(i % 26)), .rc = 77};
}

/* ---- yielding ------------------------------------------------------------------------------- */

static void yield_run(void *argument)
{
    struct actor *actor = argument;
    volatile uint64_t kept[16]; /* what lies on the stack stays */
    for (uint32_t i = 0; i < 16; i++)
        kept[i] = ((uint64_t)(uintptr_t)actor << 8) + i;
    for (; actor->done < actor->count; actor->done++) {
        sched_log(actor->b, actor->letter);
        kit_sched_yield(actor->b->s);
    }
    for (uint32_t i = 0; i < 16; i++)
        KIT_CHECK(actor->b->report, kept[i] == ((uint64_t)(uintptr_t)actor << 8) + i);
}

static void each_ready_task_runs_once_in_each_turn(struct sched_bench *b)
{
    struct actor actors[5];
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, actors, 5);
    for (size_t i = 0; i < 5; i++) {
        actors[i].count = 20;
        sched_spawn(b, yield_run, &actors[i], KIT_TASK_DETACHED);
    }
    for (uint32_t turn = 1; turn <= 20; turn++) {
        sched_step(b);
        KIT_CHECK_EQUAL(b->report, b->logged, 5);
        b->logged = 0;
        for (size_t i = 0; i < 5; i++) /* stopped inside its yield number `turn` */
            KIT_CHECK_EQUAL(b->report, actors[i].done, turn - 1);
    }
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).switches, 5 * 21);
    sched_bench_close(b);
}

/* ---- blocking and waking -------------------------------------------------------------------- */

static void block_run(void *argument)
{
    struct actor *actor = argument;
    for (; actor->done < actor->count; actor->done++) {
        actor->rc = kit_sched_block(actor->b->s, actor->deadline_ns);
        sched_log(actor->b, actor->letter);
    }
}

static void a_wake_ends_a_block(struct sched_bench *b)
{
    struct actor actor;
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, &actor, 1);
    actor.count = 2;
    actor.deadline_ns = KIT_NEVER;
    actor.task = sched_spawn(b, block_run, &actor, 0);
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), KIT_NEVER);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).runnable, 0);
    kit_sched_wake(b->s, actor.task);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), 0);
    kit_sched_wake(b->s, actor.task); /* before it runs: counts as one */
    sched_settle(b, 3);
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, actor.rc, 0);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 1);
    kit_sched_wake(b->s, actor.task);
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actor.task, 0), 0);
    sched_bench_close(b);
}

static void a_wake_before_the_block_is_kept(struct sched_bench *b)
{
    struct actor actor;
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, &actor, 1);
    actor.count = 2;
    actor.deadline_ns = b->clock->clock_ns + 50;
    actor.task = sched_spawn(b, block_run, &actor, 0);
    kit_sched_wake(b->s, actor.task); /* it has not run yet */
    sched_settle(b, 3);
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, actor.rc, 0);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), actor.deadline_ns); /* one only */
    sched_drain(b, 4);
    KIT_CHECK_EQUAL(b->report, actor.rc, KIT_ETIMEDOUT);
    KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actor.task, 0), 0);
    sched_bench_close(b);
}

enum { ROUND_UP = 0x4000, ROUND_X87_UP = 0x800 };

static void rounding_run(void *argument)
{
    struct actor *actor = argument;
    struct kit_control mine = kit_control_read(), other = mine;
    if (actor->letter == 'a') {
        mine.mxcsr |= ROUND_UP;
        mine.x87 |= ROUND_X87_UP;
        kit_control_write(mine);
    }
    for (int i = 0; i < 3; i++) {
        kit_sched_yield(actor->b->s);
        other = kit_control_read();
        actor->done += (other.mxcsr & ROUND_UP) == (mine.mxcsr & ROUND_UP) && other.x87 == mine.x87;
    }
}

static void control_words_are_kept_for_who_changes_them(struct sched_bench *b)
{
    struct actor actors[2];
    struct kit_control before = kit_control_read();
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, actors, 2);
    struct kit_task_spec spec = {.entry = rounding_run,
                                 .argument = &actors[0],
                                 .flags = KIT_TASK_DETACHED | KIT_TASK_CONTROL};
    if (kit_sched_spawn(b->s, &spec, NULL) == 0) { /* KIT_EINVAL: it cannot */
        sched_spawn(b, rounding_run, &actors[1], KIT_TASK_DETACHED);
        sched_settle(b, 8);
        KIT_CHECK_EQUAL(b->report, actors[0].done, 3);
        KIT_CHECK_EQUAL(b->report, actors[1].done, 3);
        struct kit_control after = kit_control_read();
        KIT_CHECK(b->report, (after.mxcsr & ROUND_UP) == (before.mxcsr & ROUND_UP));
        KIT_CHECK_EQUAL(b->report, after.x87, before.x87);
        kit_control_write(before);
    }
    sched_bench_close(b);
}

static void wake_self_run(void *argument)
{
    struct actor *actor = argument;
    kit_sched_wake(actor->b->s, kit_sched_current(actor->b->s));
    actor->done++;
}

/* Memory of tasks is used again; what it remembers is not. */
static void a_wake_dies_with_its_task(struct sched_bench *b)
{
    struct actor actors[2];
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, actors, 2);
    sched_spawn(b, wake_self_run, &actors[0], KIT_TASK_DETACHED);
    sched_settle(b, 4);
    actors[1].count = 1;
    actors[1].deadline_ns = b->clock->clock_ns + 10;
    sched_spawn(b, block_run, &actors[1], KIT_TASK_DETACHED);
    sched_settle(b, 4);
    sched_logged(b, "");
    b->clock->clock_ns += 10;
    sched_settle(b, 4);
    KIT_CHECK_EQUAL(b->report, actors[1].rc, KIT_ETIMEDOUT);
    b->logged = 0;
    sched_bench_close(b);
}

static void a_block_times_out_at_its_deadline(struct sched_bench *b)
{
    struct actor actors[3];
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t now = b->clock->clock_ns;
    actors_make(b, actors, 3);
    for (size_t i = 0; i < 3; i++) {
        actors[i].count = 1;
        actors[i].deadline_ns = now + 100 - 10 * i;
        actors[i].task = sched_spawn(b, block_run, &actors[i], KIT_TASK_DETACHED);
    }
    actors[2].deadline_ns = now; /* has passed already */
    sched_settle(b, 4);
    sched_logged(b, "c");
    KIT_CHECK_EQUAL(b->report, actors[2].rc, KIT_ETIMEDOUT);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), now + 90);
    b->clock->clock_ns = now + 89;
    KIT_CHECK(b->report, !sched_step(b));
    b->clock->clock_ns = now + 90;
    sched_settle(b, 3);
    sched_logged(b, "b");
    kit_sched_wake(b->s, actors[0].task);
    sched_settle(b, 3);
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, actors[0].rc, 0);
    KIT_CHECK_EQUAL(b->report, actors[1].rc, KIT_ETIMEDOUT);
    KIT_CHECK_EQUAL(b->report, kit_sched_deadline_ns(b->s), KIT_NEVER); /* its timer is gone */
    KIT_CHECK_EQUAL(b->report, sched_stats(b).timers, 0); /* only the user's timers count */
    sched_bench_close(b);
}

struct waker {
    struct kit_timer timer;
    struct kit_work work;
    struct actor *actor;
};

static void wake_work_run(struct kit_work *work)
{
    struct waker *waker = KIT_CONTAINER_OF(work, struct waker, work);
    kit_sched_wake(waker->actor->b->s, waker->actor->task);
}

static void wake_timer_run(struct kit_timer *timer)
{
    struct waker *waker = KIT_CONTAINER_OF(timer, struct waker, timer);
    kit_sched_wake(waker->actor->b->s, waker->actor->task);
}

/* The wake comes from a timer that is due in the same turn as the block's own deadline. */
static void a_wake_in_the_turn_of_the_deadline_wins(struct sched_bench *b)
{
    for (int first = 0; first < 2; first++) {
        struct actor actor;
        if (!sched_bench_open(b, __func__))
            return;
        uint64_t deadline = b->clock->clock_ns + 100;
        actors_make(b, &actor, 1);
        actor.count = 1;
        actor.deadline_ns = deadline;
        struct waker waker = {
            .timer = {.run = wake_timer_run}, .work = {.run = wake_work_run}, .actor = &actor};
        if (first)
            kit_sched_arm(b->s, &waker.timer, deadline);
        actor.task = sched_spawn(b, block_run, &actor, 0);
        sched_settle(b, 3);
        if (!first)
            kit_sched_arm(b->s, &waker.timer, deadline);
        b->clock->clock_ns = deadline;
        sched_settle(b, 3);
        KIT_CHECK_EQUAL(b->report, actor.rc, 0);
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actor.task, 0), 0);
        actor.done = 0;
        actor.deadline_ns = KIT_NEVER;
        actor.task = sched_spawn(b, block_run, &actor, 0);
        sched_settle(b, 3);
        kit_sched_post(b->s, &waker.work);
        sched_settle(b, 4);
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actor.task, 0), 0);
        sched_bench_close(b);
    }
}

static void no_timer_run(struct kit_timer *timer)
{
    (void)timer;
}

/* Whatever room timers need, it is not that of tasks. */
static void a_task_can_sleep_when_memory_is_gone(struct sched_bench *b)
{
    struct kit_timer timers[40];
    struct actor actors[10];
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, actors, 10);
    for (size_t i = 0; i < 10; i++) {
        actors[i].count = 1;
        actors[i].deadline_ns = b->clock->clock_ns + 100;
        sched_spawn(b, block_run, &actors[i], KIT_TASK_DETACHED);
    }
    for (size_t i = 0; i < 40; i++) {
        timers[i] = (struct kit_timer){.run = no_timer_run};
        b->heap.fail_at = b->heap.calls + 1;
        int rc = kit_sched_arm(b->s, &timers[i], KIT_NEVER);
        KIT_CHECK(b->report, rc == 0 || rc == KIT_ENOMEM);
    }
    uint64_t calls = b->heap.calls;
    sched_drain(b, 4);
    KIT_CHECK_EQUAL(b->report, b->heap.calls, calls);
    for (size_t i = 0; i < 10; i++)
        KIT_CHECK_EQUAL(b->report, actors[i].rc, KIT_ETIMEDOUT);
    sched_bench_close(b);
}

/* ---- ending and joining --------------------------------------------------------------------- */

static void join_run(void *argument)
{
    struct actor *actor = argument;
    struct kit_sched *s = actor->b->s;
    actor->rc = kit_sched_join(s, kit_sched_current(s), KIT_NEVER);
    KIT_CHECK_EQUAL(actor->b->report, actor->rc, KIT_EINVAL); /* itself */
    actor->rc = kit_sched_join(s, actor->other, actor->deadline_ns);
    sched_log(actor->b, actor->letter);
    if (actor->count > 0) { /* and again, then sees whether a wake was kept */
        actor->rc = kit_sched_join(s, actor->other, KIT_NEVER);
        actor->done = kit_sched_block(s, actor->b->clock->clock_ns) == 0;
        sched_log(actor->b, actor->letter);
    }
}

static void join_waits_for_the_end(struct sched_bench *b)
{
    struct actor actors[4];
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, actors, 4);
    actors[3].count = 3;
    actors[3].task = sched_spawn(b, yield_run, &actors[3], 0);
    for (size_t i = 0; i < 3; i++) { /* c waits for d, b for c, a for b */
        actors[2 - i].other = actors[3 - i].task;
        actors[2 - i].deadline_ns = KIT_NEVER;
        actors[2 - i].task = sched_spawn(b, join_run, &actors[2 - i], 0);
    }
    sched_settle(b, 12);
    sched_logged(b, "dddcba");
    KIT_CHECK_EQUAL(b->report, actors[0].rc, 0);
    KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actors[0].task, 0), 0);
    sched_bench_close(b);
}

static void join_times_out_and_is_no_block(struct sched_bench *b)
{
    struct actor actors[2];
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, actors, 2);
    actors[1].count = 1;
    actors[1].deadline_ns = KIT_NEVER;
    actors[1].task = sched_spawn(b, block_run, &actors[1], 0);
    actors[0].count = 1;
    actors[0].other = actors[1].task;
    actors[0].deadline_ns = b->clock->clock_ns + 10;
    actors[0].task = sched_spawn(b, join_run, &actors[0], 0);
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actors[1].task, 0), KIT_EINVAL); /* taken */
    b->clock->clock_ns += 10;
    sched_settle(b, 3);
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, actors[0].rc, KIT_ETIMEDOUT);
    kit_sched_wake(b->s, actors[0].task); /* it is in join: kept for its next block */
    sched_settle(b, 3);
    sched_logged(b, "");
    kit_sched_wake(b->s, actors[1].task);
    sched_settle(b, 4);
    sched_logged(b, "ba");
    KIT_CHECK_EQUAL(b->report, actors[0].rc, 0);
    KIT_CHECK_EQUAL(b->report, actors[0].done, 1);
    KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actors[0].task, 0), 0);
    sched_bench_close(b);
}

static void exit_deep(struct actor *actor, uint32_t depth)
{
    volatile uint32_t here = depth;
    if (here == 0) {
        kit_sched_exit(actor->b->s);
        return;
    }
    exit_deep(actor, here - 1);
    actor->done++; /* never reached */
}

static void exit_run(void *argument)
{
    exit_deep(argument, 8);
}

static void exit_ends_a_task_anywhere(struct sched_bench *b)
{
    struct actor actor;
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, &actor, 1);
    for (int round = 0; round < 3; round++) { /* on the same stack, where stacks are kept */
        actor.task = sched_spawn(b, exit_run, &actor, 0);
        sched_settle(b, 2);
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, actor.task, 0), 0);
    }
    KIT_CHECK_EQUAL(b->report, actor.done, 0);
    sched_bench_close(b);
}

/* ---- stacks --------------------------------------------------------------------------------- */

enum { STACK_ASKED = 65536, STACK_USED = 49152 };

static void deep_run(void *argument)
{
    struct actor *actor = argument;
    volatile uint8_t room[STACK_USED];
    for (size_t i = 0; i < sizeof(room); i += 64)
        room[i] = (uint8_t)i;
    kit_sched_yield(actor->b->s);
    for (size_t i = 0; i < sizeof(room); i += 64)
        actor->done += room[i] == (uint8_t)i;
}

static void a_stack_has_the_size_asked_for(struct sched_bench *b)
{
    struct actor actor;
    if (!sched_bench_open(b, __func__))
        return;
    actors_make(b, &actor, 1);
    struct kit_task_spec spec = {.entry = deep_run,
                                 .argument = &actor,
                                 .name = "deep",
                                 .stack_size = STACK_ASKED,
                                 .flags = KIT_TASK_DETACHED};
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, NULL), 0);
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, actor.done, STACK_USED / 64);
    size_t peak = sched_stats(b).stack_peak;
    KIT_CHECK(b->report, peak == 0 || peak >= STACK_USED);
    KIT_CHECK(b->report, peak < STACK_ASKED + 4096);
    sched_bench_close(b);
}

void sched_suite_threads(struct sched_bench *b)
{
    each_ready_task_runs_once_in_each_turn(b);
    a_wake_ends_a_block(b);
    a_wake_before_the_block_is_kept(b);
    a_wake_dies_with_its_task(b);
    control_words_are_kept_for_who_changes_them(b);
    a_block_times_out_at_its_deadline(b);
    a_wake_in_the_turn_of_the_deadline_wins(b);
    join_waits_for_the_end(b);
    join_times_out_and_is_no_block(b);
    exit_ends_a_task_anywhere(b);
    a_stack_has_the_size_asked_for(b);
    a_task_can_sleep_when_memory_is_gone(b);
}
