/* SPDX-License-Identifier: MIT */
/* The loop as an application in an image has it. */
#include <unikit/app.h>

#define TAKE(size) kit_memory_alloc(size, 0)
#define GIVE(block, size) kit_memory_free(block, size, 0)
#include "loop.h"

static struct live live[LIVE];

int init_application(void)
{
    uint64_t end = replace(live, PAIRS);
    kit_print(end & 1 ? "odd\n" : "even\n", 4);
    return 0;
}
