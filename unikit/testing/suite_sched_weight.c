/* SPDX-License-Identifier: MIT */
/* Scheduler suite: policies that divide the processor by weight. Tasks spend time by moving the
 * virtual clock; what each should have had by then is added up beside them. */
#include <unikit/testing/suite_sched_bench.h>

enum { RUNNERS = 7, CHUNK_NS = 100000, MS = 1000000, SCALE = 1024 };

struct field;

struct runner {
    struct field *field;
    uint32_t weight;
    uint64_t slice_ns;
    uint64_t used_ns;
    int64_t lag; /* SCALE * nanoseconds it is owed */
    struct kit_task *task;
};

struct field {
    struct sched_bench *b;
    struct runner runners[RUNNERS];
    size_t count;
    uint64_t weight;    /* of all */
    uint64_t slice_max; /* the longest of all */
    uint64_t end_ns;    /* when everybody stops */
    bool watched;       /* whether lags are looked at */
};

static void field_open(struct field *field, struct sched_bench *b)
{
    *field = (struct field){.b = b};
}

static struct runner *field_add(struct field *field, uint32_t weight, uint64_t slice_ns,
                                void (*entry)(void *))
{
    struct runner *runner = &field->runners[field->count++];
    const struct kit_task_share share = {.weight = weight, .slice_ns = slice_ns};
    const struct kit_task_spec spec = {
        .entry = entry, .argument = runner, .name = "runner", .share = &share};
    *runner = (struct runner){.field = field, .weight = weight, .slice_ns = slice_ns};
    field->weight += weight;
    field->slice_max = slice_ns > field->slice_max ? slice_ns : field->slice_max;
    KIT_CHECK_EQUAL(field->b->report, kit_sched_spawn(field->b->s, &spec, &runner->task), 0);
    return runner;
}

static void field_join(struct field *field)
{
    for (size_t i = 0; i < field->count; i++)
        KIT_CHECK_EQUAL(field->b->report, kit_sched_join(field->b->s, field->runners[i].task, 0),
                        0);
}

/* Lets one task run for a chunk of time, and everybody be owed his part of it. */
static void spend(struct runner *self, uint64_t time_ns)
{
    struct field *field = self->field;
    field->b->clock->clock_ns += time_ns;
    self->used_ns += time_ns;
    self->lag -= (int64_t)(time_ns * SCALE);
    for (struct runner *each = field->runners; each < field->runners + field->count; each++) {
        each->lag += (int64_t)(time_ns * SCALE * each->weight / field->weight);
        if (!field->watched)
            continue;
        KIT_CHECK_SAYS(field->b->report, each->lag <= (int64_t)((field->slice_max + 1) * SCALE),
                       "a task is owed more than a slice");
        KIT_CHECK_SAYS(field->b->report, -each->lag <= (int64_t)((each->slice_ns + 1) * SCALE),
                       "a task has had more than a slice too much");
    }
}

/* Runs a slice at a time, as if stopped at its end. */
static void slice_run(void *argument)
{
    struct runner *self = argument;
    struct field *field = self->field;
    while (field->b->clock->clock_ns < field->end_ns) {
        for (uint64_t left = self->slice_ns; left > 0; left -= left < CHUNK_NS ? left : CHUNK_NS)
            spend(self, left < CHUNK_NS ? left : CHUNK_NS);
        kit_sched_yield(field->b->s);
    }
}

static void nobody_is_owed_more_than_a_slice(struct sched_bench *b)
{
    for (int round = 0; round < 12; round++) {
        struct field field;
        if (!sched_bench_open(b, __func__))
            return;
        field_open(&field, b);
        for (int i = 0; i < 2 + round % (RUNNERS - 1); i++)
            field_add(&field, 1 + (uint32_t)(kit_suite_random(&b->random) % 4096),
                      CHUNK_NS * (1 + kit_suite_random(&b->random) % 60), slice_run);
        field.end_ns = b->clock->clock_ns + 500 * MS;
        field.watched = true;
        sched_settle(b, 10000);
        field_join(&field);
        sched_bench_close(b);
    }
}

static void time_is_divided_by_weight(struct sched_bench *b)
{
    static const uint32_t weights[] = {1024, 2048, 512, 1, 65536};
    struct field field;
    if (!sched_bench_open(b, __func__))
        return;
    field_open(&field, b);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(weights); i++)
        field_add(&field, weights[i], MS, slice_run);
    uint64_t start = b->clock->clock_ns;
    field.end_ns = start + 2000 * (uint64_t)MS;
    sched_settle(b, 10000);
    uint64_t total = b->clock->clock_ns - start;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(weights); i++) {
        uint64_t due = total * weights[i] / field.weight, used = field.runners[i].used_ns;
        KIT_CHECK(b->report, used + MS + 1 >= due && due + MS + 1 >= used);
    }
    field_join(&field);
    sched_bench_close(b);
}

static void idle_run(void *argument)
{
    struct runner *self = argument;
    kit_sched_block(self->field->b->s, KIT_NEVER);
    slice_run(argument);
}

