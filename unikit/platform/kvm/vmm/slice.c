/* SPDX-License-Identifier: MIT */
/* The end of a slice (struct kit_cpu in platform/env.h): a thread that looks at the guest's words
 * once a tick, and at the moment at which a slice ends, sets `due` when it has; if that was not
 * seen a tick later, and the guest is in no component, the processor's thread is signalled out of
 * KVM_RUN and edits its registers so that the guest goes on in its upcall.
 *
 * The thread is made when a guest first asks for it. It looks only while there are slices: when it
 * has found none for some ticks it sleeps until the guest calls again.
 *
 * Whatever is read from the guest decides over the guest alone: where it goes on (within its image)
 * and what is written on its stack (where it may write itself). */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unistd.h>

enum {
    RED_ZONE = 128,
    FLAGS_RF_TF = 0x10100,
    EMPTY_TICKS = 10, /* without a slice: then it sleeps; a call to wake it costs the guest 25 us */
};

/* ---- the thread that looks ----------------------------------------------------------------------
 */

/* Sleeps until a time, or until told to quit. */
static void sleep_until(struct vmm_ticker *ticker, uint64_t deadline_ns)
{
    const struct timespec time = {(time_t)(deadline_ns / KIT_NS_PER_S),
                                  (long)(deadline_ns % KIT_NS_PER_S)};
    syscall(SYS_futex, &ticker->quit, FUTEX_WAIT_BITSET_PRIVATE, 0, &time, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

/* The processor's thread shall have a look, if it is still there. */
static void interrupt(struct vmm_cpu *cpu)
{
    __atomic_store_n(&cpu->slice.redirect, 1, __ATOMIC_RELEASE);
    pthread_mutex_lock(&cpu->vm->start_lock);
    if (!__atomic_load_n(&cpu->ended, __ATOMIC_ACQUIRE))
        pthread_kill(cpu->thread, vmm_kick_signal());
    pthread_mutex_unlock(&cpu->vm->start_lock);
}

/* Looks at a slice that ends at `stop_ns`; when to look again at the latest. */
static uint64_t look(struct vmm_cpu *cpu, uint64_t stop_ns, uint64_t now_ns)
{
    struct vmm_slice *slice = &cpu->slice;
    volatile struct kit_cpu *words = &cpu->shared->cpu;
    if (__atomic_load_n(&words->due, __ATOMIC_RELAXED) == 0)
        slice->pressed_ns = 0;
    if (now_ns < stop_ns)
        return stop_ns;
    if (slice->pressed_ns == 0) {
        __atomic_store_n(&words->due, 1, __ATOMIC_RELAXED);
        slice->pressed_ns = now_ns;
    } else if (now_ns - slice->pressed_ns >= KIT_TICK_NS) {
        slice->pressed_ns = now_ns; /* if it does not help: again in a tick */
        if (__atomic_load_n(&words->inside, __ATOMIC_RELAXED) == 0)
            interrupt(cpu);
    }
    return slice->pressed_ns + KIT_TICK_NS;
}

/* Whether a processor that had no slice for a while wants to be looked at all the same. */
static bool stays(struct vmm_cpu *cpu)
{
    __atomic_store_n(&cpu->slice.ticking, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&cpu->shared->ticking, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cpu->shared->stop_ns, __ATOMIC_SEQ_CST) == KIT_NEVER)
        return false; /* whoever writes it now finds `ticking` gone, and calls */
    vmm_slice_wanted(cpu);
    return true;
}

/* Looks at every processor that wants it; when to look again, KIT_NEVER if none does. */
static uint64_t look_at_all(struct kit_kvm *vm)
{
    const uint64_t now_ns = vmm_now_ns();
    uint64_t next_ns = KIT_NEVER;
    for (uint32_t i = 0; i < vm->cpu_count; i++) {
        struct vmm_cpu *cpu = &vm->cpu[i];
        if (!__atomic_load_n(&cpu->slice.ticking, __ATOMIC_ACQUIRE))
            continue;
        uint64_t again_ns = now_ns + KIT_TICK_NS;
        const uint64_t stop_ns = cpu->shared->stop_ns;
        cpu->slice.empty = stop_ns == KIT_NEVER ? cpu->slice.empty + 1 : 0;
        if (stop_ns != KIT_NEVER) {
            const uint64_t then_ns = look(cpu, stop_ns, now_ns);
            again_ns = then_ns < again_ns ? then_ns : again_ns;
        } else if (cpu->slice.empty > EMPTY_TICKS && !stays(cpu)) {
            continue;
        }
        next_ns = again_ns < next_ns ? again_ns : next_ns;
    }
    return next_ns;
}

static void *ticker_main(void *argument)
{
    struct kit_kvm *vm = argument;
    prctl(PR_SET_NAME, "unikit-ticks");
    prctl(PR_SET_TIMERSLACK, 1);
    while (!__atomic_load_n(&vm->ticker.quit, __ATOMIC_ACQUIRE)) {
        vmm_futex_wait(&vm->ticker.work, 0);
        __atomic_store_n(&vm->ticker.work, 0, __ATOMIC_SEQ_CST);
        uint64_t next_ns;
        while ((next_ns = look_at_all(vm)) != KIT_NEVER &&
               !__atomic_load_n(&vm->ticker.quit, __ATOMIC_ACQUIRE))
            sleep_until(&vm->ticker, next_ns);
    }
    return NULL;
}

/* ---- the processors' threads ------------------------------------------------------------------
 */

/* The thread inherits that all signals are blocked. start_lock is held. */
static int start_ticker(struct kit_kvm *vm)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    int rc = pthread_create(&vm->ticker.thread, &attributes, ticker_main, vm);
    pthread_attr_destroy(&attributes);
    vm->ticker.started = rc == 0;
    return rc;
}

