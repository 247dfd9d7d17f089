/* SPDX-License-Identifier: MIT */
/* Scheduler suite: mutex, condition and semaphore of sync.h. */
#include <unikit/testing/suite_sched_bench.h>

enum { SYNC_TASKS = 8, SYNC_ROUNDS = 50, SYNC_SLOTS = 3 };

struct shared {
    struct sched_bench *b;
    struct kit_mutex mutex;
    struct kit_condition condition;
    struct kit_condition other;
    struct kit_semaphore semaphore;
    uint32_t inside; /* of the mutex */
    uint32_t sum;
    uint32_t items;
    uint32_t produced;
};

struct party {
    struct shared *shared;
    char letter;
    uint64_t deadline_ns;
    int rc;
    struct kit_task *task;
};

static void parties_make(struct shared *shared, struct party *parties, size_t count)
{
    for (size_t i = 0; i < count; i++)
        parties[i] = (struct party){
            .shared = shared, .letter = (char)('a' + (int)i), .deadline_ns = KIT_NEVER, .rc = 77};
}

static void parties_spawn(struct shared *shared, struct party *parties, size_t count,
                          void (*entry)(void *))
{
    for (size_t i = 0; i < count; i++)
        parties[i].task = sched_spawn(shared->b, entry, &parties[i], 0);
}

static void parties_join(struct sched_bench *b, struct party *parties, size_t count)
{
    for (size_t i = 0; i < count; i++)
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, parties[i].task, 0), 0);
}

/* ---- mutex ---------------------------------------------------------------------------------- */

static void mutex_run(void *argument)
{
    struct party *party = argument;
    struct shared *shared = party->shared;
    struct kit_sched *s = shared->b->s;
    for (int i = 0; i < SYNC_ROUNDS; i++) {
        KIT_CHECK_EQUAL(shared->b->report, kit_mutex_lock(s, &shared->mutex, KIT_NEVER), 0);
        KIT_CHECK_EQUAL(shared->b->report, shared->inside++, 0);
        uint32_t seen = shared->sum;
        for (uint64_t n = kit_suite_random(&shared->b->random) % 3; n > 0; n--)
            kit_sched_yield(s);
        shared->sum = seen + 1;
        shared->inside--;
        kit_mutex_unlock(s, &shared->mutex);
        if (kit_suite_random(&shared->b->random) % 2)
            kit_sched_yield(s);
    }
}

static void mutex_excludes(struct sched_bench *b)
{
    struct shared shared = {.b = b};
    struct party parties[SYNC_TASKS];
    if (!sched_bench_open(b, __func__))
        return;
    parties_make(&shared, parties, SYNC_TASKS);
    parties_spawn(&shared, parties, SYNC_TASKS, mutex_run);
    sched_settle(b, SYNC_TASKS * SYNC_ROUNDS * 5);
    KIT_CHECK_EQUAL(b->report, shared.sum, SYNC_TASKS * SYNC_ROUNDS);
    KIT_CHECK(b->report, shared.mutex.owner == NULL && shared.mutex.waiters.first == NULL);
    parties_join(b, parties, SYNC_TASKS);
    sched_bench_close(b);
}

static void holder_run(void *argument)
{
    struct party *party = argument;
    struct kit_sched *s = party->shared->b->s;
    party->rc = kit_mutex_lock(s, &party->shared->mutex, party->deadline_ns);
    sched_log(party->shared->b, party->rc == 0 ? party->letter : '-');
    if (party->rc != 0)
        return;
    kit_sched_block(s, KIT_NEVER);
    kit_mutex_unlock(s, &party->shared->mutex);
    KIT_CHECK_EQUAL(party->shared->b->report, kit_mutex_trylock(s, &party->shared->mutex),
                    party->letter == 'd' ? 0 : KIT_EAGAIN); /* handed on, unless it was the last */
}

static void mutex_is_handed_on_in_order_of_arrival(struct sched_bench *b)
{
    struct shared shared = {.b = b};
    struct party parties[4];
    if (!sched_bench_open(b, __func__))
        return;
    KIT_CHECK_EQUAL(b->report, kit_mutex_lock(b->s, &shared.mutex, 0), KIT_ENOTSUP);
    KIT_CHECK_EQUAL(b->report, kit_mutex_trylock(b->s, &shared.mutex), KIT_ENOTSUP);
    parties_make(&shared, parties, 4);
    parties[2].deadline_ns = b->clock->clock_ns + 10; /* leaves the middle of the queue */
    parties_spawn(&shared, parties, 4, holder_run);
    sched_settle(b, 4);
    sched_logged(b, "a");
    kit_sched_wake(b->s, parties[1].task); /* meant for nothing: it must go on waiting */
    sched_settle(b, 4);
    sched_logged(b, "");
    b->clock->clock_ns += 10;
    sched_settle(b, 4);
    sched_logged(b, "-");
    KIT_CHECK_EQUAL(b->report, parties[2].rc, KIT_ETIMEDOUT);
    kit_sched_wake(b->s, parties[0].task);
    sched_settle(b, 4);
    sched_logged(b, "b");
    kit_sched_wake(b->s, parties[1].task);
    sched_settle(b, 4);
    sched_logged(b, "d");
    kit_sched_wake(b->s, parties[3].task);
    sched_settle(b, 4);
    parties_join(b, parties, 4);
    sched_bench_close(b);
}