/* A task that slept long shares from then on; what it did not use is gone. */
static void sleeping_earns_nothing(struct sched_bench *b)
{
    struct field field;
    if (!sched_bench_open(b, __func__))
        return;
    field_open(&field, b);
    struct runner *busy = field_add(&field, 1024, MS, slice_run);
    struct runner *idle = field_add(&field, 1024, MS, idle_run);
    field.end_ns = b->clock->clock_ns + 300 * MS;
    while (busy->used_ns < 100 * MS)
        sched_step(b);
    KIT_CHECK_EQUAL(b->report, idle->used_ns, 0);
    uint64_t before = busy->used_ns;
    kit_sched_wake(b->s, idle->task);
    while (idle->used_ns < 20 * MS && b->clock->clock_ns < field.end_ns)
        sched_step(b);
    KIT_CHECK(b->report, busy->used_ns - before >= 18 * MS && busy->used_ns - before <= 22 * MS);
    sched_settle(b, 1000);
    field_join(&field);
    sched_bench_close(b);
}

/* Sleeps a little after each slice, before its debt would make it wait. */
static void dodge_run(void *argument)
{
    struct runner *self = argument;
    struct field *field = self->field;
    while (field->b->clock->clock_ns < field->end_ns) {
        spend(self, self->slice_ns);
        kit_sched_block(field->b->s, field->b->clock->clock_ns + 1);
    }
}

static void a_debt_is_not_slept_away(struct sched_bench *b)
{
    struct field field;
    if (!sched_bench_open(b, __func__))
        return;
    field_open(&field, b);
    struct runner *honest = field_add(&field, 1024, MS, slice_run);
    struct runner *dodger = field_add(&field, 1024, 5 * MS, dodge_run);
    field.end_ns = b->clock->clock_ns + 400 * MS;
    sched_settle(b, 10000);
    sched_drain(b, 100);
    KIT_CHECK(b->report, dodger->used_ns <= honest->used_ns + 11 * MS);
    field_join(&field);
    sched_bench_close(b);
}

static void greedy_run(void *argument)
{
    struct runner *self = argument;
    spend(self, 20 * MS); /* in one go: now the others are owed */
    kit_sched_yield(self->field->b->s);
}

static void polite_run(void *argument)
{
    struct runner *self = argument;
    for (int i = 0; i < 40; i++) {
        sched_log(self->field->b, self == self->field->runners + 1 ? 'p' : 'q');
        spend(self, 1000);
        kit_sched_yield(self->field->b->s);
    }
}

/* A task that is owed much and yields wants others to run, although its turn it would be. */
static void a_yield_lets_others_run(struct sched_bench *b)
{
    struct field field;
    if (!sched_bench_open(b, __func__))
        return;
    field_open(&field, b);
    field_add(&field, 1024, MS, greedy_run);
    field_add(&field, 1024, MS, polite_run);
    field_add(&field, 1024, 3 * MS, polite_run);
    sched_settle(b, 200);
    size_t alone = 0;
    while (alone < b->logged && b->log[alone] == 'p')
        alone++;
    KIT_CHECK_SAYS(b->report, alone <= 4, "a task that yields keeps the processor");
    b->logged = 0;
    field_join(&field);
    sched_bench_close(b);
}

static void a_weight_can_change(struct sched_bench *b)
{
    struct field field;
    struct kit_task_share share = {.weight = UINT32_MAX};
    if (!sched_bench_open(b, __func__))
        return;
    field_open(&field, b);
    struct runner *first = field_add(&field, 1024, MS, slice_run);
    struct runner *second = field_add(&field, 1024, MS, slice_run);
    field.end_ns = b->clock->clock_ns + 800 * MS;
    while (first->used_ns + second->used_ns < 100 * MS)
        sched_step(b);
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, first->task, &share), KIT_EINVAL);
    share = (struct kit_task_share){.weight = 3072, .slice_ns = MS};
    KIT_CHECK_EQUAL(b->report, kit_sched_set_share(b->s, first->task, &share), 0);
    KIT_CHECK_EQUAL(b->report, kit_sched_check(b->s), 0);
    KIT_CHECK_EQUAL(b->report, kit_sched_get_share(b->s, first->task, &share), 0);
    KIT_CHECK_EQUAL(b->report, share.weight, 3072);
    uint64_t before = first->used_ns, other = second->used_ns;
    while (first->used_ns + second->used_ns < 500 * MS)
        sched_step(b);
    uint64_t gained = first->used_ns - before, rest = second->used_ns - other;
    KIT_CHECK(b->report, gained + 3 * MS >= 3 * rest && gained <= 3 * rest + 6 * MS);
    sched_settle(b, 10000);
    field_join(&field);
    sched_bench_close(b);
}

void sched_suite_weight(struct sched_bench *b)
{
    if (!(b->component->features & KIT_SCHED_WEIGHTS))
        return;
    time_is_divided_by_weight(b);
    nobody_is_owed_more_than_a_slice(b);
    sleeping_earns_nothing(b);
    a_debt_is_not_slept_away(b);
    a_yield_lets_others_run(b);
    a_weight_can_change(b);
}
