/* SPDX-License-Identifier: MIT */
/* From the process entry to unikernel_main: fills the runtime environment with system calls. */
#include <unikit/platform/linux/guest/linux.h>
#include <unikit/rt/x86_64/cpu.h>

struct linux_state kit_linux;
const char kit_linux_name[] = "linux";

/* Called by start.S, the second on the stack that the first returns. */
LINUX_COLD void *kit_linux_start(char **initial, const uintptr_t *auxiliary);
_Noreturn void kit_linux_main(void);

/* Ends with the parent, also if that one ended before the call. */
static void follow_parent(void)
{
    uint64_t parent = kit_linux_number("parent", 0, 1, INT32_MAX);
    if (parent == 0)
        return;
    kit_syscall3(SYS_PRCTL, PR_SET_PDEATHSIG, SIGKILL, 0);
    if (kit_syscall3(SYS_GETPPID, 0, 0, 0) != (long)parent)
        kit_linux_leave(LINUX_CODE_REFUSED);
}

int kit_linux_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    (void)env;
    size_t done = 0;
    while (done < size) { /* the kernel gives at least 256 bytes a call */
        long count =
            kit_syscall3(SYS_GETRANDOM, (uintptr_t)buffer + done, size - done, GRND_NONBLOCK);
        if (count == -LINUX_EINTR)
            continue;
        if (count <= 0)
            return KIT_EIO;
        done += (size_t)count;
    }
    return KIT_OK;
}

#if KIT_WITH_CPUS
/* The devices are the first processor's. */
static uint32_t wait_for_processors(uint64_t deadline_ns, uint32_t wake)
{
    struct linux_cpu *here = KIT_CONTAINER_OF(kit_cpu_here(), struct linux_cpu, cpu);
    struct linux_pollfd console = {-1, POLLIN, 0}, network = {-1, POLLIN, 0};
    if (here->cpu.number == 0 && (wake & KIT_WAKE_CONSOLE) != 0 && !kit_linux.input_closed)
        console.fd = 0;
    if (KIT_WITH_NETWORK && here->cpu.number == 0 && (wake & KIT_WAKE_NETWORK) != 0)
        network.fd = kit_linux.network_fd;
    struct linux_pollfd files[3] = {console, network};
    size_t count = console.fd < 0 && network.fd < 0 ? 0 : 2;
    uint32_t found = kit_linux_cpu_wait(here, files, count, deadline_ns);
    if ((files[0].revents & POLLNVAL) != 0)
        kit_linux.input_closed = true;
    return found | (files[0].revents != 0 ? KIT_WAKE_CONSOLE : 0u) |
           (files[1].revents != 0 ? KIT_WAKE_NETWORK : 0u);
}
#endif

uint32_t kit_linux_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
#if KIT_WITH_CPUS
    if ((wake & KIT_WAKE_CPU) != 0)
        return wait_for_processors(deadline_ns, wake);
    if (kit_cpu_here()->number != 0)
        wake = 0;
#endif
    struct linux_pollfd console = {-1, POLLIN, 0}, network = {-1, POLLIN, 0}; /* -1: is left out */
    if ((wake & KIT_WAKE_CONSOLE) != 0 && !kit_linux.input_closed)
        console.fd = 0;
    if (KIT_WITH_NETWORK && (wake & KIT_WAKE_NETWORK) != 0)
        network.fd = kit_linux.network_fd;
    struct linux_pollfd files[2] = {console, network};
    uint64_t now = kit_linux_now_ns(env);
    kit_linux_poll(files, 2, deadline_ns > now ? deadline_ns - now : 0, deadline_ns == KIT_NEVER);
    if ((files[0].revents & POLLNVAL) != 0)
        kit_linux.input_closed = true;
    return (files[0].revents != 0 ? KIT_WAKE_CONSOLE : 0u) |
           (files[1].revents != 0 ? KIT_WAKE_NETWORK : 0u);
}

const char *kit_linux_boot_option(runtime_environment_t *env, const char *name)
{
    (void)env;
    return kit_linux_option(name);
}

void kit_linux_exit(runtime_environment_t *env, int32_t code)
{
    (void)env;
#if KIT_WITH_CPUS
    while (__atomic_exchange_n(&kit_linux.reporting, 1, __ATOMIC_ACQ_REL) != 0)
        kit_linux_poll(NULL, 0, 0, true); /* another processor ends the image */
#endif
    kit_linux_leave(code);
}