/* ---- condition ------------------------------------------------------------------------------ */

static void condition_run(void *argument)
{
    struct party *party = argument;
    struct shared *shared = party->shared;
    struct kit_sched *s = shared->b->s;
    kit_mutex_lock(s, &shared->mutex, KIT_NEVER);
    party->rc = kit_condition_wait(s, &shared->condition, &shared->mutex, party->deadline_ns);
    KIT_CHECK(shared->b->report, shared->mutex.owner == party->task); /* in any case */
    sched_log(shared->b, party->rc == 0 ? party->letter : '-');
    kit_mutex_unlock(s, &shared->mutex);
}

static void condition_serves_in_order_and_times_out(struct sched_bench *b)
{
    struct shared shared = {.b = b};
    struct party parties[5];
    if (!sched_bench_open(b, __func__))
        return;
    parties_make(&shared, parties, 5);
    parties[1].deadline_ns = b->clock->clock_ns + 10;
    parties_spawn(&shared, parties, 5, condition_run);
    sched_settle(b, 4);
    sched_logged(b, "");
    kit_condition_signal(b->s, &shared.condition);
    sched_settle(b, 4);
    sched_logged(b, "a");
    b->clock->clock_ns += 10;
    sched_settle(b, 4);
    sched_logged(b, "-");
    KIT_CHECK_EQUAL(b->report, parties[1].rc, KIT_ETIMEDOUT);
    kit_sched_wake(b->s, parties[2].task); /* no signal */
    sched_settle(b, 4);
    sched_logged(b, "");
    kit_condition_broadcast(b->s, &shared.condition);
    sched_settle(b, 8);
    sched_logged(b, "cde");
    kit_condition_signal(b->s, &shared.condition); /* nobody waits: no effect */
    parties_join(b, parties, 5);
    sched_bench_close(b);
}

static void keeper_run(void *argument)
{
    struct party *party = argument;
    struct shared *shared = party->shared;
    kit_mutex_lock(shared->b->s, &shared->mutex, KIT_NEVER);
    kit_condition_signal(shared->b->s, &shared->condition);
    kit_sched_block(shared->b->s, KIT_NEVER);
    kit_mutex_unlock(shared->b->s, &shared->mutex);
}

/* A signalled waiter whose deadline passes while it waits for the mutex was signalled. */
static void a_signal_is_not_lost_to_a_deadline(struct sched_bench *b)
{
    struct shared shared = {.b = b};
    struct party parties[2];
    if (!sched_bench_open(b, __func__))
        return;
    parties_make(&shared, parties, 2);
    parties[0].deadline_ns = b->clock->clock_ns + 10;
    parties_spawn(&shared, parties, 1, condition_run);
    sched_settle(b, 4);
    parties[1].task = sched_spawn(b, keeper_run, &parties[1], 0);
    sched_settle(b, 4);
    b->clock->clock_ns += 20;
    sched_settle(b, 4);
    sched_logged(b, "");
    kit_sched_wake(b->s, parties[1].task);
    sched_settle(b, 4);
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, parties[0].rc, 0);
    parties_join(b, parties, 2);
    sched_bench_close(b);
}

/* ---- semaphore ------------------------------------------------------------------------------ */

static void semaphore_run(void *argument)
{
    struct party *party = argument;
    struct shared *shared = party->shared;
    party->rc = kit_semaphore_wait(shared->b->s, &shared->semaphore, party->deadline_ns);
    sched_log(shared->b, party->rc == 0 ? party->letter : '-');
}

static void semaphore_counts_and_serves_in_order(struct sched_bench *b)
{
    struct shared shared = {.b = b, .semaphore = {.count = 2}};
    struct party parties[6];
    if (!sched_bench_open(b, __func__))
        return;
    KIT_CHECK_EQUAL(b->report, kit_semaphore_wait(b->s, &shared.semaphore, 0), KIT_ENOTSUP);
    parties_make(&shared, parties, 6);
    parties[3].deadline_ns = b->clock->clock_ns + 10;
    parties_spawn(&shared, parties, 6, semaphore_run);
    sched_settle(b, 4);
    sched_logged(b, "ab");
    kit_semaphore_post(b->s, &shared.semaphore);
    sched_settle(b, 4);
    sched_logged(b, "c");
    b->clock->clock_ns += 10;
    sched_settle(b, 4);
    sched_logged(b, "-");
    for (int i = 0; i < 3; i++)
        kit_semaphore_post(b->s, &shared.semaphore);
    sched_settle(b, 4);
    sched_logged(b, "ef");
    KIT_CHECK_EQUAL(b->report, shared.semaphore.count, 1);
    parties_join(b, parties, 6);
    sched_bench_close(b);
}

