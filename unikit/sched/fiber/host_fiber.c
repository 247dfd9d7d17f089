/* SPDX-License-Identifier: MIT */
/* Fibers: Python functions that stop anywhere and go on later, each on a C stack of its own, so
 * that C functions in between (sorted, map, callbacks) do not matter. A switch is the scheduler's
 * context switch (rt/x86_64/switch.S) and the exchange of what the interpreter keeps per stack
 * (host_switch.c, host_state.h). Here is the type.
 *
 * Cost: a switch some 10 ns besides the call from Python; a fiber 2 pages touched of its stack and
 * 16 KiB for Python frames, both kept for reuse. */
#include <unikit/sched/fiber/host_fiber.h>
#include <unikit/sched/fiber/host_frames.h>

#include <structmember.h>

#if FIBER_UNSUPPORTED

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_fiber", .m_size = -1};

PyMODINIT_FUNC PyInit__fiber(void)
{
    (void)module;
    PyErr_SetString(PyExc_ImportError,
                    "unikit.sched.Fiber supports CPython 3.11, 3.12 and 3.13 with the GIL, x86-64");
    return NULL;
}

#else

/* NULL with an exception: the fiber belongs to another thread. */
static inline struct home *fiber_check_home(struct fiber *self)
{
    struct home *home = home_get();
    if (home == NULL)
        return NULL;
    if (self->home != home) {
        PyErr_SetString(PyExc_RuntimeError, "switching to a fiber of another thread");
        return NULL;
    }
    if (home->doomed != NULL)
        fiber_sweep(home);
    return home;
}

/* What several arguments are on the other side. */
static PyObject *fiber_pack(PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    if (kwnames == NULL && count <= 1)
        return Py_NewRef(count == 0 ? Py_None : args[0]);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    if (kwnames == NULL || tuple == NULL)
        return tuple;
    PyObject *dict = PyDict_New(), *both = NULL;
    for (Py_ssize_t i = 0; dict != NULL && i < PyTuple_GET_SIZE(kwnames); i++)
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(kwnames, i), args[count + i]) < 0)
            Py_CLEAR(dict);
    if (dict != NULL && count == 0)
        both = Py_NewRef(dict);
    else if (dict != NULL)
        both = PyTuple_Pack(2, tuple, dict);
    Py_DECREF(tuple);
    Py_XDECREF(dict);
    return both;
}

/* The arguments of the start are kept as they are. */
static int fiber_keep_args(struct fiber *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *kwnames)
{
    PyObject *kwargs = NULL, *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    if (tuple != NULL && kwnames != NULL) {
        kwargs = fiber_pack(args + count, 0, kwnames);
        if (kwargs == NULL)
            Py_CLEAR(tuple);
    }
    Py_XSETREF(self->args, tuple);
    Py_XSETREF(self->kwargs, kwargs);
    return tuple == NULL ? -1 : 0;
}

static PyObject *fiber_switch(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *kwnames)
{
    struct fiber *self = (struct fiber *)object;
    struct home *home = fiber_check_home(self);
    PyObject *value;
    if (home == NULL)
        return NULL;
    if (self->phase == FIBER_NEW) {
        if (fiber_keep_args(self, args, count, kwnames) < 0)
            return NULL;
        value = Py_NewRef(Py_None);
    } else {
        value = fiber_pack(args, count, kwnames);
        if (value == NULL)
            return NULL;
    }
    return fiber_go(home, self->phase == FIBER_DEAD ? fiber_heir(self) : self, value, NULL);
}

/* The exception that throw's arguments stand for; NULL with TypeError. */
static PyObject *fiber_exception(PyObject *kind, PyObject *value, PyObject *traceback)
{
    PyObject *made;
    if (PyExceptionInstance_Check(kind) && value == NULL) {
        made = Py_NewRef(kind);
    } else if (PyExceptionClass_Check(kind)) {
        if (value != NULL && PyObject_IsInstance(value, kind) == 1)
            made = Py_NewRef(value);
        else
            made = value == NULL ? PyObject_CallNoArgs(kind) : PyObject_CallOneArg(kind, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw: give an exception, or its class and its argument");
        return NULL;
    }
    if (made != NULL && traceback != NULL && PyException_SetTraceback(made, traceback) < 0)
        Py_CLEAR(made);
    return made;
}

static PyObject *fiber_throw(PyObject *object, PyObject *args)
{
    struct fiber *self = (struct fiber *)object;
    PyObject *kind = fiber_exit, *value = NULL, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "|OOO:throw", &kind, &value, &traceback))
        return NULL;
    struct home *home = fiber_check_home(self);
    PyObject *error = NULL;
    if (home != NULL)
        error = fiber_exception(kind, value == Py_None ? NULL : value,
                                traceback == Py_None ? NULL : traceback);
    if (error == NULL)
        return NULL;
    if (self->phase != FIBER_DEAD)
        return fiber_go(home, self, NULL, error);
    value = NULL;
    fiber_outcome(&value, &error);
    return fiber_go(home, fiber_heir(self), value, error);
}

