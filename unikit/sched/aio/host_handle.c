/* SPDX-License-Identifier: MIT */
/* Callbacks: a Handle is a work item of the scheduler, a TimerHandle a timer that posts itself as
 * work when it is due, so that the order is asyncio's: what was ready before goes first. */
#include <unikit/sched/aio/host_aio.h>

#include <math.h>
#include <structmember.h>

PyTypeObject *handle_type, *timer_handle_type;
static PyObject *name_cancelled, *name_run, *name_failed;

static struct handle *handle_of(struct kit_work *work)
{
    return KIT_CONTAINER_OF(work, struct handle, work);
}

/* ---- running ----------------------------------------------------------------------------------
 */

/* An exception is set; KeyboardInterrupt and SystemExit end the run, the rest is reported. */
static void handle_failed(struct core *core, PyObject *handle)
{
    PyObject *kind, *value, *traceback;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
        PyErr_ExceptionMatches(PyExc_SystemExit)) {
        core_interrupt(core);
        return;
    }
    PyErr_Fetch(&kind, &value, &traceback);
    PyErr_NormalizeException(&kind, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)core, name_failed, handle, value, NULL);
    if (done == NULL)
        core_interrupt(core);
    Py_XDECREF(done);
    Py_XDECREF(kind);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* asyncio's own Handle, from a transport or from debug mode: it reports errors itself. */
static PyObject *handle_run_foreign(PyObject *handle)
{
    PyObject *cancelled = PyObject_GetAttr(handle, name_cancelled);
    if (cancelled == NULL || cancelled == Py_True)
        return cancelled;
    Py_DECREF(cancelled);
    return PyObject_CallMethodNoArgs(handle, name_run);
}

static PyObject *handle_call(struct handle *handle)
{
    PyObject *result;
    if (handle->foreign)
        return handle_run_foreign(handle->callback);
    if (PyContext_Enter(handle->context) < 0)
        return NULL;
    if (handle->args == NULL)
        result = PyObject_CallNoArgs(handle->callback);
    else
        result = PyObject_Vectorcall(handle->callback, &PyTuple_GET_ITEM(handle->args, 0),
                                     (size_t)PyTuple_GET_SIZE(handle->args), NULL);
    PyObject *kind, *value, *traceback;
    if (result == NULL)
        PyErr_Fetch(&kind, &value, &traceback);
    PyContext_Exit(handle->context);
    if (result == NULL)
        PyErr_Restore(kind, value, traceback);
    return result;
}

static void handle_run(struct kit_work *work)
{
    struct handle *handle = handle_of(work);
    struct core *core = handle->core;
    if (core->raised != NULL && !core->draining) {
        kit_sched_post(core->s, work); /* the run ends: it is for the next one */
        return;
    }
    if (!core->draining && !handle->cancelled) {
        core_enter(core, NULL);
        PyObject *result = handle_call(handle);
        if (result == NULL)
            handle_failed(core, (PyObject *)handle);
        Py_XDECREF(result);
    }
    Py_DECREF(handle);
}

static void timer_handle_due(struct kit_timer *timer)
{
    struct timer_handle *self = KIT_CONTAINER_OF(timer, struct timer_handle, timer);
    kit_list_remove(&self->armed);
    kit_list_init(&self->armed);
    kit_sched_post(self->handle.core->s, &self->handle.work); /* with the timer's reference */
}

/* ---- making -----------------------------------------------------------------------------------
 */

/* The keyword `context`, the only one; NULL: none, or an error that is set. */
static PyObject *handle_context(PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    PyObject *context = NULL;
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(name, "context") != 0) {
            PyErr_Format(PyExc_TypeError, "unexpected keyword argument %R; allowed: context", name);
            return NULL;
        }
        context = args[count + i];
    }
    return context == Py_None ? NULL : context;
}

