/* SPDX-License-Identifier: MIT */
/* All of ring 0 that runs after boot begins here: one stub per vector, then C with a full frame
 * (struct pvh_frame). Interrupts arrive only inside the gate's hlt, so stubs never nest but there. */
    .text
    .balign 16
    .globl kit_pvh_vectors
kit_pvh_vectors:
    .set v, 0
    .rept 48
    .balign 16
    /* 8, 10 to 14, 17, 21, 29 and 30 push an error code (Intel SDM volume 3A, 6.15). */
    .if (v == 8) || (v >= 10 && v <= 14) || (v == 17) || (v == 21) || (v == 29) || (v == 30)
    nop
    nop
    .else
    push $0
    .endif
    push $v
    jmp common
    .set v, v + 1
    .endr

    .balign 16
common:
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx                          /* an interrupt comes on any alignment */
    and $-16, %rsp
    call kit_pvh_interrupt
    mov %rbx, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $16, %rsp
    iretq

    /* int64_t pvh_gate(enum pvh_gate gate, uint64_t a, uint64_t b, uint64_t c) */
    .globl pvh_gate
    .type pvh_gate, @function
pvh_gate:
    int3
    ret
    .size pvh_gate, . - pvh_gate

    .section .note.GNU-stack, "", @progbits
