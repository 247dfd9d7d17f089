/* SPDX-License-Identifier: MIT */
/* The virtual environment: every call that a component may make, without a machine behind it. The
 * entropy is SplitMix64 of the seed (suite.h), fit for repeating, not for keys. */
#include <unikit/testing/suite.h>
#include <unikit/testing/virtual.h>

static struct kit_virtual *virtual_of(runtime_environment_t *env)
{
    return KIT_CONTAINER_OF(env, struct kit_virtual, env);
}

static size_t virtual_write(console_interface_t *console, const char *data, size_t length)
{
    struct kit_virtual *v = KIT_CONTAINER_OF(console, struct kit_virtual, console);
    size_t room = KIT_VIRTUAL_OUTPUT - v->output_length;
    size_t taken = length < room ? length : room;
    if (taken == 0)
        return 0;
    memcpy(v->output + v->output_length, data, taken);
    v->output_length += taken;
    return taken;
}

static size_t virtual_read(console_interface_t *console, char *buffer, size_t max_length)
{
    struct kit_virtual *v = KIT_CONTAINER_OF(console, struct kit_virtual, console);
    size_t taken = v->input_length < max_length ? v->input_length : max_length;
    if (taken == 0)
        return 0;
    memcpy(buffer, v->input, taken);
    v->input += taken;
    v->input_length -= taken;
    return taken;
}

static void virtual_panic(runtime_environment_t *env, const char *message)
{
    (void)env;
    kit_panic(message);
}

static uint64_t virtual_now_ns(runtime_environment_t *env)
{
    return virtual_of(env)->clock_ns;
}

static uint64_t virtual_wall_ns(runtime_environment_t *env)
{
    struct kit_virtual *v = virtual_of(env);
    return v->epoch_ns == 0 ? 0 : v->epoch_ns + v->clock_ns;
}

static int virtual_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    uint8_t *to = buffer;
    while (size > 0) {
        uint64_t word = kit_suite_random(&virtual_of(env)->random);
        size_t part = size < sizeof(word) ? size : sizeof(word);
        memcpy(to, &word, part);
        to += part;
        size -= part;
    }
    return 0;
}

static uint32_t virtual_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    struct kit_virtual *v = virtual_of(env);
    uint32_t ready = v->wake & wake;
    v->waits++;
    v->wake &= ~ready;
    if (ready == 0 && deadline_ns != KIT_NEVER && deadline_ns > v->clock_ns)
        v->clock_ns = deadline_ns;
    return ready;
}

static const char *virtual_boot_option(runtime_environment_t *env, const char *name)
{
    (void)env;
    (void)name;
    return NULL;
}

static void virtual_exit(runtime_environment_t *env, int32_t code)
{
    struct kit_virtual *v = virtual_of(env);
    v->exited = true;
    v->exit_code = code;
    kit_panic("the virtual environment was left by exit()");
}

static struct kit_cpu *virtual_cpu_self(runtime_environment_t *env)
{
    return &virtual_of(env)->cpu;
}

static int virtual_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    (void)env, (void)stop_ns;
    return KIT_ENOTSUP;
}

void kit_virtual_open(struct kit_virtual *virtual, void *memory, size_t size, uint64_t seed)
{
    *virtual = (struct kit_virtual){
        .env = {.memory = {memory, size},
                .console = &virtual->console,
                .panic_handler = virtual_panic,
                .now_ns = virtual_now_ns,
                .wall_ns = virtual_wall_ns,
                .entropy = virtual_entropy,
                .wait = virtual_wait,
                .boot_option = virtual_boot_option,
                .exit = virtual_exit,
                .cpu_self = virtual_cpu_self,
                .cpu_slice = virtual_cpu_slice,
                .cpus = 1,
                .platform = "virtual"},
        .console = {.write = virtual_write, .read = virtual_read},
        .random = seed,
    };
}

runtime_environment_t *kit_virtual_environment(struct kit_virtual *virtual)
{
    return &virtual->env;
}

void kit_virtual_advance(struct kit_virtual *virtual, uint64_t ns)
{
    virtual->clock_ns += ns;
}