static int handle_fill(struct handle *handle, struct core *core, PyObject *const *args,
                       Py_ssize_t count, PyObject *context)
{
    handle->core = (struct core *)Py_NewRef((PyObject *)core);
    handle->work = (struct kit_work){.run = handle_run};
    handle->callback = Py_NewRef(args[0]);
    handle->args = NULL;
    handle->weakrefs = NULL;
    handle->cancelled = handle->foreign = false;
    handle->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (count > 1) {
        handle->args = PyTuple_New(count - 1);
        for (Py_ssize_t i = 1; handle->args != NULL && i < count; i++)
            PyTuple_SET_ITEM(handle->args, i - 1, Py_NewRef(args[i]));
    }
    return handle->context == NULL || (count > 1 && handle->args == NULL) ? -1 : 0;
}

static PyObject *core_slowly(struct core *core, const char *method, PyObject *const *args,
                             Py_ssize_t count, PyObject *kwnames)
{
    PyObject *function = PyObject_GetAttrString((PyObject *)core, method);
    PyObject *result =
        function ? PyObject_Vectorcall(function, args, (size_t)count, kwnames) : NULL;
    Py_XDECREF(function);
    return result;
}

PyObject *core_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    struct core *core = (struct core *)self;
    if (core_check(core) == NULL)
        return NULL;
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "call_soon() misses the callback");
        return NULL;
    }
    if (Py_IS_TYPE(args[0], wakeup_type)) { /* from a future: no handle is asked for */
        task_wake(args[0]);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    if (core->debug)
        return core_slowly(core, "_call_soon_debug", args, count, kwnames);
    PyObject *context = handle_context(args, count, kwnames);
    if (context == NULL && PyErr_Occurred())
        return NULL;
    struct handle *handle = PyObject_GC_New(struct handle, handle_type);
    if (handle == NULL)
        return NULL;
    int rc = handle_fill(handle, core, args, count, context);
    PyObject_GC_Track((PyObject *)handle);
    if (rc < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    Py_INCREF(handle); /* the queue's */
    kit_sched_post(core->s, &handle->work);
    return (PyObject *)handle;
}

static PyObject *timer_handle_make(struct core *core, double when, PyObject *const *args,
                                   Py_ssize_t count, PyObject *kwnames)
{
    PyObject *context = handle_context(args, count, kwnames);
    if (context == NULL && PyErr_Occurred())
        return NULL;
    struct timer_handle *timer = PyObject_GC_New(struct timer_handle, timer_handle_type);
    if (timer == NULL)
        return NULL;
    int rc = handle_fill(&timer->handle, core, args, count, context);
    timer->timer = (struct kit_timer){.run = timer_handle_due};
    timer->when = when;
    kit_list_init(&timer->armed);
    PyObject_GC_Track((PyObject *)timer);
    double ns = ceil(when * 1e9);
    uint64_t deadline_ns = ns <= 0 ? 0 : ns >= 9e18 ? KIT_NEVER - 1 : (uint64_t)ns;
    if (rc == 0 && kit_sched_arm(core->s, &timer->timer, deadline_ns) != 0) {
        PyErr_NoMemory();
        rc = -1;
    }
    if (rc < 0) {
        Py_DECREF(timer);
        return NULL;
    }
    kit_list_push_back(&core->timers, &timer->armed);
    Py_INCREF(timer); /* the scheduler's */
    return (PyObject *)timer;
}

/* call_at and call_later: `base` is added to the time. */
static PyObject *core_call_timed(struct core *core, double base, const char *name,
                                 PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    if (core_check(core) == NULL)
        return NULL;
    if (count < 2 || args[0] == Py_None) {
        PyErr_Format(PyExc_TypeError,
                     count < 2 ? "%s() misses the time or the callback"
                               : "%s(): the time cannot be None",
                     name);
        return NULL;
    }
    double when = PyFloat_AsDouble(args[0]);
    if (when == -1.0 && PyErr_Occurred())
        return NULL;
    if (isnan(when)) {
        PyErr_Format(PyExc_ValueError, "%s(): the time is not a number", name);
        return NULL;
    }
    if (!core->debug)
        return timer_handle_make(core, base + when, args + 1, count - 1, kwnames);
    PyObject *time = PyFloat_FromDouble(base + when);
    PyObject **again = time ? PyMem_Malloc(sizeof(*again) * (size_t)(count + 2)) : NULL;
    PyObject *result = NULL;
    if (again != NULL) {
        Py_ssize_t more = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
        memcpy(again, args, sizeof(*again) * (size_t)(count + (more < 2 ? more : 2)));
        again[0] = time;
        result = core_slowly(core, "_call_at_debug", again, count, kwnames);
    }
    PyMem_Free(again);
    Py_XDECREF(time);
    return result;
}

PyObject *core_call_at(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    return core_call_timed((struct core *)self, 0, "call_at", args, count, kwnames);
}

PyObject *core_call_later(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *kwnames)
{
    struct core *core = (struct core *)self;
    double now = core->env ? (double)kit_env_now_ns(core->env) * 1e-9 : 0;
    return core_call_timed(core, now, "call_later", args, count, kwnames);
}

/* Takes over asyncio's own Handle. */
PyObject *core_add_callback(PyObject *self, PyObject *foreign)
{
    struct core *core = (struct core *)self;
    if (core->closed || core->s == NULL)
        Py_RETURN_NONE;
    struct handle *handle = PyObject_GC_New(struct handle, handle_type);
    if (handle == NULL)
        return NULL;
    handle->core = (struct core *)Py_NewRef(self);
    handle->work = (struct kit_work){.run = handle_run};
    handle->callback = Py_NewRef(foreign);
    handle->args = handle->context = handle->weakrefs = NULL;
    handle->cancelled = false;
    handle->foreign = true;
    PyObject_GC_Track((PyObject *)handle);
    kit_sched_post(core->s, &handle->work); /* with the only reference */
    Py_RETURN_NONE;
}

/* ---- the types --------------------------------------------------------------------------------
 */

static int handle_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct handle *self = (struct handle *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->core);
    Py_VISIT(self->callback);
    Py_VISIT(self->args);
    Py_VISIT(self->context);
    return 0;
}

