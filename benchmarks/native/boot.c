/* SPDX-License-Identifier: MIT */
/* The yardstick of bench_boot.py: what creating a sealed guest costs in plain C on /dev/kvm. It does
 * what the monitor does and nothing besides: VM, memory of the given size, page tables, image copy,
 * one processor in long mode at CPL 3, a thread, and the guest's first store to the doorbell.
 *
 * For each line on standard input it makes one VM and prints the microseconds from the first call to
 * the moment the thread sees the store; the teardown is not counted. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BASE = 0x100000, DOORBELL = 0xff000, PAGE = 4096, IMAGE_BYTES = 16384 };
#define PRESENT_USER 0x65ull /* present, user, accessed, dirty */
#define WRITABLE 2ull
#define LARGE 0x80ull
#define NO_EXECUTE (1ull << 63)

/* movl $1, DOORBELL; jmp . */
static const uint8_t guest[] = {0xc7, 0x04, 0x25, 0x00, 0xf0, 0x0f, 0x00, 0x01,
                                0x00, 0x00, 0x00, 0xeb, 0xfe};

struct vm {
    int kvm, vm, cpu;
    size_t size, run_size;
    uint8_t *memory;
    struct kvm_run *run;
    struct kvm_cpuid2 *cpuid;
    struct timespec seen;
};

static void check(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static uint64_t *entry(struct vm *vm, uint64_t table, unsigned index)
{
    return (uint64_t *)(vm->memory + (table - BASE)) + index;
}

/* Identity map: the image read-only and executable, 4 KiB pages up to 2 MiB, 2 MiB pages above. */
static uint64_t build_tables(struct vm *vm)
{
    uint64_t next = BASE + vm->size - 5 * PAGE;
    uint64_t top = next, upper = next + PAGE, middle = next + 2 * PAGE, first = next + 3 * PAGE;
    *entry(vm, top, 0) = upper | PRESENT_USER | WRITABLE;
    *entry(vm, upper, 0) = middle | PRESENT_USER | WRITABLE;
    *entry(vm, middle, 0) = first | PRESENT_USER | WRITABLE;
    for (uint64_t at = BASE; at < 0x200000; at += PAGE) {
        bool code = at < BASE + IMAGE_BYTES;
        *entry(vm, first, (unsigned)(at / PAGE)) =
            at | PRESENT_USER | (code ? 0 : WRITABLE | NO_EXECUTE);
    }
    *entry(vm, first, DOORBELL / PAGE) = DOORBELL | PRESENT_USER | WRITABLE | NO_EXECUTE;
    for (uint64_t at = 0x200000; at + 0x200000 <= BASE + vm->size - 5 * PAGE; at += 0x200000)
        *entry(vm, middle, (unsigned)(at >> 21)) =
            at | PRESENT_USER | WRITABLE | LARGE | NO_EXECUTE;
    return top;
}

static void set_registers(struct vm *vm, uint64_t tables)
{
    struct kvm_sregs s;
    check(ioctl(vm->cpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
    s.cr0 = 0x80050033;
    s.cr3 = tables;
    s.cr4 = 0x620;
    s.efer = 0xd01;
    struct kvm_segment code = {.limit = 0xffffffff, .selector = 0x33, .type = 11, .present = 1,
                               .dpl = 3, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = code;
    data.type = 3;
    data.selector = 0x2b;
    data.l = 0;
    data.db = 1;
    s.cs = code;
    s.ss = s.ds = s.es = s.fs = s.gs = data;
    s.tr = (struct kvm_segment){.limit = 0x67, .selector = 0x40, .type = 11, .present = 1};
    s.ldt = (struct kvm_segment){.unusable = 1};
    check(ioctl(vm->cpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
    struct kvm_regs r = {.rip = BASE, .rsp = BASE + 0x80000, .rflags = 2};
    check(ioctl(vm->cpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
}

static void *run(void *argument)
{
    struct vm *vm = argument;
    do
        check(ioctl(vm->cpu, KVM_RUN, 0), "KVM_RUN");
    while (vm->run->exit_reason == KVM_EXIT_INTR);
    clock_gettime(CLOCK_MONOTONIC, &vm->seen);
    if (vm->run->exit_reason != KVM_EXIT_MMIO || vm->run->mmio.phys_addr != DOORBELL) {
        fprintf(stderr, "exit %u instead of the doorbell\n", vm->run->exit_reason);
        exit(1);
    }
    return NULL;
}

static double boot(size_t size, const uint8_t *image, struct kvm_cpuid2 *cpuid)
{
    struct vm vm = {.size = size, .cpuid = cpuid};
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    check(vm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    check(vm.vm = ioctl(vm.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    vm.memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(vm.memory == MAP_FAILED ? -1 : 0, "mmap");
    struct kvm_userspace_memory_region slot = {.guest_phys_addr = BASE, .memory_size = size,
                                               .userspace_addr = (uintptr_t)vm.memory};
    check(ioctl(vm.vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
    memcpy(vm.memory, image, IMAGE_BYTES);
    uint64_t tables = build_tables(&vm);
    check(vm.cpu = ioctl(vm.vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    vm.run_size = (size_t)ioctl(vm.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vm.run = mmap(NULL, vm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.cpu, 0);
    check(vm.run == MAP_FAILED ? -1 : 0, "mmap of the processor");
    check(ioctl(vm.cpu, KVM_SET_CPUID2, vm.cpuid), "KVM_SET_CPUID2");
    set_registers(&vm, tables);
    pthread_t thread;
    check(-pthread_create(&thread, NULL, run, &vm), "pthread_create");
    pthread_join(thread, NULL);
    double us = (double)(vm.seen.tv_sec - start.tv_sec) * 1e6 +
                (double)(vm.seen.tv_nsec - start.tv_nsec) / 1e3;
    munmap(vm.run, vm.run_size);
    close(vm.cpu);
    close(vm.vm);
    close(vm.kvm);
    munmap(vm.memory, size);
    return us;
}

int main(int argc, char **argv)
{
    size_t size = argc > 1 ? strtoull(argv[1], NULL, 0) : 16 << 20;
    static uint8_t image[IMAGE_BYTES];
    memcpy(image, guest, sizeof guest);
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 128 * sizeof cpuid->entries[0]);
    cpuid->nent = 128;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    check(kvm, "/dev/kvm");
    check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    close(kvm);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        printf("%.3f\n", boot(size, image, cpuid));
        fflush(stdout);
    }
    return 0;
}
