/* SPDX-License-Identifier: MIT */
/* Tenants: NumPy and the interpreter as users of a heap. They know a block by its address alone, so
 * where the allocator cannot tell its size, it is written in front of the block. Hosted. */
#ifndef KIT_ALLOC_HOST_TENANT_H
#define KIT_ALLOC_HOST_TENANT_H

#include <unikit/alloc/alloc.h>

/* cdef: begin */
struct kit_tenant {
    struct kit_alloc *alloc; /* a gate; NULL: the heap is closed, nothing is given out any more */
    size_t align;            /* of every block; 0: the least */
    size_t pad;              /* bytes in front of a block for its size; 0: KIT_ALLOC_UNSIZED */
    bool zeroed;             /* KIT_ALLOC_ZEROED */
    bool crowd;              /* several threads may call at once; else one lock, the GIL, is held */
    void *keeper;            /* PyObject * that keeps all this alive */
    int64_t live;            /* blocks */
    int64_t made;            /* blocks so far */
    int64_t refused;         /* requests refused so far */
};

/* PyDataMem_Handler of NumPy 1.22 and later, version 1 (NEP 49). */
struct kit_numpy_handler {
    char name[127];
    uint8_t version;
    void *context; /* struct kit_tenant */
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *block, size_t size);
    void (*free)(void *context, void *block, size_t size);
};
/* Makes NumPy take arrays of this thread's context from the tenant, by PyDataMem_SetHandler, which
 * is found in NumPy's table of functions: `api` is the capsule _ARRAY_API. The keeper lives until
 * no array and no context knows the handler any more. 0 and *previous, for kit_numpy_leave;
 * KIT_ENOTSUP: NumPy refuses; KIT_ENOMEM. */
int kit_numpy_enter(void *api, struct kit_numpy_handler *handler, struct kit_tenant *tenant,
                    void **previous);
int kit_numpy_leave(void *api, void *previous);
/* cdef: end */

/* `size` bytes; NULL: no memory, or the heap is closed. */
void *kit_tenant_alloc(struct kit_tenant *tenant, size_t size, bool zero);
/* NULL: no memory, and the block is as it was. */
void *kit_tenant_realloc(struct kit_tenant *tenant, void *block, size_t size);
void kit_tenant_free(struct kit_tenant *tenant, void *block);
/* Bytes asked for when the block was made, or those it has. */
size_t kit_tenant_size(struct kit_tenant *tenant, void *block);

#endif
