/* SPDX-License-Identifier: MIT */
/* The system call filter: once it is installed, a process that is talked into running foreign code
 * can still do nothing but what the environment does. Everything not in `rules` kills the process.
 *
 * A classic BPF program over struct seccomp_data (seccomp(2)): word offsets 0 nr, 4 arch, 16 + 8 n
 * argument n, low half first (the arguments looked at here are ints). The architecture is checked
 * first, since call numbers mean nothing without it; x32 calls have bit 30 set and match nothing.
 */
#include <unikit/platform/linux/guest/linux.h>

struct filter {
    uint16_t code;
    uint8_t if_true;
    uint8_t if_false;
    uint32_t value;
};

struct program {
    uint16_t length;
    struct filter *filter;
};

enum { LOAD = 0x20, JUMP_EQUAL = 0x15, JUMP_ANY_BIT = 0x45, RETURN = 0x06 };
enum { OFFSET_NUMBER = 0, OFFSET_ARCHITECTURE = 4, OFFSET_ARGUMENT = 16 };
enum { SECCOMP_SET_MODE_FILTER = 1 };
#define AUDIT_ARCH_X86_64 UINT32_C(0xc000003e)
#define SECCOMP_RET_ALLOW UINT32_C(0x7fff0000)
#define SECCOMP_RET_KILL_PROCESS UINT32_C(0x80000000)

enum { ALWAYS, EQUAL, WITHOUT_BIT };

struct rule {
    uint16_t number;
    uint8_t test;
    uint8_t argument;
    int8_t values[3]; /* EQUAL: any of these; WITHOUT_BIT: the first */
    uint8_t count;
};

enum { NETWORK = -1 }; /* stands for the number of the network file */

static const struct rule rules[] = {
    {SYS_CLOCK_GETTIME, ALWAYS, 0, {0}, 0}, /* the vDSO falls back to it */
    {SYS_PPOLL, ALWAYS, 0, {0}, 0},
    {SYS_READ, EQUAL, 0, {0}, 1},
    {SYS_WRITE, EQUAL, 0, {1, 2, NETWORK}, 3},
    {SYS_READV, EQUAL, 0, {NETWORK}, 1},
    {SYS_MADVISE, EQUAL, 2, {MADV_DONTNEED}, 1},
    {SYS_MPROTECT, WITHOUT_BIT, 2, {PROT_EXEC}, 1},
    {SYS_GETRANDOM, ALWAYS, 0, {0}, 0},
    {SYS_EXIT_GROUP, ALWAYS, 0, {0}, 0},
};

enum { RULE_MAX = 2 + 2 * 3 + 1, FILTER_MAX = 5 + RULE_MAX * (int)KIT_ARRAY_SIZE(rules) };

static struct filter *emit(struct filter *next, uint16_t code, uint32_t value, unsigned if_true,
                           unsigned if_false)
{
    *next = (struct filter){code, (uint8_t)if_true, (uint8_t)if_false, value};
    return next + 1;
}

/* Returns from the filter if the call is the rule's, else goes on behind it. */
static struct filter *emit_rule(struct filter *next, const struct rule *rule)
{
    struct filter *start = next;
    next = emit(next, JUMP_EQUAL, rule->number, 0, 0);
    if (rule->test != ALWAYS)
        next = emit(next, LOAD, OFFSET_ARGUMENT + 8u * rule->argument, 0, 0);
    for (unsigned i = 0; i < rule->count; i++) {
        uint32_t value =
            rule->values[i] == NETWORK ? (uint32_t)kit_linux.network_fd : (uint32_t)rule->values[i];
        bool equal = rule->test == EQUAL;
        next = emit(next, equal ? JUMP_EQUAL : JUMP_ANY_BIT, value, !equal, equal);
        next = emit(next, RETURN, SECCOMP_RET_ALLOW, 0, 0);
    }
    next = emit(next, RETURN, rule->test == ALWAYS ? SECCOMP_RET_ALLOW : SECCOMP_RET_KILL_PROCESS,
                0, 0);
    start->if_false = (uint8_t)(next - start - 1);
    return next;
}

static bool is_off(const char *option)
{
    return option != NULL && strlen(option) == 3 && memcmp(option, "off", 3) == 0;
}

void kit_linux_seal(void)
{
    if (is_off(kit_linux_option("seccomp")))
        return;
    struct filter filter[FILTER_MAX];
    struct filter *next = emit(filter, LOAD, OFFSET_ARCHITECTURE, 0, 0);
    next = emit(next, JUMP_EQUAL, AUDIT_ARCH_X86_64, 1, 0);
    next = emit(next, RETURN, SECCOMP_RET_KILL_PROCESS, 0, 0);
    next = emit(next, LOAD, OFFSET_NUMBER, 0, 0);
    for (size_t i = 0; i < KIT_ARRAY_SIZE(rules); i++)
        next = emit_rule(next, &rules[i]);
    next = emit(next, RETURN, SECCOMP_RET_KILL_PROCESS, 0, 0);
    struct program program = {(uint16_t)(next - filter), filter};
    kit_syscall5(SYS_PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (kit_syscall3(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, 0, (uintptr_t)&program) < 0)
        kit_linux_refuse("the host does not take the system call filter; to go without it, give ",
                         "seccomp=off");
}
