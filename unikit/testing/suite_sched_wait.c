/* SPDX-License-Identifier: MIT */
/* Scheduler suite: event, once, queue, reader/writer lock and waiting for any of several. */
#include <unikit/testing/suite_sched_bench.h>

enum { WAIT_TASKS = 8, WAIT_ROUNDS = 60, WAIT_SLOTS = 2 };

struct hall {
    struct sched_bench *b;
    struct kit_event event;
    struct kit_event other;
    struct kit_once once;
    struct kit_semaphore semaphore;
    struct kit_queue queue;
    struct kit_rwlock lock;
    uint32_t slots[WAIT_SLOTS];
    uint32_t runs;
    uint64_t sent, received, taken; /* sums and counts */
    uint32_t readers, writers;      /* inside the lock */
};

struct guest {
    struct hall *hall;
    char letter;
    uint32_t value;
    uint64_t deadline_ns;
    int rc;
    struct kit_task *task;
};

static void hall_make(struct hall *hall, struct sched_bench *b, struct guest *guests, size_t count)
{
    *hall = (struct hall){.b = b};
    kit_queue_open(&hall->queue, hall->slots, sizeof(hall->slots[0]), WAIT_SLOTS);
    for (size_t i = 0; i < count; i++)
        guests[i] = (struct guest){.hall = hall,
                                   .letter = (char)('a' + (int)i),
                                   .value = (uint32_t)i,
                                   .deadline_ns = KIT_NEVER,
                                   .rc = 77};
}

static void hall_spawn(struct hall *hall, struct guest *guests, size_t count, void (*entry)(void *))
{
    for (size_t i = 0; i < count; i++)
        guests[i].task = sched_spawn(hall->b, entry, &guests[i], 0);
    sched_settle(hall->b, 8);
}

static void hall_join(struct sched_bench *b, struct guest *guests, size_t count)
{
    for (size_t i = 0; i < count; i++)
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, guests[i].task, 0), 0);
}

static void guest_log(struct guest *guest)
{
    sched_log(guest->hall->b, guest->rc >= 0 ? guest->letter : '-');
}

/* ---- event and once -------------------------------------------------------------------------- */

static void event_run(void *argument)
{
    struct guest *guest = argument;
    guest->rc = kit_event_wait(guest->hall->b->s, &guest->hall->event, guest->deadline_ns);
    guest_log(guest);
}

static void an_event_wakes_all_or_one(struct sched_bench *b)
{
    for (int automatic = 0; automatic < 2; automatic++) {
        struct hall hall;
        struct guest guests[4];
        if (!sched_bench_open(b, __func__))
            return;
        hall_make(&hall, b, guests, 4);
        hall.event.automatic = automatic;
        KIT_CHECK_EQUAL(b->report, kit_event_wait(b->s, &hall.event, KIT_NEVER), KIT_ENOTSUP);
        guests[1].deadline_ns = b->clock->clock_ns + 10;
        hall_spawn(&hall, guests, 3, event_run);
        b->clock->clock_ns += 10;
        sched_settle(b, 4);
        sched_logged(b, "-");
        KIT_CHECK_EQUAL(b->report, guests[1].rc, KIT_ETIMEDOUT);
        kit_event_set(b->s, &hall.event);
        sched_settle(b, 4);
        sched_logged(b, automatic ? "a" : "ac");
        KIT_CHECK_EQUAL(b->report, hall.event.set, !automatic);
        kit_event_set(b->s, &hall.event);
        sched_settle(b, 4);
        sched_logged(b, automatic ? "c" : "");
        kit_event_set(b->s, &hall.event); /* nobody waits: it stays for the next */
        hall_spawn(&hall, guests + 3, 1, event_run);
        sched_logged(b, "d");
        KIT_CHECK_EQUAL(b->report, hall.event.set, !automatic);
        kit_event_clear(b->s, &hall.event);
        KIT_CHECK_EQUAL(b->report, kit_event_wait(b->s, &hall.event, 0), KIT_ENOTSUP);
        hall_join(b, guests, 4);
        sched_bench_close(b);
    }
}

static void once_inside(void *argument)
{
    struct hall *hall = argument;
    hall->runs++;
    kit_sched_yield(hall->b->s);
    hall->runs += 10;
}

static void once_run(void *argument)
{
    struct guest *guest = argument;
    guest->rc = kit_once_run(guest->hall->b->s, &guest->hall->once, once_inside, guest->hall);
    KIT_CHECK_EQUAL(guest->hall->b->report, guest->hall->runs, 11); /* it has returned */
    guest_log(guest);
}

