/* SPDX-License-Identifier: MIT */
/* The image of bench_sched_preemption.py. Its argument is «tasks rounds points»: so many tasks
 * share so many rounds of arithmetic that calls nothing, with a safe point in each round where
 * points is
 * 1. Says how often tasks were stopped by force. */
#include <unikit/app.h>
#include <unikit/image/runtime/runtime.h>

enum { MOST = 16, STEPS = 1000 };

static uint64_t rounds;
static bool points;
static unsigned left;
static volatile uint64_t sink;

static void work(void *argument)
{
    (void)argument;
    uint64_t x = 1;
    for (uint64_t i = 0; i < rounds; i++) {
        for (unsigned step = 0; step < STEPS; step++)
            __asm__ volatile("imul $3, %0, %0" : "+r"(x));
        if (points)
            kit_safe_point();
    }
    sink = x;
    if (--left == 0) {
        kit_log("upcalls %u", kit_env_cpu_self(kit_runtime.state.runtime)->upcalls);
        kit_exit(0);
    }
}

static uint64_t number(const char **text)
{
    uint64_t value = 0;
    for (; **text >= '0' && **text <= '9'; (*text)++)
        value = value * 10 + (uint64_t)(**text - '0');
    *text += **text == ' ';
    return value;
}

int init_application(void)
{
    const char *argument = kit_boot_option("");
    uint64_t tasks = number(&argument);
    rounds = number(&argument) / tasks;
    points = number(&argument) != 0;
    left = (unsigned)tasks;
    for (uint64_t i = 0; i < tasks; i++) {
        const struct kit_task_spec spec = {
            .entry = work, .name = "work", .flags = KIT_TASK_DETACHED};
        int rc = kit_task_spawn(&spec, NULL);
        if (rc != 0)
            return 1;
    }
    return tasks > MOST;
}
