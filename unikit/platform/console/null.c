/* SPDX-License-Identifier: MIT */
/* Takes everything, keeps nothing, has no input. Its object has no state, so all instances are one
 * constant, which nobody writes to although its type allows it. */
#include <unikit/platform/console/console.h>

static size_t null_write(console_interface_t *console, const char *data, size_t length)
{
    (void)console;
    (void)data;
    return length;
}

static size_t null_read(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console;
    (void)buffer;
    (void)max_length;
    return 0;
}

static const console_interface_t null_console = {.write = null_write, .read = null_read};

static int null_open(const uint64_t *options, const struct kit_console_parts *parts,
                     console_interface_t **out)
{
    (void)options;
    (void)parts;
    *out = (console_interface_t *)(uintptr_t)&null_console;
    return 0;
}

const struct kit_console_component kit_console_null = {
    .id = "console.null", .abi = KIT_CONSOLE_ABI, .open = null_open};
