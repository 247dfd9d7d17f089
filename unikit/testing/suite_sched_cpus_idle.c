/* SPDX-License-Identifier: MIT */
/* Scheduler suite for several processors: no processor sleeps while there is work for it, and none
 * is forgotten that sleeps. What these tests check would hang otherwise, so they need no clock but
 * to give up. */
#include <unikit/testing/suite_sched_cpus_bench.h>

enum { PARTY_ROUNDS = 40, RING_HOPS = 200, PARTY_PATIENCE_S = 20 };

/* ---- work for everybody -----------------------------------------------------------------------
 */

enum party_kind { PARTY_SPAWNED, PARTY_WOKEN, PARTY_SLEPT };

struct party {
    struct cpus_bench *b;
    enum party_kind kind; /* how the guests get ready */
    uint32_t flags;       /* of the host */
    uint32_t present;     /* shared: who computes, each on a processor of its own */
    uint32_t seen;        /* shared: those processors, as bits */
    uint32_t resting;     /* shared: guests that are about to wait */
    uint32_t round;       /* shared */
    struct kit_task *guests[CPUS_MAX];
};

/* Computes until as many do as there are processors: it neither yields nor blocks. */
static void party_meet(struct party *party)
{
    struct cpus_bench *b = party->b;
    uint64_t end_ns = kit_env_now_ns(b->env) + PARTY_PATIENCE_S * KIT_NS_PER_S;
    __atomic_fetch_or(&party->seen, UINT32_C(1) << cpus_here(b), __ATOMIC_SEQ_CST);
    CPUS_ADD(party->present, 1);
    while (CPUS_GET(party->present) < b->cpus && CPUS_GET(b->failures) == 0) {
        __builtin_ia32_pause();
        CPUS_CHECK(b, kit_env_now_ns(b->env) < end_ns);
    }
}

static void guest_run(void *argument)
{
    struct party *party = argument;
    struct cpus_bench *b = party->b;
    uint32_t round = CPUS_GET(party->round);
    CPUS_ADD(party->resting, 1);
    if (party->kind == PARTY_WOKEN)
        while (CPUS_GET(party->round) == round)
            kit_sched_block(b->s, KIT_NEVER);
    if (party->kind == PARTY_SLEPT) {
        /* So long that whoever was rung for this task has gone to sleep again. */
        uint64_t end_ns = kit_env_now_ns(b->env) + 300 * KIT_NS_PER_US;
        while (kit_env_now_ns(b->env) < end_ns)
            __builtin_ia32_pause();
        kit_sched_block(b->s, end_ns + 100 * KIT_NS_PER_US);
        while (CPUS_GET(party->round) == round) /* the host, which stays, must come first */
            kit_sched_yield(b->s);
    }
    party_meet(party);
}

static void party_round(struct party *party, uint32_t round)
{
    struct cpus_bench *b = party->b;
    CPUS_SET(party->present, 0);
    CPUS_SET(party->seen, 0);
    CPUS_SET(party->resting, 0);
    if (round % 2) /* everybody else has gone to sleep meanwhile, but not each time */
        kit_sched_block(b->s, kit_env_now_ns(b->env) + 300 * KIT_NS_PER_US);
    for (uint32_t i = 1; i < b->cpus; i++)
        party->guests[i] = cpus_spawn(b, guest_run, party, KIT_TASK_ANYWHERE);
    while (party->kind != PARTY_SPAWNED && CPUS_GET(party->resting) + 1 < b->cpus)
        kit_sched_yield(b->s);
    CPUS_ADD(party->round, 1);
    for (uint32_t i = 1; i < b->cpus && party->kind == PARTY_WOKEN; i++)
        kit_sched_wake(b->s, party->guests[i]);
    party_meet(party);
    for (uint32_t i = 1; i < b->cpus; i++)
        CPUS_CHECK(b, kit_sched_join(b->s, party->guests[i], KIT_NEVER) == 0);
    CPUS_CHECK(b, CPUS_GET(party->seen) == (UINT32_C(1) << b->cpus) - 1);
}

static void host_run(void *argument)
{
    struct party *party = argument;
    for (uint32_t i = 0; i < PARTY_ROUNDS * party->b->rounds; i++)
        party_round(party, i);
    cpus_done(party->b);
}

