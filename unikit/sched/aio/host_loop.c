/* SPDX-License-Identifier: MIT */
/* The core of the event loop: turns of the scheduler between looks at files. Callbacks are work
 * items, tasks too or, under a scheduler with threads, tasks of it; so the scheduler's policy is
 * the order in which asyncio runs things. Timers are the scheduler's.
 *
 * A panic of the scheduler unwinds to the turn, or to the operation, that it happened in: there
 * are no frames of Python in between. */
#include <unikit/rt/x86_64/switch.h>
#include <unikit/sched/aio/host_aio.h>

enum { CORE_TURN_FRAMES = 16384 }; /* that turn() needs of the loop's stack, at most */

PyTypeObject *core_type;
static PyObject *current_tasks; /* asyncio's: loop to task */
static PyObject *name_stopping;

PyObject *core_check(struct core *core)
{
    if (core->s != NULL && !core->closed && !core->broken)
        return (PyObject *)core;
    PyErr_SetString(PyExc_RuntimeError, core->broken ? "the scheduler panicked; close the loop"
                                                     : "Event loop is closed");
    return NULL;
}

void core_interrupt(struct core *core)
{
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    PyErr_NormalizeException(&kind, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(kind);
    Py_XDECREF(traceback);
    if (core->raised == NULL)
        core->raised = value;
    else
        Py_XDECREF(value);
}

int core_enter_slow(struct core *core, PyObject *task)
{
    int rc = task != NULL
                 ? _PyDict_SetItem_KnownHash(current_tasks, (PyObject *)core, task, core->hash)
                 : PyDict_DelItem(current_tasks, (PyObject *)core);
    if (rc < 0 && task == NULL) { /* somebody else took it out */
        PyErr_Clear();
        rc = 0;
    }
    core->entered = rc == 0 ? task : NULL;
    return rc;
}

void core_panicked(struct core *core)
{
    core->broken = true;
    PyObject *done = PyObject_CallMethod((PyObject *)core, "_panicked", NULL);
    if (done != NULL)
        PyErr_SetString(PyExc_RuntimeError, "the scheduler panicked");
    Py_XDECREF(done);
}

/* ---- stacks -----------------------------------------------------------------------------------
 */

struct core_call {
    void (*function)(void *argument);
    void *argument;
    void *back;
};

static _Thread_local uintptr_t core_host; /* the loop's stack is free below, while a task runs */

static void core_visit(void *argument)
{
    struct core_call *call = argument;
    void *gone;
    call->function(call->argument);
    kit_switch(&gone, call->back);
}

void core_on_host(struct core *core, void (*function)(void *argument), void *argument)
{
    struct core_call call = {.function = function, .argument = argument};
    (void)core;
    kit_switch(&call.back, kit_switch_prepare((void *)core_host, core_visit, &call));
}

/* ---- running ----------------------------------------------------------------------------------
 */

/* A panic is noted in `broken`. */
static bool core_guarded_turn(struct core *core)
{
    bool any;
    KIT_GUARDED(any = kit_sched_turn(core->s), core->broken = true; return false);
    return any;
}

__attribute__((noinline)) static bool core_turn(struct core *core)
{
    uintptr_t outer = core_host;
    core_host = ((uintptr_t)__builtin_frame_address(0) - CORE_TURN_FRAMES) & ~(uintptr_t)15;
    bool any = core_guarded_turn(core);
    core_host = outer;
    return any;
}

/* Sets what ends the run; -1. */
static int core_reraise(struct core *core)
{
    PyObject *raised = core->raised, *kind = (PyObject *)Py_TYPE(raised);
    core->raised = NULL;
    Py_INCREF(kind);
    PyErr_Restore(kind, raised, PyException_GetTraceback(raised));
    return -1;
}

/* Files are looked at when there is nothing else to do, and now and then while there is. */
static int core_look(struct core *core, int turns)
{
    if (core->stopping)
        return core_poll(core, 0);
    uint64_t deadline_ns = kit_sched_deadline_ns(core->s);
    if (deadline_ns == 0 && turns % 16 != 0 &&
        kit_env_now_ns(core->env) - core->polled_ns < AIO_BUSY_NS)
        return PyErr_CheckSignals();
    return core_poll(core, deadline_ns);
}

static PyObject *core_run_once(PyObject *self, PyObject *unused)
{
    struct core *core = (struct core *)self;
    (void)unused;
    if (core_check(core) == NULL)
        return NULL;
    PyObject *stopping = PyObject_GetAttr(self, name_stopping);
    Py_XDECREF(stopping); /* a bool, or a mistake */
    if (stopping == NULL)
        return NULL;
    core->stopping = stopping == Py_True;
    for (int turns = 0; turns < AIO_TURNS; turns++) {
        if (core_look(core, turns) < 0)
            return NULL;
        core_turn(core);
        if (core->entered != NULL)
            core_enter_slow(core, NULL);
        if (core->broken) {
            core_panicked(core);
            return NULL;
        }
        if (core->raised != NULL) {
            core_reraise(core);
            return NULL;
        }
        if (core->stopping)
            break;
    }
    Py_RETURN_NONE;
}

static PyObject *core_stop(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((struct core *)self)->stopping = true;
    return PyObject_SetAttr(self, name_stopping, Py_True) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *core_time(PyObject *self, PyObject *unused)
{
    struct core *core = (struct core *)self;
    (void)unused;
    if (core->env == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return NULL;
    }
    return PyFloat_FromDouble((double)kit_env_now_ns(core->env) * 1e-9);
}

static PyObject *core_get_debug(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct core *)self)->debug);
}

