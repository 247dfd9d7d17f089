/* SPDX-License-Identifier: MIT */
/* Spawns eight tasks with stacks of their own, waits for them, and says how many there were and how
 * many blocks the scheduler keeps for later ones. */
#include <unikit/image/runtime/runtime.h>

enum { TASKS = 8 };

static unsigned ran;

static void work(void *argument)
{
    (void)argument;
    kit_task_yield();
    ran++;
}

static void conduct(void *argument)
{
    struct kit_alloc_stats before, after;
    struct kit_task *tasks[TASKS];
    unsigned refused = 0;
    (void)argument;
    kit_alloc_stats(kit_runtime.alloc, &before);
    for (unsigned i = 0; i < TASKS; i++)
        if (kit_task_spawn(&(struct kit_task_spec){.name = "work", .entry = work}, &tasks[i]) !=
            0) {
            tasks[i] = NULL;
            refused++;
        }
    for (unsigned i = 0; i < TASKS; i++)
        if (tasks[i] != NULL)
            kit_task_join(tasks[i], KIT_NEVER);
    kit_alloc_stats(kit_runtime.alloc, &after);
    kit_log("%llu requests", (unsigned long long)kit_alloc_fail_at(kit_runtime.alloc, 0));
    kit_log("%u ran, %u refused, %zu kept", ran, refused, after.blocks - before.blocks);
    kit_exit(kit_alloc_check(kit_runtime.alloc) != 0);
}

int init_application(void)
{
    struct kit_task *task;
    if (kit_task_spawn(&(struct kit_task_spec){.name = "conduct", .entry = conduct}, &task) != 0) {
        kit_log("cannot start conduct: too little memory");
        return 2;
    }
    return 0;
}
