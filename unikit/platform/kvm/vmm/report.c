/* SPDX-License-Identifier: MIT */
/* How a guest ended: registers, exception, backtrace by frame pointers, message. Everything that
 * comes from guest memory is copied once and may be nonsense; nothing here trusts it. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unikit/platform/kvm/vmm/internal.h>

enum { RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, RIP = 16, RFLAGS = 17 };

static bool read_word(const struct kit_kvm *vm, uint64_t address, uint64_t *word)
{
    const void *from = vmm_memory_readable(&vm->memory, address, 8);
    if (from == NULL || address % 8 != 0)
        return false;
    memcpy(word, from, 8);
    return true;
}

/* What the exception stub saw: vector, error code, rip, cs, rflags, rsp, ss on the fault stack. */
static void read_exception(const struct kit_kvm *vm, struct kit_kvm_report *r)
{
    uint64_t frame[7];
    const void *from = vmm_memory_any(&vm->memory, r->registers[RSP], sizeof frame);
    if (from == NULL)
        return;
    memcpy(frame, from, sizeof frame);
    r->vector = (uint32_t)frame[0];
    r->error = (uint32_t)frame[1];
    r->registers[RIP] = frame[2];
    r->registers[RFLAGS] = frame[4];
    r->registers[RSP] = frame[5];
}

static void read_registers(const struct vmm_cpu *cpu, struct kit_kvm_report *r)
{
    struct kvm_regs g;
    struct kvm_sregs s;
    if (ioctl(cpu->fd, KVM_GET_REGS, &g) < 0 || ioctl(cpu->fd, KVM_GET_SREGS, &s) < 0)
        return;
    const uint64_t all[KIT_KVM_REGISTERS] = {g.rax, g.rbx, g.rcx, g.rdx, g.rsi, g.rdi,
                                             g.rbp, g.rsp, g.r8,  g.r9,  g.r10, g.r11,
                                             g.r12, g.r13, g.r14, g.r15, g.rip, g.rflags};
    memcpy(r->registers, all, sizeof all);
    r->cr2 = s.cr2;
}

/* No IDT entry could be taken: KVM gave up. Some kernels still know the exception. */
static void read_shutdown(const struct vmm_cpu *cpu, struct kit_kvm_report *r)
{
    struct kvm_vcpu_events events;
    if (ioctl(cpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
        return;
    r->vector = events.exception.nr;
    r->error = events.exception.error_code;
}

static bool is_code(const struct kit_kvm *vm, uint64_t address)
{
    return address >= KIT_KVM_MEMORY && address < vm->memory.layout.image_end;
}

/* Frames: [rbp] is the caller's rbp, [rbp + 8] its return address; each lies above the last. */
static void walk_stack(const struct kit_kvm *vm, struct kit_kvm_report *r)
{
    uint64_t at = r->registers[RBP], next, back;
    r->frames[r->frame_count++] = r->registers[RIP];
    /* A jump to nowhere left its return address on top of the stack. */
    if (!is_code(vm, r->registers[RIP]) && read_word(vm, r->registers[RSP], &back) &&
        is_code(vm, back))
        r->frames[r->frame_count++] = back;
    while (r->frame_count < KIT_KVM_FRAMES && read_word(vm, at, &next) &&
           read_word(vm, at + 8, &back) && is_code(vm, back)) {
        r->frames[r->frame_count++] = back;
        if (next <= at)
            break;
        at = next;
    }
}

static void read_message(const struct vmm_cpu *cpu, struct kit_kvm_report *r)
{
    const struct kit_kvm *vm = cpu->vm;
    const volatile struct kit_kvm_call *call = &cpu->shared->call;
    const uint64_t address = call->message;
    uint64_t length = call->message_length;
    if (length > sizeof r->text - 1)
        length = sizeof r->text - 1;
    const char *from = vmm_memory_readable(&vm->memory, address, length);
    if (from == NULL)
        snprintf(r->text, sizeof r->text, "(the message at %#llx is not in memory)",
                 (unsigned long long)address);
    else
        memcpy(r->text, from, length);
}

void vmm_report(struct vmm_cpu *cpu, enum kit_kvm_end end, int32_t code)
{
    struct kit_kvm *vm = cpu->vm;
    struct kit_kvm_report r = {.end = end, .code = code, .cpu = cpu->number};
    if (__atomic_load_n(&vm->over, __ATOMIC_ACQUIRE))
        return; /* the first counts */
    if (end != KIT_KVM_EXITED) {
        read_registers(cpu, &r);
        if (end == KIT_KVM_FAULTED && code == 0)
            read_exception(vm, &r);
        else if (end == KIT_KVM_FAULTED)
            read_shutdown(cpu, &r);
        walk_stack(vm, &r);
    }
    if (end == KIT_KVM_PANICKED)
        read_message(cpu, &r);
    else
        memcpy(r.text, cpu->fault.text, sizeof cpu->fault.text);
    pthread_mutex_lock(&vm->report_lock);
    if (!vm->over)
        vm->report = r;
    __atomic_store_n(&vm->over, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&vm->report_lock);
}
