/* SPDX-License-Identifier: MIT */
/* How an image ends that does not end by itself. A panic traps (ud2), so that panics and faults are
 * one path with all registers known: the signal handler, on a stack of its own, writes the report
 * (format in linux.h) and exits. It never returns, so no signal frame is ever restored. */
#include <unikit/platform/linux/guest/linux.h>

enum { SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000 };
enum { FRAMES = 24 };
enum { VECTOR_PAGE_FAULT = 14 };

struct signal_action {
    uintptr_t handler;
    uint64_t flags;
    uintptr_t restorer;
    uint64_t mask;
};

struct signal_stack {
    uintptr_t base;
    int flags;
    size_t size;
};

/* struct ucontext up to the registers (struct sigcontext). */
struct signal_context {
    uint64_t flags, link;
    struct signal_stack stack;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
    uint64_t segments, error, vector, mask, cr2;
};

/* From r8 on, in the order of the context. */
static const char registers[][4] = {"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rdi",
                                    "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip"};

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
    char digits[19];
    char *next = digits + sizeof digits - 1;
    *next = 0;
    do {
        *--next = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value != 0);
    *--next = 'x';
    *--next = '0';
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

static const char *name_of(const struct signal_context *context)
{
    uintptr_t address = context->cr2;
    switch (context->vector) {
    case 0:
        return "division error";
    case 3:
        return "breakpoint";
    case 6:
        return "invalid instruction";
    case 13:
        return "general protection";
    case VECTOR_PAGE_FAULT:
        if (address - (kit_linux.stack.start - LINUX_PAGE) < LINUX_PAGE)
            return "stack overflow";
        return (context->error & 16) != 0  ? "execute of unmapped or data memory"
               : (context->error & 2) != 0 ? "write to unmapped or constant memory"
                                           : "read of unmapped memory";
    default:
        return "exception";
    }
}

static bool is_text(uintptr_t address)
{
    return address >= (uintptr_t)kit_text_start && address < (uintptr_t)kit_text_end;
}

/* The end of the stack on which `sp` lies: the image's own, or one of its threads in the heap; 0:
 * neither. */
static uintptr_t stack_end(uintptr_t sp)
{
    const memory_region_t *heap = &kit_linux.env.memory;
    if (sp >= kit_linux.stack.start && sp < kit_linux.stack.end)
        return kit_linux.stack.end;
    if (sp - (uintptr_t)heap->base_address < heap->size)
        return (uintptr_t)heap->base_address + heap->size;
    return 0;
}

/* Along the frame pointers, which lead to higher addresses; a chain that does not is broken. A page
 * taken away in the heap may end the report here: the kernel then ends the process. */
static void report_backtrace(const struct signal_context *context)
{
    struct line line;
    begin(&line, "backtrace:");
    put_hex(&line, " ", context->rip);
    uintptr_t limit = stack_end(context->rsp);
    if (limit == 0) {
        end(&line);
        return;
    }
    const uintptr_t *sp = (const uintptr_t *)context->rsp;
    if (!is_text(context->rip) && (context->rsp & 7) == 0 && is_text(*sp))
        put_hex(&line, " ", *sp); /* a call to nowhere has no frame of its own yet */
    uintptr_t frame = context->rbp, lowest = context->rsp;
    for (unsigned i = 0; i < FRAMES; i++) {
        if (frame < lowest || (frame & 7) != 0 || frame > limit - 16)
            break;
        const uintptr_t *words = (const uintptr_t *)frame;
        if (!is_text(words[1]))
            break;
        put_hex(&line, " ", words[1]);
        lowest = frame + 16;
        frame = words[0];
    }
    end(&line);
}

static LINUX_COLD _Noreturn void on_signal(int number, const void *info,
                                           const struct signal_context *context)
{
    (void)number, (void)info;
    struct line line;
    if (kit_linux.panic != NULL) {
        begin(&line, "panic: ");
        put(&line, kit_linux.panic);
    } else {
        begin(&line, "fault: ");
        put(&line, name_of(context));
        put_hex(&line, " vector=", context->vector);
        put_hex(&line, " error=", context->error);
        put_hex(&line, " address=", context->vector == VECTOR_PAGE_FAULT ? context->cr2 : 0);
    }
    end(&line);
    begin(&line, "registers:");
    const uint64_t *value = &context->r8;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(registers); i++) {
        put(&line, " ");
        put(&line, registers[i]);
        put_hex(&line, "=", value[i]);
    }
    end(&line);
    report_backtrace(context);
    kit_linux_leave(kit_linux.panic != NULL ? LINUX_CODE_PANIC : LINUX_CODE_FAULT);
}

void kit_linux_panic_handler(runtime_environment_t *env, const char *message)
{
    (void)env;
    kit_linux.panic = message;
    __builtin_trap();
}

void kit_linux_faults_open(void)
{
    static const uint8_t signals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV};
    struct signal_stack stack = {kit_linux.signal_stack.start, 0,
                                 kit_linux.signal_stack.end - kit_linux.signal_stack.start};
    kit_syscall3(SYS_SIGALTSTACK, (uintptr_t)&stack, 0, 0);
    struct signal_action action = {(uintptr_t)on_signal, SA_SIGINFO | SA_ONSTACK | SA_RESTORER,
                                   (uintptr_t)on_signal, 0};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(signals); i++)
        kit_syscall5(SYS_RT_SIGACTION, signals[i], (uintptr_t)&action, 0, 8, 0);
    action = (struct signal_action){1, SA_RESTORER, (uintptr_t)on_signal, 0}; /* SIG_IGN */
    kit_syscall5(SYS_RT_SIGACTION, SIGPIPE, (uintptr_t)&action, 0, 8, 0);
}
