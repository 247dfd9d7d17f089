/* SPDX-License-Identifier: MIT */
/* See kernels.h: who gets how much of the processor, and whether in time. */
#include <unikit/sched/lab/kernels.h>

enum { FAIR_TASKS = 3, DEADLINE_TASKS = 32, SLICE_NS = 100000 };

/* ---- fairness ---------------------------------------------------------------------------------
 */

struct fairness;

struct fairness_task {
    struct fairness *fairness;
    uint64_t weight;
    uint64_t used_ns;
};

struct fairness {
    struct kit_kernel *kernel;
    struct fairness_task tasks[FAIR_TASKS];
    uint64_t weight;
    uint64_t total_ns, most_ns;
    uint64_t lag_ns; /* the largest so far */
};

static uint64_t fairness_lag_ns(const struct fairness *fairness, const struct fairness_task *task)
{
    uint64_t due_ns = fairness->total_ns * task->weight / fairness->weight;
    return due_ns > task->used_ns ? due_ns - task->used_ns : task->used_ns - due_ns;
}

static void fairness_run(void *argument)
{
    struct fairness_task *self = argument;
    struct fairness *fairness = self->fairness;
    struct kit_kernel *kernel = fairness->kernel;
    uint64_t since_ns = kit_kernel_now_ns(kernel);
    while (fairness->total_ns < fairness->most_ns) {
        uint64_t start_ns = kit_kernel_now_ns(kernel), now_ns = start_ns;
        while (now_ns - start_ns < KIT_KERNEL_PIECE_NS)
            now_ns = kit_kernel_now_ns(kernel);
        self->used_ns += now_ns - start_ns;
        fairness->total_ns += now_ns - start_ns;
        for (size_t i = 0; i < FAIR_TASKS; i++) {
            uint64_t lag_ns = fairness_lag_ns(fairness, &fairness->tasks[i]);
            fairness->lag_ns = lag_ns > fairness->lag_ns ? lag_ns : fairness->lag_ns;
        }
        uint64_t stop_ns = kit_sched_stop_ns(kernel->s);
        if (now_ns >= stop_ns || (stop_ns == KIT_NEVER && now_ns - since_ns >= SLICE_NS)) {
            kit_sched_yield(kernel->s);
            since_ns = kit_kernel_now_ns(kernel);
        }
    }
}

int kit_kernel_fairness(struct kit_kernel *kernel, uint64_t time_ns)
{
    static const uint32_t weights[FAIR_TASKS] = {1024, 526, 272}; /* Linux's for nice 0, 3, 6 */
    struct fairness fairness = {.kernel = kernel, .most_ns = time_ns};
    for (size_t i = 0; i < FAIR_TASKS; i++) {
        uint32_t weight = kernel->features & KIT_SCHED_WEIGHTS ? weights[i] : 1024;
        const struct kit_task_share share = {.weight = weight};
        fairness.tasks[i] = (struct fairness_task){&fairness, weight, 0};
        fairness.weight += weight;
        int rc = kit_kernel_start(kernel, fairness_run, &fairness.tasks[i], &share);
        if (rc != 0)
            return rc;
    }
    kit_kernel_drive(kernel);
    uint64_t error_ns = 0;
    for (size_t i = 0; i < FAIR_TASKS; i++) {
        uint64_t lag_ns = fairness_lag_ns(&fairness, &fairness.tasks[i]);
        error_ns = lag_ns > error_ns ? lag_ns : error_ns;
    }
    kernel->value(kernel, "lag", fairness.lag_ns);
    kernel->value(kernel, "error", error_ns * 100 * 1000 / fairness.total_ns);
    return 0;
}

/* ---- deadlines --------------------------------------------------------------------------------
 */

struct deadlines;

struct deadlines_task {
    struct deadlines *deadlines;
    struct kit_kernel_task task;
};

struct deadlines {
    struct kit_kernel *kernel;
    struct deadlines_task tasks[DEADLINE_TASKS];
    uint64_t start_ns, end_ns;
    uint64_t jobs, missed;
};

static void deadlines_run(void *argument)
{
    struct deadlines_task *self = argument;
    struct deadlines *deadlines = self->deadlines;
    struct kit_kernel *kernel = deadlines->kernel;
    uint64_t release_ns = deadlines->start_ns;
    for (; release_ns < deadlines->end_ns; release_ns += self->task.period_ns) {
        while (kit_kernel_now_ns(kernel) < release_ns)
            kit_sched_block(kernel->s, release_ns);
        kit_kernel_work(kernel, self->task.work_ns, KIT_KERNEL_PIECE_NS);
        deadlines->jobs++;
        deadlines->missed += kit_kernel_now_ns(kernel) > release_ns + self->task.period_ns;
    }
}

/* Rate monotonic: 63 for the shortest period. */
static uint32_t deadlines_priority(const struct kit_kernel_task *tasks, size_t count, size_t which)
{
    uint32_t shorter = 0;
    for (size_t i = 0; i < count; i++)
        shorter += tasks[i].period_ns < tasks[which].period_ns;
    return KIT_SCHED_PRIORITY_MAX - shorter;
}

int kit_kernel_deadlines(struct kit_kernel *kernel, const struct kit_kernel_task *tasks,
                         size_t count, uint64_t time_ns)
{
    struct deadlines deadlines = {.kernel = kernel};
    uint64_t refused = 0;
    if (count == 0 || count > DEADLINE_TASKS)
        return KIT_EINVAL;
    deadlines.start_ns = kit_kernel_now_ns(kernel) + 1000000;
    deadlines.end_ns = deadlines.start_ns + time_ns;
    for (size_t i = 0; i < count; i++) {
        deadlines.tasks[i] = (struct deadlines_task){&deadlines, tasks[i]};
        /* it reserves a little more than it works: an interrupt of the host may be billed to it */
        uint64_t slice_ns = tasks[i].work_ns + tasks[i].work_ns / 50 + 2 * KIT_KERNEL_PIECE_NS;
        const struct kit_task_share share = {
            .priority = deadlines_priority(tasks, count, i),
            .weight = (uint32_t)(tasks[i].work_ns * 4096 / tasks[i].period_ns) + 1,
            .slice_ns = kernel->features & KIT_SCHED_RESERVATIONS ? slice_ns : 0,
            .period_ns = kernel->features & KIT_SCHED_RESERVATIONS ? tasks[i].period_ns : 0};
        const struct kit_task_spec spec = {.entry = deadlines_run,
                                           .argument = &deadlines.tasks[i],
                                           .name = "periodic",
                                           .priority = share.priority,
                                           .flags = KIT_TASK_DETACHED,
                                           .share = &share};
        int rc = kit_sched_spawn(kernel->s, &spec, NULL);
        if (rc != 0 && (kernel->features & KIT_SCHED_RESERVATIONS)) {
            refused++;
            rc = kit_kernel_start(kernel, deadlines_run, &deadlines.tasks[i], NULL);
        }
        if (rc != 0)
            return rc;
    }
    kit_kernel_drive(kernel);
    kernel->value(kernel, "jobs", deadlines.jobs * 1000);
    kernel->value(kernel, "missed", deadlines.missed * 1000);
    kernel->value(kernel, "refused", refused * 1000);
    return 0;
}
