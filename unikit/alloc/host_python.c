/* SPDX-License-Identifier: MIT */
/* The hook in front of the interpreter's allocators; see host_python.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/alloc/host_python.h>

enum { DOMAINS = 3 };

/* Outside the limited API, and unchanged since Python 3.5: Include/cpython/pymem.h. */
struct python_allocator {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *block, size_t size);
    void (*free)(void *context, void *block);
};
void PyMem_GetAllocator(int domain, struct python_allocator *out);
void PyMem_SetAllocator(int domain, struct python_allocator *allocator);
void *PyMem_RawMalloc(size_t size);
void PyMem_RawFree(void *block);

/* One domain: 0 raw, 1 mem, 2 obj. */
struct slot {
    struct kit_python_hook *hook;
    struct python_allocator before;
    bool installed;
};

/* Never freed: a thread without the GIL may stand in one of its functions. */
struct kit_python_hook {
    struct kit_tenant *tenant;
    uintptr_t low, high;
    size_t largest;
    bool stopped;
    uint64_t spilled;
    struct slot slots[DOMAINS];
};

static bool python_inside(const struct kit_python_hook *hook, const void *block)
{
    return (uintptr_t)block - hook->low < hook->high - hook->low;
}

static void *python_take(struct kit_python_hook *hook, size_t size, bool zero)
{
    if (hook->stopped)
        return NULL;
    void *block = size <= hook->largest ? kit_tenant_alloc(hook->tenant, size, zero) : NULL;
    if (!block)
        __atomic_fetch_add(&hook->spilled, 1, __ATOMIC_RELAXED);
    return block;
}

static void *python_malloc(void *context, size_t size)
{
    struct slot *slot = context;
    void *block = python_take(slot->hook, size, false);
    return block ? block : slot->before.malloc(slot->before.context, size);
}

static void *python_calloc(void *context, size_t count, size_t size)
{
    struct slot *slot = context;
    size_t whole;
    void *block = NULL;
    if (!__builtin_mul_overflow(count, size, &whole))
        block = python_take(slot->hook, whole, true);
    return block ? block : slot->before.calloc(slot->before.context, count, size);
}

/* Moves a block out of the arena. */
static void *python_move_out(struct slot *slot, void *block, size_t size)
{
    struct kit_tenant *tenant = slot->hook->tenant;
    void *moved = slot->before.malloc(slot->before.context, size);
    if (!moved)
        return NULL;
    size_t old = kit_tenant_size(tenant, block);
    memcpy(moved, block, old < size ? old : size);
    kit_tenant_free(tenant, block);
    return moved;
}

static void *python_realloc(void *context, void *block, size_t size)
{
    struct slot *slot = context;
    struct kit_python_hook *hook = slot->hook;
    if (!block)
        return python_malloc(context, size);
    if (!python_inside(hook, block))
        return slot->before.realloc(slot->before.context, block, size);
    void *moved = NULL;
    if (!hook->stopped && size <= hook->largest)
        moved = kit_tenant_realloc(hook->tenant, block, size);
    return moved ? moved : python_move_out(slot, block, size);
}

static void python_free(void *context, void *block)
{
    struct slot *slot = context;
    if (python_inside(slot->hook, block))
        kit_tenant_free(slot->hook->tenant, block);
    else
        slot->before.free(slot->before.context, block);
}

int kit_python_install(struct kit_tenant *tenant, uintptr_t low, uintptr_t high, size_t largest,
                       int domains, struct kit_python_hook **out)
{
    struct kit_python_hook *hook = calloc(1, sizeof *hook);
    if (!hook)
        return KIT_ENOMEM;
    hook->tenant = tenant;
    hook->low = low;
    hook->high = high;
    hook->largest = largest;
    PyGILState_STATE state = PyGILState_Ensure();
    Py_INCREF((PyObject *)tenant->keeper); /* objects may live there up to the end of the process */
    for (int domain = 0; domain < DOMAINS; domain++) {
        struct slot *slot = &hook->slots[domain];
        if (!(domains & 1 << domain))
            continue;
        slot->hook = hook;
        slot->installed = true;
        PyMem_GetAllocator(domain, &slot->before);
        PyMem_SetAllocator(domain, &(struct python_allocator){slot, python_malloc, python_calloc,
                                                              python_realloc, python_free});
    }
    PyGILState_Release(state);
    *out = hook;
    return 0;
}

void kit_python_stop(struct kit_python_hook *hook)
{
    PyGILState_STATE state = PyGILState_Ensure();
    hook->stopped = true;
    PyGILState_Release(state);
}

int kit_python_remove(struct kit_python_hook *hook)
{
    PyGILState_STATE state = PyGILState_Ensure();
    int rc = 0;
    hook->stopped = true;
    for (int domain = 0; rc == 0 && domain < DOMAINS; domain++) {
        struct python_allocator now;
        PyMem_GetAllocator(domain, &now);
        if (hook->slots[domain].installed && now.context != &hook->slots[domain])
            rc = KIT_EEXIST;
    }
    if (rc == 0 && hook->tenant->live)
        rc = KIT_EAGAIN;
    for (int domain = 0; rc == 0 && domain < DOMAINS; domain++) {
        struct slot *slot = &hook->slots[domain];
        if (slot->installed)
            PyMem_SetAllocator(domain, &slot->before);
        slot->installed = false;
    }
    if (rc == 0)
        Py_DECREF((PyObject *)hook->tenant->keeper);
    PyGILState_Release(state);
    return rc;
}

uint64_t kit_python_spilled(const struct kit_python_hook *hook)
{
    return hook->spilled;
}

void kit_python_cycle(int domain, size_t size, size_t count)
{
    PyGILState_STATE state = PyGILState_Ensure();
    for (size_t i = 0; i < count; i++) {
        if (domain == KIT_PYTHON_RAW)
            PyMem_RawFree(PyMem_RawMalloc(size));
        else if (domain == KIT_PYTHON_MEM)
            PyMem_Free(PyMem_Malloc(size));
        else
            PyObject_Free(PyObject_Malloc(size));
    }
    PyGILState_Release(state);
}
