/* SPDX-License-Identifier: MIT */
/* Loops that call nothing, with every register, flag and red-zone word holding something known, and
 * then look whether it still is what it was. System V ABI; both return 0 if so. */
    .text

/* keeps_general(seed, rounds): 15 general registers, CF, DF, and 15 words of the red zone. */
    .globl keeps_general
keeps_general:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsi, -128(%rsp)
    .irp i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    leaq \i(%rdi), %rax
    movq %rax, -8 * \i(%rsp)
    .endr
    leaq 0x101(%rdi), %rax
    leaq 0x102(%rdi), %rbx
    leaq 0x103(%rdi), %rcx
    leaq 0x104(%rdi), %rdx
    leaq 0x105(%rdi), %rsi
    leaq 0x106(%rdi), %rbp
    leaq 0x108(%rdi), %r8
    leaq 0x109(%rdi), %r9
    leaq 0x10a(%rdi), %r10
    leaq 0x10b(%rdi), %r11
    leaq 0x10c(%rdi), %r12
    leaq 0x10d(%rdi), %r13
    leaq 0x10e(%rdi), %r14
    leaq 0x10f(%rdi), %r15
    std
    stc
1:  decq -128(%rsp)                         /* leaves CF alone */
    jnz 1b
    jnc 2f
    .macro same register, offset
    subq $\offset, %\register
    cmpq %rdi, %\register
    jne 2f
    .endm
    same rax, 0x101
    same rbx, 0x102
    same rcx, 0x103
    same rdx, 0x104
    same rsi, 0x105
    same rbp, 0x106
    same r8, 0x108
    same r9, 0x109
    same r10, 0x10a
    same r11, 0x10b
    same r12, 0x10c
    same r13, 0x10d
    same r14, 0x10e
    same r15, 0x10f
    .irp i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movq -8 * \i(%rsp), %rax
    same rax, \i
    .endr
    pushfq
    popq %rax
    testl $0x400, %eax                      /* DF */
    jz 2f
    xorl %eax, %eax
    jmp 3f
2:  movl $1, %eax
3:  cld
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

/* keeps_vectors(values, rounds, out, width): the x87 stack, the control words of both, and the
 * vector registers: 16 of 16 bytes (width 0), of 32 (1), or 32 of 64 and the masks (2). Loaded from
 * `values`, stored to `out`: the caller compares 2,184 bytes. */
    .globl keeps_vectors
keeps_vectors:
    fildll 2048(%rdi)
    fildll 2056(%rdi)
    fildll 2064(%rdi)
    fildll 2072(%rdi)
    fildll 2080(%rdi)
    fildll 2088(%rdi)
    fildll 2096(%rdi)
    fildll 2104(%rdi)
    fnstcw -16(%rsp)
    stmxcsr -8(%rsp)
    fldcw 2112(%rdi)
    ldmxcsr 2116(%rdi)
    cmpl $1, %ecx
    je 2f
    ja 3f
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups 64 * \i(%rdi), %xmm\i
    .endr
    jmp 4f
2:
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups 64 * \i(%rdi), %ymm\i
    .endr
    jmp 4f
3:
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups 64 * \i(%rdi), %zmm\i
    .endr
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq 2120 + 8 * \i(%rdi), %k\i
    .endr
4:  decq %rsi
    jnz 4b
    cmpl $1, %ecx
    je 2f
    ja 3f
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups %xmm\i, 64 * \i(%rdx)
    .endr
    jmp 5f
2:
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %ymm\i, 64 * \i(%rdx)
    .endr
    vzeroupper
    jmp 5f
3:
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups %zmm\i, 64 * \i(%rdx)
    .endr
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq %k\i, 2120 + 8 * \i(%rdx)
    .endr
    vzeroupper
5:  fnstcw 2112(%rdx)
    stmxcsr 2116(%rdx)
    fldcw -16(%rsp)
    ldmxcsr -8(%rsp)
    fistpll 2104(%rdx)
    fistpll 2096(%rdx)
    fistpll 2088(%rdx)
    fistpll 2080(%rdx)
    fistpll 2072(%rdx)
    fistpll 2064(%rdx)
    fistpll 2056(%rdx)
    fistpll 2048(%rdx)
    xorl %eax, %eax
    ret

    .section .note.GNU-stack, "", @progbits
