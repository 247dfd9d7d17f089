/* SPDX-License-Identifier: MIT */
/* 100,000 tasks alive at once: each sleeps, by deadlines that are far from in order. */
#define HOSTED_ROOM_OF 0 /* nobody runs over here */
#include "hosted.h"

extern const struct kit_sched_component COMPONENT;

enum { MANY = 100000 };

static struct kit_virtual world;
static struct kit_sched *s;
static uint64_t last_ns, woken;

static void sleeps(void *argument)
{
    uint64_t deadline_ns = (uint64_t)(uintptr_t)argument;
    if (kit_sched_block(s, deadline_ns) != KIT_ETIMEDOUT || deadline_ns < last_ns)
        kit_panic("woken out of order");
    last_ns = deadline_ns;
    woken++;
}

int main(void)
{
    const uint64_t options[] = {1024, 0, 0, 0};
    struct kit_sched_stats stats;
    kit_virtual_open(&world, NULL, 0, 1);
    if (COMPONENT.open(options, &world.env, &hosted_heap, &s) != 0)
        return 2;
    size_t before = hosted_bytes;
    for (uintptr_t i = 0; i < MANY; i++) {
        struct kit_task_spec spec = {.entry = sleeps,
                                     .argument = (void *)(1000000 + i * 7919 % MANY * 1000),
                                     .flags = KIT_TASK_DETACHED};
        if (kit_sched_spawn(s, &spec, NULL) != 0)
            return 3;
    }
    kit_sched_turn(s);
    kit_sched_stats(s, &stats);
    printf("%zu alive, %zu ready, %d KiB each\n", stats.tasks, stats.runnable,
           (int)((hosted_bytes - before + MANY * 512) / MANY / 1024));
    while (woken < MANY) {
        uint64_t deadline_ns = kit_sched_deadline_ns(s);
        world.clock_ns = deadline_ns > world.clock_ns ? deadline_ns : world.clock_ns;
        kit_sched_turn(s);
    }
    kit_sched_stats(s, &stats);
    printf("%zu alive, check %d\n", stats.tasks, kit_sched_check(s));
    kit_sched_close(s);
    printf("left %zu\n", hosted_blocks);
    return 0;
}
