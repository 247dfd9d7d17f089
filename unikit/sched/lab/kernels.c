/* SPDX-License-Identifier: MIT */
/* See kernels.h: the driver, and what operations cost. */
#include <unikit/sched/lab/kernels.h>

enum { KERNEL_BATCH = 16 };
#define KERNEL_FAR_NS (UINT64_C(1) << 44) /* five hours: no timer of these fires */

struct kernel_ring {
    struct kit_kernel *kernel;
    uint64_t left;
};

/* ---- shared -----------------------------------------------------------------------------------
 */

void kit_kernel_drive(struct kit_kernel *kernel)
{
    struct kit_sched_stats stats;
    for (;;) {
        if (kit_sched_turn(kernel->s))
            continue;
        kit_sched_stats(kernel->s, &stats);
        if (stats.tasks == 0)
            return;
        uint64_t deadline_ns = kit_sched_deadline_ns(kernel->s);
        if (deadline_ns == KIT_NEVER)
            kit_panic("kernel: all tasks wait for each other");
        if (deadline_ns != 0)
            kit_env_wait(kernel->env, deadline_ns, 0);
    }
}

int kit_kernel_start(struct kit_kernel *kernel, void (*entry)(void *argument), void *argument,
                     const struct kit_task_share *share)
{
    struct kit_task_spec spec = {.entry = entry,
                                 .argument = argument,
                                 .name = "kernel",
                                 .priority = share != NULL ? share->priority : 0,
                                 .flags = KIT_TASK_DETACHED,
                                 .share = share};
    int rc = kit_sched_spawn(kernel->s, &spec, NULL);
    if (rc != 0 && share != NULL && (kernel->features & KIT_SCHED_RESERVATIONS)) {
        spec.share = NULL;
        return kit_sched_spawn(kernel->s, &spec, NULL);
    }
    return rc;
}

void kit_kernel_work(struct kit_kernel *kernel, uint64_t time_ns, uint64_t slice_ns)
{
    uint64_t since_ns = kit_kernel_now_ns(kernel), now_ns = since_ns;
    for (uint64_t left_ns = time_ns; left_ns > 0;) {
        uint64_t piece_ns = left_ns < KIT_KERNEL_PIECE_NS ? left_ns : KIT_KERNEL_PIECE_NS;
        uint64_t start_ns = now_ns;
        while (now_ns - start_ns < piece_ns)
            now_ns = kit_kernel_now_ns(kernel);
        left_ns -= now_ns - start_ns < left_ns ? now_ns - start_ns : left_ns;
        uint64_t stop_ns = kit_sched_stop_ns(kernel->s);
        bool cooperative = stop_ns == KIT_NEVER && now_ns - since_ns >= slice_ns;
        if (left_ns > 0 && (now_ns >= stop_ns || cooperative)) {
            kit_sched_yield(kernel->s);
            since_ns = now_ns = kit_kernel_now_ns(kernel);
        }
    }
}

static uint64_t kernel_random(uint64_t *state)
{
    *state ^= *state << 13; /* xorshift64, Marsaglia 2003 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void timer_nothing(struct kit_timer *timer)
{
    (void)timer;
}

/* Arms timers at random times that do not come; NULL: out of memory. */
static struct kit_timer *timers_arm(struct kit_kernel *kernel, size_t count, uint64_t *random)
{
    struct kit_timer *timers = kit_alloc_alloc(kernel->alloc, count * sizeof(*timers), 0);
    if (timers == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        timers[i] = (struct kit_timer){.run = timer_nothing};
        uint64_t after_ns = KERNEL_FAR_NS + kernel_random(random) % KERNEL_FAR_NS;
        if (kit_sched_arm(kernel->s, &timers[i], kit_kernel_now_ns(kernel) + after_ns) != 0)
            kit_panic("kernel: no memory for timers");
    }
    return timers;
}

static void timers_cancel(struct kit_kernel *kernel, struct kit_timer *timers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        kit_sched_cancel(kernel->s, &timers[i]);
    kit_alloc_free(kernel->alloc, timers, count * sizeof(*timers), 0);
}

/* ---- costs ------------------------------------------------------------------------------------
 */

static void yield_run(void *argument)
{
    struct kernel_ring *ring = argument;
    while (ring->left > 0) {
        ring->left--;
        kit_sched_yield(ring->kernel->s);
    }
}

int kit_kernel_yield(struct kit_kernel *kernel, size_t tasks, uint64_t count, size_t sleepers)
{
    uint64_t random = 88172645463325252u;
    struct kernel_ring ring = {kernel, count};
    struct kit_timer *timers = sleepers > 0 ? timers_arm(kernel, sleepers, &random) : NULL;
    if (sleepers > 0 && timers == NULL)
        return KIT_ENOMEM;
    for (size_t i = 0; i < tasks; i++) {
        int rc = kit_kernel_start(kernel, yield_run, &ring, NULL);
        if (rc != 0)
            return rc;
    }
    uint64_t began_ns = kernel->cpu_ns(kernel);
    kit_kernel_drive(kernel);
    kernel->value(kernel, "yield", (kernel->cpu_ns(kernel) - began_ns) * 1000 / count);
    if (timers != NULL)
        timers_cancel(kernel, timers, sleepers);
    return 0;
}

static void spawn_run(void *argument)
{
    (void)argument;
}

int kit_kernel_spawn(struct kit_kernel *kernel, uint64_t count)
{
    struct kit_task *tasks[KERNEL_BATCH];
    const struct kit_task_spec spec = {.entry = spawn_run, .name = "task"};
    uint64_t began_ns = kernel->cpu_ns(kernel);
    for (uint64_t done = 0; done < count; done += KERNEL_BATCH) {
        for (size_t i = 0; i < KERNEL_BATCH; i++) {
            int rc = kit_sched_spawn(kernel->s, &spec, &tasks[i]);
            if (rc != 0)
                return rc;
        }
        kit_sched_turn(kernel->s);
        for (size_t i = 0; i < KERNEL_BATCH; i++) {
            int rc = kit_sched_join(kernel->s, tasks[i], 0);
            if (rc != 0)
                return rc;
        }
    }
    kernel->value(kernel, "spawn", (kernel->cpu_ns(kernel) - began_ns) * 1000 / count);
    return 0;
}

int kit_kernel_timers(struct kit_kernel *kernel, size_t sleepers, uint64_t count)
{
    uint64_t random = 88172645463325252u, base_ns = kit_kernel_now_ns(kernel) + KERNEL_FAR_NS;
    struct kit_timer *timers = timers_arm(kernel, sleepers, &random);
    if (timers == NULL)
        return KIT_ENOMEM;
    for (int any = 0; any < 2; any++) {
        uint64_t began_ns = kernel->cpu_ns(kernel);
        for (uint64_t i = 0; i < count; i++) {
            struct kit_timer *timer = &timers[any ? kernel_random(&random) % sleepers : 0];
            kit_sched_cancel(kernel->s, timer);
            kit_sched_arm(kernel->s, timer, base_ns + kernel_random(&random) % KERNEL_FAR_NS);
        }
        uint64_t used_ns = kernel->cpu_ns(kernel) - began_ns;
        kernel->value(kernel, any ? "random" : "own", used_ns * 1000 / count);
    }
    timers_cancel(kernel, timers, sleepers);
    return 0;
}
