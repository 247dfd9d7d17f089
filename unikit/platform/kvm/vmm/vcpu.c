/* SPDX-License-Identifier: MIT */
/* A processor: its state at the entry (long mode, CPL 3, nothing else ever), and the loop that
 * runs it until the guest ends. The thread blocks every signal; SIGRTMIN + 7 is let in by KVM_RUN
 * alone, so it needs no handler and disturbs nobody else's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unistd.h>

enum {
    CR4_BASE = 0x620, /* OSXMMEXCPT OSFXSR PAE */
    CR4_FSGSBASE = 1 << 16,
    CR4_OSXSAVE = 1 << 18,
    CPL3_CODE = 0x33,
    CPL3_DATA = 0x2b,
    TASK = 0x40,
    XCR0_VECTORS = 0xe7 /* x87, SSE, AVX, AVX-512 */
};

int vmm_kick_signal(void)
{
    return SIGRTMIN + 7;
}

/* How CR4 may look here: the first that KVM took is tried first from then on. */
static const uint32_t cr4_forms[] = {CR4_BASE | CR4_FSGSBASE | CR4_OSXSAVE, CR4_BASE | CR4_FSGSBASE,
                                     CR4_BASE | CR4_OSXSAVE, CR4_BASE};
static uint32_t cr4_good;

static void fill_sregs(const struct vmm_cpu *cpu, struct kvm_sregs *s)
{
    const struct kit_kvm_layout *layout = &cpu->vm->memory.layout;
    const uint64_t system = layout->system;
    struct kvm_segment code = {.limit = 0xffffffff,
                               .selector = CPL3_CODE,
                               .type = 11,
                               .present = 1,
                               .dpl = 3,
                               .s = 1,
                               .l = 1,
                               .g = 1};
    struct kvm_segment data = {.limit = 0xffffffff,
                               .selector = CPL3_DATA,
                               .type = 3,
                               .present = 1,
                               .dpl = 3,
                               .db = 1,
                               .s = 1,
                               .g = 1};
    s->cs = code;
    s->ss = s->ds = s->es = s->fs = s->gs = data;
    s->gs.base = vmm_processor(layout, cpu->number) + offsetof(struct kit_kvm_cpu, cpu);
    s->tr = (struct kvm_segment){.base = vmm_tss(layout, cpu->number),
                                 .limit = 0x67,
                                 .selector = TASK,
                                 .type = 11,
                                 .present = 1};
    s->ldt = (struct kvm_segment){.unusable = 1};
    s->gdt.base = system + VMM_GDT;
    s->gdt.limit = 0x4f;
    s->idt.base = system + VMM_IDT;
    s->idt.limit = 16 * VMM_VECTORS - 1;
    s->cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
    s->cr3 = layout->tables;
    s->efer = 0xd00; /* NXE LMA LME: no SYSCALL */
}

