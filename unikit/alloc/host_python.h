/* SPDX-License-Identifier: MIT */
/* The interpreter's own objects in a heap: a hook in front of its allocator (PyMem_SetAllocator).
 *
 * Every block is told by its address: what lies in the arena belongs to the heap, all else to the
 * allocator before. So the hook may come and go while blocks of both kinds live, and what the arena
 * cannot hold goes to the other. Hosted. */
#ifndef KIT_ALLOC_HOST_PYTHON_H
#define KIT_ALLOC_HOST_PYTHON_H

#include <unikit/alloc/host_tenant.h>

/* cdef: begin */
enum { KIT_PYTHON_RAW = 1, KIT_PYTHON_MEM = 2, KIT_PYTHON_OBJ = 4 };
struct kit_python_hook;

/* Puts a hook in front of the domains' allocators, for blocks of at most `largest` bytes. The arena
 * [low, high) is all the memory that the tenant's heap has. 0 and *out; KIT_ENOMEM. */
int kit_python_install(struct kit_tenant *tenant, uintptr_t low, uintptr_t high, size_t largest,
                       int domains, struct kit_python_hook **out);
/* New blocks come from the allocator before; those that grow move there. */
void kit_python_stop(struct kit_python_hook *hook);
/* Takes the hook out. 0; KIT_EAGAIN: blocks live in the arena; KIT_EEXIST: another hook has been
 * put in front of it. */
int kit_python_remove(struct kit_python_hook *hook);
/* Blocks that went to the allocator before: too large, or the arena was full. */
uint64_t kit_python_spilled(const struct kit_python_hook *hook);
/* malloc and free of that domain, `count` times, with the GIL: what an allocation costs. */
void kit_python_cycle(int domain, size_t size, size_t count);
/* cdef: end */

#endif
