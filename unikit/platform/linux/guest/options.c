/* SPDX-License-Identifier: MIT */
/* Boot options from the command line (scheme in linux.h). They are looked up in the process's own
 * argument strings, which stay where the kernel put them; nothing is copied. */
#include <unikit/platform/linux/guest/linux.h>

const char *kit_linux_option(const char *name)
{
    if (*name == 0)
        return kit_linux.argument;
    const char *found = NULL;
    size_t length = strlen(name);
    for (char **argument = kit_linux.arguments; *argument != NULL; argument++)
        if (strlen(*argument) > length && memcmp(*argument, name, length) == 0 &&
            (*argument)[length] == '=')
            found = *argument + length + 1;
    return found;
}

/* The kernel lays argument strings out one behind the other (fs/exec.c, copy_strings), so blanks
 * in place of their terminators join them. */
static LINUX_COLD char *join(char **arguments)
{
    char *first = *arguments, *end = first;
    while (*arguments != NULL && *++arguments != NULL)
        for (; end < *arguments; end++)
            if (*end == 0)
                *end = ' ';
    return first;
}

void kit_linux_read_arguments(char **arguments)
{
    kit_linux.arguments = arguments;
    for (; *arguments != NULL; arguments++) {
        char *text = *arguments;
        if (text[0] == '-' && text[1] == '-' && text[2] == 0) {
            *arguments = NULL; /* the end of the options */
            kit_linux.argument = join(arguments + 1);
            return;
        }
        while (*text != 0 && *text != '=')
            text++;
        if (*text == 0 || text == *arguments)
            kit_linux_refuse("not name=value (arguments go after --): ", *arguments);
    }
}

static LINUX_COLD unsigned shift_of(char unit)
{
    return unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
}

uint64_t kit_linux_number(const char *name, uint64_t fallback, uint64_t minimum, uint64_t maximum)
{
    const char *text = kit_linux_option(name);
    if (text == NULL)
        return fallback;
    uint64_t value = 0;
    const char *first = text;
    for (; *text >= '0' && *text <= '9' && value <= maximum; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    unsigned shift = shift_of(*text);
    bool good = text != first && text[shift != 0] == 0 && value <= maximum >> shift &&
                value << shift >= minimum;
    if (!good)
        kit_linux_refuse("not a number or out of range: ", name);
    return value << shift;
}
