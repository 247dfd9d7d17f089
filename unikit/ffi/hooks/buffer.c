/* SPDX-License-Identifier: MIT */
/* The type `Exporter`: before Python 3.12 a class written in Python cannot offer the buffer
 * protocol, and only C can count the views that others hold. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <unikit/ffi/hooks/buffer.h>
#include <unikit/rt/error.h>

struct exporter {
    PyObject_HEAD void *address; /* NULL: nothing to export (any more) */
    Py_ssize_t size;
    Py_ssize_t views;
};

static int exporter_get(PyObject *self, Py_buffer *view, int flags)
{
    struct exporter *exporter = (struct exporter *)self;
    view->obj = NULL;
    if (!exporter->address) {
        PyErr_SetString(PyExc_ValueError, "the memory was given back");
        return -1;
    }
    if (PyBuffer_FillInfo(view, self, exporter->address, exporter->size, 0, flags) < 0)
        return -1;
    exporter->views++;
    return 0;
}

static void exporter_release(PyObject *self, Py_buffer *view)
{
    (void)view;
    ((struct exporter *)self)->views--;
}

/* Refuses to change what views still show. */
static int exporter_settle(const struct exporter *exporter)
{
    if (!exporter->views)
        return 0;
    PyErr_Format(PyExc_BufferError, "%zd view%s of the memory still exist%s; release %s first",
                 exporter->views, exporter->views == 1 ? "" : "s", exporter->views == 1 ? "s" : "",
                 exporter->views == 1 ? "it" : "them");
    return -1;
}

static PyObject *exporter_bind(PyObject *self, PyObject *arguments)
{
    struct exporter *exporter = (struct exporter *)self;
    unsigned long long address;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "Kn", &address, &size) || exporter_settle(exporter) < 0)
        return NULL;
    exporter->address = (void *)(uintptr_t)address;
    exporter->size = size;
    Py_RETURN_NONE;
}

/* Views keep what they show: memory that grows at its end takes nothing from them. */
static PyObject *exporter_extend(PyObject *self, PyObject *arguments)
{
    struct exporter *exporter = (struct exporter *)self;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "n", &size))
        return NULL;
    if (!exporter->address || size < exporter->size) {
        PyErr_SetString(PyExc_ValueError, "exported memory can only grow");
        return NULL;
    }
    exporter->size = size;
    Py_RETURN_NONE;
}

static PyObject *exporter_views(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSsize_t(((struct exporter *)self)->views);
}

static PyObject *exporter_address(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromVoidPtr(((struct exporter *)self)->address);
}

static PyObject *exporter_size(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSsize_t(((struct exporter *)self)->size);
}

static PyMethodDef methods[] = {
    {"_bind", exporter_bind, METH_VARARGS,
     "Export size bytes at address from now on; 0: nothing. BufferError while there are views."},
    {"_extend", exporter_extend, METH_VARARGS,
     "Export size bytes, not fewer than now, from where they are; views may exist."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"_views", exporter_views, NULL, "Views that others hold.", NULL},
    {"_address", exporter_address, NULL, "Where the memory is; 0: given back.", NULL},
    {"_size", exporter_size, NULL, "Its bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Memory that C owns, as a writable buffer that counts its views."},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_bf_getbuffer, exporter_get},
    {Py_bf_releasebuffer, exporter_release},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "unikit.ffi.buffer.Exporter",
    .basicsize = sizeof(struct exporter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

KIT_HIDDEN int kit_buffer_install(const char *module)
{
    PyGILState_STATE state = PyGILState_Ensure();
    int result = KIT_EIO;
    PyObject *target = PyImport_ImportModule(module);
    PyObject *type = target ? PyType_FromSpec(&spec) : NULL;
    if (type && PyObject_SetAttrString(target, "Exporter", type) == 0)
        result = 0;
    PyErr_Clear();
    Py_XDECREF(type);
    Py_XDECREF(target);
    PyGILState_Release(state);
    return result;
}
