/* SPDX-License-Identifier: MIT */
/* Two tasks that compute for ever and a third that wants its turn every 2 ms: ends when each of the
 * three has had twenty. With -DSAFE_POINTS the two say where they may be stopped. */
#include <unikit/image/runtime/runtime.h>

static volatile uint64_t counts[2];

static void spin(void *argument)
{
    volatile uint64_t *count = argument;
    for (;;) {
        *count = *count + 1;
#ifdef SAFE_POINTS
        kit_safe_point();
#endif
    }
}

static void referee(void *argument)
{
    uint64_t seen[2] = {0}, turns[2] = {0};
    uint32_t own = 0;
    (void)argument;
    while (own < 20 || turns[0] < 20 || turns[1] < 20) {
        kit_task_sleep_until(kit_clock_now() + 2 * KIT_NS_PER_MS);
        own++;
        for (int i = 0; i < 2; i++) {
            turns[i] += counts[i] != seen[i];
            seen[i] = counts[i];
        }
    }
    struct kit_sched_stats stats;
    kit_statistics(NULL, &stats, NULL);
    kit_log("%llu switches, %u upcalls", (unsigned long long)stats.switches,
            kit_env_cpu_self(kit_runtime.state.runtime)->upcalls);
    kit_exit(0);
}

int init_application(void)
{
    struct kit_task_spec spec = {
        .entry = referee, .name = "referee", .priority = 1, .flags = KIT_TASK_DETACHED};
    int rc = kit_task_spawn(&spec, NULL);
    for (int i = 0; i < 2 && rc == 0; i++) {
        spec = (struct kit_task_spec){.entry = spin,
                                      .argument = (void *)(uintptr_t)&counts[i],
                                      .name = "spinner",
                                      .flags = KIT_TASK_DETACHED};
        rc = kit_task_spawn(&spec, NULL);
    }
    return rc;
}
