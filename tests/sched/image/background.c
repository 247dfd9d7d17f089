/* SPDX-License-Identifier: MIT */
/* An application that works by events, beside a task that computes for ever. Its own
 * init_application has another name here (-Dinit_application=...). */
#include <unikit/app.h>

#undef init_application
int init_application(void);
int init_foreground(void);

static void compute(void *argument)
{
    (void)argument;
    for (volatile uint64_t i = 0;; i++) {
    }
}

int init_application(void)
{
    const struct kit_task_spec spec = {
        .entry = compute, .name = "background", .flags = KIT_TASK_DETACHED};
    int rc = kit_task_spawn(&spec, NULL);
    return rc != 0 ? rc : init_foreground();
}
