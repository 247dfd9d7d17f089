/* SPDX-License-Identifier: MIT */
/* The type of tasks: its attributes, its life, and what it is made of. */
#include <unikit/sched/aio/host_task.h>

PyTypeObject *task_type, *task_base, *future_type;
size_t task_offset;
struct task_constants task_constants;

/* ---- methods ----------------------------------------------------------------------------------
 */

static PyObject *task_get_coro(PyObject *self, PyObject *unused)
{
    PyObject *coro = task_of(self)->coro;
    (void)unused;
    return Py_NewRef(coro ? coro : Py_None);
}

static PyObject *task_get_context(PyObject *self, PyObject *unused)
{
    PyObject *context = task_of(self)->context;
    (void)unused;
    return Py_NewRef(context ? context : Py_None);
}

static PyObject *task_get_name(PyObject *self, PyObject *unused)
{
    struct task *task = task_of(self);
    (void)unused;
    if (task->name == NULL)
        task->name = PyUnicode_FromFormat("Task-%llu", (unsigned long long)task->number);
    return Py_XNewRef(task->name);
}

static PyObject *task_set_name(PyObject *self, PyObject *value)
{
    PyObject *name = PyUnicode_CheckExact(value) ? Py_NewRef(value) : PyObject_Str(value);
    if (name == NULL)
        return NULL;
    Py_XSETREF(task_of(self)->name, name);
    Py_RETURN_NONE;
}

/* A Share as C has it: its attribute `_c` is the struct's bytes. */
int task_share(PyObject *share, struct kit_task_share *out)
{
    PyObject *bytes = PyObject_CallMethod(share, "_bytes", NULL);
    if (bytes == NULL)
        return -1;
    if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != (Py_ssize_t)sizeof(*out)) {
        Py_DECREF(bytes);
        PyErr_SetString(PyExc_TypeError, "share: give a unikit.sched.Share");
        return -1;
    }
    memcpy(out, PyBytes_AS_STRING(bytes), sizeof(*out));
    Py_DECREF(bytes);
    return 0;
}

static int task_guarded_set_share(struct task *task, const struct kit_task_share *share)
{
    struct core *core = task->core;
    int rc;
    KIT_GUARDED(rc = kit_sched_set_share(core->s, task->body, share), core->broken = true;
                return KIT_EPANIC);
    return rc;
}

/* set_share(share): what the task gets of the processor from now on. */
static PyObject *task_set_share(PyObject *self, PyObject *share)
{
    struct task *task = task_of(self);
    struct core *core = task->core;
    struct kit_task_share fields;
    if (task_share(share, &fields) < 0)
        return NULL;
    if (task->body != NULL && core->s != NULL) {
        int rc = task_guarded_set_share(task, &fields);
        if (core->broken) {
            core_panicked(core);
            return NULL;
        }
        if (rc != 0 && rc != KIT_ENOTSUP) /* a policy without shares ignores them */
            return PyObject_CallMethod((PyObject *)core, "_refused", "i", rc);
    }
    task->share = fields;
    Py_RETURN_NONE;
}

static PyObject *task_get_waits(PyObject *self, void *closure)
{
    PyObject *waits = task_of(self)->waits;
    (void)closure;
    return Py_NewRef(waits ? waits : Py_None);
}

static PyObject *task_get_must_cancel(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(task_of(self)->must_cancel);
}

static PyObject *task_get_coro_attribute(PyObject *self, void *closure)
{
    (void)closure;
    return task_get_coro(self, NULL);
}

static PyObject *task_get_log(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(task_of(self)->log_destroy);
}

static int task_set_log(PyObject *self, PyObject *value, void *closure)
{
    int on = value ? PyObject_IsTrue(value) : -1;
    (void)closure;
    if (on < 0)
        return -1;
    task_of(self)->log_destroy = on;
    return 0;
}

/* ---- its life */

static int task_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct task *task = task_of(self);
    if (!(task_base->tp_flags & Py_TPFLAGS_HEAPTYPE))
        Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)task->core);
    Py_VISIT(task->coro);
    Py_VISIT(task->context);
    Py_VISIT(task->name);
    Py_VISIT(task->waits);
    Py_VISIT(task->cancel_message);
    Py_VISIT(task->thrown);
    return task_base->tp_traverse(self, visit, arg);
}

static int task_clear(PyObject *self)
{
    struct task *task = task_of(self);
    Py_CLEAR(task->coro);
    Py_CLEAR(task->context);
    Py_CLEAR(task->name);
    Py_CLEAR(task->waits);
    Py_CLEAR(task->cancel_message);
    Py_CLEAR(task->thrown);
    return task_base->tp_clear(self);
}

static void task_finalize(PyObject *self)
{
    struct task *task = task_of(self);
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    if (task->core != NULL && !task->finished && task->log_destroy) {
        PyObject *details = Py_BuildValue("{sOss}", "task", self, "message",
                                          "Task was destroyed but it is pending!");
        PyObject *source = PyObject_GetAttrString(self, "_source_traceback");
        if (details != NULL && source != NULL && source != Py_None)
            PyDict_SetItemString(details, "source_traceback", source);
        PyObject *done = details ? PyObject_CallMethodOneArg((PyObject *)task->core,
                                                             task_constants.handler, details)
                                 : NULL;
        if (done == NULL)
            PyErr_WriteUnraisable(self);
        Py_XDECREF(done);
        Py_XDECREF(source);
        Py_XDECREF(details);
    }
    PyErr_Restore(kind, value, traceback);
    if (task_base->tp_finalize != NULL)
        task_base->tp_finalize(self);
}

