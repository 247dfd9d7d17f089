/* SPDX-License-Identifier: MIT */
/* Scheduler suite for several processors: events, once, queues, readers and writers, and waiting
 * for any of several. What tasks hand to each other is in plain memory, so a race detector sees
 * whether the objects order it; what gets lost keeps a test from ending. */
#include <unikit/testing/suite_sched_cpus_bench.h>

/* Tasks whose waits end early keep all processors busy, so they get fewer rounds. */
enum { ANY_TASKS = 6, ANY_ROUNDS = 60, ANY_ROUNDS_LATE = 20, ANY_SLOTS = 3, ANY_CHILDREN = 3 };

struct token {
    uint32_t giver;
    uint32_t number;
};

struct square {
    struct cpus_bench *b;
    uint64_t nap_ns; /* waits with deadlines that short; 0: none */
    uint32_t rounds;
    uint32_t givers;
    uint32_t roles;  /* shared: given out so far */
    uint32_t giving; /* shared: givers that have not finished */
    uint32_t *seen;  /* shared: how often each token was taken; of each object, how often it ran */
    uint32_t posts;  /* shared: what the semaphore still owes */
    struct kit_event *bells;
    struct kit_once *onces;
    struct kit_queue queues[2];
    struct kit_semaphore semaphore;
    struct token slots[2][ANY_SLOTS];
    struct kit_rwlock lock;
    uint32_t left;    /* under the lock */
    uint32_t right;   /* under the lock */
    uint32_t readers; /* shared: inside */
};

static uint64_t square_deadline(const struct square *square)
{
    return square->nap_ns == 0 ? KIT_NEVER : kit_env_now_ns(square->b->env) + square->nap_ns;
}

/* Whether the wait is to be made again. */
static bool square_late(const struct square *square, int rc)
{
    return rc == KIT_ETIMEDOUT && square->nap_ns != 0;
}

static void square_saw(struct square *square, const struct token *token)
{
    struct cpus_bench *b = square->b;
    bool known = token->giver < square->givers && token->number < square->rounds;
    CPUS_CHECK(b, known);
    if (known)
        CPUS_CHECK(b,
                   CPUS_ADD(square->seen[token->giver * square->rounds + token->number], 1) == 0);
}

/* ---- events: pairs that take turns ------------------------------------------------------------
 */

static void event_wait(struct square *square, struct kit_event *event)
{
    int rc;
    do
        rc = kit_event_wait(square->b->s, event, square_deadline(square));
    while (square_late(square, rc));
    CPUS_CHECK(square->b, rc == 0);
}

static void event_run(void *argument)
{
    struct square *square = argument;
    struct cpus_bench *b = square->b;
    uint32_t role = CPUS_ADD(square->roles, 1), side = role % 2;
    struct kit_event *bells = &square->bells[role - side];
    uint32_t *ball = &square->seen[role / 2];
    for (uint32_t i = 0; i < square->rounds; i++) {
        if (side != 0 || i > 0)
            event_wait(square, &bells[side]);
        CPUS_CHECK(b, *ball == 2 * i + side);
        ++*ball;
        kit_event_set(b->s, &bells[1 - side]);
    }
    cpus_done(b);
}

/* ---- once -------------------------------------------------------------------------------------
 */

struct once_call {
    struct square *square;
    uint32_t *count;
};

static void once_inside(void *argument)
{
    struct once_call *call = argument;
    kit_sched_yield(call->square->b->s);
    ++*call->count;
}

static void once_run(void *argument)
{
    struct square *square = argument;
    struct cpus_bench *b = square->b;
    for (uint32_t i = 0; i < square->rounds; i++) {
        struct once_call call = {square, &square->seen[i]};
        CPUS_CHECK(b, kit_once_run(b->s, &square->onces[i], once_inside, &call) == 0);
        CPUS_CHECK(b, square->seen[i] == 1);
    }
    cpus_done(b);
}

/* ---- queue ------------------------------------------------------------------------------------
 */

static void queue_give(struct square *square, uint32_t giver)
{
    struct cpus_bench *b = square->b;
    for (uint32_t i = 0; i < square->rounds; i++) {
        struct token token = {giver, i};
        int rc;
        do
            rc = kit_queue_send(b->s, &square->queues[0], &token, square_deadline(square));
        while (square_late(square, rc));
        CPUS_CHECK(b, rc == 0);
    }
    if (CPUS_ADD(square->giving, -1u) == 1)
        kit_queue_close(b->s, &square->queues[0]);
}

/* Of each giver, one taker sees later tokens later. */
static void queue_take(struct square *square)
{
    struct cpus_bench *b = square->b;
    uint32_t next[CPUS_MAX * ANY_TASKS / 2] = {0};
    for (;;) {
        struct token token;
        int rc = kit_queue_receive(b->s, &square->queues[0], &token, square_deadline(square));
        if (square_late(square, rc))
            continue;
        if (rc != 0) {
            CPUS_CHECK(b, rc == KIT_ECLOSED);
            return;
        }
        square_saw(square, &token);
        CPUS_CHECK(b, token.number >= next[token.giver]);
        next[token.giver] = token.number + 1;
    }
}

