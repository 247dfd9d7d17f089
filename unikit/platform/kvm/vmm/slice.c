/* SPDX-License-Identifier: MIT */
/* The end of a slice (struct kit_cpu in platform/env.h): a POSIX timer of the processor's thread
 * interrupts KVM_RUN once a tick while the guest wants slices to end. The thread looks at the
 * guest's words, sets `due` when a slice is over, and if that was not seen a tick later, and the
 * guest is in no component, edits its registers so that it goes on in its upcall. The guest stands
 * still meanwhile, so nothing of this races with it; and the interruption is all it costs: a
 * thread of its own would have to be woken as often, which is no cheaper.
 *
 * The timer is made when a guest first asks for it. When it has found no slice for some ticks it is
 * stopped until the guest calls again.
 *
 * Whatever is read from the guest decides over the guest alone: where it goes on (within its image)
 * and what is written on its stack (where it may write itself). */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unistd.h>

enum {
    RED_ZONE = 128,
    FLAGS_RF_TF = 0x10100,
    EMPTY_TICKS = 10, /* without a slice: then it stops; a call to start it costs the guest 25 us */
};

/* A timer is a little early or late: an upcall is not put off by another tick for that. */
#define NEARLY_NS (KIT_TICK_NS / 2)

/* Lets it tick, or not. 0 or an errno. */
static int set_ticks(struct vmm_cpu *cpu, bool on)
{
    const struct timespec tick = {0, on ? KIT_TICK_NS : 0};
    const struct itimerspec every = {.it_interval = tick, .it_value = tick};
    cpu->slice.empty = 0;
    cpu->shared->ticking = on;
    return timer_settime(cpu->slice.timer, 0, &every, NULL) == 0 ? 0 : errno;
}

int vmm_slice_wanted(struct vmm_cpu *cpu)
{
    struct vmm_slice *slice = &cpu->slice;
    if (!slice->asked) {
        struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = vmm_kick_signal()};
        event._sigev_un._tid = (int)syscall(SYS_gettid);
        if (timer_create(CLOCK_MONOTONIC, &event, &slice->timer) != 0)
            return errno;
        slice->asked = true;
        slice->sync_registers =
            ioctl(cpu->vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS;
        if (slice->sync_registers)
            cpu->run->kvm_valid_regs |= KVM_SYNC_X86_REGS;
    }
    return set_ticks(cpu, true);
}

void vmm_slice_end(struct vmm_cpu *cpu)
{
    if (cpu->slice.asked)
        timer_delete(cpu->slice.timer);
    cpu->slice.asked = false;
}

/* A tick: whether the guest shall go on in its upcall. */
static bool look(struct vmm_cpu *cpu)
{
    struct vmm_slice *slice = &cpu->slice;
    volatile struct kit_cpu *words = &cpu->shared->cpu;
    const uint64_t stop_ns = cpu->shared->stop_ns;
    if (stop_ns == KIT_NEVER) {
        if (++slice->empty > EMPTY_TICKS)
            set_ticks(cpu, false);
        return false;
    }
    slice->empty = 0;
    if (words->due == 0)
        slice->pressed_ns = 0;
    const uint64_t now_ns = vmm_now_ns();
    if (now_ns < stop_ns)
        return false;
    if (slice->pressed_ns == 0) {
        words->due = 1;
        slice->pressed_ns = now_ns;
        return false;
    }
    if (now_ns - slice->pressed_ns < NEARLY_NS)
        return false;
    slice->pressed_ns = now_ns; /* if it does not help: again in a tick */
    return true;
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
    struct vmm_slice *slice = &cpu->slice;
    if (!slice->asked || !cpu->shared->ticking || !look(cpu))
        return 0;
    if (slice->sync_registers) {
        if (redirect(cpu, &cpu->run->s.regs.regs))
            cpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
        return 0;
    }
    struct kvm_regs regs;
    if (ioctl(cpu->fd, KVM_GET_REGS, &regs) < 0)
        return errno;
    return redirect(cpu, &regs) && ioctl(cpu->fd, KVM_SET_REGS, &regs) < 0 ? errno : 0;
}
