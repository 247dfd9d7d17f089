/* SPDX-License-Identifier: MIT */
/* Where the platform redirects a task that reaches no safe point (struct kit_cpu, platform/env.h).
 * rsp points at the flags and the address to go on at, below them lies nothing of the task's, above
 * them its red zone of 128 bytes; the processor counts as inside a component. Every register is
 * kept: general ones and flags, and whatever vector state XCR0 enables of what kit_upcall_state
 * names, by XSAVE, or by FXSAVE where it names nothing.
 *
 *     | vector state, on 64 bytes | rbp, rip: a frame for backtraces | 15 registers | flags | rip |
 *
 * What runs in between finds the control words that the image set, and the direction flag and the
 * x87 stack clear, as the ABI has it. The last two instructions belong to the task again, but run on
 * a stack that is not quite its own yet; an upcall there is sent back, so that they never nest.
 * Source: Intel SDM volume 1, chapter 13 (XSAVE), section 10.5 (FXSAVE). */
    .set KIT_CPU_INSIDE, 4                  /* struct kit_cpu; preempt.c asserts it */

    .text
    .globl kit_upcall
    .hidden kit_upcall
    .type kit_upcall, @function
    .p2align 4
kit_upcall:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq 128(%rsp), %rax
    leaq 3f(%rip), %rcx
    subq %rcx, %rax
    cmpq $(4f - 3f), %rax
    jb 2f
    pushq 128(%rsp)
    pushq %rbp
    movq %rsp, %rbp
    pushq $2                                /* neither DF nor AC nor a condition */
    popfq
    movl kit_upcall_state(%rip), %eax
    testl %eax, %eax
    jz 1f
    subq $2752, %rsp                        /* x87, SSE, AVX and AVX-512 in any CPU's layout */
    andq $-64, %rsp
    xorl %edx, %edx
    movq %rdx, 512(%rsp)                    /* the header: XRSTOR wants zeros */
    movq %rdx, 520(%rsp)
    movq %rdx, 528(%rsp)
    movq %rdx, 536(%rsp)
    movq %rdx, 544(%rsp)
    movq %rdx, 552(%rsp)
    movq %rdx, 560(%rsp)
    movq %rdx, 568(%rsp)
    xsave64 (%rsp)
    testl $4, %eax
    jz 5f
    vzeroupper                              /* else others' SSE code would be slower */
5:  fninit
    fldcw kit_upcall_fcw(%rip)
    ldmxcsr kit_upcall_mxcsr(%rip)
    call kit_preempt
    movl kit_upcall_state(%rip), %eax
    xorl %edx, %edx
    xrstor64 (%rsp)
    jmp 6f
1:  subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    fninit
    fldcw kit_upcall_fcw(%rip)
    ldmxcsr kit_upcall_mxcsr(%rip)
    call kit_preempt
    fxrstor64 (%rsp)
6:  leaq 16(%rbp), %rsp
2:  popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    decl %gs:KIT_CPU_INSIDE
3:  popfq
    ret $128
4:
    .size kit_upcall, . - kit_upcall

    .section .note.GNU-stack, "", @progbits
