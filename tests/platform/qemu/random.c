/* SPDX-License-Identifier: MIT */
/* Prints eight random bytes, or why there are none. */
#include <unikit/app.h>

int init_application(void)
{
    uint64_t word = 0;
    int rc = kit_random(&word, sizeof word);
    if (rc == 0)
        kit_log("random 0 %016lx", (unsigned long)word);
    else
        kit_log("random %d", rc);
    kit_exit(0);
}