static void once_runs_once_and_all_wait_for_it(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[3];
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, 3);
    hall_spawn(&hall, guests, 3, once_run);
    sched_logged(b, "abc");
    KIT_CHECK_EQUAL(b->report, kit_once_run(b->s, &hall.once, once_inside, &hall), 0);
    KIT_CHECK_EQUAL(b->report, hall.runs, 11);
    hall_join(b, guests, 3);
    sched_bench_close(b);
}

/* ---- queue ----------------------------------------------------------------------------------- */

static void send_run(void *argument)
{
    struct guest *guest = argument;
    guest->rc =
        kit_queue_send(guest->hall->b->s, &guest->hall->queue, &guest->value, guest->deadline_ns);
    guest_log(guest);
}

static void receive_run(void *argument)
{
    struct guest *guest = argument;
    guest->rc = kit_queue_receive(guest->hall->b->s, &guest->hall->queue, &guest->value,
                                  guest->deadline_ns);
    guest_log(guest);
}

static void a_queue_keeps_order_and_its_bound(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[6];
    uint32_t value = 99;
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, 6);
    KIT_CHECK_EQUAL(b->report, kit_queue_receive(b->s, &hall.queue, &value, 0), KIT_ENOTSUP);
    guests[3].deadline_ns = b->clock->clock_ns + 10;
    hall_spawn(&hall, guests, 5, send_run);
    sched_logged(b, "ab"); /* two places */
    b->clock->clock_ns += 10;
    sched_settle(b, 4);
    sched_logged(b, "-");
    KIT_CHECK_EQUAL(b->report, guests[3].rc, KIT_ETIMEDOUT);
    for (uint32_t i = 0; i < 3; i++) {
        KIT_CHECK_EQUAL(b->report, kit_queue_receive(b->s, &hall.queue, &value, 0), 0);
        KIT_CHECK_EQUAL(b->report, value, i);
    }
    sched_settle(b, 4);
    sched_logged(b, "ce");
    KIT_CHECK_EQUAL(b->report, kit_queue_receive(b->s, &hall.queue, &value, 0), 0);
    KIT_CHECK_EQUAL(b->report, value, 4); /* of the one that gave up there is nothing */
    KIT_CHECK_EQUAL(b->report, hall.queue.count, 0);
    hall_join(b, guests, 5);
    sched_bench_close(b);
}

static void a_closed_queue_ends_all_waits(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[5];
    uint32_t value = 7;
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, 5);
    hall_spawn(&hall, guests, 2, receive_run);
    KIT_CHECK_EQUAL(b->report, kit_queue_send(b->s, &hall.queue, &value, 0), 0);
    sched_settle(b, 4);
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, guests[0].value, 7);
    kit_queue_close(b->s, &hall.queue);
    sched_settle(b, 4);
    sched_logged(b, "-");
    KIT_CHECK_EQUAL(b->report, guests[1].rc, KIT_ECLOSED);
    KIT_CHECK_EQUAL(b->report, kit_queue_send(b->s, &hall.queue, &value, 0), KIT_ECLOSED);
    hall_join(b, guests, 2);

    kit_queue_open(&hall.queue, hall.slots, sizeof(hall.slots[0]), WAIT_SLOTS);
    hall_spawn(&hall, guests + 2, 3, send_run);
    kit_queue_close(b->s, &hall.queue);
    sched_settle(b, 4);
    sched_logged(b, "cd-");
    KIT_CHECK_EQUAL(b->report, guests[4].rc, KIT_ECLOSED);
    for (uint32_t i = 2; i < 4; i++) { /* what is in it can be had */
        KIT_CHECK_EQUAL(b->report, kit_queue_receive(b->s, &hall.queue, &value, 0), 0);
        KIT_CHECK_EQUAL(b->report, value, i);
    }
    KIT_CHECK_EQUAL(b->report, kit_queue_receive(b->s, &hall.queue, &value, 0), KIT_ECLOSED);
    hall_join(b, guests + 2, 3);
    sched_bench_close(b);
}

/* ---- readers and writers --------------------------------------------------------------------- */

static void reader_run(void *argument)
{
    struct guest *guest = argument;
    struct hall *hall = guest->hall;
    guest->rc = kit_rwlock_read(hall->b->s, &hall->lock, guest->deadline_ns);
    guest_log(guest);
    if (guest->rc != 0)
        return;
    hall->readers++;
    KIT_CHECK_EQUAL(hall->b->report, hall->writers, 0);
    kit_sched_block(hall->b->s, KIT_NEVER);
    hall->readers--;
    kit_rwlock_unlock(hall->b->s, &hall->lock);
}