/* ---- life -------------------------------------------------------------------------------------
 */

/* _open(tasks, s, env, hooks, epoll, map, threads, virtual): addresses of C objects are numbers. */
static PyObject *core_open(PyObject *self, PyObject *args)
{
    struct core *core = (struct core *)self;
    unsigned long long s, env, hooks;
    PyObject *tasks, *map;
    int epoll, threads, virtual_time;
    if (!PyArg_ParseTuple(args, "OKKKiO!pp", &tasks, &s, &env, &hooks, &epoll, &PyDict_Type, &map,
                          &threads, &virtual_time))
        return NULL;
    if (core->s != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the loop is open");
        return NULL;
    }
    kit_host_bind((const struct kit_host_hooks *)(uintptr_t)hooks);
    core->hash = PyObject_Hash(self);
    core->tasks = Py_NewRef(tasks);
    core->epoll_map = Py_NewRef(map);
    core->s = (struct kit_sched *)(uintptr_t)s;
    core->env = (runtime_environment_t *)(uintptr_t)env;
    core->epoll = epoll;
    core->threads = threads;
    core->virtual_time = virtual_time;
    kit_list_init(&core->timers);
    kit_list_init(&core->bodies);
    Py_RETURN_NONE;
}

/* Drops everything that is queued, and lets go of the scheduler. */
static PyObject *core_shut(PyObject *self, PyObject *unused)
{
    struct core *core = (struct core *)self;
    (void)unused;
    if (core->s == NULL)
        Py_RETURN_NONE;
    core->closed = true;
    if (!core->broken) {
        core->draining = true;
        handles_drop(core);
        struct kit_sched *s = core->s;
        for (int i = 0; i < 100 && !core->broken && kit_sched_deadline_ns(s) == 0; i++)
            core_turn(core); /* bodies that are ready go to sleep for ever */
        tasks_drop(core);
        core->draining = false;
    }
    core->s = NULL;
    core->env = NULL;
    Py_CLEAR(core->tasks);
    Py_CLEAR(core->epoll_map);
    Py_CLEAR(core->raised);
    Py_RETURN_NONE;
}

static PyObject *core_set_debugging(PyObject *self, PyObject *value)
{
    int on = PyObject_IsTrue(value);
    if (on < 0)
        return NULL;
    ((struct core *)self)->debug = on;
    Py_RETURN_NONE;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct core *core = (struct core *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(core->tasks);
    Py_VISIT(core->raised);
    Py_VISIT(core->epoll_map);
    return 0;
}

static int core_clear(PyObject *self)
{
    struct core *core = (struct core *)self;
    Py_CLEAR(core->raised);
    if (core->s == NULL) {
        Py_CLEAR(core->tasks);
        Py_CLEAR(core->epoll_map);
    }
    return 0;
}

static void core_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct core *core = (struct core *)self;
    PyObject_GC_UnTrack(self);
    core_clear(self);
    Py_CLEAR(core->tasks);
    Py_CLEAR(core->epoll_map);
    type->tp_free(self);
    Py_DECREF(type);
}

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef core_methods[] = {
    {"call_soon", FAST(core_call_soon), NULL},
    {"call_at", FAST(core_call_at), NULL},
    {"call_later", FAST(core_call_later), NULL},
    {"create_task", FAST(core_create_task), NULL},
    {"_add_callback", core_add_callback, METH_O, NULL},
    {"time", core_time, METH_NOARGS, NULL},
    {"stop", core_stop, METH_NOARGS, NULL},
    {"get_debug", core_get_debug, METH_NOARGS, NULL},
    {"_run_once", core_run_once, METH_NOARGS, NULL},
    {"_open", core_open, METH_VARARGS, NULL},
    {"_shut", core_shut, METH_NOARGS, NULL},
    {"_set_debugging", core_set_debugging, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, PyType_GenericNew}, {Py_tp_dealloc, core_dealloc}, {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},      {Py_tp_methods, core_methods}, {0, NULL},
};

static PyType_Spec core_spec = {
    .name = "unikit.aio.Core",
    .basicsize = sizeof(struct core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_aio", .m_size = -1};

static int core_setup(PyObject *made)
{
    PyObject *c = PyImport_ImportModule("_asyncio");
    current_tasks = c ? PyObject_GetAttrString(c, "_current_tasks") : NULL;
    Py_XDECREF(c);
    name_stopping = PyUnicode_InternFromString("_stopping");
    core_type = (PyTypeObject *)PyType_FromSpec(&core_spec);
    if (current_tasks == NULL || name_stopping == NULL || core_type == NULL)
        return -1;
    return PyModule_AddObjectRef(made, "Core", (PyObject *)core_type);
}

PyMODINIT_FUNC PyInit__aio(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && (core_setup(made) < 0 || handle_setup(made) < 0 || task_setup(made) < 0))
        Py_CLEAR(made);
    return made;
}
