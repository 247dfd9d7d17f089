/* SPDX-License-Identifier: MIT */
/* Scheduler suite for several processors: every task runs, once at a time, where it may, and its
 * wakes and its end reach whoever waits for them. */
#include <unikit/testing/suite_sched_cpus_bench.h>

enum { CROWD_TASKS = 64, CROWD_YIELDS = 60, PAIRS = 8, PAIR_ROUNDS = 300 };
enum { TREE_DEPTH = 8, STORM_TASKS = 300, NAPS = 40, NAP_TASKS = 16 };

/* ---- once at a time ---------------------------------------------------------------------------
 */

struct runner {
    struct cpus_bench *b;
    struct kit_task *task;
    uint32_t inside; /* shared */
    uint32_t runs;
    uint32_t home; /* where it must stay; UINT32_MAX: anywhere */
};

static void runner_check(struct runner *runner)
{
    CPUS_CHECK(runner->b, CPUS_SWAP(runner->inside, 1) == 0);
    CPUS_CHECK(runner->b, kit_sched_current(runner->b->s) == runner->task);
    CPUS_CHECK(runner->b, runner->home == UINT32_MAX || runner->home == cpus_here(runner->b));
    runner->runs++; /* not atomic: only one may be here */
}

static void runner_run(void *argument)
{
    struct runner *runner = argument;
    volatile uint64_t kept[8]; /* what lies on the stack stays */
    for (uint32_t i = 0; i < 8; i++)
        kept[i] = (uint64_t)(uintptr_t)runner + i;
    for (uint32_t i = 0; i < CROWD_YIELDS * runner->b->rounds; i++) {
        runner_check(runner);
        CPUS_SET(runner->inside, 0);
        kit_sched_yield(runner->b->s);
    }
    for (uint32_t i = 0; i < 8; i++)
        CPUS_CHECK(runner->b, kept[i] == (uint64_t)(uintptr_t)runner + i);
    CPUS_CHECK(runner->b, runner->runs == CROWD_YIELDS * runner->b->rounds);
    cpus_done(runner->b);
}

struct crowd {
    struct runner runners[CPUS_MAX][CROWD_TASKS];
    uint32_t flags;
};

static void crowd_start(struct cpus_bench *b, uint32_t cpu)
{
    struct crowd *crowd = b->stage;
    for (uint32_t i = 0; i < CROWD_TASKS; i++) {
        struct runner *runner = &crowd->runners[cpu][i];
        bool anywhere = (crowd->flags >> (i % 2) & 1) != 0;
        *runner = (struct runner){.b = b, .home = anywhere ? UINT32_MAX : cpu};
        struct kit_task_spec spec = {.entry = runner_run,
                                     .argument = runner,
                                     .flags =
                                         KIT_TASK_DETACHED | (anywhere ? KIT_TASK_ANYWHERE : 0)};
        CPUS_CHECK(b, kit_sched_spawn(b->s, &spec, &runner->task) == 0);
    }
}

/* `which`: bit 0, tasks of even number may run anywhere, bit 1, those of odd number. */
static void crowd_test(struct cpus_bench *b, const char *test, uint32_t which)
{
    struct crowd *crowd = kit_alloc_alloc(b->heap.inner, sizeof(*crowd), alignof(struct crowd));
    if (!KIT_CHECK(b->report, crowd != NULL))
        return;
    crowd->flags = which;
    cpus_run(b, test, crowd, crowd_start, b->cpus * CROWD_TASKS);
    if (!b->lost)
        kit_alloc_free(b->heap.inner, crowd, sizeof(*crowd), alignof(struct crowd));
}

/* ---- wakes ------------------------------------------------------------------------------------
 */

/* Two tasks hand a ball to each other, each in the other's turn asleep, about to sleep, or not yet;
 * with deadlines so short that they pass now and then. */
struct player {
    struct cpus_bench *b;
    struct player *other;
    struct kit_task *task; /* shared */
    uint32_t *ball;        /* shared: whose turn it is */
    uint32_t *finished;    /* shared: of the two */
    uint32_t side;
    uint32_t inside; /* shared */
    uint64_t nap_ns; /* 0: no deadline */
};

