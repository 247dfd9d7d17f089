/* SPDX-License-Identifier: MIT */
/* The sealed entry: CPL 3, long mode, rdi = boot page, rsp = stack (../abi.h). The canary must be
 * in place before the first C function that checks it. */
    .section .text.start, "ax", @progbits
    .globl kit_kvm_entry
    .type kit_kvm_entry, @function
kit_kvm_entry:
    mov KIT_KVM_BOOT_SHARED(%rdi), %rax
    mov KIT_KVM_SHARED_CANARY(%rax), %rax
    mov %rax, __stack_chk_guard(%rip)
    xor %ebp, %ebp
    call kit_kvm_start
    ud2
    .size kit_kvm_entry, . - kit_kvm_entry

    .section .note.unikit, "", @note
    .balign 4
    .long 7, 8, 1
    .asciz "unikit"
    .balign 4
    .quad kit_kvm_entry

    .section .note.GNU-stack, "", @progbits
    /* Offsets in ../abi.h; entry.c asserts that they are right. */
    .set KIT_KVM_BOOT_SHARED, 56
    .set KIT_KVM_SHARED_CANARY, 40