static int handle_clear(PyObject *object)
{
    struct handle *self = (struct handle *)object;
    Py_CLEAR(self->callback);
    Py_CLEAR(self->args);
    Py_CLEAR(self->context);
    return 0;
}

static void handle_dealloc(PyObject *object)
{
    struct handle *self = (struct handle *)object;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(object);
    handle_clear(object);
    Py_CLEAR(self->core);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *handle_cancel(PyObject *object, PyObject *unused)
{
    struct handle *self = (struct handle *)object;
    struct core *core = self->core;
    (void)unused;
    if (self->cancelled)
        Py_RETURN_NONE;
    self->cancelled = true;
    bool queued = core->s != NULL && kit_sched_cancel_work(core->s, &self->work);
    if (Py_IS_TYPE(object, timer_handle_type)) {
        struct timer_handle *timer = (struct timer_handle *)self;
        if (core->s != NULL && kit_sched_cancel(core->s, &timer->timer)) {
            kit_list_remove(&timer->armed);
            queued = true;
        }
    }
    handle_clear(object);
    if (queued)
        Py_DECREF(object);
    Py_RETURN_NONE;
}

static PyObject *handle_cancelled(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct handle *)object)->cancelled);
}

static PyObject *handle_get_context(PyObject *object, PyObject *unused)
{
    struct handle *self = (struct handle *)object;
    (void)unused;
    return Py_NewRef(self->context ? self->context : Py_None);
}

static PyObject *handle_get_args(PyObject *object, void *closure)
{
    struct handle *self = (struct handle *)object;
    (void)closure;
    if (self->callback == NULL)
        Py_RETURN_NONE;
    return self->args ? Py_NewRef(self->args) : PyTuple_New(0);
}

static PyObject *handle_run_now(PyObject *object, PyObject *unused)
{
    struct handle *self = (struct handle *)object;
    (void)unused;
    if (self->callback == NULL)
        Py_RETURN_NONE;
    PyObject *result = handle_call(self);
    if (result == NULL)
        handle_failed(self->core, object);
    Py_XDECREF(result);
    if (self->core->raised == NULL)
        Py_RETURN_NONE;
    PyObject *raised = self->core->raised;
    self->core->raised = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
    Py_DECREF(raised);
    return NULL;
}

