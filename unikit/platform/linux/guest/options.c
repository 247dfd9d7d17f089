/* SPDX-License-Identifier: MIT */
/* Boot options from the command line (scheme in linux.h). They are looked up in the process's own
 * argument strings, which stay where the kernel put them; nothing is copied. */
#include <unikit/platform/linux/guest/linux.h>

static bool is_separator(const char *argument)
{
    return argument[0] == '-' && argument[1] == '-' && argument[2] == 0;
}

/* The value if `argument` is «name=value» with this name, else NULL. */
static const char *value_of(const char *argument, const char *name)
{
    size_t i = 0;
    while (name[i] != 0 && argument[i] == name[i])
        i++;
    return name[i] == 0 && argument[i] == '=' ? argument + i + 1 : NULL;
}

const char *kit_linux_option(const char *name)
{
    const char *found = NULL;
    char **argument = kit_linux.process.arguments;
    for (; *argument != NULL && !is_separator(*argument); argument++) {
        const char *value = value_of(*argument, name);
        if (value != NULL)
            found = value;
    }
    if (name[0] == 0)
        return *argument != NULL ? argument[1] : NULL;
    return found;
}

/* The kernel lays argument strings out one behind the other (fs/exec.c, copy_strings), so blanks
 * in place of their terminators join them. */
static void join(char **arguments)
{
    for (; arguments[0] != NULL && arguments[1] != NULL; arguments++) {
        char *end = arguments[0] + strlen(arguments[0]);
        if (end + 1 != arguments[1])
            return;
        *end = ' ';
    }
}

void kit_linux_check_arguments(void)
{
    char **argument = kit_linux.process.arguments;
    for (; *argument != NULL && !is_separator(*argument); argument++) {
        const char *text = *argument;
        while (*text != 0 && *text != '=')
            text++;
        if (*text == 0 || text == *argument)
            kit_linux_refuse("give boot options as name=value and the application's own "
                             "arguments after --; this is neither: ",
                             *argument);
    }
    if (*argument == NULL)
        return;
    /* strlen would run on from a joined string to the next one; join from the back. */
    char **last = argument + 1;
    while (*last != NULL)
        last++;
    for (last -= 2; last > argument; last--)
        join(last);
}

static unsigned shift_of(char unit)
{
    switch (unit) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    default:
        return 0;
    }
}

uint64_t kit_linux_number(const char *name, uint64_t fallback, uint64_t minimum, uint64_t maximum)
{
    const char *text = kit_linux_option(name);
    if (text == NULL)
        return fallback;
    uint64_t value = 0;
    bool good = *text >= '0' && *text <= '9';
    for (; *text >= '0' && *text <= '9' && value <= maximum; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    unsigned shift = shift_of(*text);
    text += shift != 0;
    good = good && *text == 0 && value <= maximum >> shift && value << shift >= minimum;
    if (!good)
        kit_linux_refuse("not a number or out of range: ", name);
    return value << shift;
}
