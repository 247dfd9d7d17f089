/* SPDX-License-Identifier: MIT */
/* Whether this processor is inside a component, and whether it is due to stop: the words of struct
 * kit_cpu (platform/env.h), reached by the GS base in one instruction each, so that an upcall, or a
 * move to another processor, falls before or behind it and never in between.
 *
 * A function that enters components for the application starts with KIT_INSIDE: it counts the
 * processor in, and out again on every way out, which is a safe point. KIT_FROM_APPLICATION is the
 * same in the application's own units alone: for the dispatchers of interface headers, which
 * components use among themselves as well.
 *
 * Compiled to nothing where the composition has no preemption (KIT_WITH_PREEMPTION 0). */
#ifndef KIT_RT_X86_64_INSIDE_H
#define KIT_RT_X86_64_INSIDE_H

#include <unikit/rt/types.h>

/* Facts of the composition, from the composer. */
#ifndef KIT_WITH_PREEMPTION
#define KIT_WITH_PREEMPTION 0
#endif
#ifndef KIT_APPLICATION
#define KIT_APPLICATION 0
#endif

/* Offsets in struct kit_cpu; image/runtime/preempt.c asserts that they are right. */
#define KIT_CPU_INSIDE_OFFSET 4
#define KIT_CPU_DUE_OFFSET 8

/* Bytes of a task's stack that an upcall may take (upcall.S): red zone, registers, vector state of
 * up to 2,752 bytes, and the calls into the scheduler. */
#define KIT_UPCALL_STACK 4096

/* The calling task's slice is over: the image's runtime lets others run, unless the processor is
 * inside a component. Returns when it is the task's turn again. */
void kit_safe_point_due(void);

#if KIT_WITH_PREEMPTION
KIT_INLINE void kit_inside_enter(void)
{
    __asm__ volatile("incl %%gs:%c0" ::"i"(KIT_CPU_INSIDE_OFFSET) : "memory", "cc");
}

/* Counts out, without looking whether the processor is due. */
KIT_INLINE void kit_inside_leave_quietly(void)
{
    __asm__ volatile("decl %%gs:%c0" ::"i"(KIT_CPU_INSIDE_OFFSET) : "memory", "cc");
}

/* One load and a branch that is not taken. */
KIT_INLINE void kit_safe_point(void)
{
    __asm__ goto("cmpl $0, %%gs:%c0\n\t"
                 "jne %l[due]" ::"i"(KIT_CPU_DUE_OFFSET)
                 : "cc"
                 : due);
    return;
due:
    kit_safe_point_due();
}

KIT_INLINE void kit_inside_leave(void)
{
    kit_inside_leave_quietly();
    kit_safe_point();
}

KIT_INLINE void kit_inside_cleanup(const char *mark)
{
    (void)mark;
    kit_inside_leave();
}

KIT_INLINE uint32_t kit_inside_depth(void)
{
    uint32_t depth;
    __asm__ volatile("movl %%gs:%c1, %0" : "=r"(depth) : "i"(KIT_CPU_INSIDE_OFFSET));
    return depth;
}

KIT_INLINE void kit_inside_set_depth(uint32_t depth)
{
    __asm__ volatile("movl %0, %%gs:%c1" ::"r"(depth), "i"(KIT_CPU_INSIDE_OFFSET) : "memory");
}

KIT_INLINE void kit_inside_set_due(uint32_t due)
{
    __asm__ volatile("movl %0, %%gs:%c1" ::"r"(due), "i"(KIT_CPU_DUE_OFFSET) : "memory");
}

#define KIT_INSIDE                                                                                 \
    const char kit_inside_mark __attribute__((cleanup(kit_inside_cleanup), unused)) =              \
        (kit_inside_enter(), (char)0)
#else
KIT_INLINE void kit_safe_point(void)
{
}

KIT_INLINE uint32_t kit_inside_depth(void)
{
    return 0;
}

KIT_INLINE void kit_inside_set_depth(uint32_t depth)
{
    (void)depth;
}

#define KIT_INSIDE ((void)0)
#endif

#if KIT_APPLICATION
#define KIT_FROM_APPLICATION KIT_INSIDE
#else
#define KIT_FROM_APPLICATION ((void)0)
#endif

#endif
