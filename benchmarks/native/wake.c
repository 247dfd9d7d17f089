/* SPDX-License-Identifier: MIT */
/* The yardstick of bench_wake.py: what it costs one processor to wake another that sleeps, by the
 * shortest way there is in plain C.
 *
 *     wake kvm COUNT    two processors of a bare virtual machine at CPL 3: a store to an address
 *                       that is bound to an eventfd; the other's thread is in read() on it
 *     wake futex COUNT  two threads of this process: FUTEX_WAKE, the other is in FUTEX_WAIT
 *
 * For each line on standard input it measures once: the median of COUNT wake-ups, each after a
 * pause of 1 ms, in microseconds. */
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { BASE = 0x100000, DATA = 0x180000, SIZE = 0x100000, PAGE = 4096, MOST = 4096 };
enum { DOORBELL = 0xff000, RING = 4 };
#define LEAF 0x67ull /* present, writable, user, accessed, dirty */

/* Words of the data page, in bytes: what is asked, answered, when it woke, pause, count, times. */
__asm__(".pushsection .rodata\n"
        "waker: mov $0x180000, %ebx\n"
        "    xor %r12d, %r12d\n"
        "1:  rdtsc\n    shl $32, %rdx\n    or %rdx, %rax\n    mov %rax, %r13\n"
        "2:  pause\n    rdtsc\n    shl $32, %rdx\n    or %rdx, %rax\n    sub %r13, %rax\n"
        "    cmp 24(%rbx), %rax\n    jb 2b\n"
        "    inc %r12\n"
        "    rdtsc\n    shl $32, %rdx\n    or %rdx, %rax\n    mov %rax, %r14\n"
        "    mov %r12, (%rbx)\n"
        "    movl $1, 0xff004\n"
        "3:  pause\n    cmp 8(%rbx), %r12\n    jne 3b\n"
        "    mov 16(%rbx), %rax\n    sub %r14, %rax\n    mov %rax, 32(%rbx,%r12,8)\n"
        "    cmp 32(%rbx), %r12\n    jb 1b\n"
        "    movl $1, 0xff008\n"
        "sleeper: mov $0x180000, %ebx\n"
        "4:  movl $1, 0xff000\n"
        "    rdtsc\n    shl $32, %rdx\n    or %rdx, %rax\n    mov %rax, 16(%rbx)\n"
        "    mov (%rbx), %rax\n    mov %rax, 8(%rbx)\n    jmp 4b\n"
        "end_of_code:\n.popsection\n");
extern const uint8_t waker[], sleeper[], end_of_code[];

static int vm, cpus[2], bell;
static struct kvm_run *runs[2];
static uint8_t *memory;
static double ticks_per_us;

static void check(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;
    return one < two ? -1 : one > two;
}

/* ---- a bare virtual machine --------------------------------------------------------------- */