static void queue_run(void *argument)
{
    struct square *square = argument;
    uint32_t role = CPUS_ADD(square->roles, 1);
    if (role % 2 == 0)
        queue_give(square, role / 2);
    else
        queue_take(square);
    cpus_done(square->b);
}

/* ---- readers and writers ----------------------------------------------------------------------
 */

static void rwlock_run(void *argument)
{
    struct square *square = argument;
    struct cpus_bench *b = square->b;
    bool writes = CPUS_ADD(square->roles, 1) % 2 == 0;
    for (uint32_t i = 0; i < square->rounds; i++) {
        uint64_t deadline_ns = square_deadline(square);
        int rc = writes ? kit_rwlock_write(b->s, &square->lock, deadline_ns)
                        : kit_rwlock_read(b->s, &square->lock, deadline_ns);
        if (square_late(square, rc)) {
            i--;
            continue;
        }
        CPUS_CHECK(b, rc == 0);
        uint32_t inside = CPUS_ADD(square->readers, writes ? 0 : 1);
        CPUS_CHECK(b, !writes || inside == 0);
        CPUS_CHECK(b, square->left == square->right);
        if (writes)
            square->left++;
        if (i % 5 == 0)
            kit_sched_yield(b->s);
        if (writes)
            square->right++;
        CPUS_ADD(square->readers, writes ? 0 : -1u);
        kit_rwlock_unlock(b->s, &square->lock);
    }
    cpus_done(b);
}

/* ---- any of several ---------------------------------------------------------------------------
 */

/* Every other token is a post, the rest go into whichever queue has room. */
static void any_give(struct square *square, uint32_t giver)
{
    struct cpus_bench *b = square->b;
    for (uint32_t i = 0; i < square->rounds; i++) {
        struct token token = {giver, i};
        if (i % 2 == 0) {
            CPUS_ADD(square->posts, 1);
            square_saw(square, &token);
            kit_semaphore_post(b->s, &square->semaphore);
            continue;
        }
        struct kit_choice choices[2] = {
            {.kind = KIT_WAIT_SEND, .object = &square->queues[i / 2 % 2], .item = &token},
            {.kind = KIT_WAIT_SEND, .object = &square->queues[1 - i / 2 % 2], .item = &token}};
        int rc;
        do
            rc = kit_wait_any(b->s, choices, 2, square_deadline(square));
        while (square_late(square, rc));
        CPUS_CHECK(b, rc >= 0 && rc < 2 && choices[rc].rc == 0);
    }
}

static void any_take(struct square *square)
{
    struct cpus_bench *b = square->b;
    for (uint32_t i = 0; i < square->rounds; i++) {
        struct token tokens[2] = {{0}, {0}};
        struct kit_choice choices[3] = {
            {.kind = KIT_WAIT_RECEIVE, .object = &square->queues[0], .item = &tokens[0]},
            {.kind = KIT_WAIT_SEMAPHORE, .object = &square->semaphore},
            {.kind = KIT_WAIT_RECEIVE, .object = &square->queues[1], .item = &tokens[1]}};
        int rc;
        do
            rc = kit_wait_any(b->s, choices, 3, square_deadline(square));
        while (square_late(square, rc));
        CPUS_CHECK(b, rc >= 0 && rc < 3 && choices[rc].rc == 0);
        if (rc == 1)
            CPUS_CHECK(b, CPUS_ADD(square->posts, -1u) > 0);
        else
            square_saw(square, &tokens[rc / 2]);
    }
}

static void any_run(void *argument)
{
    struct square *square = argument;
    uint32_t role = CPUS_ADD(square->roles, 1);
    if (role % 2 == 0)
        any_give(square, role / 2);
    else
        any_take(square);
    cpus_done(square->b);
}

/* ---- the ends of tasks ------------------------------------------------------------------------
 */

struct child {
    struct square *square;
    struct kit_task *task;
    uint32_t yields;
    bool done;
};

static void child_run(void *argument)
{
    struct child *child = argument;
    for (uint32_t i = 0; i < child->yields; i++)
        kit_sched_yield(child->square->b->s);
    child->done = true;
}

/* Waits for any of the children that are left, and joins it. */
static bool parent_take(struct square *square, struct child *children)
{
    struct cpus_bench *b = square->b;
    struct kit_choice choices[ANY_CHILDREN];
    struct child *waited[ANY_CHILDREN];
    uint32_t count = 0;
    for (uint32_t i = 0; i < ANY_CHILDREN; i++) {
        if (children[i].task == NULL)
            continue;
        waited[count] = &children[i];
        choices[count++] = (struct kit_choice){.kind = KIT_WAIT_TASK, .object = children[i].task};
    }
    int rc;
    do
        rc = kit_wait_any(b->s, choices, count, square_deadline(square));
    while (square_late(square, rc));
    bool right = rc >= 0 && rc < (int)count && choices[rc].rc == 0;
    CPUS_CHECK(b, right);
    if (!right)
        return false;
    CPUS_CHECK(b, waited[rc]->done);
    CPUS_CHECK(b, kit_sched_join(b->s, waited[rc]->task, KIT_NEVER) == 0);
    waited[rc]->task = NULL;
    return true;
}

