/* SPDX-License-Identifier: MIT */
/* The end of a slice: a POSIX timer signals the processor's own thread once a tick while a slice is
 * wanted. The handler does what env.h says of struct kit_cpu: first it sets `due`, and if that was
 * not seen a tick later, and the thread is in no component, it edits the interrupted context so
 * that the thread goes on in the image's upcall. It runs on the signal stack, and the kernel keeps
 * all registers in between, vector state and the signal mask included.
 *
 * The timer is made before the process is sealed and only set afterwards: on when slices begin to
 * be wanted, off by the handler when it finds none. An image without preemption has none of this.
 */
#include <unikit/platform/linux/guest/linux.h>
#include <unikit/rt/x86_64/cpu.h>

enum { SIGEV_THREAD_ID = 4, SIGNAL = 34, SIG_UNBLOCK = 1 };
enum { RED_ZONE = 128, FLAGS_RF_TF = 0x10100 };
/* Ticks come with the host's unpunctuality. */
enum { NEARLY_A_TICK = KIT_TICK_NS - KIT_TICK_NS / 8 };

struct signal_event {
    uint64_t value;
    int signal;
    int notify;
    int thread;
    int unused[11];
};

struct interval {
    struct linux_timespec period;
    struct linux_timespec first;
};

static struct linux_slice {
    uint64_t stop_ns;
    uint64_t pressed_ns; /* when `due` was set here */
    int timer;
    bool ticking;
} slice = {.stop_ns = KIT_NEVER};

static void set_timer(bool on)
{
    struct linux_timespec time = {0, on ? KIT_TICK_NS : 0};
    struct interval interval = {time, time};
    slice.ticking = on;
    kit_syscall5(SYS_TIMER_SETTIME, (uintptr_t)slice.timer, 0, (uintptr_t)&interval, 0, 0);
}

/* Nobody has seen `due`: on into the image's upcall. */
static void redirect(struct kit_cpu *cpu, struct linux_context *context)
{
    uint64_t *frame = (uint64_t *)(context->rsp - RED_ZONE - 16);
    frame[0] = context->rflags & ~(uint64_t)FLAGS_RF_TF;
    frame[1] = context->rip;
    context->rsp = (uintptr_t)frame;
    context->rip = (uintptr_t)cpu->upcall;
    cpu->due = 0;
    cpu->inside = 1;
    cpu->upcalls++;
}

static void on_tick(int number, const int32_t *info, struct linux_context *context)
{
    (void)number, (void)info;
    struct kit_cpu *cpu = kit_cpu_here();
    if (slice.stop_ns == KIT_NEVER) {
        set_timer(false);
        return;
    }
    uint64_t now_ns = kit_linux_now_ns(&kit_linux.env);
    if (now_ns < slice.stop_ns)
        return;
    if (cpu->due == 0) {
        cpu->due = 1;
        slice.pressed_ns = now_ns;
    } else if (now_ns - slice.pressed_ns >= NEARLY_A_TICK && cpu->inside == 0 &&
               cpu->upcall != NULL) {
        redirect(cpu, context);
    }
}

int kit_linux_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    (void)env;
    if (!KIT_WITH_PREEMPTION)
        return KIT_ENOTSUP;
    slice.stop_ns = stop_ns;
    kit_cpu_barrier(); /* a tick in between must not turn it off behind our back */
    if (stop_ns != KIT_NEVER && !slice.ticking)
        set_timer(true);
    return 0;
}

void kit_linux_slice_open(void)
{
    struct linux_action action = {(uintptr_t)on_tick,
                                  SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_RESTORER,
                                  (uintptr_t)kit_linux_signal_return, 0};
    struct signal_event event = {.signal = SIGNAL,
                                 .notify = SIGEV_THREAD_ID,
                                 .thread = (int)kit_syscall3(SYS_GETTID, 0, 0, 0)};
    const uint64_t mask = UINT64_C(1) << (SIGNAL - 1); /* whoever started us may have blocked it */
#if !KIT_WITH_CPUS
    kit_linux.cpu.self = &kit_linux.cpu;
    kit_syscall3(SYS_ARCH_PRCTL, ARCH_SET_GS, (uintptr_t)&kit_linux.cpu, 0);
#endif
    kit_syscall5(SYS_RT_SIGACTION, SIGNAL, (uintptr_t)&action, 0, 8, 0);
    kit_syscall5(SYS_RT_SIGPROCMASK, SIG_UNBLOCK, (uintptr_t)&mask, 0, 8, 0);
    if (kit_syscall3(SYS_TIMER_CREATE, CLOCK_MONOTONIC, (uintptr_t)&event,
                     (uintptr_t)&slice.timer) < 0)
        kit_linux_refuse("the host does not give a ", "timer");
}
