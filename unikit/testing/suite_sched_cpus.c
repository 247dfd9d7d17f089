/* SPDX-License-Identifier: MIT */
/* The frame of the suite for several processors. Parts: suite_sched_cpus_tasks.c (who runs, where,
 * and once), suite_sched_cpus_idle.c (nobody sleeps while there is work), suite_sched_cpus_sync.c
 * and suite_sched_cpus_any.c.
 *
 * Processor 0 opens the scheduler, lets the others in, and is one of those that serve it. A test is
 * over when it has counted what it expects; then every processor leaves, checks the scheduler from
 * its side, and processor 0 closes it and looks whether all memory came back. */
#include <unikit/testing/suite_sched_cpus_bench.h>

enum { CPUS_PATIENCE_S = 30 };

/* ---- an allocator that counts ---------------------------------------------------------------- */

static struct cpus_ledger *cpus_ledger_of(struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct cpus_ledger, base);
}

static void *cpus_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct cpus_ledger *ledger = cpus_ledger_of(a);
    void *block = kit_alloc_alloc(ledger->inner, size, align);
    if (block == NULL)
        return NULL;
    CPUS_ADD(ledger->blocks, 1);
    CPUS_ADD(ledger->bytes, size);
    return block;
}

static void cpus_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    struct cpus_ledger *ledger = cpus_ledger_of(a);
    if (block == NULL)
        return;
    memset(block, 0xdd, size); /* what is still used after its free shows */
    CPUS_ADD(ledger->blocks, (size_t)-1);
    CPUS_ADD(ledger->bytes, -size);
    kit_alloc_free(ledger->inner, block, size, align);
}

static void *cpus_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    void *moved = cpus_alloc(a, new_size, align);
    if (moved == NULL || block == NULL)
        return moved;
    memcpy(moved, block, old_size < new_size ? old_size : new_size);
    cpus_free(a, block, old_size, align);
    return moved;
}

static const struct kit_alloc_ops cpus_ledger_ops = {
    .alloc = cpus_alloc, .free = cpus_free, .realloc = cpus_realloc};

/* ---- for tasks --------------------------------------------------------------------------------
 */

uint32_t cpus_here(struct cpus_bench *b)
{
    return kit_env_cpu_self(b->env)->number;
}

void cpus_check(struct cpus_bench *b, bool passed, const char *file, uint32_t line,
                const char *what)
{
    if (KIT_LIKELY(passed))
        return;
    if (CPUS_ADD(b->failures, 1) == 0) {
        b->file = file;
        b->what = what;
        CPUS_SET(b->line, line);
    }
}

struct kit_task *cpus_spawn(struct cpus_bench *b, void (*entry)(void *), void *argument,
                            uint32_t flags)
{
    struct kit_task *task = NULL;
    struct kit_task_spec spec = {
        .entry = entry, .argument = argument, .name = "suite", .stack_size = 0, .flags = flags};
    CPUS_CHECK(b, kit_sched_spawn(b->s, &spec, &task) == 0);
    return task;
}

static void cpus_end(struct cpus_bench *b)
{
    CPUS_SET(b->over, CPUS_GET(b->number));
    for (uint32_t cpu = 0; cpu < b->cpus; cpu++)
        kit_env_cpu_wake(b->env, cpu);
}

void cpus_done(struct cpus_bench *b)
{
    if (CPUS_ADD(b->done, 1) + 1 == b->expected)
        cpus_end(b);
}

/* ---- processors -------------------------------------------------------------------------------
 */

/* Serves the scheduler until the test is over, as the main loop of an image does. */
static void cpus_serve(struct cpus_bench *b, uint32_t number)
{
    while (CPUS_GET(b->over) < number) {
        if (kit_sched_turn(b->s))
            continue;
        uint64_t deadline_ns = kit_sched_deadline_ns(b->s);
        if (deadline_ns != 0 && CPUS_GET(b->over) < number)
            kit_env_wait(b->env, deadline_ns, KIT_WAKE_CPU);
    }
}

static void cpus_take_part(struct cpus_bench *b, uint32_t cpu, uint32_t number)
{
    if (b->start != NULL)
        b->start(b, cpu);
    CPUS_ADD(b->started, 1);
    cpus_serve(b, number);
    CPUS_CHECK(b, kit_sched_check(b->s) == 0);
    CPUS_CHECK(b, kit_sched_current(b->s) == NULL);
    CPUS_ADD(b->stopped, 1);
}

/* Any processor but the first. */
static void cpus_other(void *argument)
{
    struct cpus_seat *seat = argument;
    struct cpus_bench *b = seat->bench;
    for (uint32_t last = 0;;) {
        uint32_t number = CPUS_GET(b->number);
        if (number == UINT32_MAX) {
            CPUS_ADD(b->stopped, 1);
            break;
        }
        if (number == last) {
            kit_env_wait(b->env, KIT_NEVER, KIT_WAKE_CPU);
            continue;
        }
        cpus_take_part(b, seat->number, number);
        last = number;
    }
    for (;;)
        kit_env_wait(b->env, KIT_NEVER, 0);
}

static void cpus_call(struct cpus_bench *b)
{
    for (uint32_t cpu = 1; cpu < b->cpus; cpu++)
        kit_env_cpu_wake(b->env, cpu);
}