static PyObject *handle_repr(PyObject *object)
{
    struct handle *self = (struct handle *)object;
    if (self->cancelled)
        return PyUnicode_FromFormat("<%s cancelled>", Py_TYPE(self)->tp_name);
    return PyUnicode_FromFormat("<%s %R>", Py_TYPE(self)->tp_name,
                                self->callback ? self->callback : Py_None);
}

static PyObject *timer_handle_when(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyFloat_FromDouble(((struct timer_handle *)object)->when);
}

static PyObject *timer_handle_compare(PyObject *a, PyObject *b, int op)
{
    if (!Py_IS_TYPE(b, timer_handle_type))
        Py_RETURN_NOTIMPLEMENTED;
    if (op == Py_EQ || op == Py_NE)
        return PyBool_FromLong((a == b) == (op == Py_EQ));
    double x = ((struct timer_handle *)a)->when, y = ((struct timer_handle *)b)->when;
    Py_RETURN_RICHCOMPARE(x, y, op);
}

static Py_hash_t timer_handle_hash(PyObject *object)
{
    return _Py_HashPointer(object);
}

static PyMethodDef handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, NULL},
    {"cancelled", handle_cancelled, METH_NOARGS, NULL},
    {"get_context", handle_get_context, METH_NOARGS, NULL},
    {"_run", handle_run_now, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef handle_properties[] = {
    {"_args", handle_get_args, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef handle_members[] = {
    {"_callback", T_OBJECT, offsetof(struct handle, callback), READONLY, NULL},
    {"_context", T_OBJECT, offsetof(struct handle, context), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(struct handle, core), READONLY, NULL},
    {"_cancelled", T_BOOL, offsetof(struct handle, cancelled), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_dealloc, handle_dealloc}, {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},     {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods}, {Py_tp_getset, handle_properties},
    {Py_tp_members, handle_members}, {0, NULL},
};

static PyMethodDef timer_handle_methods[] = {
    {"when", timer_handle_when, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_handle_slots[] = {
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_methods, timer_handle_methods},
    {Py_tp_richcompare, timer_handle_compare},
    {Py_tp_hash, timer_handle_hash},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "unikit.aio.Handle",
    .basicsize = sizeof(struct handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

static PyType_Spec timer_handle_spec = {
    .name = "unikit.aio.TimerHandle",
    .basicsize = sizeof(struct timer_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_handle_slots,
};

/* The loop closes: what is queued or armed is dropped. */
void handles_drop(struct core *core)
{
    while (!kit_list_empty(&core->timers)) {
        struct timer_handle *timer =
            KIT_CONTAINER_OF(core->timers.next, struct timer_handle, armed);
        kit_sched_cancel(core->s, &timer->timer);
        kit_list_remove(&timer->armed);
        kit_list_init(&timer->armed);
        Py_DECREF(timer);
    }
}

int handle_setup(PyObject *module)
{
    name_cancelled = PyUnicode_InternFromString("_cancelled");
    name_run = PyUnicode_InternFromString("_run");
    name_failed = PyUnicode_InternFromString("_callback_failed");
    handle_type = (PyTypeObject *)PyType_FromSpec(&handle_spec);
    if (name_cancelled == NULL || name_run == NULL || name_failed == NULL || handle_type == NULL)
        return -1;
    timer_handle_type =
        (PyTypeObject *)PyType_FromSpecWithBases(&timer_handle_spec, (PyObject *)handle_type);
    if (timer_handle_type == NULL)
        return -1;
    return PyModule_AddObjectRef(module, "Handle", (PyObject *)handle_type) < 0 ||
                   PyModule_AddObjectRef(module, "TimerHandle", (PyObject *)timer_handle_type) < 0
               ? -1
               : 0;
}
