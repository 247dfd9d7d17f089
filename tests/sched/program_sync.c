/* SPDX-License-Identifier: MIT */
/* Misuse of sync.h, one at a time: program_sync MODE. */
#include "hosted.h"

#include <string.h>

#include <unikit/sched/sync.h>

extern const struct kit_sched_component COMPONENT;

static struct kit_sched *s;
static struct kit_mutex mutex;
static struct kit_condition condition;
static const char *mode;

static void hold(void *argument)
{
    (void)argument;
    kit_mutex_lock(s, &mutex, KIT_NEVER);
    kit_sched_block(s, KIT_NEVER);
}

static void misuse(void *argument)
{
    (void)argument;
    if (strcmp(mode, "relock") == 0) {
        kit_mutex_lock(s, &mutex, KIT_NEVER);
        kit_mutex_lock(s, &mutex, KIT_NEVER);
    } else if (strcmp(mode, "foreign") == 0) {
        kit_mutex_unlock(s, &mutex);
    } else {
        kit_condition_wait(s, &condition, &mutex, KIT_NEVER);
    }
}

int main(int argc, char **argv)
{
    static struct kit_virtual world;
    const uint64_t options[] = {65536, 0, 0, 0};
    mode = argc > 1 ? argv[1] : "";
    kit_virtual_open(&world, NULL, 0, 1);
    if (COMPONENT.open(options, &world.env, &hosted_heap, &s) != 0)
        return 2;
    struct kit_task_spec holder = {.entry = hold, .flags = KIT_TASK_DETACHED};
    struct kit_task_spec culprit = {.entry = misuse, .flags = KIT_TASK_DETACHED};
    if (strcmp(mode, "foreign") == 0)
        kit_sched_spawn(s, &holder, NULL);
    kit_sched_spawn(s, &culprit, NULL);
    while (kit_sched_turn(s)) {
    }
    puts("nothing happened");
    return 0;
}
