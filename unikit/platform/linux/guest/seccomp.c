/* SPDX-License-Identifier: MIT */
/* The system call filter: once it is installed, a process that is talked into running foreign code
 * can still do nothing but what the environment does. Everything not listed kills the process.
 *
 * A classic BPF program over struct seccomp_data (seccomp(2)): word offsets 0 nr, 4 arch, 16 + 8 n
 * argument n, low half first (the arguments looked at here are ints). The architecture is checked
 * first, since call numbers mean nothing without it; x32 calls have bit 30 set and match nothing.
 */
#include <unikit/platform/linux/guest/linux.h>

struct instruction {
    uint16_t code;
    uint8_t if_true; /* instructions to skip */
    uint8_t if_false;
    uint32_t value;
};

struct program {
    uint16_t length;
    struct instruction *instructions;
};

enum { SECCOMP_SET_MODE_FILTER = 1, SECCOMP_FILTER_FLAG_TSYNC = 1 };
#define AUDIT_ARCH_X86_64 UINT32_C(0xc000003e)
#define SECCOMP_RET_ALLOW UINT32_C(0x7fff0000)
#define SECCOMP_RET_KILL_PROCESS UINT32_C(0x80000000)

enum { NUMBER = 0, ARCHITECTURE = 4, ARGUMENT_0 = 16, ARGUMENT_1 = 24, ARGUMENT_2 = 32 };

/* Places in the program, in its order; jumps go forward only. */
enum {
    START,
    IS_X86_64,
    LOAD_NUMBER,
    IS_CLOCK_GETTIME,
    IS_PPOLL,
    IS_GETRANDOM,
    IS_EXIT_GROUP,
#if KIT_WITH_PREEMPTION
    IS_SIGRETURN,
    IS_TIMER_SETTIME,
#endif
    IS_READ,
    IS_READV,
    IS_WRITE,
    IS_MADVISE,
    IS_MPROTECT,
#if KIT_WITH_CPUS
    IS_FUTEX,
#endif
#if KIT_WITH_TLS
    IS_ARCH_PRCTL,
#endif
    READ,
    READ_INPUT,
#if KIT_WITH_CPUS
    READ_WAKE,
#endif
    READV,
    READV_NETWORK,
    WRITE,
    WRITE_OUTPUT,
    WRITE_ERROR,
    WRITE_NETWORK,
#if KIT_WITH_CPUS
    WRITE_WAKE,
    FUTEX,
    FUTEX_WAITS,
    FUTEX_WAKES,
#endif
    MADVISE,
    MADVISE_DONTNEED,
    MPROTECT,
    MPROTECT_EXEC,
#if KIT_WITH_TLS
    ARCH_PRCTL,
    ARCH_PRCTL_FS,
#endif
    ALLOW,
    KILL,
    END
};

#define LOAD(at, offset) [at] = {0x20, 0, 0, offset}
#define IF_EQUAL(at, operand, yes, no)                                                             \
    [at] = {0x15, (yes) - (at)-1, (no) - (at)-1, (uint32_t)(operand)}
#define IF_ANY_BIT(at, operand, yes, no) [at] = {0x45, (yes) - (at)-1, (no) - (at)-1, operand}
#define RETURN(at, operand) [at] = {0x06, 0, 0, operand}

/* A file of which there is none: no descriptor has this number. */
enum { NO_FILE = -1 };
/* A call of which there is none. */
enum { NO_CALL = -1 };

#if KIT_WITH_TLS
enum { AFTER_FUTEX = IS_ARCH_PRCTL };
#else
enum { AFTER_FUTEX = KILL };
#endif
#if KIT_WITH_CPUS
enum { AFTER_MPROTECT = IS_FUTEX };
#else
enum { AFTER_MPROTECT = AFTER_FUTEX };
#endif

