/* SPDX-License-Identifier: MIT */
/* Scheduler suite for several processors: sync.h between them. */
#include <unikit/testing/suite_sched_cpus_bench.h>

enum { SYNC_TASKS = 6, SYNC_ROUNDS = 150, SYNC_NAPS = 30, SYNC_SLOTS = 3 };

struct shared {
    struct cpus_bench *b;
    struct kit_mutex mutex;
    struct kit_condition not_full;
    struct kit_condition not_empty;
    struct kit_semaphore full;
    struct kit_semaphore empty;
    uint64_t nap_ns; /* waits with deadlines that short; 0: none */
    uint32_t rounds;
    uint32_t sum;    /* under the mutex */
    uint32_t inside; /* likewise */
    uint32_t items;  /* likewise */
    uint32_t taken;  /* shared */
    uint32_t roles;  /* shared: given out so far */
};

static uint64_t shared_deadline(struct shared *shared)
{
    return shared->nap_ns == 0 ? KIT_NEVER : kit_env_now_ns(shared->b->env) + shared->nap_ns;
}

static void shared_lock(struct shared *shared)
{
    struct cpus_bench *b = shared->b;
    int rc;
    do
        rc = kit_mutex_lock(b->s, &shared->mutex, shared_deadline(shared));
    while (rc == KIT_ETIMEDOUT && shared->nap_ns != 0);
    CPUS_CHECK(b, rc == 0);
    CPUS_CHECK(b, shared->inside++ == 0);
}

static void shared_unlock(struct shared *shared)
{
    shared->inside--;
    kit_mutex_unlock(shared->b->s, &shared->mutex);
}

/* ---- mutex ------------------------------------------------------------------------------------
 */

static void mutex_run(void *argument)
{
    struct shared *shared = argument;
    struct cpus_bench *b = shared->b;
    for (uint32_t i = 0; i < shared->rounds; i++) {
        shared_lock(shared);
        uint32_t seen = shared->sum;
        if (i % 5 == 0)
            kit_sched_yield(b->s);
        shared->sum = seen + 1;
        shared_unlock(shared);
    }
    cpus_done(b);
}

/* ---- condition: a queue of SYNC_SLOTS places ---------------------------------------------------
 */

static void queue_wait(struct shared *shared, struct kit_condition *condition)
{
    shared->inside--;
    int rc = kit_condition_wait(shared->b->s, condition, &shared->mutex, shared_deadline(shared));
    CPUS_CHECK(shared->b, rc == 0 || (rc == KIT_ETIMEDOUT && shared->nap_ns != 0));
    CPUS_CHECK(shared->b, shared->inside++ == 0);
}

static void queue_run(void *argument)
{
    struct shared *shared = argument;
    struct cpus_bench *b = shared->b;
    bool puts = CPUS_ADD(shared->roles, 1) % 2 == 0;
    for (uint32_t i = 0; i < shared->rounds; i++) {
        shared_lock(shared);
        while (puts ? shared->items == SYNC_SLOTS : shared->items == 0)
            queue_wait(shared, puts ? &shared->not_full : &shared->not_empty);
        shared->items += puts ? 1 : -1u;
        CPUS_CHECK(b, shared->items <= SYNC_SLOTS);
        if (i % 7 == 0)
            kit_condition_broadcast(b->s, puts ? &shared->not_empty : &shared->not_full);
        else
            kit_condition_signal(b->s, puts ? &shared->not_empty : &shared->not_full);
        shared_unlock(shared);
    }
    cpus_done(b);
}

/* ---- semaphores: the same queue ----------------------------------------------------------------
 */

static void semaphore_take(struct shared *shared, struct kit_semaphore *semaphore)
{
    int rc;
    do
        rc = kit_semaphore_wait(shared->b->s, semaphore, shared_deadline(shared));
    while (rc == KIT_ETIMEDOUT && shared->nap_ns != 0);
    CPUS_CHECK(shared->b, rc == 0);
}

static void semaphore_run(void *argument)
{
    struct shared *shared = argument;
    struct cpus_bench *b = shared->b;
    bool puts = CPUS_ADD(shared->roles, 1) % 2 == 0;
    for (uint32_t i = 0; i < shared->rounds; i++) {
        semaphore_take(shared, puts ? &shared->empty : &shared->full);
        uint32_t items = CPUS_ADD(shared->items, puts ? 1 : -1u) + (puts ? 1 : -1u);
        CPUS_CHECK(b, items <= SYNC_SLOTS);
        kit_semaphore_post(b->s, puts ? &shared->full : &shared->empty);
    }
    cpus_done(b);
}

/* ---- frame ------------------------------------------------------------------------------------
 */

struct sync_stage {
    struct shared shared;
    void (*run)(void *argument);
};

static void sync_start(struct cpus_bench *b, uint32_t cpu)
{
    struct sync_stage *stage = b->stage;
    for (uint32_t i = 0; i < SYNC_TASKS; i++)
        cpus_spawn(b, stage->run, &stage->shared,
                   KIT_TASK_DETACHED | ((cpu + i / 2) % 2 ? KIT_TASK_ANYWHERE : 0));
}

static void sync_test(struct cpus_bench *b, const char *test, void (*run)(void *), uint64_t nap_ns)
{
    struct sync_stage stage = {.shared = {.b = b, .nap_ns = nap_ns}, .run = run};
    stage.shared.rounds = (nap_ns != 0 ? SYNC_NAPS : SYNC_ROUNDS) * b->rounds;
    stage.shared.empty.count = SYNC_SLOTS;
    cpus_run(b, test, &stage, sync_start, b->cpus * SYNC_TASKS);
    if (b->lost)
        return;
    KIT_CHECK_EQUAL(b->report, stage.shared.items, 0);
    KIT_CHECK(b->report, stage.shared.mutex.owner == NULL);
    if (run == mutex_run)
        KIT_CHECK_EQUAL(b->report, stage.shared.sum, b->cpus * SYNC_TASKS * stage.shared.rounds);
    if (run == semaphore_run)
        KIT_CHECK_EQUAL(b->report, stage.shared.empty.count, SYNC_SLOTS);
}

void cpus_suite_sync(struct cpus_bench *b)
{
    sync_test(b, "a_mutex_excludes_other_processors", mutex_run, 0);
    sync_test(b, "a_mutex_survives_timeouts", mutex_run, 30000);
    sync_test(b, "conditions_between_processors", queue_run, 0);
    sync_test(b, "conditions_survive_timeouts", queue_run, 20000);
    sync_test(b, "semaphores_between_processors", semaphore_run, 0);
    sync_test(b, "semaphores_survive_timeouts", semaphore_run, 30000);
}
