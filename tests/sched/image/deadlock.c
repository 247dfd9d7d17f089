/* SPDX-License-Identifier: MIT */
/* An image whose tasks wait for each other. */
#include <unikit/app.h>

static struct kit_mutex left, right;
static struct kit_event bell;
static struct kit_semaphore gate;
static struct kit_task *first_task;

static void lock_both(struct kit_mutex *one, struct kit_mutex *other)
{
    kit_mutex_lock(kit_task_scheduler(), one, KIT_NEVER);
    kit_task_yield();
    kit_mutex_lock(kit_task_scheduler(), other, KIT_NEVER);
}

static void first(void *argument)
{
    (void)argument;
    lock_both(&left, &right);
}

static void second(void *argument)
{
    (void)argument;
    lock_both(&right, &left);
}

static void third(void *argument)
{
    (void)argument;
    kit_task_join(first_task, KIT_NEVER);
}

static void fourth(void *argument)
{
    struct kit_choice choices[] = {{.kind = KIT_WAIT_EVENT, .object = &bell},
                                   {.kind = KIT_WAIT_SEMAPHORE, .object = &gate}};
    (void)argument;
    kit_wait_any(kit_task_scheduler(), choices, 2, KIT_NEVER);
}

static void fifth(void *argument)
{
    (void)argument;
    kit_task_sleep_until(KIT_NEVER);
}

int init_application(void)
{
    static void (*const entries[])(void *) = {first, second, third, fourth, fifth};
    static const char *const names[] = {"first", "second", "third", "fourth", "fifth"};
    for (int i = 0; i < 5; i++) {
        struct kit_task_spec spec = {.entry = entries[i], .name = names[i]};
        struct kit_task *task;
        int rc = kit_task_spawn(&spec, &task);
        if (rc != 0)
            return rc;
        if (i == 0)
            first_task = task;
    }
    return 0;
}