static void player_run(void *argument)
{
    struct player *player = argument;
    struct cpus_bench *b = player->b;
    uint32_t rounds = PAIR_ROUNDS * b->rounds;
    CPUS_SET(player->task, kit_sched_current(b->s));
    for (uint32_t i = 0; i < rounds; i++) {
        CPUS_CHECK(b, CPUS_SWAP(player->inside, 1) == 0);
        while (CPUS_GET(*player->ball) != player->side) {
            CPUS_SET(player->inside, 0);
            uint64_t deadline_ns =
                player->nap_ns == 0 ? KIT_NEVER : kit_env_now_ns(b->env) + player->nap_ns;
            int rc = kit_sched_block(b->s, deadline_ns);
            CPUS_CHECK(b, CPUS_SWAP(player->inside, 1) == 0);
            CPUS_CHECK(b, rc == 0 || (rc == KIT_ETIMEDOUT && deadline_ns != KIT_NEVER &&
                                      kit_env_now_ns(b->env) >= deadline_ns));
        }
        CPUS_SET(*player->ball, !player->side);
        struct kit_task *other = CPUS_GET(player->other->task);
        CPUS_SET(player->inside, 0);
        if (other != NULL)
            kit_sched_wake(b->s, other);
    }
    CPUS_ADD(*player->finished, 1);
    while (CPUS_GET(*player->finished) < 2) /* the other may be about to wake this one */
        kit_sched_yield(b->s);
}

struct match {
    struct player players[CPUS_MAX][PAIRS][2];
    uint32_t balls[CPUS_MAX][PAIRS];
    uint32_t finished[CPUS_MAX][PAIRS];
    uint32_t flags[2];
    uint64_t nap_ns;
};

static void referee_run(void *argument)
{
    struct player *pair = argument;
    struct cpus_bench *b = pair->b;
    struct match *match = b->stage;
    struct kit_task *tasks[2];
    for (int i = 0; i < 2; i++)
        tasks[i] = cpus_spawn(b, player_run, &pair[i], match->flags[i]);
    for (int i = 0; i < 2; i++)
        CPUS_CHECK(b, tasks[i] != NULL && kit_sched_join(b->s, tasks[i], KIT_NEVER) == 0);
    cpus_done(b);
}

static void match_start(struct cpus_bench *b, uint32_t cpu)
{
    struct match *match = b->stage;
    for (uint32_t i = 0; i < PAIRS; i++) {
        struct player *pair = match->players[cpu][i];
        uint32_t *ball = &match->balls[cpu][i];
        *ball = match->finished[cpu][i] = 0;
        for (uint32_t side = 0; side < 2; side++)
            pair[side] = (struct player){.b = b,
                                         .other = &pair[!side],
                                         .ball = ball,
                                         .finished = &match->finished[cpu][i],
                                         .side = side,
                                         .nap_ns = match->nap_ns * (i % 2)};
        cpus_spawn(b, referee_run, pair, KIT_TASK_DETACHED | KIT_TASK_ANYWHERE);
    }
}

static void match_test(struct cpus_bench *b, const char *test, uint32_t first, uint32_t second,
                       uint64_t nap_ns)
{
    struct match *match = kit_alloc_alloc(b->heap.inner, sizeof(*match), alignof(struct match));
    if (!KIT_CHECK(b->report, match != NULL))
        return;
    match->flags[0] = first;
    match->flags[1] = second;
    match->nap_ns = nap_ns;
    cpus_run(b, test, match, match_start, b->cpus * PAIRS);
    if (!b->lost)
        kit_alloc_free(b->heap.inner, match, sizeof(*match), alignof(struct match));
}

/* ---- ends -------------------------------------------------------------------------------------
 */

struct branch {
    struct cpus_bench *b;
    uint32_t depth;
    uint32_t leaves;
};

static void branch_run(void *argument)
{
    struct branch *branch = argument;
    struct cpus_bench *b = branch->b;
    struct branch below[2] = {{b, branch->depth - 1, 0}, {b, branch->depth - 1, 0}};
    struct kit_task *tasks[2];
    branch->leaves = 1;
    if (branch->depth == 0)
        return;
    for (int i = 0; i < 2; i++)
        tasks[i] = cpus_spawn(b, branch_run, &below[i], KIT_TASK_ANYWHERE);
    branch->leaves = 0;
    for (int i = 0; i < 2; i++) { /* one joins at once, the other gives up again and again */
        uint64_t nap_ns = (branch->depth & 1) != 0 ? 20 * KIT_NS_PER_US : KIT_NEVER;
        int rc;
        do
            rc = kit_sched_join(b->s, tasks[i],
                                nap_ns == KIT_NEVER ? KIT_NEVER : kit_env_now_ns(b->env) + nap_ns);
        while (rc == KIT_ETIMEDOUT);
        CPUS_CHECK(b, rc == 0);
        branch->leaves += below[i].leaves;
    }
}

