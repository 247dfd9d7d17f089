/* SPDX-License-Identifier: MIT */
/* The platform's own console, by name: what an image has if nothing else is chosen, and what a tee
 * can be told to write to. Hands out the environment's object itself, so it costs nothing. */
#include <unikit/platform/console/console.h>

static int platform_open(const uint64_t *options, const struct kit_console_parts *parts,
                         console_interface_t **out)
{
    (void)options;
    *out = parts->env->console;
    return 0;
}

const struct kit_console_component kit_console_platform = {
    .id = "console.platform", .abi = KIT_CONSOLE_ABI, .open = platform_open};
