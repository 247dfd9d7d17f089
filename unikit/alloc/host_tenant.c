/* SPDX-License-Identifier: MIT */
/* Tenants and the handler for NumPy; see host_tenant.h. Nothing here stands under a guard: a heap
 * that is found broken ends the process with the allocator's message, as malloc does. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include <unikit/alloc/host_tenant.h>
#include <unikit/rt/bits.h>

#define CAPSULE "mem_handler"
enum { SET_HANDLER = 304 }; /* PyDataMem_SetHandler in NumPy's table, from 1.22 on */

static void tenant_count(struct kit_tenant *tenant, int64_t *counter, int64_t by)
{
    if (tenant->crowd)
        __atomic_fetch_add(counter, by, __ATOMIC_RELAXED);
    else
        *counter += by;
}

static size_t *tenant_size_of(void *block)
{
    return (size_t *)block - 1;
}

size_t kit_tenant_size(struct kit_tenant *tenant, void *block)
{
    if (tenant->pad)
        return *tenant_size_of(block);
    return kit_alloc_usable_size(tenant->alloc, block, KIT_ALLOC_UNKNOWN);
}

void *kit_tenant_alloc(struct kit_tenant *tenant, size_t size, bool zero)
{
    size_t whole, pad = tenant->pad;
    char *base = NULL;
    if (tenant->alloc && !kit_add_overflow(size, pad, &whole)) {
        if (zero && tenant->zeroed)
            base = kit_alloc_zeroed(tenant->alloc, whole, tenant->align);
        else
            base = kit_alloc_alloc(tenant->alloc, whole, tenant->align);
    }
    if (!base) {
        tenant_count(tenant, &tenant->refused, 1);
        return NULL;
    }
    tenant_count(tenant, &tenant->live, 1);
    tenant_count(tenant, &tenant->made, 1);
    void *block = base + pad;
    if (zero && !tenant->zeroed)
        memset(block, 0, size);
    if (pad)
        *tenant_size_of(block) = size;
    return block;
}

void kit_tenant_free(struct kit_tenant *tenant, void *block)
{
    if (!block)
        return;
    size_t pad = tenant->pad, whole = pad ? *tenant_size_of(block) + pad : KIT_ALLOC_UNKNOWN;
    kit_alloc_free(tenant->alloc, (char *)block - pad, whole, tenant->align);
    tenant_count(tenant, &tenant->live, -1);
}

void *kit_tenant_realloc(struct kit_tenant *tenant, void *block, size_t size)
{
    if (!block)
        return kit_tenant_alloc(tenant, size, false);
    size_t pad = tenant->pad, old = pad ? *tenant_size_of(block) + pad : KIT_ALLOC_UNKNOWN, whole;
    char *base = NULL;
    if (!kit_add_overflow(size, pad, &whole))
        base = kit_alloc_realloc(tenant->alloc, (char *)block - pad, old, whole, tenant->align);
    if (!base) {
        tenant_count(tenant, &tenant->refused, 1);
        return NULL;
    }
    if (pad)
        *tenant_size_of(base + pad) = size;
    return base + pad;
}

/* ---- NumPy ---------------------------------------------------------------------------------- */

static void *numpy_malloc(void *context, size_t size)
{
    return kit_tenant_alloc(context, size, false);
}

static void *numpy_calloc(void *context, size_t count, size_t size)
{
    size_t whole;
    if (kit_mul_overflow(count, size, &whole))
        return NULL;
    return kit_tenant_alloc(context, whole, true);
}

static void *numpy_realloc(void *context, void *block, size_t size)
{
    return kit_tenant_realloc(context, block, size);
}

/* The size that NumPy tells is not always the one it asked for. */
static void numpy_free(void *context, void *block, size_t size)
{
    (void)size;
    kit_tenant_free(context, block);
}

/* NumPy's arrays and contexts hold the capsule: no block of this handler is left. */
static void numpy_destroy(PyObject *capsule)
{
    struct kit_numpy_handler *handler = PyCapsule_GetPointer(capsule, CAPSULE);
    struct kit_tenant *tenant = handler->context;
    Py_DECREF((PyObject *)tenant->keeper);
}

/* The handler before, or NULL. */
static PyObject *numpy_set(void *api, PyObject *capsule)
{
    void **table = PyCapsule_GetPointer(api, NULL);
    if (!table)
        return NULL;
    PyObject *(*set)(PyObject *) = (PyObject * (*)(PyObject *)) table[SET_HANDLER];
    return set(capsule);
}

int kit_numpy_enter(void *api, struct kit_numpy_handler *handler, struct kit_tenant *tenant,
                    void **previous)
{
    handler->version = 1;
    handler->context = tenant;
    handler->malloc = numpy_malloc;
    handler->calloc = numpy_calloc;
    handler->realloc = numpy_realloc;
    handler->free = numpy_free;
    PyGILState_STATE state = PyGILState_Ensure();
    int rc = KIT_ENOMEM;
    PyObject *capsule = PyCapsule_New(handler, CAPSULE, numpy_destroy);
    if (capsule) {
        Py_INCREF((PyObject *)tenant->keeper);
        *previous = numpy_set(api, capsule);
        rc = *previous ? 0 : KIT_ENOTSUP;
        Py_DECREF(capsule); /* the context has it now */
    }
    PyErr_Clear();
    PyGILState_Release(state);
    return rc;
}

int kit_numpy_leave(void *api, void *previous)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *ours = numpy_set(api, previous);
    int rc = ours ? 0 : KIT_ENOTSUP;
    PyErr_Clear();
    Py_XDECREF(ours);
    Py_DECREF((PyObject *)previous);
    PyGILState_Release(state);
    return rc;
}