static int set_sregs(struct vmm_cpu *cpu, struct kit_kvm_refused *refused)
{
    struct kvm_sregs sregs;
    if (ioctl(cpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return vmm_refuse_host(refused, errno, "KVM_GET_SREGS failed");
    fill_sregs(cpu, &sregs);
    for (uint32_t i = __atomic_load_n(&cr4_good, __ATOMIC_RELAXED); i < KIT_ARRAY_SIZE(cr4_forms);
         i++) {
        sregs.cr4 = cr4_forms[i];
        if (ioctl(cpu->fd, KVM_SET_SREGS, &sregs) == 0) {
            __atomic_store_n(&cr4_good, i, __ATOMIC_RELAXED);
            return 0;
        }
    }
    return vmm_refuse_host(refused, errno, "KVM_SET_SREGS refused long mode at CPL 3");
}

bool vmm_vcpu_sets_bases(void)
{
    return cr4_forms[__atomic_load_n(&cr4_good, __ATOMIC_RELAXED)] & CR4_FSGSBASE;
}

/* Vector state beyond SSE, where KVM has it; where it ignores the call the guest sees the host's.
 */
static void set_xcr0(const struct vmm_cpu *cpu)
{
    const struct kvm_cpuid2 *table = vmm_host_cpuid();
    uint64_t supported = 0;
    for (uint32_t i = 0; i < table->nent; i++)
        if (table->entries[i].function == 0xd && table->entries[i].index == 0)
            supported = table->entries[i].eax & XCR0_VECTORS;
    if (supported == 0)
        return;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = supported}}};
    if (ioctl(cpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return; /* the probe guest will say what is left */
}

static int let_signal_in(const struct vmm_cpu *cpu, struct kit_kvm_refused *refused)
{
    struct {
        struct kvm_signal_mask head;
        uint64_t blocked;
    } mask = {.head = {.len = 8}};
    uint64_t blocked = ~(UINT64_C(1) << (vmm_kick_signal() - 1));
    memcpy(mask.head.sigset, &blocked, sizeof blocked);
    if (ioctl(cpu->fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
        return vmm_refuse_host(refused, errno, "KVM_SET_SIGNAL_MASK failed");
    return 0;
}

int vmm_vcpu_open(struct vmm_cpu *cpu, struct kit_kvm_refused *refused)
{
    struct kit_kvm *vm = cpu->vm;
    cpu->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, cpu->number);
    if (cpu->fd < 0)
        return vmm_refuse_host(refused, errno, "KVM_CREATE_VCPU failed");
    cpu->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (cpu->run == MAP_FAILED) {
        cpu->run = NULL;
        return vmm_refuse_host(refused, errno, "cannot map the processor's shared page");
    }
    if (ioctl(cpu->fd, KVM_SET_CPUID2, vmm_host_cpuid()) < 0)
        return vmm_refuse_host(refused, errno, "KVM_SET_CPUID2 failed");
    int rc = set_sregs(cpu, refused);
    if (rc != 0)
        return rc;
    set_xcr0(cpu);
    if (ioctl(cpu->fd, KVM_SET_REGS, &cpu->start) < 0)
        return vmm_refuse_host(refused, errno, "KVM_SET_REGS failed");
    return let_signal_in(cpu, refused);
}

/* ---- the loop -----------------------------------------------------------------------------------
 */

static int broken(struct vmm_cpu *cpu, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cpu->fault.text, sizeof cpu->fault.text, format, arguments);
    va_end(arguments);
    vmm_report(cpu, KIT_KVM_BROKE_DEVICE, 0);
    return 1;
}

static int call_pages(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    volatile struct kit_kvm_call *words = &cpu->shared->call;
    const uint64_t base = words->page_base, size = words->page_size;
    const uint32_t call = words->page_call, access = words->page_access;
    cpu->exits_pages++;
    if (call == KIT_KVM_PAGE_RELEASE) {
        words->page_result = vmm_pages_release(&vm->memory, base, size);
    } else if (call == KIT_KVM_PAGE_PROTECT) {
        pthread_mutex_lock(&vm->pages_lock);
        words->page_result = vmm_pages_protect(&vm->memory, base, size, access, &vm->reserve_used);
        pthread_mutex_unlock(&vm->pages_lock);
    } else {
        return broken(cpu, "doorbell: page call %u does not exist", call);
    }
    return 0;
}

/* The host refused something that the guest needs to go on. Nonzero: it did. */
static int failed(struct vmm_cpu *cpu, int number, const char *what)
{
    if (number == 0)
        return 0;
    vmm_fault(&cpu->fault, "%s: %s", what, strerror(number));
    vmm_report(cpu, KIT_KVM_FAILED, number);
    return 1;
}

/* A store to the doorbell. Nonzero: the guest has ended. */
static int doorbell(struct vmm_cpu *cpu, uint32_t call, uint32_t value)
{
    struct kit_kvm *vm = cpu->vm;
    if (call >= KIT_KVM_WAKE && vmm_cpu_wake(vm, call - KIT_KVM_WAKE))
        return 0;
    if (vmm_console_drain(&vm->console, &cpu->fault) < 0 || /* every call looks at all queues */
        vmm_console_feed(&vm->console, &cpu->fault) < 0)
        return vmm_report(cpu, KIT_KVM_BROKE_DEVICE, 0), 1;
    int rc = 0;
    switch (call) {
    case KIT_KVM_EXIT:
        rc = vmm_device_flush(cpu);
        if (rc == 0)
            return vmm_report(cpu, KIT_KVM_EXITED, (int32_t)value), 1;
        break;
    case KIT_KVM_PANIC:
        return vmm_report(cpu, KIT_KVM_PANICKED, 0), 1;
    case KIT_KVM_IDLE:
        cpu->exits_idle++;
        rc = vmm_device_idle(cpu);
        break;
    case KIT_KVM_PAGES:
        return call_pages(cpu);
    case KIT_KVM_KICK:
        cpu->exits_kick++;
        rc = vmm_device_kick(cpu);
        break;
    case KIT_KVM_START:
        cpu->shared->call.start_result = vmm_cpu_start(cpu, value);
        break;
    case KIT_KVM_SLICE:
        cpu->exits_slice++;
        return failed(cpu, vmm_slice_wanted(cpu), "no timer for the ends of slices");
    default:
        return broken(cpu, "doorbell: call %u does not exist", call);
    }
    return rc < 0 ? (vmm_report(cpu, KIT_KVM_BROKE_DEVICE, 0), 1) : 0;
}

static int mmio(struct vmm_cpu *cpu)
{
    const uint64_t address = cpu->run->mmio.phys_addr;
    const uint32_t length = cpu->run->mmio.len;
    if (address - KIT_KVM_DOORBELL >= VMM_PAGE)
        return broken(cpu, "access outside the memory at %#llx", (unsigned long long)address);
    if (!cpu->run->mmio.is_write)
        return broken(cpu, "doorbell: a load at %#llx; only stores mean something",
                      (unsigned long long)address);
    if (length != 4 || address % 4 != 0)
        return broken(cpu,
                      "doorbell: a store of %u bytes at %#llx; only aligned words mean "
                      "something",
                      length, (unsigned long long)address);
    uint32_t value;
    memcpy(&value, cpu->run->mmio.data, sizeof value);
    return doorbell(cpu, (uint32_t)(address - KIT_KVM_DOORBELL) / 4, value);
}

/* One exit. Nonzero: the guest has ended. */
static int handle(struct vmm_cpu *cpu)
{
    const struct kvm_run *run = cpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        return mmio(cpu);
    case KVM_EXIT_IO:
        if (run->io.port == VMM_FAULT_PORT)
            return vmm_report(cpu, KIT_KVM_FAULTED, 0), 1;
        return broken(cpu, "access to port %#x", run->io.port);
    case KVM_EXIT_INTR:
        return 0;
    case KVM_EXIT_SHUTDOWN:
        return vmm_report(cpu, KIT_KVM_FAULTED, -1), 1;
    default:
        vmm_fault(&cpu->fault, "KVM cannot go on: exit reason %u%s", run->exit_reason,
                  run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? " (internal error)" : "");
        vmm_report(cpu, KIT_KVM_FAILED, EIO);
        return 1;
    }
}

