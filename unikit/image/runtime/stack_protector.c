/* SPDX-License-Identifier: MIT */
/* The stack protector of an image: the word that frames are checked against, and what happens when
 * one was overwritten. A platform's entry gives the word a random value before any C code runs;
 * its lowest byte is zero, so that a string function which runs over cannot write the right value.
 * Compiled without link-time optimisation: the compiler refers to both names after that stage. */
#include <unikit/rt/types.h>

extern uintptr_t __stack_chk_guard;
_Noreturn void __stack_chk_fail(void);

uintptr_t __stack_chk_guard = (uintptr_t)UINT64_C(0xa5c3967e1bd40f00);

void __stack_chk_fail(void)
{
    kit_panic("a stack frame was overwritten");
}
