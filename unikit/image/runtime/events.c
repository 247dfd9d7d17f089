/* SPDX-License-Identifier: MIT */
/* The calls of app.h that make something happen later: only with a scheduler. */
#include <unikit/image/runtime/runtime.h>

void kit_task_post(struct kit_work *work)
{
    KIT_INSIDE;
    kit_sched_post(kit_runtime.sched, work);
}

int kit_task_spawn(const struct kit_task_spec *spec, struct kit_task **out)
{
    KIT_INSIDE;
    return kit_sched_spawn(kit_runtime.sched, spec, out);
}

struct kit_task *kit_task_current(void)
{
    return kit_sched_current(kit_runtime.sched);
}

int kit_timer_start(struct kit_timer *timer, uint64_t delay_ns)
{
    KIT_INSIDE;
    uint64_t now = kit_clock_now();
    uint64_t deadline_ns = delay_ns < KIT_NEVER - now ? now + delay_ns : KIT_NEVER - 1;
    return kit_sched_arm(kit_runtime.sched, timer, deadline_ns);
}

bool kit_timer_stop(struct kit_timer *timer)
{
    KIT_INSIDE;
    return kit_sched_cancel(kit_runtime.sched, timer);
}

struct kit_sched *kit_task_scheduler(void)
{
    return kit_runtime.sched;
}