LINUX_COLD uint64_t kit_linux_cpu_features(runtime_environment_t *env)
{
    (void)env;
    uint64_t features = kit_cpu_detect();
    if ((kit_linux.hwcap2 & HWCAP2_FSGSBASE) == 0) /* the kernel decides, not CPUID */
        features &= ~KIT_CPU_FSGSBASE;
    return features;
}

#if KIT_WITH_TLS
/* For kernels before 5.9, which keep the instruction to themselves. */
int kit_linux_thread_pointer(runtime_environment_t *env, uintptr_t pointer)
{
    if (env->platform != kit_linux_name)
        return KIT_ENOTSUP;
    return kit_syscall3(SYS_ARCH_PRCTL, ARCH_SET_FS, pointer, 0) == 0 ? 0 : KIT_ENOTSUP;
}
#endif

static LINUX_COLD void read_auxiliary(const uintptr_t *vector)
{
    struct linux_state *state = &kit_linux;
    uintptr_t values[AT_SYSINFO_EHDR + 1] = {0};
    for (; vector[0] != AT_NULL; vector += 2)
        if (vector[0] < KIT_ARRAY_SIZE(values))
            values[vector[0]] = vector[1];
    if (values[AT_RANDOM] != 0) /* its first eight bytes are the stack protector's */
        state->random = ((const uint64_t *)values[AT_RANDOM])[1];
    state->hwcap2 = values[AT_HWCAP2];
    state->vdso = values[AT_SYSINFO_EHDR];
}

static LINUX_COLD void fill_environment(runtime_environment_t *env)
{
    KIT_CONSOLE_SET(&kit_linux.console, write, kit_linux_console_write);
    KIT_CONSOLE_SET(&kit_linux.console, read, kit_linux_console_read);
    env->console = &kit_linux.console;
    KIT_ENV_SET(env, panic_handler, kit_linux_panic_handler);
    KIT_ENV_SET(env, now_ns, kit_linux_now_ns);
    KIT_ENV_SET(env, wall_ns, kit_linux_wall_ns);
    KIT_ENV_SET(env, entropy, kit_linux_entropy);
    KIT_ENV_SET(env, wait, kit_linux_wait);
    KIT_ENV_SET(env, page_release, kit_linux_page_release);
    KIT_ENV_SET(env, page_protect, kit_linux_page_protect);
    KIT_ENV_SET(env, cpu_start, kit_linux_cpu_start);
    KIT_ENV_SET(env, cpu_wake, kit_linux_cpu_wake);
    KIT_ENV_SET(env, cpu_self, kit_linux_cpu_self);
    KIT_ENV_SET(env, cpu_slice, kit_linux_cpu_slice);
    KIT_ENV_SET(env, boot_option, kit_linux_boot_option);
    KIT_ENV_SET(env, exit, kit_linux_exit);
    KIT_ENV_SET(env, cpu_features, kit_linux_cpu_features(env));
    env->cpus = 1;
    env->platform = kit_linux_name;
}

__attribute__((used)) void *kit_linux_start(char **initial, const uintptr_t *auxiliary)
{
    runtime_environment_t *env = &kit_linux.env;
    read_auxiliary(auxiliary);
    struct linux_timespec start = {0, 0}; /* not kit_linux_now_ns: it may not be in the image */
    kit_syscall3(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (uintptr_t)&start, 0);
    env->start_ns = kit_linux_ns(start);
    kit_linux_read_arguments(initial + (initial[0] != NULL ? 2 : 1)); /* argc may be 0 */
    follow_parent();
    kit_linux_memory_open();
    fill_environment(env);
#if KIT_WITH_CPUS
    kit_linux_cpus_open();
#endif
    kit_linux_faults_open();
    kit_linux.network_fd = -1;
    if (KIT_WITH_NETWORK)
        kit_linux_network_open();
    if (KIT_WITH_PREEMPTION)
        kit_linux_slice_open();
    return (void *)kit_linux.stack.end;
}

/* Not cold: the image's main loop may be inlined here. */
__attribute__((used)) _Noreturn void kit_linux_main(void)
{
    kit_linux_seal();
    kit_linux_leave(unikernel_main(&kit_linux.env));
}
