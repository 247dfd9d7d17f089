/* SPDX-License-Identifier: MIT */
/* What unikit._abi adds to the interfaces: where panics of guarded calls end up. */
#ifndef KIT_FFI_HOOKS_ABI_H
#define KIT_FFI_HOOKS_ABI_H

#include <unikit/ffi/hooks/guard.h>

/* cdef: begin */
struct kit_host_hooks;
/* The process-wide table, to be given to kit_host_bind of every other extension. */
const struct kit_host_hooks *kit_abi_hooks(void);
/* The message of the calling thread's last panic, once; NULL if there was none since. */
const char *kit_abi_take_panic(void);
/* cdef: end */

#endif
