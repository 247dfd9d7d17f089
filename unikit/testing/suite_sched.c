/* SPDX-License-Identifier: MIT */
/* The scheduler suite's frame. Parts: suite_sched_events.c (work, timers), suite_sched_tasks.c
 * (every scheduler), suite_sched_threads.c, suite_sched_crowd.c, suite_sched_faults.c,
 * suite_sched_sync.c and suite_sched_wait.c (with KIT_SCHED_THREADS). */
#include <unikit/testing/suite_sched_bench.h>

static struct sched_ledger *ledger_of(struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct sched_ledger, base);
}

static bool ledger_refuses(struct sched_ledger *ledger)
{
    return ++ledger->calls == ledger->fail_at;
}

static void *ledger_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct sched_ledger *ledger = ledger_of(a);
    void *block = ledger_refuses(ledger) ? NULL : kit_alloc_alloc(ledger->inner, size, align);
    if (block == NULL)
        return NULL;
    ledger->blocks++;
    ledger->bytes += size;
    return block;
}

static void ledger_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    struct sched_ledger *ledger = ledger_of(a);
    if (block == NULL)
        return;
    ledger->blocks--;
    ledger->bytes -= size;
    memset(block, 0xdd, size); /* what is still used after its free shows */
    kit_alloc_free(ledger->inner, block, size, align);
}

static void *ledger_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                            size_t align)
{
    struct sched_ledger *ledger = ledger_of(a);
    if (block == NULL)
        return ledger_alloc(a, new_size, align);
    if (ledger_refuses(ledger))
        return NULL;
    void *moved = kit_alloc_realloc(ledger->inner, block, old_size, new_size, align);
    if (moved != NULL)
        ledger->bytes += new_size - old_size;
    return moved;
}

static const struct kit_alloc_ops ledger_ops = {
    .alloc = ledger_alloc, .free = ledger_free, .realloc = ledger_realloc};

bool sched_bench_open(struct sched_bench *b, const char *test)
{
    KIT_TEST(b->report, test);
    b->logged = 0;
    b->s = NULL;
    b->heap.fail_at = 0;
    b->clock->clock_ns += 1000;
    int rc = b->component->open(b->options, &b->clock->env, &b->heap.base, &b->s);
    return KIT_CHECK_EQUAL(b->report, rc, 0);
}

void sched_bench_close(struct sched_bench *b)
{
    KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
    kit_sched_close(b->s);
    KIT_CHECK_EQUAL(b->report, b->heap.blocks, 0);
    KIT_CHECK_EQUAL(b->report, b->heap.bytes, 0);
}

void sched_log(struct sched_bench *b, char letter)
{
    if (b->logged < sizeof(b->log) - 1)
        b->log[b->logged++] = letter;
}

bool sched_logged(struct sched_bench *b, const char *text)
{
    size_t length = strlen(text);
    bool same = b->logged == length && memcmp(b->log, text, length) == 0;
    b->log[b->logged] = '\0';
    b->logged = 0;
    if (same)
        return true;
    char what[sizeof(b->log) + 64];
    size_t used = kit_report_append(what, sizeof(what), 0, "expected ");
    used = kit_report_append(what, sizeof(what), used, text);
    used = kit_report_append(what, sizeof(what), used, ", happened ");
    kit_report_append(what, sizeof(what), used, b->log);
    return KIT_CHECK_SAYS(b->report, false, what);
}

bool sched_step(struct sched_bench *b)
{
    uint64_t deadline = kit_sched_deadline_ns(b->s);
    bool any = kit_sched_turn(b->s);
    KIT_CHECK_EQUAL(b->report, any, deadline <= b->clock->clock_ns);
    KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
    KIT_CHECK(b->report, kit_sched_current(b->s) == NULL);
    return any;
}

void sched_settle(struct sched_bench *b, int limit)
{
    while (limit-- > 0)
        if (!sched_step(b))
            return;
    KIT_CHECK_SAYS(b->report, false, "the scheduler does not come to rest");
}

void sched_drain(struct sched_bench *b, int limit)
{
    while (limit-- > 0) {
        uint64_t deadline = kit_sched_deadline_ns(b->s);
        if (deadline == KIT_NEVER)
            return;
        if (deadline > b->clock->clock_ns)
            b->clock->clock_ns = deadline;
        sched_step(b);
    }
    KIT_CHECK_SAYS(b->report, false, "the scheduler does not come to an end");
}

struct kit_sched_stats sched_stats(struct sched_bench *b)
{
    struct kit_sched_stats stats;
    memset(&stats, 0xff, sizeof(stats));
    kit_sched_stats(b->s, &stats);
    return stats;
}

struct kit_task *sched_spawn(struct sched_bench *b, void (*entry)(void *), void *argument,
                             uint32_t flags)
{
    struct kit_task *task = NULL;
    struct kit_task_spec spec = {
        .entry = entry, .argument = argument, .name = "suite", .flags = flags};
    KIT_CHECK_EQUAL(b->report, kit_sched_spawn(b->s, &spec, &task), 0);
    return task;
}

int kit_suite_sched(const struct kit_sched_component *component, const uint64_t *options,
                    struct kit_alloc *alloc, struct kit_virtual *clock, struct kit_report *report)
{
    int before = report->failures;
    struct sched_bench b = {.report = report,
                            .component = component,
                            .options = options,
                            .clock = clock,
                            .heap = {.inner = alloc},
                            .random = 2026};
    KIT_ALLOC_BIND(&b.heap.base, &ledger_ops);
    KIT_TEST(report, "component_states_its_interface");
    KIT_CHECK_EQUAL(report, component->abi, KIT_SCHED_ABI);
    KIT_CHECK(report, memcmp(component->id, "sched.", 6) == 0);
    sched_suite_events(&b);
    sched_suite_tasks(&b);
    if (component->features & KIT_SCHED_THREADS) {
        sched_suite_threads(&b);
        sched_suite_crowd(&b);
        sched_suite_faults(&b);
        sched_suite_sync(&b);
        sched_suite_wait(&b);
        sched_suite_share(&b);
        sched_suite_weight(&b);
        sched_suite_reserve(&b);
    }
    return report->failures - before;
}
