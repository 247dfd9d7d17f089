/* SPDX-License-Identifier: MIT */
/* How an image ends that does not end by itself. A panic traps (ud2), so that panics and faults are
 * one path with all registers known: the signal handler, on a stack of its own, writes the report
 * (format in linux.h) and exits. It never returns, so no signal frame is ever restored. */
#include <unikit/platform/linux/guest/linux.h>
#include <unikit/rt/stack.h>

enum { FRAMES = 24 };
enum { VECTOR_PAGE_FAULT = 14 };

/* From r8 on, in the order of the context; stk and cod in place of the
 * segments and the signal mask, which say nothing. */
static const char registers[][4] = {"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
                                    "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp",
                                    "rip", "efl", "stk", "err", "vec", "cod", "cr2"};

/* One line, written by one call so that it stays together. */
struct line {
    size_t length;
    char text[1024];
};

static LINUX_COLD void put(struct line *line, const char *text)
{
    size_t length = strlen(text);
    if (length > sizeof line->text - 1 - line->length)
        length = sizeof line->text - 1 - line->length;
    memcpy(line->text + line->length, text, length);
    line->length += length;
}

static LINUX_COLD void put_hex(struct line *line, const char *before, uint64_t value)
{
    char digits[17];
    char *next = digits + sizeof digits - 1;
    *next = 0;
    do {
        unsigned digit = value & 15;
        *--next = (char)(digit < 10 ? '0' + digit : 'a' - 10 + digit);
        value >>= 4;
    } while (value != 0);
    put(line, before);
    put(line, next);
}

static LINUX_COLD void begin(struct line *line, const char *text)
{
    line->length = 0;
    put(line, "unikit: ");
    put(line, text);
}

static LINUX_COLD void end(struct line *line)
{
    line->text[line->length] = '\n';
    kit_syscall3(SYS_WRITE, 2, (uintptr_t)line->text, line->length + 1);
}

_Noreturn void kit_linux_refuse(const char *what, const char *detail)
{
    struct line line;
    begin(&line, what);
    put(&line, detail);
    end(&line);
    kit_linux_leave(LINUX_CODE_REFUSED);
}

static bool is_text(uintptr_t address)
{
    return address >= (uintptr_t)kit_text_start && address < (uintptr_t)kit_text_end;
}

/* Along the frame pointers, which lead to higher addresses; a chain that does not is broken. Stacks
 * lie between the image's own and the end of the heap, where its threads have theirs. If that leads
 * into a guard, the kernel ends the process here: what is written by then stays. */
static LINUX_COLD void report_backtrace(const struct linux_context *context)
{
    const memory_region_t *heap = &kit_linux.env.memory;
    uintptr_t limit = (uintptr_t)heap->base_address + heap->size - 16;
    uintptr_t frame = context->rbp, lowest = context->rsp;
    struct line line;
    begin(&line, "backtrace");
    put_hex(&line, " ", context->rip);
    bool inside = KIT_WITH_CPUS && lowest < (uintptr_t)kit_image_end; /* a variable of the image */
    if (inside)
        limit = (uintptr_t)kit_image_end - 16;
    else if (lowest < kit_linux.stack.start)
        lowest = kit_linux.stack.start;
    else if (!is_text(context->rip) && lowest < limit)
        put_hex(&line, " ", *(const uintptr_t *)lowest); /* a call to nowhere has no frame yet */
    for (unsigned i = 0; i < FRAMES && frame >= lowest && frame < limit; i++) {
        const uintptr_t *words = (const uintptr_t *)frame;
        if ((frame & 7) != 0 || !is_text(words[1]))
            break;
        put_hex(&line, " ", words[1]);
        lowest = frame + 16;
        frame = words[0];
    }
    end(&line);
}

void kit_linux_report_task(uintptr_t fault)
{
    const memory_region_t *heap = &kit_linux.env.memory;
    uintptr_t start = (uintptr_t)heap->base_address;
    if (fault - start >= heap->size)
        return;
    const struct kit_stack_tag *tag = kit_stack_overflowed(fault, start + heap->size);
    if (tag == NULL || tag->name[sizeof tag->name - 1] != 0)
        return;
    struct line line;
    begin(&line, "task: ");
    put(&line, tag->name);
    end(&line);
}

static LINUX_COLD _Noreturn void on_signal(int number, const int32_t *info,
                                           struct linux_context *context)
{
    (void)number;
#if KIT_WITH_CPUS
    struct kit_cpu *here = kit_cpu_here();
    const char *panic = KIT_CONTAINER_OF(here, struct linux_cpu, cpu)->panic;
    while (__atomic_exchange_n(&kit_linux.reporting, 1, __ATOMIC_ACQ_REL) != 0)
        kit_linux_poll(NULL, 0, 0, true); /* another processor ends the image */
#else
    const char *panic = kit_linux.panic;
#endif
    struct line line;
    begin(&line, panic != NULL ? "panic: " : "fault");
    if (panic != NULL)
        put(&line, panic);
    end(&line);
    context->segments = kit_linux.stack.start;
    context->mask = (uint32_t)info[2]; /* si_code */
    begin(&line, "registers");
    for (size_t i = 0; i < KIT_ARRAY_SIZE(registers); i++) {
        put(&line, " ");
        put(&line, registers[i]);
        put_hex(&line, "=", (&context->r8)[i]);
    }
#if KIT_WITH_CPUS
    put_hex(&line, " cpu=", here->number);
#endif
    end(&line);
    report_backtrace(context);
    if (context->vector == VECTOR_PAGE_FAULT && kit_linux.report_task != NULL)
        kit_linux.report_task(context->cr2); /* last: it reads pages, and one may be missing */
    kit_linux_leave(panic != NULL ? LINUX_CODE_PANIC : LINUX_CODE_FAULT);
}

void kit_linux_panic_handler(runtime_environment_t *env, const char *message)
{
    (void)env;
#if KIT_WITH_CPUS
    KIT_CONTAINER_OF(kit_cpu_here(), struct linux_cpu, cpu)->panic = message;
#else
    kit_linux.panic = message;
#endif
    __builtin_trap();
}

void kit_linux_faults_open(void)
{
    static const uint8_t signals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV};
    struct linux_signal_stack stack = {kit_linux.signal_stack.start, 0,
                                       kit_linux.signal_stack.end - kit_linux.signal_stack.start};
    kit_syscall3(SYS_SIGALTSTACK, (uintptr_t)&stack, 0, 0);
    struct linux_action action = {(uintptr_t)on_signal, SA_SIGINFO | SA_ONSTACK | SA_RESTORER,
                                  (uintptr_t)on_signal, 0};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(signals); i++)
        kit_syscall5(SYS_RT_SIGACTION, signals[i], (uintptr_t)&action, 0, 8, 0);
    action = (struct linux_action){1, SA_RESTORER, (uintptr_t)on_signal, 0}; /* SIG_IGN */
    kit_syscall5(SYS_RT_SIGACTION, SIGPIPE, (uintptr_t)&action, 0, 8, 0);
}
