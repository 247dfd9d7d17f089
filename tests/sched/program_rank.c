/* SPDX-License-Identifier: MIT */
/* Prints the order in which tasks a...e run, turn by turn; capitals have a priority. */
#include "hosted.h"

extern const struct kit_sched_component COMPONENT;

static struct kit_sched *s;

static void shout(void *argument)
{
    for (int i = 0; i < 3; i++) {
        putchar(*(const char *)argument);
        kit_sched_yield(s);
    }
}

int main(void)
{
    static struct kit_virtual world;
    static const char names[] = "aBcDe";
    const uint64_t options[] = {16384};
    kit_virtual_open(&world, NULL, 0, 1);
    if (COMPONENT.open(options, &world.env, &hosted_heap, &s) != 0)
        return 2;
    for (int i = 0; i < 5; i++) {
        struct kit_task_spec spec = {.entry = shout,
                                     .argument = (void *)&names[i],
                                     .priority = names[i] < 'a',
                                     .flags = KIT_TASK_DETACHED};
        if (kit_sched_spawn(s, &spec, NULL) != 0)
            return 2;
    }
    for (int turn = 0; turn < 3; turn++) {
        kit_sched_turn(s);
        putchar(turn < 2 ? ' ' : '\n');
    }
    kit_sched_turn(s);
    kit_sched_close(s);
    return hosted_blocks != 0;
}