static void tree_run(void *argument)
{
    struct cpus_bench *b = argument;
    for (uint32_t round = 0; round < b->rounds; round++) {
        struct branch root = {b, TREE_DEPTH, 0};
        branch_run(&root);
        CPUS_CHECK(b, root.leaves == UINT32_C(1) << TREE_DEPTH);
    }
    cpus_done(b);
}

static void tree_start(struct cpus_bench *b, uint32_t cpu)
{
    cpus_spawn(b, tree_run, b, KIT_TASK_DETACHED | (cpu % 2 ? 0 : KIT_TASK_ANYWHERE));
}

static void drop_run(void *argument)
{
    struct cpus_bench *b = argument;
    cpus_done(b);
}

static void storm_run(void *argument)
{
    struct cpus_bench *b = argument;
    for (uint32_t i = 0; i < STORM_TASKS * b->rounds; i++) {
        cpus_spawn(b, drop_run, b, KIT_TASK_DETACHED | (i % 3 ? KIT_TASK_ANYWHERE : 0));
        if (i % 100 == 0)
            kit_sched_yield(b->s);
    }
    cpus_done(b);
}

static void storm_start(struct cpus_bench *b, uint32_t cpu)
{
    (void)cpu;
    cpus_spawn(b, storm_run, b, KIT_TASK_DETACHED | KIT_TASK_ANYWHERE);
}

/* ---- deadlines --------------------------------------------------------------------------------
 */

static void nap_run(void *argument)
{
    struct cpus_bench *b = argument;
    uint64_t random = (uint64_t)(uintptr_t)kit_sched_current(b->s);
    for (uint32_t i = 0; i < NAPS * b->rounds; i++) {
        uint64_t deadline_ns = kit_env_now_ns(b->env) + kit_suite_random(&random) % 100000;
        CPUS_CHECK(b, kit_sched_block(b->s, deadline_ns) == KIT_ETIMEDOUT);
        CPUS_CHECK(b, kit_env_now_ns(b->env) >= deadline_ns);
    }
    cpus_done(b);
}

static void nap_start(struct cpus_bench *b, uint32_t cpu)
{
    (void)cpu;
    for (uint32_t i = 0; i < NAP_TASKS; i++)
        cpus_spawn(b, nap_run, b, KIT_TASK_DETACHED | (i % 2 ? KIT_TASK_ANYWHERE : 0));
}

void cpus_suite_tasks(struct cpus_bench *b)
{
    crowd_test(b, "a_task_that_stays_runs_where_it_was_made", 0);
    crowd_test(b, "a_task_runs_once_at_a_time_and_is_not_lost", 3);
    crowd_test(b, "tasks_of_both_kinds_share_processors", 1);
    match_test(b, "wakes_reach_tasks_that_stay", 0, 0, 0);
    match_test(b, "wakes_reach_tasks_that_run_anywhere", KIT_TASK_ANYWHERE, KIT_TASK_ANYWHERE, 0);
    match_test(b, "wakes_between_both_kinds", 0, KIT_TASK_ANYWHERE, 0);
    match_test(b, "wakes_race_with_deadlines", KIT_TASK_ANYWHERE, KIT_TASK_ANYWHERE, 2000);
    match_test(b, "wakes_race_with_deadlines_of_tasks_that_stay", KIT_TASK_ANYWHERE, 0, 2000);
    cpus_run(b, "ends_reach_joiners_on_other_processors", NULL, tree_start, b->cpus);
    cpus_run(b, "a_storm_of_short_tasks", NULL, storm_start,
             b->cpus * (STORM_TASKS * b->rounds + 1));
    cpus_run(b, "sleeps_end_at_their_deadlines", NULL, nap_start, b->cpus * NAP_TASKS);
}
