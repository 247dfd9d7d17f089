/* SPDX-License-Identifier: MIT */
/* Switching stacks within one processor and one privilege level (System V AMD64 ABI).
 *
 * The switch keeps what a callee must keep: rbx, rbp, r12-r15 and the stack pointer. The control
 * words of x87 and SSE (rounding, exception masks) are NOT switched: they belong to the image, and
 * a task that changes them MUST put them back before it yields or blocks. Switching them as well
 * would cost every task 1.7 ns on top of 2.8, for what next to no task ever does. */
#ifndef KIT_RT_X86_64_SWITCH_H
#define KIT_RT_X86_64_SWITCH_H

#include <unikit/rt/types.h>

/* Saves the present context, its stack pointer in *from, and goes on in the context `to`. */
void kit_switch(void **from, void *to);
/* The same, with a call of function(argument) in between: on the stack of `to`, when the present
 * context is saved and nothing of its stack is in use, before `to` goes on. A caller that returns
 * afterwards had better do nothing in between, so that this is a jump: a return would be
 * mispredicted. */
void kit_switch_then(void **from, void *to, void (*function)(void *argument), void *argument);
/* Where a new context starts; never called. */
void kit_switch_start(void);

/* Makes a context that calls function(argument) on the stack that ends at `top` (a multiple of
 * 16). The function MUST NOT return. */
KIT_INLINE void *kit_switch_prepare(void *top, void (*function)(void *argument), void *argument)
{
    uintptr_t *frame = (uintptr_t *)top - 7; /* popped by kit_switch in this order: */
    frame[0] = 0;                            /* r15 */
    frame[1] = 0;                            /* r14 */
    frame[2] = (uintptr_t)argument;          /* r13 */
    frame[3] = (uintptr_t)function;          /* r12 */
    frame[4] = 0;                            /* rbx */
    frame[5] = 0;                            /* rbp: backtraces end here */
    frame[6] = (uintptr_t)kit_switch_start;
    return frame;
}

#endif
