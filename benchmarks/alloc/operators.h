/* SPDX-License-Identifier: MIT */
/* Blocks by the operators new and delete, as programs in C++ ask for them: called from C by the
 * names that the C++ ABI gives them (Itanium C++ ABI, 5.1.5), so that no C++ compiler is needed. */
#ifndef OPERATORS_H
#define OPERATORS_H

#include <stddef.h>

void *new_block(size_t size) __asm__("_Znam");    /* operator new[](size_t); never NULL */
void delete_block(void *block) __asm__("_ZdaPv"); /* operator delete[](void *) */

#endif
