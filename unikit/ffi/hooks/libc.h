/* SPDX-License-Identifier: MIT */
/* Included ahead of everything in an extension, assembly files among it. */
#ifndef __ASSEMBLER__
#include <alloca.h>
#include <string.h>
#endif