struct poster {
    struct kit_timer timer;
    struct shared *shared;
};

static void poster_run(struct kit_timer *timer)
{
    struct poster *poster = KIT_CONTAINER_OF(timer, struct poster, timer);
    kit_semaphore_post(poster->shared->b->s, &poster->shared->semaphore);
}

/* Post and deadline fall into one turn: whichever comes first, the unit is not lost. */
static void a_post_is_not_lost_to_a_deadline(struct sched_bench *b)
{
    for (int first = 0; first < 2; first++) {
        struct shared shared = {.b = b};
        struct poster poster = {.timer = {.run = poster_run}, .shared = &shared};
        struct party parties[1];
        if (!sched_bench_open(b, __func__))
            return;
        uint64_t deadline = b->clock->clock_ns + 10;
        parties_make(&shared, parties, 1);
        parties[0].deadline_ns = deadline;
        if (first)
            kit_sched_arm(b->s, &poster.timer, deadline);
        parties_spawn(&shared, parties, 1, semaphore_run);
        sched_settle(b, 4);
        if (!first)
            kit_sched_arm(b->s, &poster.timer, deadline);
        b->clock->clock_ns = deadline;
        sched_settle(b, 4);
        KIT_CHECK_EQUAL(b->report, parties[0].rc, 0);
        KIT_CHECK_EQUAL(b->report, shared.semaphore.count, 0);
        parties_join(b, parties, 1);
        sched_bench_close(b);
    }
}

/* ---- all together --------------------------------------------------------------------------- */

static void producer_run(void *argument)
{
    struct shared *shared = ((struct party *)argument)->shared;
    struct kit_sched *s = shared->b->s;
    for (int i = 0; i < SYNC_ROUNDS; i++) {
        kit_mutex_lock(s, &shared->mutex, KIT_NEVER);
        while (shared->items == SYNC_SLOTS)
            kit_condition_wait(s, &shared->other, &shared->mutex, KIT_NEVER);
        shared->items++;
        shared->produced++;
        kit_condition_signal(s, &shared->condition);
        if (kit_suite_random(&shared->b->random) % 4 == 0)
            kit_sched_yield(s);
        kit_mutex_unlock(s, &shared->mutex);
    }
}

static void consumer_run(void *argument)
{
    struct shared *shared = ((struct party *)argument)->shared;
    struct kit_sched *s = shared->b->s;
    for (int i = 0; i < SYNC_ROUNDS; i++) {
        kit_mutex_lock(s, &shared->mutex, KIT_NEVER);
        while (shared->items == 0)
            kit_condition_wait(s, &shared->condition, &shared->mutex,
                               shared->b->clock->clock_ns + 3);
        shared->items--;
        shared->sum++;
        kit_condition_signal(s, &shared->other);
        kit_mutex_unlock(s, &shared->mutex);
        if (kit_suite_random(&shared->b->random) % 4 == 0)
            kit_sched_yield(s);
    }
}

static void a_bounded_buffer_keeps_count(struct sched_bench *b)
{
    struct shared shared = {.b = b};
    struct party parties[SYNC_TASKS];
    if (!sched_bench_open(b, __func__))
        return;
    parties_make(&shared, parties, SYNC_TASKS);
    parties_spawn(&shared, parties, SYNC_TASKS / 2, consumer_run);
    parties_spawn(&shared, parties + SYNC_TASKS / 2, SYNC_TASKS / 2, producer_run);
    sched_drain(b, SYNC_TASKS * SYNC_ROUNDS * 10);
    KIT_CHECK_EQUAL(b->report, shared.produced, SYNC_TASKS / 2 * SYNC_ROUNDS);
    KIT_CHECK_EQUAL(b->report, shared.sum, shared.produced);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    parties_join(b, parties, SYNC_TASKS);
    sched_bench_close(b);
}

void sched_suite_sync(struct sched_bench *b)
{
    mutex_excludes(b);
    mutex_is_handed_on_in_order_of_arrival(b);
    condition_serves_in_order_and_times_out(b);
    a_signal_is_not_lost_to_a_deadline(b);
    semaphore_counts_and_serves_in_order(b);
    a_post_is_not_lost_to_a_deadline(b);
    a_bounded_buffer_keeps_count(b);
}