static void make_cpu(int kvm, int index, struct kvm_cpuid2 *cpuid, uint64_t tables)
{
    int cpu = cpus[index] = ioctl(vm, KVM_CREATE_VCPU, index);
    check(cpu, "KVM_CREATE_VCPU");
    size_t size = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    runs[index] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    check(ioctl(cpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    struct kvm_sregs s;
    check(ioctl(cpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
    s.cr0 = 0x80050033;
    s.cr3 = tables;
    s.cr4 = 0x620;
    s.efer = 0xd01;
    struct kvm_segment code = {.limit = 0xffffffff, .selector = 0x33, .type = 11, .present = 1,
                               .dpl = 3, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = code;
    data.type = 3, data.selector = 0x2b, data.l = 0, data.db = 1;
    s.cs = code;
    s.ss = s.ds = s.es = s.fs = s.gs = data;
    s.tr = (struct kvm_segment){.limit = 0x67, .selector = 0x40, .type = 11, .present = 1};
    s.ldt = (struct kvm_segment){.unusable = 1};
    check(ioctl(cpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
}

static void make_vm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    check(kvm, "/dev/kvm");
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 128 * sizeof cpuid->entries[0]);
    cpuid->nent = 128;
    check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    check(vm = ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region slot = {.guest_phys_addr = BASE, .memory_size = SIZE,
                                               .userspace_addr = (uintptr_t)memory};
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
    memcpy(memory, waker, (size_t)(end_of_code - waker));
    uint64_t tables = BASE + 0x90000;
    for (int level = 0; level < 3; level++)
        *(uint64_t *)(void *)(memory + 0x90000 + level * PAGE) =
            (tables + (uint64_t)(level + 1) * PAGE) | LEAF;
    uint64_t *leaves = (uint64_t *)(void *)(memory + 0x93000);
    for (uint64_t at = DOORBELL; at < BASE + SIZE; at += PAGE)
        leaves[at / PAGE] = at | LEAF;
    for (int i = 0; i < 2; i++)
        make_cpu(kvm, i, cpuid, tables);
    check(bell = eventfd(0, EFD_CLOEXEC), "eventfd");
    struct kvm_ioeventfd bound = {.addr = DOORBELL + RING, .fd = bell};
    check(ioctl(vm, KVM_IOEVENTFD, &bound), "KVM_IOEVENTFD");
}

static void enter(int index)
{
    do
        if (ioctl(cpus[index], KVM_RUN, 0) < 0)
            exit(1);
    while (runs[index]->exit_reason == KVM_EXIT_INTR);
    if (runs[index]->exit_reason != KVM_EXIT_MMIO) {
        fprintf(stderr, "exit %u instead of a store\n", runs[index]->exit_reason);
        exit(1);
    }
}

static void *sleep_in_vm(void *argument)
{
    struct kvm_regs regs = {.rip = BASE + (uint64_t)(sleeper - waker), .rflags = 2};
    check(ioctl(cpus[1], KVM_SET_REGS, &regs), "KVM_SET_REGS");
    (void)argument;
    for (uint64_t rings;;) {
        enter(1);
        if (read(bell, &rings, sizeof rings) < 0)
            exit(1);
    }
    return NULL;
}

static double measure_vm(size_t count)
{
    uint64_t *words = (uint64_t *)(void *)(memory + DATA - BASE);
    words[0] = words[1] = 0;
    words[3] = (uint64_t)(ticks_per_us * 1000);
    words[4] = count; /* times[0] is the count itself */
    struct kvm_regs regs = {.rip = BASE, .rflags = 2};
    check(ioctl(cpus[0], KVM_SET_REGS, &regs), "KVM_SET_REGS");
    enter(0);
    runs[0]->immediate_exit = 1; /* completes the store */
    ioctl(cpus[0], KVM_RUN, 0);
    runs[0]->immediate_exit = 0;
    qsort(words + 5, count, sizeof *words, by_size);
    return (double)words[5 + count / 2] / ticks_per_us;
}

/* ---- threads ------------------------------------------------------------------------------ */

static uint32_t asked, answered;
static uint64_t woken_ns;

static void *sleep_in_futex(void *argument)
{
    (void)argument;
    for (uint32_t seen = 0;;) {
        while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) == seen)
            syscall(SYS_futex, &asked, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
        woken_ns = now_ns();
        seen++;
        __atomic_store_n(&answered, seen, __ATOMIC_RELEASE);
    }
    return NULL;
}

static double measure_futex(size_t count)
{
    static uint64_t times[MOST];
    for (size_t i = 0; i < count; i++) {
        uint64_t begin = now_ns() + 1000000;
        while (now_ns() < begin)
            __builtin_ia32_pause();
        uint64_t start = now_ns();
        uint32_t number = __atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &asked, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        while (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) != number)
            __builtin_ia32_pause();
        times[i] = woken_ns - start;
    }
    qsort(times, count, sizeof *times, by_size);
    return (double)times[count / 2] / 1000;
}

int main(int argc, char **argv)
{
    const int in_vm = argc > 1 && strcmp(argv[1], "kvm") == 0;
    size_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 200;
    if (count > MOST)
        return 2;
    uint64_t ns = now_ns(), tsc = __rdtsc();
    usleep(50000);
    ticks_per_us = (double)(__rdtsc() - tsc) / ((double)(now_ns() - ns) / 1000);
    if (in_vm)
        make_vm();
    pthread_t thread;
    pthread_create(&thread, NULL, in_vm ? sleep_in_vm : sleep_in_futex, NULL);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        printf("%.3f\n", in_vm ? measure_vm(count) : measure_futex(count));
        fflush(stdout);
    }
    return 0;
}
