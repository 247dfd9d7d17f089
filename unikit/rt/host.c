/* SPDX-License-Identifier: MIT */
/* Hosted kit_panic, linked into every extension. The panic goes to a hook that unikit/ffi/load.py
 * sets (it unwinds to the guarded call); without one, as in a plain C program, it aborts. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/ffi/hooks/guard.h>
#include <unikit/rt/types.h>

static const struct kit_host_hooks *hooks;

KIT_HIDDEN void kit_host_bind(const struct kit_host_hooks *table)
{
    hooks = table;
}

KIT_HIDDEN struct kit_guard **kit_host_guards(void)
{
    static _Thread_local struct kit_guard *own;
    return hooks ? hooks->guards() : &own;
}

KIT_HIDDEN _Noreturn void kit_panic(const char *message)
{
    if (hooks)
        hooks->panic(message);
    fprintf(stderr, "unikit panic: %s\n", message);
    fflush(stderr);
    abort();
}
