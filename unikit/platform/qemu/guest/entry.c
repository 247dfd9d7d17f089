/* SPDX-License-Identifier: MIT */
/* The environment at CPL 3. */
#include <unikit/platform/qemu/guest/virtio.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/x86_64/cpu.h>

const char kit_pvh_name[] = "pvh";

PVH_COLD _Noreturn void kit_pvh_main(void);

PVH_COLD void kit_pvh_panic_handler(runtime_environment_t *env, const char *message)
{
    (void)env;
    kit_pvh.panic = message;
    __builtin_trap();
}

PVH_COLD int kit_pvh_page_release(runtime_environment_t *env, void *base, size_t size)
{
    (void)env;
    const struct pvh_range *heap = &kit_pvh.heap;
    uint64_t start = (uint64_t)base;
    if (((start | size) & (PVH_PAGE - 1)) != 0 || start < heap->start || start > heap->end ||
        size > heap->end - start)
        return KIT_EINVAL;
    memset(base, 0, size); /* nothing of PVH takes memory back; it reads as zero all the same */
    return KIT_OK;
}

PVH_COLD int kit_pvh_page_protect(runtime_environment_t *env, void *base, size_t size,
                                  uint32_t access)
{
    (void)env;
    return (int)pvh_gate(PVH_GATE_PROTECT, (uint64_t)base, size, access);
}

PVH_COLD int kit_pvh_cpu_start(runtime_environment_t *env, uint32_t cpu,
                               void (*entry)(void *argument), void *argument, void *stack_top)
{
    (void)env, (void)cpu, (void)entry, (void)argument, (void)stack_top;
    return KIT_ENOTSUP;
}

void kit_pvh_cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    (void)env, (void)cpu;
}

struct kit_cpu *kit_pvh_cpu_self(runtime_environment_t *env)
{
    (void)env;
    return &kit_pvh.cpu;
}

PVH_COLD int kit_pvh_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    (void)env, (void)stop_ns;
    return KIT_ENOTSUP;
}

PVH_COLD void kit_pvh_exit(runtime_environment_t *env, int32_t code)
{
    (void)env;
    pvh_leave(code);
}

PVH_COLD uint64_t kit_pvh_cpu_features(runtime_environment_t *env)
{
    (void)env;
    return kit_cpu_detect();
}

static PVH_COLD void fill_environment(runtime_environment_t *env)
{
    KIT_CONSOLE_SET(&kit_pvh.console, write, kit_pvh_console_write);
    KIT_CONSOLE_SET(&kit_pvh.console, read, kit_pvh_console_read);
    env->memory =
        (memory_region_t){(void *)kit_pvh.heap.start, kit_pvh.heap.end - kit_pvh.heap.start};
    env->console = &kit_pvh.console;
    KIT_ENV_SET(env, panic_handler, kit_pvh_panic_handler);
    KIT_ENV_SET(env, now_ns, kit_pvh_now_ns);
    KIT_ENV_SET(env, wall_ns, kit_pvh_wall_ns);
    KIT_ENV_SET(env, entropy, kit_pvh_entropy);
    KIT_ENV_SET(env, wait, kit_pvh_wait);
    KIT_ENV_SET(env, page_release, kit_pvh_page_release);
    KIT_ENV_SET(env, page_protect, kit_pvh_page_protect);
    KIT_ENV_SET(env, cpu_start, kit_pvh_cpu_start);
    KIT_ENV_SET(env, cpu_wake, kit_pvh_cpu_wake);
    KIT_ENV_SET(env, cpu_self, kit_pvh_cpu_self);
    KIT_ENV_SET(env, cpu_slice, kit_pvh_cpu_slice);
    KIT_ENV_SET(env, boot_option, kit_pvh_boot_option);
    KIT_ENV_SET(env, exit, kit_pvh_exit);
    KIT_ENV_SET(env, cpu_features, kit_pvh_cpu_features(env));
    env->cpus = 1;
    env->platform = kit_pvh_name;
}

__attribute__((used)) _Noreturn void kit_pvh_main(void)
{
    pvh_serial_open();
    if (KIT_WITH_NETWORK)
        pvh_network_open(); /* takes its memory from the heap */
    fill_environment(&kit_pvh.env);
    pvh_leave(unikernel_main(&kit_pvh.env));
}