static void take_signal(void)
{
    sigset_t one;
    const struct timespec now = {0, 0};
    sigemptyset(&one);
    sigaddset(&one, vmm_kick_signal());
    sigtimedwait(&one, NULL, &now);
}

/* Whether somebody else wants the guest to end; the report says why. */
static bool leaves(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    if (!vmm_interrupted(vm))
        return false;
    if (__atomic_load_n(&vm->broken, __ATOMIC_ACQUIRE)) {
        pthread_mutex_lock(&vm->report_lock);
        cpu->fault = vm->device_fault;
        pthread_mutex_unlock(&vm->report_lock);
        vmm_report(cpu, KIT_KVM_BROKE_DEVICE, 0);
    } else {
        vmm_report(cpu, KIT_KVM_STOPPED, 0); /* unless another processor has reported */
    }
    return true;
}

static void run(struct vmm_cpu *cpu)
{
    while (!leaves(cpu)) {
        if (ioctl(cpu->fd, KVM_RUN, 0) == 0) {
            if (handle(cpu))
                return;
        } else if (errno == EINTR || errno == EAGAIN) {
            cpu->exits_interrupted++;
            take_signal();
            if (failed(cpu, vmm_slice_interrupted(cpu), "KVM does not take registers"))
                return;
        } else {
            failed(cpu, errno, "KVM_RUN failed");
            return;
        }
    }
}

/* The thread leaves the guest for ever, and the last one ends the machine. */
static void *leave(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    struct timespec used;
    vmm_slice_end(cpu);
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0)
        cpu->final_ns = (uint64_t)used.tv_sec * KIT_NS_PER_S + (uint64_t)used.tv_nsec;
    pthread_mutex_lock(&vm->start_lock); /* who holds it may signal threads that have not ended */
    __atomic_store_n(&cpu->ended, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&vm->start_lock);
    if (vm->cpu_count > 1)
        vmm_interrupt(vm);
    if (__atomic_sub_fetch(&vm->cpus_live, 1, __ATOMIC_ACQ_REL) != 0)
        return NULL;
    vmm_console_drain(&vm->console, &cpu->fault);
    __atomic_store_n(&vm->ended, 1, __ATOMIC_RELEASE);
    vmm_console_end(&vm->console);
    return NULL;
}

static void settle(void)
{
    prctl(PR_SET_NAME, "unikit-cpu");
    prctl(PR_SET_TIMERSLACK, 1);
}

void *vmm_vcpu_main(void *argument)
{
    struct vmm_cpu *cpu = argument;
    struct kit_kvm *vm = cpu->vm;
    settle();
    vmm_futex_wait(&vm->vm_ready, 0);
    if (vm->vm_ready != 1)
        return NULL;
    int rc = vmm_vcpu_open(cpu, &vm->refused);
    vmm_futex_wait(&vm->memory_ready, 0); /* most of the time it is by now */
    if (rc == 0 && vm->memory_ready == 1)
        vmm_clock_open(vm);
    else
        rc = KIT_EIO;
    vmm_futex_set(&vm->vcpu_ready, rc == 0 ? 1 : 2);
    if (rc != 0)
        return NULL;
    if (vm->net.netif != NULL)
        vmm_short_slice();
    run(cpu);
    return leave(cpu);
}

void *vmm_vcpu_further(void *argument)
{
    struct vmm_cpu *cpu = argument;
    struct kit_kvm_refused refused = {0};
    settle();
    if (vmm_vcpu_open(cpu, &refused) == 0) {
        vmm_clock_follow(cpu);
        run(cpu);
    } else {
        vmm_fault(&cpu->fault, "processor %u cannot be made: %s", cpu->number, refused.text);
        vmm_report(cpu, KIT_KVM_FAILED, refused.number);
    }
    return leave(cpu);
}
