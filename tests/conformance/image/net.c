/* SPDX-License-Identifier: MIT */
/* Runs the suite of stacks on the image's stack, which is called directly, in virtual time. */
#include <unikit/testing/suite_net.h>

#include "suite_image.h"

int init_application(void)
{
    static struct kit_virtual clock;
    struct kit_report report = {.fail = suite_fail};
    kit_virtual_open(&clock, NULL, 0, 1);
    suite_end(&report,
              kit_suite_net(&KIT_SOLE_NET, suite_options, kit_runtime.alloc, &clock, 100, &report));
}
