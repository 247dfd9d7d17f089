/* SPDX-License-Identifier: MIT */
/* Several processors: one thread each, made when the guest starts it, so a guest that starts none
 * pays for none. A processor that sleeps is in poll() on its eventfd. Another one ends that by a
 * store to the doorbell, which KVM turns into a write to the eventfd (ioeventfd) without leaving
 * the guest. Such bindings are made when the first further processor starts.
 *
 * The guest is over when one processor ended it; the others are interrupted, and the last thread to
 * leave ends the machine. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/bits.h>
#include <unistd.h>

enum { THREAD_STACK = 256 << 10 };

int vmm_cpus_open(struct kit_kvm *vm, struct kit_kvm_refused *refused)
{
    for (uint32_t i = 0; i < vm->cpu_count; i++) {
        vm->cpu[i].wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (vm->cpu[i].wake_fd < 0)
            return vmm_refuse_host(refused, errno, "cannot make an eventfd");
    }
    return 0;
}

void vmm_cpus_close(struct kit_kvm *vm)
{
    for (uint32_t i = 0; i < KIT_KVM_CPUS_MAX; i++) {
        struct vmm_cpu *cpu = &vm->cpu[i];
        if (cpu->run != NULL)
            munmap(cpu->run, vm->run_bytes);
        if (cpu->fd >= 0)
            close(cpu->fd);
        if (cpu->wake_fd >= 0)
            close(cpu->wake_fd);
    }
}

/* Every signal is blocked in a processor's thread; the caller sees to that. */
int vmm_cpu_thread(struct vmm_cpu *cpu, void *(*run)(void *argument))
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    pthread_mutex_lock(&cpu->vm->start_lock);
    int rc = pthread_create(&cpu->thread, &attributes, run, cpu);
    cpu->started = rc == 0;
    pthread_mutex_unlock(&cpu->vm->start_lock);
    pthread_attr_destroy(&attributes);
    return rc;
}

/* ---- waking ------------------------------------------------------------------------------- */

static void ring(const struct vmm_cpu *cpu)
{
    const uint64_t one = 1;
    if (write(cpu->wake_fd, &one, sizeof one) < 0)
        return; /* the counter is full: it is awake already */
}

void vmm_interrupt(struct kit_kvm *vm)
{
    vmm_console_hurry(&vm->console);
    pthread_mutex_lock(&vm->start_lock);
    for (uint32_t i = 0; i < vm->cpu_count; i++) {
        struct vmm_cpu *cpu = &vm->cpu[i];
        if (!cpu->started || __atomic_load_n(&cpu->ended, __ATOMIC_ACQUIRE))
            continue;
        ring(cpu);
        pthread_kill(cpu->thread, vmm_kick_signal());
    }
    pthread_mutex_unlock(&vm->start_lock);
}

bool vmm_interrupted(const struct kit_kvm *vm)
{
    return __atomic_load_n(&vm->over, __ATOMIC_ACQUIRE) ||
           __atomic_load_n(&vm->stop, __ATOMIC_ACQUIRE) ||
           __atomic_load_n(&vm->broken, __ATOMIC_ACQUIRE);
}

void vmm_break(struct kit_kvm *vm, const struct vmm_fault *fault)
{
    pthread_mutex_lock(&vm->report_lock);
    if (!vm->broken)
        vm->device_fault = *fault;
    __atomic_store_n(&vm->broken, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&vm->report_lock);
    vmm_interrupt(vm);
}

bool vmm_cpu_wake(struct kit_kvm *vm, uint32_t number)
{
    if (number >= vm->cpu_count)
        return false;
    ring(&vm->cpu[number]);
    return true;
}

/* Binds a word of the doorbell to the processor's eventfd. Without that a store to it is an exit,
 * which does the same more slowly. */
static void bind(const struct vmm_cpu *cpu)
{
    struct kvm_ioeventfd bound = {
        .addr = KIT_KVM_DOORBELL + 4 * (KIT_KVM_WAKE + cpu->number),
        .fd = cpu->wake_fd,
    };
    if (ioctl(cpu->vm->vm_fd, KVM_IOEVENTFD, &bound) == 0)
        return;
    bound.len = 4; /* before Linux 4.4 a length was wanted */
    if (ioctl(cpu->vm->vm_fd, KVM_IOEVENTFD, &bound) < 0)
        return;
}

/* ---- starting ----------------------------------------------------------------------------- */

int32_t vmm_cpu_start(struct vmm_cpu *cpu, uint32_t number)
{
    struct kit_kvm *vm = cpu->vm;
    const volatile struct kit_kvm_call *call = &cpu->shared->call;
    if (number == 0 || number >= vm->cpu_count)
        return KIT_EINVAL;
    struct vmm_cpu *next = &vm->cpu[number];
    const struct kvm_regs start = {.rip = call->start_entry,
                                   .rdi = call->start_argument,
                                   .rsp = call->start_stack,
                                   .rflags = 2};
    pthread_mutex_lock(&vm->start_lock);
    const bool first = vm->cpus_bound == 0, taken = next->taken;
    next->taken = true;
    vm->cpus_bound = 1;
    pthread_mutex_unlock(&vm->start_lock);
    if (taken)
        return KIT_EINVAL;
    if (first)
        bind(&vm->cpu[0]);
    bind(next);
    next->start = start;
    __atomic_add_fetch(&vm->cpus_live, 1, __ATOMIC_ACQ_REL);
    if (vmm_cpu_thread(next, vmm_vcpu_further) == 0)
        return 0;
    __atomic_sub_fetch(&vm->cpus_live, 1, __ATOMIC_ACQ_REL); /* never the last: the caller lives */
    return KIT_ENOMEM;
}