/* ---- the type ---------------------------------------------------------------------------------
 */

static PyObject *fiber_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    struct home *home = home_get();
    struct fiber *self = home ? (struct fiber *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL)
        return NULL;
    self->home = home;
    home->fibers++;
    self->stack_size = FIBER_STACK_DEFAULT;
    self->parent = (struct fiber *)Py_NewRef((PyObject *)home->current);
    return (PyObject *)self;
}

static int fiber_set_parent(PyObject *object, PyObject *value, void *closure)
{
    struct fiber *self = (struct fiber *)object, *each;
    (void)closure;
    if (value == NULL || !PyObject_TypeCheck(value, fiber_type)) {
        PyErr_SetString(PyExc_TypeError, "a fiber's parent is a fiber");
        return -1;
    }
    if (self == self->home->main) {
        PyErr_SetString(PyExc_ValueError, "a thread's first fiber has no parent");
        return -1;
    }
    if (((struct fiber *)value)->home != self->home) {
        PyErr_SetString(PyExc_ValueError, "a fiber's parent is of the same thread");
        return -1;
    }
    for (each = (struct fiber *)value; each != NULL; each = each->parent)
        if (each == self) {
            PyErr_SetString(PyExc_ValueError, "a fiber would be its own ancestor");
            return -1;
        }
    Py_INCREF(value);
    Py_XSETREF(self->parent, (struct fiber *)value);
    return 0;
}

static int fiber_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"run", "parent", "stack_size", NULL};
    struct fiber *self = (struct fiber *)object;
    PyObject *run = NULL, *parent = NULL;
    Py_ssize_t size = FIBER_STACK_DEFAULT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO$n:Fiber", names, &run, &parent, &size))
        return -1;
    if (size < FIBER_STACK_MIN || size > (Py_ssize_t)1 << 40) {
        PyErr_Format(PyExc_ValueError, "stack_size is %zd; give %d or more bytes", size,
                     FIBER_STACK_MIN);
        return -1;
    }
    self->stack_size = ((size_t)size + FIBER_PAGE - 1) & ~(size_t)(FIBER_PAGE - 1);
    if (parent != NULL && parent != Py_None && fiber_set_parent(object, parent, NULL) < 0)
        return -1;
    if (run != NULL && run != Py_None) {
        if (!PyCallable_Check(run)) {
            PyErr_Format(PyExc_TypeError, "a fiber runs a callable, not %R", run);
            return -1;
        }
        Py_INCREF(run);
        Py_XSETREF(self->run, run);
    }
    return 0;
}

/* On a stack of its own, which another than itself runs. */
static bool fiber_suspended(const struct fiber *self)
{
    return self->phase == FIBER_STARTED && self->stack != NULL && self != self->home->current;
}

static int fiber_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct fiber *self = (struct fiber *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->run);
    Py_VISIT(self->args);
    Py_VISIT(self->kwargs);
    Py_VISIT((PyObject *)self->parent);
    Py_VISIT(self->dict);
    Py_VISIT(self->state.context);
    if (fiber_suspended(self))
        return fiber_frames_visit(&self->state, visit, arg);
    return 0;
}

static int fiber_clear(PyObject *object)
{
    struct fiber *self = (struct fiber *)object;
    Py_CLEAR(self->dict);
    if (self->phase == FIBER_STARTED)
        return 0; /* its stack stands on the rest */
    Py_CLEAR(self->run);
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    Py_CLEAR(self->parent);
    return 0;
}

static void fiber_finalize(PyObject *object)
{
    struct fiber *self = (struct fiber *)object;
    struct home *home = self->home;
    PyObject *kind, *value, *traceback;
    if (home == NULL || !fiber_suspended(self) || home->thread == NULL)
        return;
    PyErr_Fetch(&kind, &value, &traceback);
    if (home->thread == PyThreadState_Get()) {
        fiber_end(self);
    } else {
        if (home->doomed == NULL)
            home->doomed = PyList_New(0);
        if (home->doomed == NULL || PyList_Append(home->doomed, object) < 0)
            PyErr_WriteUnraisable(object);
    }
    PyErr_Restore(kind, value, traceback);
}

static void fiber_dealloc(PyObject *object)
{
    struct fiber *self = (struct fiber *)object;
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(object) < 0)
        return;
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(object);
    fiber_clear(object);
    Py_CLEAR(self->parent);
    Py_CLEAR(self->state.context);
    if (self->home != NULL)
        home_release(self->home);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *fiber_repr(PyObject *object)
{
    struct fiber *self = (struct fiber *)object;
    static const char *const words[] = {"not started", "suspended", "dead"};
    const char *word = self == self->home->current ? "running" : words[self->phase];
    return PyUnicode_FromFormat("<%s at %p: %s%s>", Py_TYPE(self)->tp_name, self, word,
                                self == self->home->main ? ", main" : "");
}

