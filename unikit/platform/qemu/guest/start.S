/* SPDX-License-Identifier: MIT */
/* From PVH's 32-bit protected mode to the image at CPL 3. Behind the image lie, page by page: system
 * (descriptors), ring 0 stack, PML4, PDPT, four page directories (pvh.h); the first 64 MiB are
 * mapped here with large pages for ring 0, boot.c makes it right. */
#include <unikit/platform/qemu/guest/pvh.h>

    .set STACK0_TOP, 0x2000
    .set PML4, 0x2000
    .set PDPT, 0x3000
    .set PD, 0x4000
    .set BYTES, 0x8000
    .set EARLY, 32                          /* large pages */

    .section .text.start, "ax", @progbits
    .code32
    .globl kit_pvh_entry
    .type kit_pvh_entry, @function
kit_pvh_entry:
    cld
    mov $kit_image_end + 4095, %edi
    and $-4096, %edi
    mov %edi, %ebp
    mov $BYTES / 4, %ecx
    xor %eax, %eax
    rep stosl
    lea PDPT + 7(%ebp), %eax                /* present, writable, user: the leaves decide */
    mov %eax, PML4(%ebp)
    lea PDPT(%ebp), %edi
    mov $4, %ecx
1:  add $0x1000, %eax
    mov %eax, (%edi)
    add $8, %edi
    loop 1b
    lea PD(%ebp), %edi
    mov $0x83, %eax                         /* present, writable, large */
    mov $EARLY, %ecx
2:  mov %eax, (%edi)
    add $8, %edi
    add $0x200000, %eax
    loop 2b
    lea PML4(%ebp), %eax
    mov %eax, %cr3
    mov $0x620, %eax                        /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $0xc0000080, %ecx                   /* EFER */
    rdmsr
    or $0x901, %eax                         /* NXE, LME, SCE */
    wrmsr
    mov $0x80010033, %eax                   /* PG, WP, NE, ET, MP, PE */
    mov %eax, %cr0
    lgdt early_gdtr
    ljmp $PVH_CODE0, $3f
    .code64
3:  mov $PVH_DATA0, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    lea STACK0_TOP(%rbp), %rsp
    mov %ebx, %edi
    mov %rbp, %rsi
    xor %ebp, %ebp
    call kit_pvh_boot                       /* the top of the image's stack */
    mov $PVH_DATA3, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    push %rcx
    push %rax
    push $2                                 /* no interrupts, IOPL 0 */
    push $PVH_CODE3
    push $4f
    iretq
4:  fninit
    push $0x1f80
    ldmxcsr (%rsp)
    pop %rax
    xor %ebp, %ebp
    call kit_pvh_main
    ud2
    .size kit_pvh_entry, . - kit_pvh_entry

    .section .rodata.kit_pvh, "a", @progbits
    .balign 8
early_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
early_gdtr:
    .word . - early_gdt - 1
    .long early_gdt

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18                          /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad kit_pvh_entry

    .section .note.unikit, "", @note
    .balign 4
    .long 7, 11, 3
    .asciz "unikit"
    .balign 4
    .quad kit_pvh_entry
    .ascii "pvh"
    .balign 4

    .section .note.GNU-stack, "", @progbits