static void writer_run(void *argument)
{
    struct guest *guest = argument;
    struct hall *hall = guest->hall;
    guest->rc = kit_rwlock_write(hall->b->s, &hall->lock, guest->deadline_ns);
    guest_log(guest);
    if (guest->rc != 0)
        return;
    KIT_CHECK(hall->b->report, hall->readers == 0 && hall->writers++ == 0);
    kit_sched_block(hall->b->s, KIT_NEVER);
    hall->writers--;
    kit_rwlock_unlock(hall->b->s, &hall->lock);
}

static void readers_share_and_writers_do_not(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[6];
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, 6);
    hall_spawn(&hall, guests, 2, reader_run);
    guests[2].deadline_ns = b->clock->clock_ns + 10;
    hall_spawn(&hall, guests + 2, 1, writer_run);
    hall_spawn(&hall, guests + 3, 1, reader_run); /* behind the writer */
    sched_logged(b, "ab");
    b->clock->clock_ns += 10; /* which gives up */
    sched_settle(b, 4);
    sched_logged(b, "-d");
    hall_spawn(&hall, guests + 4, 1, writer_run);
    hall_spawn(&hall, guests + 5, 1, reader_run);
    static const char *const order[] = {"", "", "", "e", "f", ""};
    static const size_t ends[] = {0, 1, 2, 3, 4, 5};
    for (size_t i = 0; i < 6; i++) {
        if (ends[i] == 2)
            continue;
        kit_sched_wake(b->s, guests[ends[i]].task);
        sched_settle(b, 4);
        sched_logged(b, order[i]);
    }
    hall_join(b, guests, 6);
    sched_bench_close(b);
}

/* ---- any of several -------------------------------------------------------------------------- */

enum { ANY_EVENT, ANY_SEMAPHORE, ANY_RECEIVE, ANY_TASK, ANY_COUNT };

static void any_choices(struct guest *guest, struct kit_choice *choices)
{
    struct hall *hall = guest->hall;
    choices[ANY_EVENT] = (struct kit_choice){.kind = KIT_WAIT_EVENT, .object = &hall->event};
    choices[ANY_SEMAPHORE] =
        (struct kit_choice){.kind = KIT_WAIT_SEMAPHORE, .object = &hall->semaphore};
    choices[ANY_RECEIVE] = (struct kit_choice){
        .kind = KIT_WAIT_RECEIVE, .object = &hall->queue, .item = &guest->value};
    choices[ANY_TASK] = (struct kit_choice){.kind = KIT_WAIT_TASK, .object = guest->task};
}

/* Waits for any; its own `task` member names the task to wait for, NULL: none. */
static void any_run(void *argument)
{
    struct guest *guest = argument;
    struct kit_choice choices[ANY_COUNT];
    any_choices(guest, choices);
    guest->rc = kit_wait_any(guest->hall->b->s, choices,
                             guest->task != NULL ? ANY_COUNT : ANY_COUNT - 1, guest->deadline_ns);
    if (guest->rc >= 0)
        KIT_CHECK_EQUAL(guest->hall->b->report, choices[guest->rc].rc, 0);
    sched_log(guest->hall->b, (char)(guest->rc >= 0 ? '0' + guest->rc : '-'));
}

static void any_takes_one_alone(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[3];
    uint32_t value = 42;
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, 3);
    hall.event.automatic = true;
    guests[1].deadline_ns = b->clock->clock_ns + 10;
    for (size_t i = 0; i < 3; i++)
        sched_spawn(b, any_run, &guests[i], KIT_TASK_DETACHED);
    sched_settle(b, 4);
    sched_logged(b, "");
    kit_semaphore_post(b->s, &hall.semaphore); /* for the first; and while it is served ... */
    KIT_CHECK_EQUAL(b->report, kit_queue_send(b->s, &hall.queue, &value, 0), 0); /* ... the next */
    kit_event_set(b->s, &hall.event);                                            /* the third */
    kit_event_set(b->s, &hall.event); /* nobody is left */
    sched_settle(b, 4);
    sched_logged(b, "120");
    KIT_CHECK_EQUAL(b->report, guests[1].value, 42);
    KIT_CHECK_EQUAL(b->report, hall.event.set, true);
    KIT_CHECK_EQUAL(b->report, hall.semaphore.count, 0);
    KIT_CHECK(b->report, hall.event.waiters.first == NULL && hall.queue.receivers.first == NULL &&
                             hall.semaphore.waiters.first == NULL);
    guests[0].deadline_ns = b->clock->clock_ns + 10;
    kit_event_clear(b->s, &hall.event);
    sched_spawn(b, any_run, &guests[0], KIT_TASK_DETACHED);
    sched_settle(b, 4);
    b->clock->clock_ns += 10;
    sched_settle(b, 4);
    sched_logged(b, "-");
    KIT_CHECK_EQUAL(b->report, guests[0].rc, KIT_ETIMEDOUT);
    KIT_CHECK(b->report, hall.event.waiters.first == NULL);
    sched_bench_close(b);
}