int vmm_slice_wanted(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    pthread_mutex_lock(&vm->start_lock);
    int rc = vm->ticker.started ? 0 : start_ticker(vm);
    pthread_mutex_unlock(&vm->start_lock);
    if (rc != 0)
        return rc;
    if (!cpu->slice.asked) {
        cpu->slice.asked = true;
        cpu->slice.sync_registers =
            ioctl(vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS;
        if (cpu->slice.sync_registers)
            cpu->run->kvm_valid_regs |= KVM_SYNC_X86_REGS;
    }
    __atomic_store_n(&cpu->shared->ticking, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&cpu->slice.ticking, 1, __ATOMIC_SEQ_CST);
    vmm_futex_set(&vm->ticker.work, 1);
    return 0;
}

static bool in_image(const struct kit_kvm *vm, uint64_t address)
{
    return address >= KIT_KVM_MEMORY && address < vm->memory.layout.image_end;
}

/* Lets the guest go on in its upcall, in the form of env.h; false: not now. */
static bool redirect(struct vmm_cpu *cpu, struct kvm_regs *regs)
{
    struct kit_kvm *vm = cpu->vm;
    volatile struct kit_cpu *words = &cpu->shared->cpu;
    const uint64_t upcall = (uintptr_t)words->upcall;
    if (words->due == 0 || words->inside != 0 || !in_image(vm, upcall) ||
        !in_image(vm, regs->rip)) /* it is not in the stub of an exception */
        return false;
    const uint64_t frame[2] = {regs->rflags & ~(uint64_t)FLAGS_RF_TF, regs->rip};
    const uint64_t rsp = regs->rsp - RED_ZONE - sizeof frame;
    pthread_mutex_lock(&vm->pages_lock);
    void *place = vmm_memory_writable(&vm->memory, rsp, sizeof frame);
    if (place != NULL)
        memcpy(place, frame, sizeof frame);
    pthread_mutex_unlock(&vm->pages_lock);
    if (place == NULL)
        return false; /* its stack is full, or none */
    regs->rsp = rsp;
    regs->rip = upcall;
    words->due = 0;
    words->inside = 1;
    words->upcalls = words->upcalls + 1;
    cpu->upcalls++;
    return true;
}

int vmm_slice_interrupted(struct vmm_cpu *cpu)
{
    if (!__atomic_exchange_n(&cpu->slice.redirect, 0, __ATOMIC_ACQUIRE))
        return 0;
    if (cpu->slice.sync_registers) {
        if (redirect(cpu, &cpu->run->s.regs.regs))
            cpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
        return 0;
    }
    struct kvm_regs regs;
    if (ioctl(cpu->fd, KVM_GET_REGS, &regs) < 0)
        return errno;
    return redirect(cpu, &regs) && ioctl(cpu->fd, KVM_SET_REGS, &regs) < 0 ? errno : 0;
}

void vmm_slice_stop(struct kit_kvm *vm)
{
    if (!vm->ticker.started)
        return;
    vmm_futex_set(&vm->ticker.quit, 1);
    vmm_futex_set(&vm->ticker.work, 1); /* out of its sleep; it sees `quit` */
    pthread_join(vm->ticker.thread, NULL);
    vm->ticker.started = false;
}
