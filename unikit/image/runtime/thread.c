/* SPDX-License-Identifier: MIT */
/* The calls of app.h that block the calling task: only with a scheduler that has threads. */
#include <unikit/image/runtime/runtime.h>

int kit_task_join(struct kit_task *task, uint64_t deadline_ns)
{
    KIT_INSIDE;
    return kit_sched_join(kit_runtime.sched, task, deadline_ns);
}

void kit_task_yield(void)
{
    KIT_INSIDE;
    kit_sched_yield(kit_runtime.sched);
}

int kit_task_sleep_until(uint64_t deadline_ns)
{
    KIT_INSIDE;
    for (;;) {
        int rc = kit_sched_block(kit_runtime.sched, deadline_ns);
        if (rc == KIT_ETIMEDOUT)
            return 0;
        if (rc != 0)
            return rc;
        /* A wake that was meant for an earlier block: go on sleeping. */
    }
}
