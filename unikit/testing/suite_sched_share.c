/* SPDX-License-Identifier: MIT */
/* Scheduler suite: policies that give tasks different shares of the processor. */
#include <unikit/testing/suite_sched_bench.h>

enum { PLAYERS = 6 };

struct stage {
    struct sched_bench *b;
    struct kit_mutex mutex[2];
    struct kit_semaphore semaphore;
};

struct player {
    struct stage *stage;
    char letter;
    uint32_t count;
    uint64_t deadline_ns;
    struct kit_task *task;
    uint32_t after; /* its priority when it had given all mutexes back */
    int rc;
};

static struct kit_task *share_spawn(struct sched_bench *b, void (*entry)(void *),
                                    struct player *player, uint32_t priority)
{
    const struct kit_task_share share = {.priority = priority};
    const struct kit_task_spec spec = {
        .entry = entry, .argument = player, .name = "player", .share = &share};
    player->rc = 77;
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, &player->task), 0);
    return player->task;
}

static uint32_t share_level(struct sched_bench *b, const struct player *player)
{
    struct kit_task_share share;
    KIT_CHECK_EQUAL(b->report, kit_sched_get_share(b->s, player->task, &share), 0);
    return share.priority;
}

static void share_join(struct sched_bench *b, struct player *players, size_t count)
{
    for (size_t i = 0; i < count; i++)
        KIT_CHECK_EQUAL(b->report, kit_sched_join(b->s, players[i].task, 0), 0);
}

static void log_run(void *argument)
{
    struct player *player = argument;
    for (uint32_t i = 0; i < player->count; i++) {
        sched_log(player->stage->b, player->letter);
        kit_sched_yield(player->stage->b->s);
    }
}

/* ---- who runs -------------------------------------------------------------------------------- */

static void the_highest_priority_runs_first(struct sched_bench *b)
{
    static const uint32_t priorities[PLAYERS] = {1, KIT_SCHED_PRIORITY_MAX, 0, 5, 5, 1};
    struct stage stage = {.b = b};
    struct player players[PLAYERS];
    if (!sched_bench_open(b, __func__))
        return;
    for (uint32_t i = 0; i < PLAYERS; i++) {
        players[i] = (struct player){.stage = &stage, .letter = (char)('a' + (int)i), .count = 2};
        share_spawn(b, log_run, &players[i], priorities[i]);
        KIT_CHECK_EQUAL(b->report, share_level(b, &players[i]), priorities[i]);
    }
    sched_settle(b, 8);
    sched_logged(b, "bbdedeafafcc");
    share_join(b, players, PLAYERS);
    sched_bench_close(b);
}

static void a_turn_ends_under_a_task_that_never_blocks(struct sched_bench *b)
{
    struct stage stage = {.b = b};
    struct player players[2] = {{.stage = &stage, .letter = 'a', .count = 20},
                                {.stage = &stage, .letter = 'b', .count = 1}};
    if (!sched_bench_open(b, __func__))
        return;
    share_spawn(b, log_run, &players[0], 9);
    share_spawn(b, log_run, &players[1], 8);
    sched_step(b);
    sched_logged(b, "aa"); /* two were ready */
    sched_settle(b, 14);
    sched_logged(b, "aaaaaaaaaaaaaaaaaab");
    share_join(b, players, 2);
    sched_bench_close(b);
}

static void wait_run(void *argument)
{
    struct player *player = argument;
    struct stage *stage = player->stage;
    player->rc = kit_semaphore_wait(stage->b->s, &stage->semaphore, KIT_NEVER);
    sched_log(stage->b, player->letter);
}

static void post_run(void *argument)
{
    struct player *player = argument;
    kit_semaphore_post(player->stage->b->s, &player->stage->semaphore);
    log_run(player);
}

static void a_woken_task_runs_before_lower_ones_of_the_turn(struct sched_bench *b)
{
    struct stage stage = {.b = b};
    struct player players[4];
    if (!sched_bench_open(b, __func__))
        return;
    for (uint32_t i = 0; i < 4; i++)
        players[i] = (struct player){.stage = &stage, .letter = (char)('a' + (int)i), .count = 1};
    share_spawn(b, wait_run, &players[0], 7);
    sched_settle(b, 3);
    share_spawn(b, post_run, &players[1], 2);
    share_spawn(b, log_run, &players[2], 2);
    share_spawn(b, log_run, &players[3], 2);
    sched_settle(b, 6);
    sched_logged(b, "bacd");
    share_join(b, players, 4);
    sched_bench_close(b);
}

static void a_share_can_change(struct sched_bench *b)
{
    struct stage stage = {.b = b};
    struct player players[3];
    struct kit_task_share share = {.priority = KIT_SCHED_PRIORITY_MAX + 1};
    if (!sched_bench_open(b, __func__))
        return;
    for (uint32_t i = 0; i < 3; i++) {
        players[i] = (struct player){.stage = &stage, .letter = (char)('a' + (int)i), .count = 1};
        share_spawn(b, log_run, &players[i], 4);
    }
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, players[1].task, &share), KIT_EINVAL);
    KIT_CHECK_EQUAL(b->report, share_level(b, &players[1]), 4);
    share.priority = 3;
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, players[0].task, &share), 0);
    share.priority = 5;
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, players[2].task, &share), 0);
    sched_settle(b, 6);
    sched_logged(b, "cba");
    share_join(b, players, 3);
    const struct kit_task_spec spec = {.entry = log_run,
                                       .argument = &players[0],
                                       .priority = KIT_SCHED_PRIORITY_MAX + 1,
                                       .flags = KIT_TASK_DETACHED};
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, NULL), KIT_EINVAL);
    KIT_CHECK_EQUAL(b->report, sched_stats(b).tasks, 0);
    sched_bench_close(b);
}

