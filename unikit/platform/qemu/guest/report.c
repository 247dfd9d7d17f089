/* SPDX-License-Identifier: MIT */
/* What ring 0 does after boot: serves the gate, acknowledges interrupts, and ends the image after
 * an exception with a report (format: platform/linux/guest/linux.h). A panic traps (ud2), so that
 * panics and faults are one path with all registers known. */
#include <unikit/platform/qemu/guest/pvh.h>
#include <unikit/rt/stack.h>

enum { FRAMES = 24, VECTOR_BREAKPOINT = 3, VECTOR_PAGE_FAULT = 14 };
enum { LINE_STATUS = PVH_PORT_SERIAL + 5, LINE_READY = 0x20 };

static PVH_RING0 void put_byte(uint8_t byte)
{
    if (kit_pvh.reports) {
        pvh_out8(PVH_PORT_REPORT, byte);
        return;
    }
    for (unsigned i = 0; i < 100000 && (pvh_in8(LINE_STATUS) & LINE_READY) == 0; i++)
        continue; /* a line that never gets ready must not keep the machine from ending */
    pvh_out8(PVH_PORT_SERIAL, byte);
}

static PVH_RING0 void put(const char *text)
{
    while (*text != 0)
        put_byte((uint8_t)*text++);
}

static PVH_RING0 void put_hex(const char *before, uint64_t value)
{
    put(before);
    unsigned shift = 60;
    while (shift > 0 && value >> shift == 0)
        shift -= 4;
    for (;; shift -= 4) {
        unsigned digit = value >> shift & 15;
        put_byte((uint8_t)(digit < 10 ? '0' + digit : 'a' - 10 + digit));
        if (shift == 0)
            return;
    }
}

void pvh_refuse(const char *why)
{
    put("unikit: ");
    put(why);
    put("\n");
    pvh_leave(2);
}

static PVH_RING0 bool is_text(uint64_t address)
{
    return address >= (uint64_t)kit_text_start && address < (uint64_t)kit_text_end;
}

/* Where the image itself may write. */
static PVH_RING0 bool is_memory(uint64_t address, uint64_t size)
{
    const struct pvh_state *state = &kit_pvh;
    const struct pvh_range ranges[] = {
        {(uint64_t)kit_data_start, (uint64_t)kit_image_end}, state->stack, state->heap};
    for (unsigned i = 0; i < KIT_ARRAY_SIZE(ranges); i++)
        if (address >= ranges[i].start && address < ranges[i].end &&
            size <= ranges[i].end - address)
            return true;
    return false;
}

static PVH_RING0 bool is_stack(uint64_t address)
{
    const struct pvh_state *state = &kit_pvh;
    return (address & 7) == 0 &&
           ((address >= state->stack.start && address < state->stack.end - 8) ||
            (address >= state->heap.start && address < state->heap.end - 8));
}

/* Along the frame pointers, which lead to higher addresses. A thread's guard page in the chain
 * would fault here: the report is written line by line, so what stands there stays. */
static PVH_RING0 void put_backtrace(const struct pvh_frame *frame)
{
    put_hex("unikit: backtrace ", frame->rip);
    if (!is_text(frame->rip) && is_stack(frame->rsp))
        put_hex(" ", *(const uint64_t *)frame->rsp); /* a call to nowhere has no frame yet */
    uint64_t at = frame->rbp, lowest = frame->rsp;
    for (unsigned i = 0; i < FRAMES && at >= lowest && is_stack(at); i++) {
        const uint64_t *words = (const uint64_t *)at;
        if (!is_text(words[1]))
            break;
        put_hex(" ", words[1]);
        lowest = at + 16;
        at = words[0];
    }
    put("\n");
}

static PVH_RING0 void put_registers(const struct pvh_frame *frame, uint64_t cr2)
{
    static const char names[][4] = {"r15", "r14", "r13", "r12", "rbp", "rbx", "r11",
                                    "r10", "r9",  "r8",  "rax", "rcx", "rdx", "rsi",
                                    "rdi", "vec", "err", "rip", "cs",  "efl", "rsp"};
    const uint64_t *words = &frame->r15;
    put("unikit: registers");
    for (unsigned i = 0; i < KIT_ARRAY_SIZE(names); i++) {
        put(" ");
        put(names[i]);
        put_hex("=", words[i]);
    }
    put_hex(" stk=", kit_pvh.stack.start);
    put_hex(" cr2=", cr2);
    put("\n");
}

static PVH_RING0 void put_task(uint64_t fault)
{
    const struct pvh_range *heap = &kit_pvh.heap;
    if (fault < heap->start || fault >= heap->end)
        return;
    const struct kit_stack_tag *tag = kit_stack_overflowed(fault, heap->end);
    if (tag == NULL || tag->name[sizeof tag->name - 1] != 0)
        return;
    put("unikit: task: ");
    put(tag->name);
    put("\n");
}

static PVH_RING0 _Noreturn void die(const struct pvh_frame *frame)
{
    static bool dying;
    const char *panic = kit_pvh.panic;
    int32_t code = panic != NULL ? PVH_CODE_PANIC : PVH_CODE_FAULT;
    if (dying)
        pvh_leave(code); /* the report itself faulted: what was written stays */
    dying = true;
    uint64_t cr2;
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    put(panic != NULL ? "unikit: panic: " : "unikit: fault");
    put(panic != NULL ? panic : "");
    put("\n");
    put_registers(frame, cr2);
    put_backtrace(frame);
    if (frame->vector == VECTOR_PAGE_FAULT)
        put_task(cr2);
    pvh_leave(code);
}

/* An exception without descriptors for it shuts the processor down. */
static PVH_RING0 _Noreturn void reset(void)
{
    static const uint8_t none[10];
    __asm__ volatile("lidt %0\n\tud2" ::"m"(none));
    __builtin_unreachable();
}

__attribute__((used)) void kit_pvh_interrupt(struct pvh_frame *frame)
{
    if (frame->vector >= 32) {
        if (frame->vector != PVH_VECTOR_SPURIOUS)
            pvh_apic_acknowledge();
        return;
    }
    if (frame->vector != VECTOR_BREAKPOINT || frame->rip != (uint64_t)pvh_gate + 1)
        die(frame);
    frame->rax = 0;
    switch ((enum pvh_gate)frame->rdi) {
    case PVH_GATE_WAIT:
        pvh_apic_wait((uint32_t)frame->rsi);
        break;
    case PVH_GATE_TIMER:
        if (is_memory(frame->rsi, sizeof(struct pvh_reading)))
            pvh_apic_timer((struct pvh_reading *)frame->rsi);
        break;
    case PVH_GATE_PROTECT:
        frame->rax = (uint64_t)pvh_protect(frame->rsi, frame->rdx, frame->rcx);
        break;
    case PVH_GATE_END:
        reset();
    default:
        frame->rax = (uint64_t)(int64_t)KIT_ENOTSUP;
    }
}
