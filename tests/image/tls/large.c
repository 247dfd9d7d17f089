/* SPDX-License-Identifier: MIT */
/* Thread-local variables far larger than a stack: as many tasks as there is memory for, and again
 * when those have ended; the block of one is aligned on a page. */
#include <unikit/app.h>

enum { LARGE = 1 << 20, PAGE = 4096, MOST = 64 };

static _Thread_local _Alignas(PAGE) unsigned char large[LARGE];
static _Thread_local unsigned char last = 9;
unsigned char other_turn(void); /* more.cc */

static unsigned ended, wrong;

static void task(void *argument)
{
    unsigned char number = (unsigned char)(uintptr_t)argument;
    volatile unsigned char stack[4000]; /* nothing of a stack of 8 KiB went to the variables */
    uintptr_t address = (uintptr_t)large;
    __asm__("" : "+r"(address));
    wrong += address % PAGE != 0 || large[0] != 0 || large[LARGE - 1] != 0 || last != 9;
    wrong += other_turn() != 31;
    large[0] = large[LARGE - 1] = last = stack[0] = stack[sizeof stack - 1] = number;
    kit_task_yield();
    wrong += large[0] != number || large[LARGE - 1] != number || last != number;
    wrong += stack[0] != number || other_turn() != 32;
    ended++;
}

/* Tasks until memory is gone; how many. */
static unsigned fill(struct kit_task **tasks)
{
    unsigned count = 0;
    for (int rc = 0; rc == 0 && count < MOST; count += rc == 0) {
        struct kit_task_spec spec = {.entry = task, .argument = (void *)(uintptr_t)(count + 1)};
        rc = kit_task_spawn(&spec, &tasks[count]);
        wrong += rc != 0 && rc != KIT_ENOMEM;
    }
    return count;
}

static void first(void *argument)
{
    struct kit_task *tasks[MOST];
    (void)argument;
    for (int round = 0; round < 2; round++) {
        unsigned count = fill(tasks);
        for (unsigned i = 0; i < count; i++)
            wrong += kit_task_join(tasks[i], KIT_NEVER) != 0;
        kit_log("%u tasks, %u ended, %u wrong", count, ended, wrong);
    }
    kit_exit(wrong == 0 ? 0 : 1);
}

int init_application(void)
{
    struct kit_task_spec spec = {.entry = first, .flags = KIT_TASK_DETACHED};
    return kit_task_spawn(&spec, NULL);
}