static void any_sees_tasks_end(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[3];
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, 3);
    for (int late = 0; late < 2; late++) { /* before and after it has ended */
        struct kit_task *other = sched_spawn(b, event_run, &guests[0], 0);
        guests[1].task = other;
        if (late) {
            kit_event_set(b->s, &hall.other);
            hall.event.set = true;
            sched_settle(b, 4);
            hall.event.set = false;
        }
        sched_spawn(b, any_run, &guests[1], KIT_TASK_DETACHED);
        sched_settle(b, 4);
        if (!late) {
            sched_logged(b, "");
            KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, other, 0), KIT_EINVAL); /* attended */
            struct kit_waiter *first = hall.event.waiters.first; /* the task, not the other */
            kit_sched_wake(b->s, first->wait->task);             /* meant for nothing */
            sched_settle(b, 4);
            hall.event.automatic = true;
            kit_event_set(b->s, &hall.event);
            sched_settle(b, 4);
            hall.event.automatic = false;
        }
        sched_logged(b, "a3");
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, other, 0), 0);
    }
    sched_bench_close(b);
}

/* Many wait for any of three; each thing that is given out is had by exactly one. */
static void taker_run(void *argument)
{
    struct guest *guest = argument;
    struct hall *hall = guest->hall;
    struct kit_choice choices[ANY_COUNT];
    for (int i = 0; i < WAIT_ROUNDS; i++) {
        any_choices(guest, choices);
        uint64_t patience = kit_suite_random(&hall->b->random) % 4;
        int rc = kit_wait_any(hall->b->s, choices, ANY_COUNT - 1,
                              patience == 0 ? KIT_NEVER : hall->b->clock->clock_ns + patience);
        hall->taken += rc >= 0;
        hall->received += rc == ANY_RECEIVE ? guest->value : 0;
        i -= rc < 0; /* that one does not count */
        if (kit_suite_random(&hall->b->random) % 3 == 0)
            kit_sched_yield(hall->b->s);
    }
}

static void what_is_given_is_had_by_one(struct sched_bench *b)
{
    struct hall hall;
    struct guest guests[WAIT_TASKS];
    uint64_t given = 0, all = (uint64_t)WAIT_TASKS * WAIT_ROUNDS;
    if (!sched_bench_open(b, __func__))
        return;
    hall_make(&hall, b, guests, WAIT_TASKS);
    hall.event.automatic = true;
    hall_spawn(&hall, guests, WAIT_TASKS, taker_run);
    while (given < all) {
        for (uint64_t n = kit_suite_random(&b->random) % 4; n > 0 && given < all; n--) {
            uint32_t value = (uint32_t)(kit_suite_random(&b->random) % 1000);
            if (n == 1 && !hall.event.set) {
                kit_event_set(b->s, &hall.event);
            } else if (n == 2 && kit_queue_send(b->s, &hall.queue, &value, 0) == 0) {
                hall.sent += value;
            } else {
                kit_semaphore_post(b->s, &hall.semaphore);
            }
            given++;
        }
        sched_step(b);
        b->clock->clock_ns += kit_suite_random(&b->random) % 3;
    }
    sched_drain(b, 10000);
    KIT_CHECK_EQUAL(b->report, hall.taken, all);
    KIT_CHECK_EQUAL(b->report, hall.received, hall.sent);
    KIT_CHECK_EQUAL(b->report, hall.semaphore.count + hall.queue.count + hall.event.set, 0);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    hall_join(b, guests, WAIT_TASKS);
    sched_bench_close(b);
}

void sched_suite_wait(struct sched_bench *b)
{
    an_event_wakes_all_or_one(b);
    once_runs_once_and_all_wait_for_it(b);
    a_queue_keeps_order_and_its_bound(b);
    a_closed_queue_ends_all_waits(b);
    readers_share_and_writers_do_not(b);
    any_takes_one_alone(b);
    what_is_given_is_had_by_one(b);
    if (b->component->ops->attend != NULL)
        any_sees_tasks_end(b);
}
