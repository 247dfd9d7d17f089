/* SPDX-License-Identifier: MIT */
/* The image as a Linux process: what the files of this folder share.
 *
 * Command line:  IMAGE [name=value ...] [-- argument ...]
 *   name=value    a boot option; the last one of a name wins. The platform's own:
 *     memory=16M    bytes in all: image, stacks and heap (K, M, G: powers of 1024)
 *     memory.fd=N   a file that is the heap's memory, so that others can read it: from its start
 *     net.fd=N      a TAP device or a packet socket: one Ethernet frame per read and write
 *     net.mac=02:00:00:00:00:01
 *     net.mtu=1500
 *     parent=PID    end as soon as this parent process has ended
 *     cpus=4        processors, at most as many as the image was composed for, which it gets else
 *     seccomp=off   go without the system call filter (to debug with a tool that injects calls)
 *   after --      the application's own argument string, joined by spaces
 *
 * Standard input and output are the console. Reports go to standard error, each line starts with
 * «unikit: »: «panic: TEXT» or «fault», then «registers NAME=HEX ...» and «backtrace HEX ...», read
 * by ../report.py. Among the registers are vec, err and cr2 of the exception, cod (si_code of the
 * signal) and stk, the lowest address of the stack; in images of several processors also cpu, the
 * number of the one that was stopped. Exit codes: the image's own (8 bits), 134
 * panic, 139 fault, 2 the command line is wrong or the host refused. */
#ifndef KIT_LINUX_LINUX_H
#define KIT_LINUX_LINUX_H

#include <unikit/platform/console/console.h>
#include <unikit/platform/env.h>
#include <unikit/platform/linux/guest/syscall.h>
#include <unikit/rt/x86_64/tls.h>

enum { LINUX_PAGE = 4096, LINUX_CODE_REFUSED = 2, LINUX_CODE_PANIC = 134, LINUX_CODE_FAULT = 139 };

struct linux_range {
    uintptr_t start;
    uintptr_t end;
};

/* How a processor sleeps: it is woken accordingly. */
enum { LINUX_AWAKE, LINUX_IN_FUTEX, LINUX_IN_POLL };

/* One of several processors, a thread. */
struct linux_cpu {
    struct kit_cpu cpu; /* GS base */
    uint32_t kicked;    /* KIT_WAKE_CPU */
    uint32_t asleep;    /* LINUX_... */
    const char *panic;  /* set: the trap that follows is a panic */
    struct linux_range signal_stack;
    uint32_t taken; /* cpu_start was called */
    uint32_t begun; /* ... and the rest is there */
    void (*entry)(void *argument);
    void *argument;
    void *stack_top;
} __attribute__((aligned(128)));

/* The one object of the platform (a process has one image). */
struct linux_state {
    runtime_environment_t env;
#if KIT_WITH_CPUS
    struct linux_cpu cpus[KIT_CPUS_MAX];
    int wake_fd;        /* for processor 0 */
    uint32_t reporting; /* somebody does: the others wait for the end */
#else
    struct kit_cpu cpu;
#endif
    console_interface_t console;
    char **arguments; /* argv[1] on, NULL ended; the application's string is not among them */
    char *argument;   /* the application's own argument string; NULL: none */
    uintptr_t vdso;   /* ELF image of the vDSO; 0: none */
    uint64_t random;  /* for the layout of memory; not for keys */
    uint64_t hwcap2;
    struct linux_range stack;
    struct linux_range signal_stack;
    const char *panic; /* as in struct linux_cpu, of an image with one processor */
    /* kit_linux_report_task, set once a page was taken away: images that never do that do not
     * carry it. */
    void (*report_task)(uintptr_t fault);
    int network_fd;   /* -1: none, or closed by the other side */
    bool heap_shared; /* it is the file memory.fd */
    bool input_closed;
    bool output_closed;
    bool output_stalled;
};

extern struct linux_state kit_linux;

KIT_ENV_DECLARE(linux);

/* The image's bounds, of platform/x86/image.ld. */
extern char kit_image_start[], kit_image_end[], kit_text_start[], kit_text_end[];

/* Runs once, before there is an application, or never: built for size and without the stack
 * protector, which has nobody to protect from then. */
#define LINUX_COLD __attribute__((cold, no_stack_protector))

/* options.c */
LINUX_COLD const char *kit_linux_option(const char *name);
/* Refuses what is neither an option nor behind --, and joins the rest. `arguments` is argv[1] on.
 */
LINUX_COLD void kit_linux_read_arguments(char **arguments);
LINUX_COLD uint64_t kit_linux_number(const char *name, uint64_t fallback, uint64_t minimum,
                                     uint64_t maximum);
LINUX_COLD _Noreturn void kit_linux_refuse(const char *what, const char *detail);

/* memory.c: lays out stacks and heap; fills env.memory, stack and signal_stack. */
LINUX_COLD void kit_linux_memory_open(void);

/* cpus.c: makes the threads of further processors, and finds this one's block from then on. */
LINUX_COLD void kit_linux_cpus_open(void);
/* As env->wait with KIT_WAKE_CPU alone: KIT_WAKE_CPU or 0; the caller looks at the `count` files,
 * behind which is room for one more. */
uint32_t kit_linux_cpu_wait(struct linux_cpu *here, struct linux_pollfd *files, size_t count,
                            uint64_t deadline_ns);

/* entry.c, in images with thread-local variables. */
#if KIT_WITH_TLS
int kit_linux_thread_pointer(runtime_environment_t *env, uintptr_t pointer);
#endif

/* network.c: opens net.fd if it was given. */
LINUX_COLD void kit_linux_network_open(void);

/* slice.c: for images with preemption: the processor's block behind GS, and the timer. */
LINUX_COLD void kit_linux_slice_open(void);
/* start.S: where a signal handler returns to. */
void kit_linux_signal_return(void);

/* report.c */
LINUX_COLD void kit_linux_faults_open(void);
/* Says whose stack ran over into the page of `fault`, if one did. */
LINUX_COLD void kit_linux_report_task(uintptr_t fault);

KIT_INLINE uint64_t kit_linux_ns(struct linux_timespec time)
{
    return (uint64_t)time.seconds * KIT_NS_PER_S + (uint64_t)time.nanoseconds;
}

/* seccomp.c: from here on only the calls of the environment are left. */
LINUX_COLD void kit_linux_seal(void);

_Noreturn KIT_INLINE void kit_linux_leave(int32_t code)
{
    if ((code & 0xff) == 0 && code != 0)
        code = 1; /* the kernel keeps eight bits: a failure must not look like success */
    for (;;)
        kit_syscall3(SYS_EXIT_GROUP, (uintptr_t)code, 0, 0);
}

#endif
