/* SPDX-License-Identifier: MIT */
/* From the process entry to unikernel_main: fills the runtime environment with system calls. */
#include <unikit/platform/linux/guest/linux.h>
#include <unikit/rt/x86_64/cpu.h>

struct linux_state kit_linux;
const char kit_linux_name[] = "linux";

/* Called by start.S. */
LINUX_COLD void *kit_linux_start(uintptr_t *initial);
_Noreturn void kit_linux_main(void);

static void read_process(uintptr_t *initial)
{
    struct linux_process *process = &kit_linux.process;
    size_t count = initial[0];
    process->arguments = (char **)&initial[count == 0 ? 1 : 2];
    uintptr_t *word = &initial[1 + count + 1];
    while (*word != 0)
        word++;
    for (word++; word[0] != AT_NULL; word += 2) {
        switch (word[0]) {
        case AT_RANDOM: /* the other eight bytes are the stack protector's */
            memcpy(&process->random, (const char *)word[1] + 8, sizeof process->random);
            break;
        case AT_HWCAP2:
            process->hwcap2 = word[1];
            break;
        case AT_SYSINFO_EHDR:
            process->vdso = word[1];
            break;
        case AT_MINSIGSTKSZ:
            process->signal_frame = word[1];
            break;
        default:
            break;
        }
    }
}

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

uint32_t kit_linux_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    struct linux_pollfd files[2];
    uint32_t bits[2];
    size_t count = 0;
    if ((wake & KIT_WAKE_CONSOLE) != 0 && !kit_linux.input_closed) {
        bits[count] = KIT_WAKE_CONSOLE;
        files[count++] = (struct linux_pollfd){0, POLLIN, 0};
    }
    if (KIT_WITH_NETWORK && (wake & KIT_WAKE_NETWORK) != 0 && kit_linux.network_fd >= 0) {
        bits[count] = KIT_WAKE_NETWORK;
        files[count++] = (struct linux_pollfd){kit_linux.network_fd, POLLIN, 0};
    }
    uint64_t left = 0;
    if (deadline_ns != KIT_NEVER && deadline_ns != 0) {
        uint64_t now = kit_linux_now_ns(env);
        left = deadline_ns > now ? deadline_ns - now : 0;
    }
    if (kit_linux_poll(files, count, left, deadline_ns == KIT_NEVER) <= 0)
        return 0;
    uint32_t woken = 0;
    for (size_t i = 0; i < count; i++) {
        if (files[i].revents == 0)
            continue;
        woken |= bits[i];
        if (bits[i] == KIT_WAKE_CONSOLE && (files[i].revents & POLLNVAL) != 0)
            kit_linux.input_closed = true;
    }
    return woken;
}

int kit_linux_cpu_start(runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument),
                        void *argument, void *stack_top)
{
    (void)env, (void)cpu, (void)entry, (void)argument, (void)stack_top;
    return KIT_ENOTSUP;
}

void kit_linux_cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    (void)env, (void)cpu;
}

const char *kit_linux_boot_option(runtime_environment_t *env, const char *name)
{
    (void)env;
    return kit_linux_option(name);
}

void kit_linux_exit(runtime_environment_t *env, int32_t code)
{
    (void)env;
    kit_linux_leave(code);
}

static LINUX_COLD uint64_t cpu_features(void)
{
    uint64_t features = kit_cpu_detect();
    if ((kit_linux.process.hwcap2 & HWCAP2_FSGSBASE) == 0) /* the kernel decides, not CPUID */
        features &= ~KIT_CPU_FSGSBASE;
    return features;
}

__attribute__((used)) void *kit_linux_start(uintptr_t *initial)
{
    runtime_environment_t *env = &kit_linux.env;
    read_process(initial);
    kit_linux_clock_open();
    env->start_ns = kit_linux_now_ns(env);
    kit_linux_check_arguments();
    follow_parent();
    kit_linux_memory_open();
    kit_linux_faults_open();
    return (void *)kit_linux.stack.end;
}

static LINUX_COLD __attribute__((noinline)) void fill_environment(runtime_environment_t *env)
{
    kit_linux_console_open();
    kit_linux.network_fd = -1;
    if (KIT_WITH_NETWORK)
        kit_linux_network_open();
    KIT_ENV_SET(env, panic_handler, kit_linux_panic_handler);
    KIT_ENV_SET(env, now_ns, kit_linux_now_ns);
    KIT_ENV_SET(env, wall_ns, kit_linux_wall_ns);
    KIT_ENV_SET(env, entropy, kit_linux_entropy);
    KIT_ENV_SET(env, wait, kit_linux_wait);
    KIT_ENV_SET(env, page_release, kit_linux_page_release);
    KIT_ENV_SET(env, page_protect, kit_linux_page_protect);
    KIT_ENV_SET(env, cpu_start, kit_linux_cpu_start);
    KIT_ENV_SET(env, cpu_wake, kit_linux_cpu_wake);
    KIT_ENV_SET(env, boot_option, kit_linux_boot_option);
    KIT_ENV_SET(env, exit, kit_linux_exit);
    env->cpu_features = cpu_features();
    env->cpus = 1;
    env->platform = kit_linux_name;
}

/* Not cold: the image's main loop may be inlined here. */
__attribute__((used)) _Noreturn void kit_linux_main(void)
{
    fill_environment(&kit_linux.env);
    kit_linux_seal();
    kit_linux_leave(unikernel_main(&kit_linux.env));
}
