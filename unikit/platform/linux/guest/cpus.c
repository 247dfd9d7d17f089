/* SPDX-License-Identifier: MIT */
/* Several processors: a thread each, all made before the process is sealed, so that afterwards
 * nobody can make one. They wait in a futex on their signal stacks, which nothing else needs until
 * they are started, and go on from there to the stack they are given.
 *
 * Sleep and waking: `kicked` is the futex. A processor that waits for descriptors as well is woken
 * through an eventfd. It says how it sleeps before it looks at `kicked` a last time; who asks for
 * it sets that first and looks how it sleeps afterwards. So one of the two sees the other. */
#include <unikit/platform/linux/guest/linux.h>

#if KIT_WITH_CPUS

enum {
    CLONE_THREAD_LIKE = 0x50f00, /* VM, FS, FILES, SIGHAND, THREAD, SYSVSEM */
    SIGNAL_STACK = 32 << 10,     /* as the first processor's (memory.c) */
    EFD_NONBLOCK = 0x800
};

static uint32_t parked;

static long futex(const uint32_t *word, int operation, uint32_t value,
                  const struct linux_timespec *until)
{
    return kit_syscall(SYS_FUTEX, (uintptr_t)word, (uintptr_t)operation, value, (uintptr_t)until, 0,
                       UINT32_MAX);
}

static void futex_wait(const uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
    struct linux_timespec until = {(int64_t)(deadline_ns / KIT_NS_PER_S),
                                   (int64_t)(deadline_ns % KIT_NS_PER_S)};
    futex(word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline_ns == KIT_NEVER ? NULL : &until);
}

/* ---- waiting and waking ------------------------------------------------------------------- */

uint32_t kit_linux_cpu_wait(struct linux_cpu *here, struct linux_pollfd *files, size_t count,
                            uint64_t deadline_ns)
{
    __atomic_store_n(&here->asleep, count != 0 ? LINUX_IN_POLL : LINUX_IN_FUTEX, __ATOMIC_SEQ_CST);
    bool kicked = __atomic_load_n(&here->kicked, __ATOMIC_SEQ_CST) != 0;
    if (count != 0) {
        struct linux_pollfd *bell = &files[count];
        *bell = (struct linux_pollfd){kit_linux.wake_fd, POLLIN, 0};
        uint64_t now = kit_linux_now_ns(&kit_linux.env), rings;
        kit_linux_poll(files, count + 1, kicked || deadline_ns < now ? 0 : deadline_ns - now,
                       !kicked && deadline_ns == KIT_NEVER);
        if (bell->revents != 0)
            kit_syscall3(SYS_READ, (uintptr_t)bell->fd, (uintptr_t)&rings, sizeof rings);
    } else if (!kicked) {
        futex_wait(&here->kicked, 0, deadline_ns);
    }
    __atomic_store_n(&here->asleep, LINUX_AWAKE, __ATOMIC_RELAXED);
    return __atomic_exchange_n(&here->kicked, 0, __ATOMIC_ACQ_REL) != 0 ? KIT_WAKE_CPU : 0;
}

void kit_linux_cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    if (cpu >= env->cpus)
        return;
    struct linux_cpu *other = &kit_linux.cpus[cpu];
    const uint64_t one = 1;
    if (__atomic_exchange_n(&other->kicked, 1, __ATOMIC_SEQ_CST) != 0)
        return; /* who was first to ask for it rings */
    uint32_t asleep = __atomic_load_n(&other->asleep, __ATOMIC_SEQ_CST);
    if (asleep == LINUX_IN_FUTEX)
        futex(&other->kicked, FUTEX_WAKE_PRIVATE, 1, NULL);
    else if (asleep == LINUX_IN_POLL)
        kit_syscall3(SYS_WRITE, (uintptr_t)kit_linux.wake_fd, (uintptr_t)&one, sizeof one);
}

/* ---- starting ----------------------------------------------------------------------------- */

static LINUX_COLD void settle(struct linux_cpu *here, uint32_t number)
{
    here->cpu.number = number;
    here->cpu.self = &here->cpu;
    kit_syscall3(SYS_ARCH_PRCTL, ARCH_SET_GS, (uintptr_t)&here->cpu, 0);
}

static LINUX_COLD void set_signal_stack(const struct linux_cpu *here)
{
    const struct {
        uintptr_t base;
        int flags;
        size_t size;
    } stack = {here->signal_stack.start, 0, here->signal_stack.end - here->signal_stack.start};
    kit_syscall3(SYS_SIGALTSTACK, (uintptr_t)&stack, 0, 0);
}

