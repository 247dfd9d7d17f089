/* SPDX-License-Identifier: MIT */
/* Runs the scheduler suite (threads, mutex, condition and semaphore too where there are threads) on
 * the image's scheduler, which is called directly; without guard pages, then with the platform's.
 */
#include <unikit/testing/suite_sched.h>

#include "suite_image.h"

int kit_image_page_protect(runtime_environment_t *env, void *base, size_t size, uint32_t access);

static int protect(runtime_environment_t *env, void *base, size_t size, uint32_t access)
{
    (void)env;
    return kit_image_page_protect(kit_runtime.state.runtime, base, size, access);
}

int init_application(void)
{
    static struct kit_virtual clock;
    struct kit_report report = {.fail = suite_fail};
    int result = 0;
    for (int guard = 0; guard < 2 && result == 0; guard++) {
        kit_virtual_open(&clock, NULL, 0, 1);
        clock.env.page_protect = guard ? protect : NULL;
        result =
            kit_suite_sched(&KIT_SOLE_SCHED, suite_options, kit_runtime.alloc, &clock, &report);
    }
    suite_end(&report, result);
}
