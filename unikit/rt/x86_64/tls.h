/* SPDX-License-Identifier: MIT */
/* Thread-local variables of an image: a block for each task, and one for what runs on a processor
 * without being a task (ELF for x86-64, «variant II», local-exec; U. Drepper, «ELF handling for
 * thread-local storage», and the System V AMD64 ABI, section 3.4).
 *
 *     | what is initialised, as linked | zeroed | thread pointer |
 *     start                                      ^ FS base, on the largest alignment
 *
 * The word at the thread pointer holds its own address, because that is how code learns it. The
 * linker counts from the end of the variables, rounded up to their alignment: that is where the
 * thread pointer is.
 *
 * Only components that make tasks with stacks of their own include this. Each gives a task
 * kit_tls_room() bytes, makes them a block before the task runs, and sets the thread pointer with
 * every switch; between that and the switch itself nobody touches a thread-local variable.
 * Compiled to nothing in images without such variables. */
#ifndef KIT_RT_X86_64_TLS_H
#define KIT_RT_X86_64_TLS_H

#include <unikit/rt/bits.h>
#include <unikit/rt/types.h>

/* A fact of the composition, from the composer: the application has thread-local variables. */
#ifndef KIT_WITH_TLS
#define KIT_WITH_TLS 0
#endif

enum { KIT_TLS_ROOM_ALIGN = 64 };

#if KIT_WITH_TLS
/* platform/x86/image.ld; the alignment is an address, too. */
extern const char kit_tls_start[], kit_tls_stored_end[], kit_tls_end[], kit_tls_align[];
/* image/runtime/tls.c: whether the thread pointer is set by the kernel below, by the call here. */
extern bool kit_tls_by_kernel;
void kit_tls_call_kernel(uintptr_t pointer);

/* Bytes of a block, its place within them unknown: a multiple of 64. */
KIT_INLINE size_t kit_tls_room(void)
{
    size_t size = (size_t)(kit_tls_end - kit_tls_start) + (uintptr_t)kit_tls_align;
    return kit_align_up(size + sizeof(uintptr_t), KIT_TLS_ROOM_ALIGN);
}

/* Makes a fresh block in kit_tls_room() bytes; its thread pointer. */
KIT_INLINE uintptr_t kit_tls_make(void *room)
{
    size_t size = (size_t)(kit_tls_end - kit_tls_start);
    size_t stored = (size_t)(kit_tls_stored_end - kit_tls_start);
    uintptr_t pointer = kit_align_up((uintptr_t)room + size, (uintptr_t)kit_tls_align);
    char *start = (char *)pointer - size;
    memcpy(start, kit_tls_start, stored);
    memset(start + stored, 0, size - stored);
    *(uintptr_t *)pointer = pointer;
    return pointer;
}

/* The thread pointer of what runs. */
KIT_INLINE uintptr_t kit_tls_pointer(void)
{
    uintptr_t pointer;
    __asm__ volatile("movq %%fs:0, %0" : "=r"(pointer));
    return pointer;
}

KIT_INLINE void kit_tls_set(uintptr_t pointer)
{
    if (KIT_UNLIKELY(kit_tls_by_kernel))
        kit_tls_call_kernel(pointer);
    else
        __asm__ volatile("wrfsbase %0" : : "r"(pointer) : "memory");
}
#else
KIT_INLINE size_t kit_tls_room(void)
{
    return 0;
}

KIT_INLINE uintptr_t kit_tls_make(void *room)
{
    (void)room;
    return 0;
}

KIT_INLINE uintptr_t kit_tls_pointer(void)
{
    return 0;
}

KIT_INLINE void kit_tls_set(uintptr_t pointer)
{
    (void)pointer;
}
#endif

#endif
