/* SPDX-License-Identifier: MIT */
/* System calls of x86-64 Linux, raw: numbers, constants and structures of the kernel's user
 * interface (include/uapi/linux and arch/x86/include/uapi/asm), as far as the image uses them.
 * A result from -4095 to -1 is a negative errno. */
#ifndef KIT_LINUX_SYSCALL_H
#define KIT_LINUX_SYSCALL_H

#include <unikit/rt/types.h>

enum {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_MMAP = 9,
    SYS_MPROTECT = 10,
    SYS_RT_SIGACTION = 13,
    SYS_RT_SIGPROCMASK = 14,
    SYS_RT_SIGRETURN = 15,
    SYS_READV = 19,
    SYS_MADVISE = 28,
    SYS_CLONE = 56,
    SYS_FCNTL = 72,
    SYS_GETPPID = 110,
    SYS_SIGALTSTACK = 131,
    SYS_PRCTL = 157,
    SYS_ARCH_PRCTL = 158,
    SYS_GETTID = 186,
    SYS_FUTEX = 202,
    SYS_TIMER_CREATE = 222,
    SYS_TIMER_SETTIME = 223,
    SYS_CLOCK_GETTIME = 228,
    SYS_EXIT_GROUP = 231,
    SYS_PPOLL = 271,
    SYS_EVENTFD2 = 290,
    SYS_SECCOMP = 317,
    SYS_GETRANDOM = 318
};

enum {
    LINUX_EINTR = 4,
    LINUX_EIO = 5,
    LINUX_EBADF = 9,
    LINUX_EAGAIN = 11,
    LINUX_EPIPE = 32,
    LINUX_ENOBUFS = 105,
    LINUX_ECONNRESET = 104,
    LINUX_ENOTCONN = 107,
    LINUX_ECONNREFUSED = 111
};

enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4 };
enum {
    MAP_SHARED = 1,
    MAP_PRIVATE = 2,
    MAP_FIXED = 0x10,
    MAP_ANONYMOUS = 0x20,
    MAP_NORESERVE = 0x4000
};
enum { MADV_DONTNEED = 4 };
enum { FUTEX_WAKE_PRIVATE = 129, FUTEX_WAIT_BITSET_PRIVATE = 137 };
enum { CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16, POLLNVAL = 32 };
enum { F_GETFL = 3, F_SETFL = 4, O_NONBLOCK = 0x800 };
enum { GRND_NONBLOCK = 1 };
enum { PR_SET_PDEATHSIG = 1, PR_SET_NO_NEW_PRIVS = 38 };
enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGSEGV = 11, SIGPIPE = 13 };
enum { AT_NULL = 0, AT_RANDOM = 25, AT_HWCAP2 = 26, AT_SYSINFO_EHDR = 33 };
enum { HWCAP2_FSGSBASE = 2 };
enum { ARCH_SET_GS = 0x1001, ARCH_SET_FS = 0x1002 };

enum { SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000, SA_RESTART = 0x10000000 };

struct linux_timespec {
    int64_t seconds;
    int64_t nanoseconds;
};

struct linux_pollfd {
    int fd;
    int16_t events;
    int16_t revents;
};

struct linux_iovec {
    void *base;
    size_t size;
};

struct linux_action {
    uintptr_t handler;
    uint64_t flags;
    uintptr_t restorer;
    uint64_t mask;
};

struct linux_signal_stack {
    uintptr_t base;
    int flags;
    size_t size;
};

/* struct ucontext up to the registers (struct sigcontext). */
struct linux_context {
    uint64_t flags, link;
    struct linux_signal_stack stack;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
    uint64_t segments, error, vector, mask, cr2;
};

KIT_INLINE long kit_syscall(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d,
                            uintptr_t e, uintptr_t f)
{
    register uintptr_t r10 __asm__("r10") = d;
    register uintptr_t r8 __asm__("r8") = e;
    register uintptr_t r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

KIT_INLINE long kit_syscall3(long number, uintptr_t a, uintptr_t b, uintptr_t c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

KIT_INLINE long kit_syscall5(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d,
                             uintptr_t e)
{
    return kit_syscall(number, a, b, c, d, e, 0);
}

/* Waits for events on `count` files; timeout NULL: for ever. */
KIT_INLINE long kit_linux_poll(struct linux_pollfd *files, size_t count, uint64_t timeout_ns,
                               bool for_ever)
{
    struct linux_timespec timeout = {(int64_t)(timeout_ns / KIT_NS_PER_S),
                                     (int64_t)(timeout_ns % KIT_NS_PER_S)};
    return kit_syscall5(SYS_PPOLL, (uintptr_t)files, count, for_ever ? 0 : (uintptr_t)&timeout, 0,
                        0);
}

#endif