static struct instruction filter[END] = {
    LOAD(START, ARCHITECTURE),
    IF_EQUAL(IS_X86_64, AUDIT_ARCH_X86_64, LOAD_NUMBER, KILL),
    LOAD(LOAD_NUMBER, NUMBER),
    IF_EQUAL(IS_CLOCK_GETTIME, SYS_CLOCK_GETTIME, ALLOW, IS_PPOLL), /* the vDSO falls back to it */
    IF_EQUAL(IS_PPOLL, SYS_PPOLL, ALLOW, IS_GETRANDOM),
    IF_EQUAL(IS_GETRANDOM, SYS_GETRANDOM, ALLOW, IS_EXIT_GROUP),
    IF_EQUAL(IS_EXIT_GROUP, SYS_EXIT_GROUP, ALLOW, IS_EXIT_GROUP + 1),
#if KIT_WITH_PREEMPTION
    IF_EQUAL(IS_SIGRETURN, SYS_RT_SIGRETURN, ALLOW, IS_TIMER_SETTIME),
    IF_EQUAL(IS_TIMER_SETTIME, SYS_TIMER_SETTIME, ALLOW, IS_READ),
#endif
    IF_EQUAL(IS_READ, SYS_READ, READ, IS_READV),
    IF_EQUAL(IS_READV, SYS_READV, READV, IS_WRITE),
    IF_EQUAL(IS_WRITE, SYS_WRITE, WRITE, IS_MADVISE),
    IF_EQUAL(IS_MADVISE, SYS_MADVISE, MADVISE, IS_MPROTECT),
    IF_EQUAL(IS_MPROTECT, SYS_MPROTECT, MPROTECT, AFTER_MPROTECT),
#if KIT_WITH_CPUS
    IF_EQUAL(IS_FUTEX, SYS_FUTEX, FUTEX, AFTER_FUTEX),
#endif
#if KIT_WITH_TLS
    IF_EQUAL(IS_ARCH_PRCTL, NO_CALL, ARCH_PRCTL, KILL),
#endif
    LOAD(READ, ARGUMENT_0),
#if KIT_WITH_CPUS
    IF_EQUAL(READ_INPUT, 0, ALLOW, READ_WAKE),
    IF_EQUAL(READ_WAKE, NO_FILE, ALLOW, KILL),
#else
    IF_EQUAL(READ_INPUT, 0, ALLOW, KILL),
#endif
    LOAD(READV, ARGUMENT_0),
    IF_EQUAL(READV_NETWORK, NO_FILE, ALLOW, KILL),
    LOAD(WRITE, ARGUMENT_0),
    IF_EQUAL(WRITE_OUTPUT, 1, ALLOW, WRITE_ERROR),
    IF_EQUAL(WRITE_ERROR, 2, ALLOW, WRITE_NETWORK),
#if KIT_WITH_CPUS
    IF_EQUAL(WRITE_NETWORK, NO_FILE, ALLOW, WRITE_WAKE),
    IF_EQUAL(WRITE_WAKE, NO_FILE, ALLOW, KILL),
    LOAD(FUTEX, ARGUMENT_1),
    IF_EQUAL(FUTEX_WAITS, FUTEX_WAIT_BITSET_PRIVATE, ALLOW, FUTEX_WAKES),
    IF_EQUAL(FUTEX_WAKES, FUTEX_WAKE_PRIVATE, ALLOW, KILL),
#else
    IF_EQUAL(WRITE_NETWORK, NO_FILE, ALLOW, KILL),
#endif
    LOAD(MADVISE, ARGUMENT_2),
    IF_EQUAL(MADVISE_DONTNEED, MADV_DONTNEED, ALLOW, KILL),
    LOAD(MPROTECT, ARGUMENT_2),
    IF_ANY_BIT(MPROTECT_EXEC, PROT_EXEC, KILL, ALLOW),
#if KIT_WITH_TLS
    LOAD(ARCH_PRCTL, ARGUMENT_0),
    IF_EQUAL(ARCH_PRCTL_FS, ARCH_SET_FS, ALLOW, KILL),
#endif
    RETURN(ALLOW, SECCOMP_RET_ALLOW),
    RETURN(KILL, SECCOMP_RET_KILL_PROCESS),
};

static bool is_off(const char *option)
{
    return option != NULL && strlen(option) == 3 && memcmp(option, "off", 3) == 0;
}

void kit_linux_seal(void)
{
    if (is_off(kit_linux_option("seccomp")))
        return;
    uint32_t network = (uint32_t)kit_linux.network_fd; /* or NO_FILE */
    filter[READV_NETWORK].value = filter[WRITE_NETWORK].value = network;
#if KIT_WITH_CPUS
    filter[READ_WAKE].value = filter[WRITE_WAKE].value =
        (uint32_t)kit_linux.wake_fd; /* or NO_FILE */
#endif
#if KIT_WITH_TLS
    if ((kit_linux.hwcap2 & HWCAP2_FSGSBASE) == 0) /* else it is an instruction */
        filter[IS_ARCH_PRCTL].value = SYS_ARCH_PRCTL;
#endif
    struct program program = {END, filter};
    kit_syscall5(SYS_PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    /* All threads at once. The one that could not is told by its number, which is no error. */
    const uintptr_t flags = KIT_WITH_CPUS ? SECCOMP_FILTER_FLAG_TSYNC : 0;
    if (kit_syscall3(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, (uintptr_t)&program) != 0)
        kit_linux_refuse("the host does not take the system call filter; to go without it, give ",
                         "seccomp=off");
}