/* ---- inheritance ------------------------------------------------------------------------------
 */

/* Takes the mutexes that the bits of `count` name, in order, and gives them back after a wait. */
static void lock_run(void *argument)
{
    struct player *player = argument;
    struct stage *stage = player->stage;
    struct kit_sched *s = stage->b->s;
    for (uint32_t i = 0; i < 2 && player->rc != KIT_ETIMEDOUT; i++)
        if (player->count & (1U << i))
            player->rc = kit_mutex_lock(s, &stage->mutex[i], player->deadline_ns);
    if (player->rc == KIT_ETIMEDOUT)
        return;
    kit_semaphore_wait(s, &stage->semaphore, KIT_NEVER);
    for (uint32_t i = 2; i-- > 0;)
        if (player->count & (1U << i))
            kit_mutex_unlock(s, &stage->mutex[i]);
    player->after = share_level(stage->b, player);
    sched_log(stage->b, player->letter);
}

/* Low holds what high waits for, while middle does not let anybody lower run: the inversion that
 * stopped Mars Pathfinder. */
static void who_holds_a_mutex_inherits_the_priority(struct sched_bench *b)
{
    struct stage stage = {.b = b};
    struct player low = {.stage = &stage, .letter = 'l', .count = 1, .deadline_ns = KIT_NEVER},
                  middle = {.stage = &stage, .letter = 'm', .count = 3}, high = low;
    if (!sched_bench_open(b, __func__))
        return;
    high.letter = 'h';
    share_spawn(b, lock_run, &low, 1);
    sched_settle(b, 3);
    share_spawn(b, lock_run, &high, 9);
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, share_level(b, &low), 9);
    share_spawn(b, log_run, &middle, 5);
    kit_semaphore_post(b->s, &stage.semaphore); /* for low */
    kit_semaphore_post(b->s, &stage.semaphore); /* for high */
    sched_settle(b, 9);
    sched_logged(b, "lhmmm");                 /* and not mmmlh */
    KIT_CHECK_EQUAL(b->report, low.after, 1); /* what was lent is given back with the mutex */
    KIT_CHECK_EQUAL(b->report, high.after, 9);
    share_join(b, &low, 1);
    share_join(b, &middle, 1);
    share_join(b, &high, 1);
    sched_bench_close(b);
}

static void inheritance_goes_through_a_chain_and_ends(struct sched_bench *b)
{
    struct stage stage = {.b = b};
    struct player first = {.stage = &stage, .letter = 'a', .count = 1, .deadline_ns = KIT_NEVER};
    struct player second = first, third = first;
    if (!sched_bench_open(b, __func__))
        return;
    uint64_t now = b->clock->clock_ns;
    share_spawn(b, lock_run, &first, 1); /* has mutex 0 */
    sched_settle(b, 3);
    second.letter = 'b';
    second.count = 3;
    stage.mutex[1].owner = NULL;
    share_spawn(b, lock_run, &second, 2); /* waits for mutex 0 */
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, share_level(b, &first), 2);
    third.letter = 'c';
    third.deadline_ns = now + 100;
    share_spawn(b, lock_run, &third, 8); /* waits for mutex 0 as well, but not for ever */
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, share_level(b, &first), 8);
    struct kit_task_share share = {.priority = 11};
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, third.task, &share), 0);
    KIT_CHECK_EQUAL(b->report, share_level(b, &first), 11);
    b->clock->clock_ns = now + 100;
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, third.rc, KIT_ETIMEDOUT);
    KIT_CHECK_EQUAL(b->report, share_level(b, &first), 2); /* what third lent is gone */
    kit_semaphore_post(b->s, &stage.semaphore);
    sched_settle(b, 3); /* first gives mutex 0 to second, and ends */
    sched_logged(b, "a");
    KIT_CHECK_EQUAL(b->report, share_level(b, &second), 2);
    struct player fourth = {.stage = &stage, .letter = 'd', .count = 1, .deadline_ns = KIT_NEVER};
    struct player fifth = fourth;
    fifth.letter = 'e';
    share_spawn(b, lock_run, &fourth, 6);
    sched_settle(b, 3);
    share_spawn(b, lock_run, &fifth, 7);
    sched_settle(b, 3);
    KIT_CHECK_EQUAL(b->report, share_level(b, &second), 7);
    kit_semaphore_post(b->s, &stage.semaphore);
    sched_settle(b, 3);
    sched_logged(b, "b");
    KIT_CHECK_EQUAL(b->report, share_level(b, &fourth), 7); /* fifth waits for fourth now */
    kit_semaphore_post(b->s, &stage.semaphore);
    kit_semaphore_post(b->s, &stage.semaphore);
    sched_settle(b, 5);
    sched_logged(b, "de");
    share_join(b, &first, 1);
    share_join(b, &second, 1);
    share_join(b, &third, 1);
    share_join(b, &fourth, 1);
    share_join(b, &fifth, 1);
    sched_bench_close(b);
}

void sched_suite_share(struct sched_bench *b)
{
    if (!(b->component->features & KIT_SCHED_PRIORITIES))
        return;
    the_highest_priority_runs_first(b);
    a_turn_ends_under_a_task_that_never_blocks(b);
    a_woken_task_runs_before_lower_ones_of_the_turn(b);
    a_share_can_change(b);
    who_holds_a_mutex_inherits_the_priority(b);
    inheritance_goes_through_a_chain_and_ends(b);
}
