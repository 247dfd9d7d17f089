/* SPDX-License-Identifier: MIT */
/* The environment's calls of an image that also has objects of unikit/testing/virtual.h: what the
 * image's own platform does not answer goes through the object's table. */
#include <unikit/platform/console/console.h>
#include <unikit/platform/env.h>

KIT_ENV_DECLARE(virtual);

const char kit_virtual_name[] = "virtual";

void kit_virtual_panic_handler(runtime_environment_t *env, const char *message)
{
    env->panic_handler(env, message);
}

uint64_t kit_virtual_now_ns(runtime_environment_t *env)
{
    return env->now_ns(env);
}

uint64_t kit_virtual_wall_ns(runtime_environment_t *env)
{
    return env->wall_ns(env);
}

int kit_virtual_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    return env->entropy(env, buffer, size);
}

uint32_t kit_virtual_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    return env->wait(env, deadline_ns, wake);
}

int kit_virtual_page_release(runtime_environment_t *env, void *base, size_t size)
{
    return env->page_release ? env->page_release(env, base, size) : KIT_ENOTSUP;
}

int kit_virtual_page_protect(runtime_environment_t *env, void *base, size_t size, uint32_t access)
{
    return env->page_protect ? env->page_protect(env, base, size, access) : KIT_ENOTSUP;
}

int kit_virtual_cpu_start(runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument),
                          void *argument, void *stack_top)
{
    (void)env, (void)cpu, (void)entry, (void)argument, (void)stack_top;
    return KIT_ENOTSUP;
}

void kit_virtual_cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    (void)env, (void)cpu;
}

struct kit_cpu *kit_virtual_cpu_self(runtime_environment_t *env)
{
    return env->cpu_self(env);
}

int kit_virtual_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    return env->cpu_slice(env, stop_ns);
}

const char *kit_virtual_boot_option(runtime_environment_t *env, const char *name)
{
    return env->boot_option(env, name);
}

void kit_virtual_exit(runtime_environment_t *env, int32_t code)
{
    env->exit(env, code);
}

uint64_t kit_virtual_cpu_features(runtime_environment_t *env)
{
    return env->cpu_features;
}

size_t kit_virtual_console_write(console_interface_t *console, const char *data, size_t length)
{
    return console->write(console, data, length);
}

size_t kit_virtual_console_read(console_interface_t *console, char *buffer, size_t max_length)
{
    return console->read(console, buffer, max_length);
}
