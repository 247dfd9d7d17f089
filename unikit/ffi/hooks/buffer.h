/* SPDX-License-Identifier: MIT */
/* A Python type for memory that C owns: it exports the buffer protocol and counts its views. */
#ifndef KIT_FFI_HOOKS_BUFFER_H
#define KIT_FFI_HOOKS_BUFFER_H

#include <unikit/ffi/hooks/guard.h>

/* cdef: begin */
/* Puts the type into the module of that name as `Exporter`. 0, or KIT_EIO: the module is not
 * imported, or Python ran out of memory. */
int kit_buffer_install(const char *module);
/* cdef: end */

#endif
