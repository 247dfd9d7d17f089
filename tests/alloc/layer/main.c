/* SPDX-License-Identifier: MIT */
/* Says how many requests the allocator of the image answers. */
#include <unikit/app.h>

int init_application(void)
{
    unsigned answered = 0;
    while (answered < 1000 && kit_memory_alloc(16, 0) != NULL)
        answered++;
    kit_log("answered %u", answered);
    return 0;
}
