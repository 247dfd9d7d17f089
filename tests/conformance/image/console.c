/* SPDX-License-Identifier: MIT */
/* Runs the console suite on console number SUBJECT of the composition, over the image's own
 * environment, allocator and stack. What the suite writes goes to the platform's console. */
#include <unikit/testing/suite_console.h>

#include "suite_image.h"

int init_application(void)
{
    struct kit_report report = {.fail = suite_fail};
    runtime_environment_t *env = kit_runtime.state.runtime;
    const struct kit_console_parts parts = {.env = env,
                                            .alloc = kit_runtime.alloc,
                                            .net = kit_runtime.net,
                                            .inner = {env->console, env->console},
                                            .inner_count = 2};
    int result = kit_suite_console(kit_composition.consoles[SUBJECT].component, suite_options,
                                   &parts, &report);
    kit_runtime.console = env->console; /* the report must be seen whatever the console does */
    suite_end(&report, result);
}
