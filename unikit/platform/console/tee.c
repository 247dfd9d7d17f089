/* SPDX-License-Identifier: MIT */
/* Writes to several consoles. Each is given the whole text; one that takes less loses the rest, as
 * it would alone, and holds nobody else up: the tee took what the most willing one took, so that a
 * caller that tries again with the rest doubles nothing there. Input is that of the first console
 * that has some. Space: one pointer for each console. */
#include <unikit/platform/console/console.h>

struct tee {
    console_interface_t console;
    uint32_t count;
    console_interface_t *inner[KIT_CONSOLE_INNER_MAX];
};

static size_t tee_write(console_interface_t *console, const char *data, size_t length)
{
    struct tee *tee = KIT_CONTAINER_OF(console, struct tee, console);
    size_t most = 0;
    for (uint32_t i = 0; i < tee->count; i++) {
        size_t taken = kit_console_write(tee->inner[i], data, length);
        most = taken > most ? taken : most;
    }
    return most;
}

static size_t tee_read(console_interface_t *console, char *buffer, size_t max_length)
{
    struct tee *tee = KIT_CONTAINER_OF(console, struct tee, console);
    size_t got = 0;
    for (uint32_t i = 0; i < tee->count && got == 0; i++)
        got = kit_console_input(tee->inner[i], buffer, max_length);
    return got;
}

static int tee_open(const uint64_t *options, const struct kit_console_parts *parts,
                    console_interface_t **out)
{
    (void)options;
    if (parts->inner_count == 0 || parts->inner_count > KIT_CONSOLE_INNER_MAX)
        return KIT_ENOTSUP;
    struct tee *tee = kit_alloc_alloc(parts->alloc, sizeof *tee, alignof(struct tee));
    if (tee == NULL)
        return KIT_ENOMEM;
    *tee = (struct tee){.console = {.write = tee_write, .read = tee_read},
                        .count = parts->inner_count};
    for (uint32_t i = 0; i < tee->count; i++)
        tee->inner[i] = parts->inner[i];
    *out = &tee->console;
    return 0;
}

const struct kit_console_component kit_console_tee = {
    .id = "console.tee", .abi = KIT_CONSOLE_ABI, .open = tee_open};