static int fiber_bool(PyObject *object)
{
    return ((struct fiber *)object)->phase == FIBER_STARTED;
}

static PyObject *fiber_get_dead(PyObject *object, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((struct fiber *)object)->phase == FIBER_DEAD);
}

static PyObject *fiber_get_parent(PyObject *object, void *closure)
{
    struct fiber *parent = ((struct fiber *)object)->parent;
    (void)closure;
    return Py_NewRef(parent ? (PyObject *)parent : Py_None);
}

static PyObject *fiber_get_run(PyObject *object, void *closure)
{
    struct fiber *self = (struct fiber *)object;
    (void)closure;
    if (self->run == NULL || self->phase != FIBER_NEW) {
        PyErr_SetString(PyExc_AttributeError, "run: the fiber has none, or has started");
        return NULL;
    }
    return Py_NewRef(self->run);
}

static int fiber_set_run(PyObject *object, PyObject *value, void *closure)
{
    struct fiber *self = (struct fiber *)object;
    (void)closure;
    if (self->phase != FIBER_NEW || (value != NULL && !PyCallable_Check(value))) {
        PyErr_SetString(PyExc_AttributeError,
                        "run: a callable, and only before the fiber has started");
        return -1;
    }
    Py_XINCREF(value);
    Py_XSETREF(self->run, value);
    return 0;
}

/* The innermost Python frame of a suspended fiber. */
static PyObject *fiber_get_frame(PyObject *object, void *closure)
{
    struct fiber *self = (struct fiber *)object;
    PyThreadState *thread = PyThreadState_Get();
    (void)closure;
    if (self->phase != FIBER_STARTED)
        Py_RETURN_NONE;
    bool elsewhere = self != self->home->current;
#if PY_VERSION_HEX < 0x030D0000
    _PyCFrame *kept = thread->cframe;
    thread->cframe = elsewhere ? self->state.cframe : kept;
    PyObject *frame = (PyObject *)PyThreadState_GetFrame(thread);
    thread->cframe = kept;
#else
    struct _PyInterpreterFrame *kept = thread->current_frame;
    thread->current_frame = elsewhere ? self->state.current_frame : kept;
    PyObject *frame = (PyObject *)PyThreadState_GetFrame(thread);
    thread->current_frame = kept;
#endif
    return frame ? frame : Py_NewRef(Py_None);
}

static PyObject *fiber_getcurrent(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    struct home *home = home_get();
    return home ? Py_NewRef((PyObject *)home->current) : NULL;
}

static PyMethodDef fiber_methods[] = {
    {"switch", (PyCFunction)(void (*)(void))fiber_switch, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"throw", fiber_throw, METH_VARARGS, NULL},
    {"getcurrent", fiber_getcurrent, METH_NOARGS | METH_STATIC, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef fiber_properties[] = {
    {"dead", fiber_get_dead, NULL, NULL, NULL},
    {"parent", fiber_get_parent, fiber_set_parent, NULL, NULL},
    {"run", fiber_get_run, fiber_set_run, NULL, NULL},
    {"frame", fiber_get_frame, NULL, NULL, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef fiber_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct fiber, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(struct fiber, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot fiber_slots[] = {
    {Py_tp_new, fiber_new},           {Py_tp_init, fiber_init},
    {Py_tp_dealloc, fiber_dealloc},   {Py_tp_finalize, fiber_finalize},
    {Py_tp_traverse, fiber_traverse}, {Py_tp_clear, fiber_clear},
    {Py_tp_repr, fiber_repr},         {Py_nb_bool, fiber_bool},
    {Py_tp_methods, fiber_methods},   {Py_tp_getset, fiber_properties},
    {Py_tp_members, fiber_members},   {0, NULL},
};

static PyType_Spec fiber_spec = {
    .name = "unikit.sched.fiber.Fiber",
    .basicsize = sizeof(struct fiber),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = fiber_slots,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_fiber", .m_size = -1};

PyMODINIT_FUNC PyInit__fiber(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made == NULL)
        return NULL;
    fiber_type = (PyTypeObject *)PyType_FromSpec(&fiber_spec);
    fiber_exit = PyErr_NewException("unikit.sched.fiber.FiberExit", PyExc_BaseException, NULL);
    if (fiber_type == NULL || fiber_exit == NULL ||
        PyModule_AddObjectRef(made, "Fiber", (PyObject *)fiber_type) < 0 ||
        PyModule_AddObjectRef(made, "FiberExit", fiber_exit) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

#endif
