/* SPDX-License-Identifier: MIT */
/* What a component calls when its contract is broken. Weak: a program may define its own kit_panic,
 * which must not return. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/rt/types.h>

__attribute__((weak)) _Noreturn void kit_panic(const char *message)
{
    fprintf(stderr, "unikit panic: %s\n", message);
    abort();
}
