/* SPDX-License-Identifier: MIT */
/* An image whose second task runs out of stack. */
#include <unikit/app.h>

static size_t sink(size_t depth)
{
    volatile char room[512];
    for (size_t i = 0; i < sizeof(room); i++)
        room[i] = (char)depth;
    return depth == 0 ? 0 : sink(depth - 1) + (size_t)room[depth % 512];
}

static void innocent(void *argument)
{
    (void)argument;
    kit_task_sleep_until(KIT_NEVER);
}

static void guilty(void *argument)
{
    (void)argument;
    kit_log("%zu", sink(1000));
}

int init_application(void)
{
    struct kit_task_spec first = {
        .entry = innocent, .name = "innocent", .flags = KIT_TASK_DETACHED};
    struct kit_task_spec second = {
        .entry = guilty, .name = "deep-thought", .flags = KIT_TASK_DETACHED};
    int rc = kit_task_spawn(&first, NULL);
    return rc != 0 ? rc : kit_task_spawn(&second, NULL);
}
