/* SPDX-License-Identifier: MIT */
/* app.h over the components of the composition: what every image can serve. */
#include <unikit/image/runtime/runtime.h>

enum { LINE_MAX = 255 };

uint64_t kit_clock_now(void)
{
    KIT_INSIDE;
    return kit_env_now_ns(kit_runtime.state.runtime);
}

uint64_t kit_clock_wall(void)
{
    KIT_INSIDE;
    return kit_env_wall_ns(kit_runtime.state.runtime);
}

uint64_t kit_uptime(void)
{
    return kit_clock_now() - kit_runtime.state.runtime->start_ns;
}

int kit_random(void *buffer, size_t size)
{
    KIT_INSIDE;
    return kit_env_entropy(kit_runtime.state.runtime, buffer, size);
}

/* Says what was lost as soon as the console takes text again; false: it still does not. By hand,
 * so that an image that formats nothing carries no formatter. */
static __attribute__((cold)) bool report_lost(console_interface_t *console)
{
    char line[48], *at = line + sizeof line;
    static const char tail[] = " bytes lost]\n";
    at -= sizeof tail - 1;
    memcpy(at, tail, sizeof tail - 1);
    for (size_t left = kit_runtime.console_lost; left != 0; left /= 10)
        *--at = (char)('0' + left % 10);
    *--at = '[';
    *--at = '\n';
    size_t length = (size_t)(line + sizeof line - at);
    if (kit_console_write(console, at, length) < length)
        return false;
    kit_runtime.console_lost = 0;
    return true;
}

static inline __attribute__((always_inline)) void print(const char *text, size_t length)
{
    KIT_INSIDE;
    console_interface_t *console = kit_runtime.console;
    if (length == 0)
        return;
    if (kit_runtime.console_lost != 0 && !report_lost(console)) {
        kit_runtime.console_lost += length;
        return;
    }
    size_t taken = kit_console_write(console, text, length);
    /* One more try for the rest: a ring that wrapped takes the second half at once. */
    if (taken < length && taken != 0)
        taken += kit_console_write(console, text + taken, length - taken);
    kit_runtime.console_lost += length - taken;
}

void kit_print(const char *text, size_t length)
{
    if (KIT_WITH_CPUS)
        kit_runtime_lock_console();
    print(text, length);
    if (KIT_WITH_CPUS)
        kit_runtime_unlock_console();
}

void kit_log(const char *format, ...)
{
    char line[LINE_MAX + 2];
    va_list arguments;
    va_start(arguments, format);
    size_t length = kit_vformat(line, LINE_MAX + 1, format, arguments);
    va_end(arguments);
    if (length > LINE_MAX)
        length = LINE_MAX;
    line[length] = '\n';
    kit_print(line, length + 1);
}

/* Reading makes input an event that ends a wait. One that ended so and then finds nothing to read
 * would do it again and again, so such input is an event no longer. */
size_t kit_console_read(char *buffer, size_t max_length)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_console_read");
    size_t got = kit_console_input(kit_runtime.console, buffer, max_length);
    if (got != 0)
        kit_runtime.console_mute = false;
    else if (kit_runtime.console_rang && max_length != 0)
        kit_runtime.console_mute = true;
    kit_runtime.console_rang = false;
    kit_runtime.console_wanted = !kit_runtime.console_mute;
    return got;
}

const char *kit_boot_option(const char *name)
{
    return kit_env_boot_option(kit_runtime.state.runtime, name);
}

uint64_t kit_app_option(const char *name)
{
    size_t length = strlen(name);
    for (uint32_t i = 0; i < kit_composition.app_option_count; i++) {
        const struct kit_app_option *option = &kit_composition.app_options[i];
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return *option->value;
    }
    kit_panic("kit_app_option: image.py does not declare this option");
}

const char *kit_platform_name(void)
{
    return kit_runtime.state.runtime->platform;
}

const char *kit_component_at(size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (kit_composition.components[i] == NULL)
            return NULL;
    return kit_composition.components[index];
}

#if !KIT_WITH_CPUS
uint32_t kit_cpu_count(void)
{
    return 1;
}

uint32_t kit_cpu_number(void)
{
    return 0;
}
#endif

void kit_statistics(struct kit_alloc_stats *memory, struct kit_sched_stats *tasks,
                    struct kit_net_stats *network)
{
    KIT_INSIDE;
    if (memory != NULL)
        kit_alloc_stats(kit_runtime.alloc, memory);
    if (tasks != NULL) {
        if (kit_composition.sched != NULL)
            kit_sched_stats(kit_runtime.sched, tasks);
        else
            memset(tasks, 0, sizeof *tasks);
    }
    if (network != NULL) {
        if (kit_composition.net != NULL)
            kit_net_stats(kit_runtime.net, network);
        else
            memset(network, 0, sizeof *network);
    }
}

/* What was sent, a console's last lines among it, may still wait in the stack for its next poll: it
 * gets one, unless this is called from within a poll or while that last one runs. */
void kit_exit(int32_t code)
{
    KIT_INSIDE;
    runtime_environment_t *env = kit_runtime.state.runtime;
    bool first = !KIT_WITH_CPUS || kit_env_cpu_self(env)->number == 0;
    if (kit_runtime_layer_can(KIT_ALLOC_LEAKS))
        kit_runtime_report_leaks();
    if (kit_composition.console_count != 0 && first)
        kit_console_write(kit_runtime.console, NULL, 0);
    if (kit_composition.net != NULL && kit_runtime.net != NULL && !kit_runtime.net_polled &&
        first) {
        kit_runtime.net_polled = true;
        kit_net_poll(kit_runtime.net);
    }
    kit_env_exit(env, code);
    __builtin_trap();
}
