/* SPDX-License-Identifier: MIT */
/* The first instructions of an image as a Linux process (System V ABI for x86-64, 3.4.1: rsp points
 * at argc, argv, NULL, environment, NULL, auxiliary vector). The stack protector's guard is set
 * here, before any C: the first eight bytes of AT_RANDOM, the lowest one zero so that no string
 * function reads or writes past it. */
    .section .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    xor     %ebp, %ebp
    cld
    mov     %rsp, %rsi
    lodsq                                   /* argc */
    lea     8(%rsi, %rax, 8), %rsi          /* the environment */
1:  lodsq
    test    %rax, %rax
    jnz     1b
    mov     %rsi, %rdx                      /* the auxiliary vector */
2:  lodsq                                   /* type, value */
    mov     %rax, %rcx
    lodsq
    cmp     $25, %rcx                       /* AT_RANDOM */
    je      3f
    test    %rcx, %rcx                      /* AT_NULL: a kernel before 2.6.29 */
    jnz     2b
    jmp     4f                              /* the guard keeps its built-in value */
3:  mov     (%rax), %rax
    mov     $0, %al
    mov     %rax, __stack_chk_guard(%rip)
4:  mov     %rsp, %rdi
    mov     %rdx, %rsi
    and     $-16, %rsp
    call    kit_linux_start                 /* returns the top of the image's own stack */
    mov     %rax, %rsp
    call    kit_linux_main
    ud2
    .size _start, . - _start

    .section .text.kit_linux_signal_return, "ax", @progbits
    .globl kit_linux_signal_return
    .hidden kit_linux_signal_return
    .type kit_linux_signal_return, @function
kit_linux_signal_return:
    mov     $15, %eax                       /* rt_sigreturn */
    syscall
    .size kit_linux_signal_return, . - kit_linux_signal_return

    .section .note.GNU-stack, "", @progbits
