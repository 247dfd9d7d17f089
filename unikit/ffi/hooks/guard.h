/* SPDX-License-Identifier: MIT */
/* How a panic inside a component leaves a call from Python: every guarded call puts a kit_guard on
 * a per-thread list, and a panic jumps to the innermost one. Hosted code only. */
#ifndef KIT_FFI_HOOKS_GUARD_H
#define KIT_FFI_HOOKS_GUARD_H

#include <setjmp.h>

#define KIT_HIDDEN __attribute__((visibility("hidden")))

struct kit_guard {
    jmp_buf target;
    struct kit_guard *outer;
};

/* One table for all extensions of a process: unikit._abi owns it, load.py passes it on. */
struct kit_host_hooks {
    void (*panic)(const char *message);    /* returns if no guarded call is active */
    struct kit_guard **(*guards)(void);    /* the calling thread's innermost guard */
};

KIT_HIDDEN void kit_host_bind(const struct kit_host_hooks *table);
KIT_HIDDEN struct kit_guard **kit_host_guards(void);

/* Runs `call`; after a panic inside it, runs `failed` instead of what follows. */
#define KIT_GUARDED(call, failed)                         \
    struct kit_guard **kit_guards = kit_host_guards();    \
    struct kit_guard kit_guard = {.outer = *kit_guards};  \
    if (_setjmp(kit_guard.target)) {                      \
        *kit_guards = kit_guard.outer;                    \
        failed;                                           \
    }                                                     \
    *kit_guards = &kit_guard;                             \
    call;                                                 \
    *kit_guards = kit_guard.outer

#endif