/* A thread's whole life before its processor is started; called by spawn(). */
_Noreturn void kit_linux_park(struct linux_cpu *here);

__attribute__((used)) _Noreturn LINUX_COLD void kit_linux_park(struct linux_cpu *here)
{
    settle(here, (uint32_t)(here - kit_linux.cpus));
    set_signal_stack(here);
    __atomic_add_fetch(&parked, 1, __ATOMIC_SEQ_CST);
    futex(&parked, FUTEX_WAKE_PRIVATE, 1, NULL);
    while (__atomic_load_n(&here->begun, __ATOMIC_ACQUIRE) == 0)
        futex_wait(&here->begun, 0, KIT_NEVER);
    /* As if it had been called from nowhere: a backtrace ends there, and so does a return. */
    __asm__ volatile("mov %0, %%rsp\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "push %%rbp\n\t"
                     "jmp *%1" ::"a"((uintptr_t)here->stack_top & ~(uintptr_t)15),
                     "c"(here->entry), "D"(here->argument)
                     : "memory");
    __builtin_unreachable();
}

/* The child's registers are the parent's but for rax and rsp. */
static LINUX_COLD long spawn(struct linux_cpu *cpu)
{
    long result;
    __asm__ volatile("xor %%edx, %%edx\n\t"
                     "xor %%r10d, %%r10d\n\t"
                     "xor %%r8d, %%r8d\n\t"
                     "syscall\n\t"
                     "test %%eax, %%eax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%rbx, %%rdi\n\t"
                     "call kit_linux_park\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_CLONE), "D"(CLONE_THREAD_LIKE), "S"(cpu->signal_stack.end), "b"(cpu)
                     : "rcx", "r11", "rdx", "r10", "r8", "memory");
    return result;
}

void kit_linux_cpus_open(void)
{
    struct linux_state *state = &kit_linux;
    settle(&state->cpus[0], 0);
    state->cpus[0].signal_stack = state->signal_stack;
    uint32_t count = (uint32_t)kit_linux_number("cpus", kit_image_cpus, 1, kit_image_cpus);
    state->env.cpus = count;
    state->wake_fd = -1;
    if (count == 1)
        return;
    state->wake_fd = (int)kit_syscall3(SYS_EVENTFD2, 0, EFD_NONBLOCK, 0);
    uintptr_t each = SIGNAL_STACK + LINUX_PAGE;
    long base = kit_syscall(SYS_MMAP, 0, each * count, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, (uintptr_t)-1, 0);
    if (state->wake_fd < 0 || base < 0)
        kit_linux_refuse("the host has no room for so many: ", "cpus");
    for (uint32_t i = 1; i < count; i++) {
        struct linux_cpu *cpu = &state->cpus[i];
        uintptr_t start = (uintptr_t)base + each * (i - 1) + LINUX_PAGE; /* above a guard */
        cpu->signal_stack = (struct linux_range){start, start + SIGNAL_STACK};
        if (kit_syscall3(SYS_MPROTECT, start, SIGNAL_STACK, PROT_READ | PROT_WRITE) < 0 ||
            spawn(cpu) < 0)
            kit_linux_refuse("the host does not give threads for: ", "cpus");
    }
    /* They still make calls that are sealed off afterwards. */
    for (uint32_t done; (done = __atomic_load_n(&parked, __ATOMIC_ACQUIRE)) < count - 1;)
        futex_wait(&parked, done, KIT_NEVER);
}

int kit_linux_cpu_start(runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument),
                        void *argument, void *stack_top)
{
    if (cpu == 0 || cpu >= env->cpus)
        return KIT_EINVAL;
    struct linux_cpu *other = &kit_linux.cpus[cpu];
    if (__atomic_exchange_n(&other->taken, 1, __ATOMIC_ACQ_REL) != 0)
        return KIT_EINVAL;
    other->entry = entry;
    other->argument = argument;
    other->stack_top = stack_top;
    __atomic_store_n(&other->begun, 1, __ATOMIC_RELEASE);
    futex(&other->begun, FUTEX_WAKE_PRIVATE, 1, NULL);
    return KIT_OK;
}

struct kit_cpu *kit_linux_cpu_self(runtime_environment_t *env)
{
    (void)env;
    return kit_cpu_here();
}

#else

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

struct kit_cpu *kit_linux_cpu_self(runtime_environment_t *env)
{
    (void)env;
    return &kit_linux.cpu;
}

#endif
