/* SPDX-License-Identifier: MIT */
/* Makes the mistake that the argument names, and else forgets two of three blocks. */
#include <unikit/app.h>

static char *volatile block;

int init_application(void)
{
    const char *mistake = kit_boot_option("");
    block = kit_memory_alloc(100, 0);
    if (mistake != NULL && mistake[0] == 'o')
        block[112] = 1; /* beyond what the alignment leaves */
    kit_memory_free(block, 100, 0);
    if (mistake != NULL && mistake[0] == 's')
        block[50] = 1;
    kit_memory_alloc(40, 0);
    kit_memory_alloc(300, 64);
    return 0;
}