static void task_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    task_clear(self);
    Py_CLEAR(task_of(self)->core);
    task_base->tp_dealloc(self);
    if (!(task_base->tp_flags & Py_TPFLAGS_HEAPTYPE))
        Py_DECREF(type);
}

static PyMethodDef task_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))task_cancel, METH_VARARGS | METH_KEYWORDS, NULL},
    {"cancelling", task_cancelling, METH_NOARGS, NULL},
    {"uncancel", task_uncancel, METH_NOARGS, NULL},
    {"get_coro", task_get_coro, METH_NOARGS, NULL},
    {"get_context", task_get_context, METH_NOARGS, NULL},
    {"get_name", task_get_name, METH_NOARGS, NULL},
    {"set_name", task_set_name, METH_O, NULL},
    {"set_share", task_set_share, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef task_properties[] = {
    {"_coro", task_get_coro_attribute, NULL, NULL, NULL},
    {"_fut_waiter", task_get_waits, NULL, NULL, NULL},
    {"_must_cancel", task_get_must_cancel, NULL, NULL, NULL},
    {"_log_destroy_pending", task_get_log, task_set_log, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_init, task_init},         {Py_tp_dealloc, task_dealloc},
    {Py_tp_finalize, task_finalize}, {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},       {Py_tp_methods, task_methods},
    {Py_tp_getset, task_properties}, {0, NULL},
};

static PyType_Spec task_spec = {
    .name = "unikit.aio.Task",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = task_slots,
};

/* The loop closes: bodies go with the scheduler. */
void tasks_drop(struct core *core)
{
    while (!kit_list_empty(&core->bodies)) {
        struct task *task = KIT_CONTAINER_OF(core->bodies.next, struct task, bodies);
        kit_list_remove(&task->bodies);
        kit_list_init(&task->bodies);
        task->body = NULL;
        Py_DECREF(task->self);
    }
}

static int task_names(void)
{
    struct task_constants *all = &task_constants;
    const struct {
        PyObject **where;
        const char *text;
    } names[] = {
        {&all->blocking, "_asyncio_future_blocking"},
        {&all->cancel, "cancel"},
        {&all->add_done_callback, "add_done_callback"},
        {&all->get_loop, "get_loop"},
        {&all->loop, "_loop"},
        {&all->result, "result"},
        {&all->keyword, "loop"},
        {&all->set_exception, "set_exception"},
        {&all->set_result, "set_result"},
        {&all->throw, "throw"},
        {&all->factory, "_task_factory"},
        {&all->handler, "call_exception_handler"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *names[i].where = PyUnicode_InternFromString(names[i].text);
        if (*names[i].where == NULL)
            return -1;
    }
    all->msg_keyword = Py_BuildValue("(N)", PyUnicode_InternFromString("msg"));
    all->context_keyword = Py_BuildValue("(N)", PyUnicode_InternFromString("context"));
    return all->msg_keyword && all->context_keyword ? 0 : -1;
}

/* What asyncio has. */
static int task_parts(void)
{
    struct task_constants *all = &task_constants;
    PyObject *asyncio = PyImport_ImportModule("asyncio"), *c = PyImport_ImportModule("_asyncio");
    if (asyncio == NULL || c == NULL)
        return -1;
    task_base = (PyTypeObject *)PyObject_GetAttrString(c, "Task");
    future_type = (PyTypeObject *)PyObject_GetAttrString(c, "Future");
    all->register_task = PyObject_GetAttrString(c, "_register_task");
    all->cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
    all->iscoroutine = PyObject_GetAttrString(asyncio, "iscoroutine");
    Py_DECREF(asyncio);
    Py_DECREF(c);
    if (!task_base || !future_type || !all->register_task || !all->cancelled_error ||
        !all->iscoroutine)
        return -1;
    all->future_cancel = PyObject_GetAttr((PyObject *)future_type, all->cancel);
    all->future_set_result = PyObject_GetAttr((PyObject *)future_type, all->set_result);
    all->future_set_exception = PyObject_GetAttr((PyObject *)future_type, all->set_exception);
    return all->future_cancel && all->future_set_result && all->future_set_exception ? 0 : -1;
}

int task_setup(PyObject *module)
{
    if (task_names() < 0 || task_parts() < 0 || wakeup_setup() < 0 || cancel_setup() < 0)
        return -1;
    task_offset = ((size_t)task_base->tp_basicsize + 15) & ~(size_t)15;
    task_spec.basicsize = (int)(task_offset + sizeof(struct task));
    task_type = (PyTypeObject *)PyType_FromSpecWithBases(&task_spec, (PyObject *)task_base);
    return task_type ? PyModule_AddObjectRef(module, "Task", (PyObject *)task_type) : -1;
}