/* Waits until `word` is `wanted`; false: it never will be. */
static bool cpus_await(struct cpus_bench *b, uint32_t *word, uint32_t wanted)
{
    uint64_t end_ns = kit_env_now_ns(b->env) + CPUS_PATIENCE_S * KIT_NS_PER_S;
    while (CPUS_GET(*word) != wanted) {
        if (kit_env_now_ns(b->env) > end_ns)
            return false;
        kit_env_wait(b->env, kit_env_now_ns(b->env) + KIT_NS_PER_MS, KIT_WAKE_CPU);
    }
    return true;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

struct cpus_judge {
    struct kit_timer timer;
    struct cpus_bench *b;
};

/* On processor 0, which otherwise sleeps as the others do: looking at `done` from time to time
 * would wake it for what it must be woken for. */
static void cpus_judge_run(struct kit_timer *timer)
{
    struct cpus_bench *b = KIT_CONTAINER_OF(timer, struct cpus_judge, timer)->b;
    b->lost = true;
    cpus_end(b);
}

static void cpus_result(struct cpus_bench *b)
{
    struct kit_sched_stats stats;
    KIT_CHECK_SAYS(b->report, !b->lost, "the test does not come to an end");
    if (CPUS_GET(b->failures) != 0)
        kit_report_check(b->report, false, b->file, (int)CPUS_GET(b->line), b->what);
    if (b->lost || !KIT_CHECK(b->report, cpus_await(b, &b->stopped, b->cpus))) {
        b->lost = true;
        return;
    }
    kit_sched_stats(b->s, &stats);
    KIT_CHECK_EQUAL(b->report, stats.runnable, 0);
    KIT_CHECK_EQUAL(b->report, stats.tasks, 0);
    KIT_CHECK_EQUAL(b->report, stats.armed, 0);
    kit_sched_close(b->s);
    KIT_CHECK_EQUAL(b->report, b->heap.blocks, 0);
    KIT_CHECK_EQUAL(b->report, b->heap.bytes, 0);
}

void cpus_run(struct cpus_bench *b, const char *test, void *stage,
              void (*start)(struct cpus_bench *b, uint32_t cpu), uint32_t expected)
{
    if (b->lost)
        return;
    KIT_TEST(b->report, test);
    b->s = NULL;
    int rc = b->component->open(b->options, b->env, &b->heap.base, &b->s);
    if (!KIT_CHECK_EQUAL(b->report, rc, 0))
        return;
    b->stage = stage;
    b->start = start;
    b->expected = expected;
    b->started = b->stopped = b->done = b->failures = 0;
    uint32_t number = b->number + 1;
    struct cpus_judge judge = {.timer = {.run = cpus_judge_run}, .b = b};
    uint64_t end_ns = kit_env_now_ns(b->env) + CPUS_PATIENCE_S * KIT_NS_PER_S;
    KIT_CHECK_EQUAL(b->report, kit_sched_arm(b->s, &judge.timer, end_ns), 0);
    CPUS_SET(b->number, number);
    cpus_call(b);
    cpus_take_part(b, 0, number);
    KIT_CHECK(b->report, kit_sched_cancel(b->s, &judge.timer) || b->lost);
    cpus_result(b);
}

static bool cpus_start_all(struct cpus_bench *b, uint8_t *stacks)
{
    for (uint32_t cpu = 1; cpu < b->cpus; cpu++) {
        b->seats[cpu] = (struct cpus_seat){b, cpu};
        int rc = kit_env_cpu_start(b->env, cpu, cpus_other, &b->seats[cpu],
                                   stacks + (size_t)cpu * CPUS_STACK);
        if (!KIT_CHECK_EQUAL(b->report, rc, 0))
            return false;
    }
    return true;
}

int kit_suite_sched_cpus(const struct kit_sched_component *component, const uint64_t *options,
                         struct kit_alloc *alloc, runtime_environment_t *env, uint32_t rounds,
                         struct kit_report *report)
{
    int before = report->failures;
    uint32_t cpus = env->cpus < CPUS_MAX ? env->cpus : CPUS_MAX;
    if (env->cpus < 2 || !(component->features & KIT_SCHED_CPUS))
        return KIT_ENOTSUP;
    /* Both stay for ever: the other processors never leave their stacks. */
    struct cpus_bench *b = kit_alloc_alloc(alloc, sizeof(*b), alignof(struct cpus_bench));
    uint8_t *stacks = kit_alloc_alloc(alloc, (size_t)(cpus - 1) * CPUS_STACK, 4096);
    if (b == NULL || stacks == NULL)
        return KIT_ENOMEM;
    *b = (struct cpus_bench){.report = report,
                             .component = component,
                             .options = options,
                             .env = env,
                             .heap = {.inner = alloc},
                             .cpus = cpus,
                             .rounds = rounds};
    KIT_ALLOC_BIND(&b->heap.base, &cpus_ledger_ops);
    KIT_TEST(report, "processors_start");
    if (!cpus_start_all(b, stacks))
        return report->failures - before;
    cpus_suite_tasks(b);
    cpus_suite_idle(b);
    cpus_suite_sync(b);
    cpus_suite_any(b);
    if (!b->lost) {
        b->stopped = 0;
        CPUS_SET(b->number, UINT32_MAX);
        cpus_call(b);
        KIT_CHECK(report, cpus_await(b, &b->stopped, cpus - 1));
    }
    return report->failures - before;
}
