/* SPDX-License-Identifier: MIT */
/* Making tasks: by the loop's create_task(), or as asyncio.Task is called. */
#include <unikit/sched/aio/host_task.h>

/* It may ask a policy in Python: a panic is noted in `broken`. */
static int task_guarded_spawn(struct core *core, const struct kit_task_spec *spec,
                              struct kit_task **out)
{
    int rc;
    KIT_GUARDED(rc = kit_sched_spawn(core->s, spec, out), core->broken = true; return KIT_EPANIC);
    return rc;
}

/* Fills a new object. 0 or -1. */
static int task_fill(PyObject *self, struct core *core, PyObject *coro, PyObject *name,
                     PyObject *context, const struct kit_task_share *share)
{
    struct task *task = task_of(self);
    task->self = self;
    kit_list_init(&task->bodies);
    PyObject *empty = PyTuple_New(0), *kwargs = PyDict_New();
    int rc =
        empty && kwargs ? PyDict_SetItem(kwargs, task_constants.keyword, (PyObject *)core) : -1;
    if (rc == 0)
        rc = future_type->tp_init(self, empty, kwargs);
    Py_XDECREF(empty);
    Py_XDECREF(kwargs);
    if (rc < 0)
        return -1;
    if (!PyCoro_CheckExact(coro)) {
        PyObject *found = PyObject_CallOneArg(task_constants.iscoroutine, coro);
        int good = found ? PyObject_IsTrue(found) : -1;
        Py_XDECREF(found);
        if (good == 0)
            PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
        if (good <= 0)
            return -1;
    }
    task->work = (struct kit_work){.run = task_run};
    task->core = (struct core *)Py_NewRef((PyObject *)core);
    task->coro = Py_NewRef(coro);
    task->send = PyCoro_CheckExact(coro) ? Py_TYPE(coro)->tp_as_async->am_send : NULL;
    task->context = context ? Py_NewRef(context) : PyContext_CopyCurrent();
    task->number = ++core->task_names;
    if (name != NULL) {
        task->name = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
        if (task->name == NULL)
            return -1;
    }
    if (task->context == NULL)
        return -1;
    if (share != NULL)
        task->share = *share;
    PyObject *done = PyObject_CallOneArg(task_constants.register_task, self);
    Py_XDECREF(done);
    if (done == NULL)
        return -1;
    task->log_destroy = true;
    return 0;
}

/* Starts a filled one: 0 or -1. */
static int task_begin(struct task *task)
{
    struct core *core = task->core;
    if (!core->threads) {
        task_post(task);
        return 0;
    }
    const struct kit_task_spec spec = {.entry = task_live,
                                       .argument = task,
                                       .name = "asyncio",
                                       .flags = KIT_TASK_DETACHED,
                                       .share = &task->share};
    struct kit_task *body = NULL;
    int rc = task_guarded_spawn(core, &spec, &body);
    if (rc != 0) {
        task->log_destroy = false;
        PyObject *done = core->broken ? (core_panicked(core), NULL)
                                      : PyObject_CallMethod((PyObject *)core, "_refused", "i", rc);
        Py_XDECREF(done);
        return -1;
    }
    task->body = body;
    Py_INCREF(task->self); /* the body's */
    kit_list_push_back(&core->bodies, &task->bodies);
    return 0;
}

static PyObject *task_create(struct core *core, PyObject *coro, PyObject *name, PyObject *context,
                             PyObject *share)
{
    struct kit_task_share fields = {0};
    if (share != NULL && share != Py_None && task_share(share, &fields) < 0)
        return NULL;
    PyObject *self = task_type->tp_alloc(task_type, 0);
    if (self == NULL)
        return NULL;
    if (task_fill(self, core, coro, name == Py_None ? NULL : name,
                  context == Py_None ? NULL : context, &fields) < 0 ||
        task_begin(task_of(self)) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

PyObject *core_create_task(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *kwnames)
{
    struct core *core = (struct core *)self;
    PyObject *name = NULL, *context = NULL, *share = NULL;
    if (core_check(core) == NULL)
        return NULL;
    PyObject *factory = PyObject_GetAttr(self, task_constants.factory);
    Py_XDECREF(factory); /* the loop keeps it */
    if (factory == NULL)
        return NULL;
    if (factory != Py_None) {
        PyObject *method = PyObject_GetAttrString(self, "_create_by_factory");
        PyObject *made = method ? PyObject_Vectorcall(method, args, (size_t)count, kwnames) : NULL;
        Py_XDECREF(method);
        return made;
    }
    if (count != 1) {
        PyErr_SetString(PyExc_TypeError, "create_task() takes one coroutine");
        return NULL;
    }
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i), *value = args[count + i];
        if (PyUnicode_CompareWithASCIIString(key, "name") == 0)
            name = value;
        else if (PyUnicode_CompareWithASCIIString(key, "context") == 0)
            context = value;
        else if (PyUnicode_CompareWithASCIIString(key, "share") == 0)
            share = value;
        else {
            PyErr_Format(PyExc_TypeError, "create_task() has no argument %R", key);
            return NULL;
        }
    }
    return task_create(core, args[0], name, context, share);
}

int task_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"coro", "loop", "name", "context", NULL};
    PyObject *coro, *loop, *name = NULL, *context = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O$O!|OO:Task", names, &coro, core_type, &loop,
                                     &name, &context))
        return -1;
    if (task_of(self)->core != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a task is made once");
        return -1;
    }
    if (core_check((struct core *)loop) == NULL ||
        task_fill(self, (struct core *)loop, coro, name == Py_None ? NULL : name,
                  context == Py_None ? NULL : context, NULL) < 0)
        return -1;
    return task_begin(task_of(self));
}
