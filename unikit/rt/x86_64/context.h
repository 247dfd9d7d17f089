/* SPDX-License-Identifier: MIT */
/* Switching stacks within one processor and one privilege level (System V AMD64 ABI).
 *
 * A switch keeps what a callee must keep of the general registers: rbx, rbp, r12-r15 and the stack
 * pointer. It is inlined, and declares all of them lost, so that the compiler keeps just those that
 * hold something. It ends in a jump to where the other context left off: a return would be
 * mispredicted each time, because the processor's return predictor holds the caller on the old
 * stack. Vector registers are nobody's across a call in this ABI.
 *
 * The control words of SSE and x87 (rounding, exception masks) are a step of their own, for those
 * who change them: reading them costs several times the switch. */
#ifndef KIT_RT_X86_64_CONTEXT_H
#define KIT_RT_X86_64_CONTEXT_H

#include <unikit/rt/types.h>
#include <unikit/rt/x86_64/tls.h>

struct kit_context {
    void *stack;
    void *frame; /* rbp */
    void *resume;
#if KIT_WITH_TLS
    uintptr_t thread_pointer; /* who makes or leaves a context sets it */
#endif
};

struct kit_control {
    uint32_t mxcsr;
    uint16_t x87;
};

#ifdef __SSE2__ /* else there are none that the compiler could have put something into */
#define KIT_CONTEXT_VECTORS                                                                        \
    , "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",     \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#else
#define KIT_CONTEXT_VECTORS
#endif

/* Saves the present context and goes on in the context `to`; returns when somebody switches back.
 *
 * The way to `elsewhere` is never taken, and costs no instruction. It tells the compiler that
 * others run meanwhile: without it, one that sees the whole program keeps a static variable in a
 * register over a call that switches, because nothing that is called changes it. */
KIT_INLINE void kit_context_switch(struct kit_context *from, const struct kit_context *to)
{
#if KIT_WITH_TLS
    kit_tls_set(to->thread_pointer);
#endif
    __asm__ goto("" : : : : elsewhere);
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "movq %%rsp, (%%rsi)\n\t"
                     "movq %%rbp, 8(%%rsi)\n\t"
                     "movq %%rax, 16(%%rsi)\n\t"
                     "movq (%%rdi), %%rsp\n\t"
                     "movq 8(%%rdi), %%rbp\n\t"
                     "jmpq *16(%%rdi)\n"
                     "1:"
                     : "+S"(from), "+D"(to)
                     :
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "r15", "memory", "cc" KIT_CONTEXT_VECTORS);
    return;
elsewhere:
    ((void (*)(void))to->resume)();
}

/* Makes a context that calls function(context) on the stack that ends at `top` (a multiple of 16).
 * The function MUST NOT return. */
KIT_INLINE void kit_context_make(struct kit_context *context, void *top,
                                 void (*function)(struct kit_context *context))
{
    uintptr_t *stack = (uintptr_t *)top - 1;
    *stack = 0; /* a return address: backtraces end here */
    context->stack = stack;
    context->frame = NULL;
    context->resume = (void *)(uintptr_t)function;
}

/* What a program starts with (System V AMD64 ABI, section 3.4.1). */
#define KIT_CONTROL_INITIAL ((struct kit_control){.mxcsr = 0x1f80, .x87 = 0x37f})

KIT_INLINE struct kit_control kit_control_read(void)
{
    struct kit_control control;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(control.mxcsr), "=m"(control.x87));
    return control;
}

KIT_INLINE void kit_control_write(struct kit_control control)
{
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(control.mxcsr), "m"(control.x87));
}

#endif