static void party_start(struct cpus_bench *b, uint32_t cpu)
{
    struct party *party = b->stage;
    if (cpu == b->cpus - 1)
        cpus_spawn(b, host_run, party, KIT_TASK_DETACHED | party->flags);
}

static void party_test(struct cpus_bench *b, const char *test, enum party_kind kind, uint32_t flags)
{
    struct party party = {.b = b, .kind = kind, .flags = flags};
    cpus_run(b, test, &party, party_start, 1);
}

/* ---- nobody forgotten -------------------------------------------------------------------------
 */

struct ring {
    struct cpus_bench *b;
    struct kit_task *tasks[CPUS_MAX]; /* shared */
    uint32_t baton;                   /* shared: hops so far */
    uint32_t finished;                /* shared */
};

/* One task on each processor passes the baton on; everybody else sleeps. */
static void ring_run(void *argument)
{
    struct ring *ring = argument;
    struct cpus_bench *b = ring->b;
    uint32_t here = cpus_here(b);
    while (CPUS_GET(b->started) < b->cpus)
        kit_sched_yield(b->s);
    struct kit_task *next = CPUS_GET(ring->tasks[(here + 1) % b->cpus]);
    for (uint32_t i = 0; i < RING_HOPS * b->rounds; i++) {
        while (CPUS_GET(ring->baton) != i * b->cpus + here)
            kit_sched_block(b->s, KIT_NEVER);
        CPUS_CHECK(b, cpus_here(b) == here);
        CPUS_ADD(ring->baton, 1);
        kit_sched_wake(b->s, next);
    }
    CPUS_ADD(ring->finished, 1);
    while (CPUS_GET(ring->finished) < b->cpus)
        kit_sched_yield(b->s);
    cpus_done(b);
}

static void ring_start(struct cpus_bench *b, uint32_t cpu)
{
    struct ring *ring = b->stage;
    struct kit_task *task = NULL;
    struct kit_task_spec spec = {
        .entry = ring_run, .argument = ring, .name = "ring", .flags = KIT_TASK_DETACHED};
    CPUS_CHECK(b, kit_sched_spawn(b->s, &spec, &task) == 0);
    CPUS_SET(ring->tasks[cpu], task);
}

/* ---- work and timers --------------------------------------------------------------------------
 */

struct chore {
    struct kit_work work;
    struct kit_timer timer;
    struct cpus_bench *b;
    uint32_t home;
};

static void chore_timer_run(struct kit_timer *timer)
{
    struct chore *chore = KIT_CONTAINER_OF(timer, struct chore, timer);
    CPUS_CHECK(chore->b, cpus_here(chore->b) == chore->home);
    CPUS_CHECK(chore->b, kit_sched_current(chore->b->s) == NULL);
    cpus_done(chore->b);
}

static void chore_work_run(struct kit_work *work)
{
    struct chore *chore = KIT_CONTAINER_OF(work, struct chore, work);
    struct cpus_bench *b = chore->b;
    CPUS_CHECK(b, cpus_here(b) == chore->home);
    CPUS_CHECK(b, kit_sched_arm(b->s, &chore->timer, kit_env_now_ns(b->env) + 50000) == 0);
    cpus_done(b);
}

static void chore_start(struct cpus_bench *b, uint32_t cpu)
{
    struct chore *chore = (struct chore *)b->stage + cpu;
    *chore = (struct chore){
        .work = {.run = chore_work_run}, .timer = {.run = chore_timer_run}, .b = b, .home = cpu};
    kit_sched_post(b->s, &chore->work);
}

void cpus_suite_idle(struct cpus_bench *b)
{
    struct ring ring = {.b = b};
    struct chore chores[CPUS_MAX];
    party_test(b, "spawned_tasks_find_processors", PARTY_SPAWNED, 0);
    party_test(b, "spawned_tasks_find_processors_wherever_they_come_from", PARTY_SPAWNED,
               KIT_TASK_ANYWHERE);
    party_test(b, "woken_tasks_find_processors", PARTY_WOKEN, 0);
    party_test(b, "sleeps_end_while_their_processor_computes", PARTY_SLEPT, 0);
    cpus_run(b, "a_wake_reaches_a_processor_that_sleeps", &ring, ring_start, b->cpus);
    cpus_run(b, "work_and_timers_run_on_their_processor", chores, chore_start, 2 * b->cpus);
}
