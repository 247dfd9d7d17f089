/* SPDX-License-Identifier: MIT */
/* Sleeps for ever. */
#include <unikit/app.h>

static void again(struct kit_timer *timer)
{
    (void)kit_timer_start(timer, KIT_NS_PER_S);
}

int init_application(void)
{
    static struct kit_timer timer = {.run = again};
    return kit_timer_start(&timer, KIT_NS_PER_S);
}