static void parent_run(void *argument)
{
    struct square *square = argument;
    for (uint32_t i = 0; i < square->rounds; i++) {
        struct child children[ANY_CHILDREN];
        for (uint32_t j = 0; j < ANY_CHILDREN; j++) {
            children[j] = (struct child){.square = square, .yields = (i + j) % ANY_CHILDREN};
            children[j].task =
                cpus_spawn(square->b, child_run, &children[j], (i + j) % 4 ? KIT_TASK_ANYWHERE : 0);
        }
        for (uint32_t j = 0; j < ANY_CHILDREN; j++)
            if (!parent_take(square, children))
                return;
    }
    cpus_done(square->b);
}

/* ---- frame ------------------------------------------------------------------------------------
 */

struct any_stage {
    struct square square;
    void (*run)(void *argument);
};

static void any_start(struct cpus_bench *b, uint32_t cpu)
{
    struct any_stage *stage = b->stage;
    for (uint32_t i = 0; i < ANY_TASKS; i++)
        cpus_spawn(b, stage->run, &stage->square,
                   KIT_TASK_DETACHED | ((cpu + i / 2) % 2 ? KIT_TASK_ANYWHERE : 0));
}

static void any_judge(struct cpus_bench *b, const struct any_stage *stage)
{
    const struct square *square = &stage->square;
    uint32_t rounds = square->rounds, taken = 0;
    KIT_CHECK_EQUAL(b->report, square->queues[0].count + square->queues[1].count, 0);
    KIT_CHECK_EQUAL(b->report, square->semaphore.count + square->posts, 0);
    KIT_CHECK(b->report, square->lock.writer == NULL && square->lock.readers == 0);
    if (stage->run == rwlock_run)
        KIT_CHECK_EQUAL(b->report, square->left, square->givers * rounds);
    for (uint32_t i = 0; i < square->givers * rounds; i++)
        taken += square->seen[i];
    if (stage->run == queue_run || stage->run == any_run)
        KIT_CHECK_EQUAL(b->report, taken, square->givers * rounds);
}

static void any_test(struct cpus_bench *b, const char *test, void (*run)(void *), uint64_t nap_ns)
{
    uint32_t tasks = b->cpus * ANY_TASKS;
    uint32_t rounds = (nap_ns == 0 ? ANY_ROUNDS : ANY_ROUNDS_LATE) * b->rounds;
    size_t sizes[3] = {tasks / 2 * rounds * sizeof(uint32_t), tasks * sizeof(struct kit_event),
                       rounds * sizeof(struct kit_once)};
    if (b->lost)
        return;
    uint8_t *memory = kit_alloc_alloc(b->heap.inner, sizes[0] + sizes[1] + sizes[2], 64);
    if (!KIT_CHECK(b->report, memory != NULL))
        return;
    memset(memory, 0, sizes[0] + sizes[1] + sizes[2]);
    struct any_stage stage = {.square = {.b = b,
                                         .nap_ns = nap_ns,
                                         .rounds = rounds,
                                         .givers = tasks / 2,
                                         .giving = tasks / 2,
                                         .bells = (void *)memory,
                                         .onces = (void *)(memory + sizes[1]),
                                         .seen = (void *)(memory + sizes[1] + sizes[2])},
                              .run = run};
    for (uint32_t i = 0; i < 2; i++)
        kit_queue_open(&stage.square.queues[i], stage.square.slots[i], sizeof(struct token),
                       ANY_SLOTS);
    for (uint32_t i = 0; i < tasks; i++)
        stage.square.bells[i].automatic = true;
    cpus_run(b, test, &stage, any_start, tasks);
    if (b->lost)
        return; /* somebody may still be at it */
    any_judge(b, &stage);
    kit_alloc_free(b->heap.inner, memory, sizes[0] + sizes[1] + sizes[2], 64);
}

void cpus_suite_any(struct cpus_bench *b)
{
    any_test(b, "events_between_processors", event_run, 0);
    any_test(b, "events_survive_timeouts", event_run, 3000);
    any_test(b, "once_is_once_on_all_processors", once_run, 0);
    any_test(b, "queues_between_processors", queue_run, 0);
    any_test(b, "queues_survive_timeouts", queue_run, 3000);
    any_test(b, "readers_and_writers_between_processors", rwlock_run, 0);
    any_test(b, "readers_and_writers_survive_timeouts", rwlock_run, 20000);
    any_test(b, "any_of_several_is_one_alone", any_run, 0);
    any_test(b, "any_of_several_survives_timeouts", any_run, 3000);
    any_test(b, "any_of_several_tasks_ends", parent_run, 0);
    any_test(b, "ends_of_tasks_race_with_timeouts", parent_run, 3000);
}
