/* SPDX-License-Identifier: MIT */
/* Tasks. The type derives from CPython's asyncio.Task, so that it is one; of that only the Future
 * is used: result, callbacks, waiting. Stepping, cancelling and naming are done here, on fields of
 * its own behind the base's, whose layout nobody needs to know.
 *
 * A task that goes on is a work item of the scheduler; where the scheduler has threads it is a task
 * of the scheduler (its body), which waits in block() and whose share counts. The body's own stack
 * carries nothing but that: each step of the coroutine runs on the loop's stack.
 *
 * Source: PEP 3156; the documentation of asyncio.Task; Lib/asyncio/tasks.py says the same in
 * Python. */
#include <unikit/sched/aio/host_aio.h>

PyTypeObject *task_type, *wakeup_type;
static PyTypeObject *task_base, *future_type;
static size_t task_offset;
static PyObject *cancelled_error, *iscoroutine, *register_task;
static PyObject *name_blocking, *name_add_done_callback, *name_cancel, *name_context,
    *name_get_loop, *name_keyword, *name_loop, *name_msg, *name_result, *name_set_exception,
    *name_set_result, *name_throw, *name_factory, *name_handler;
static PyObject *future_cancel, *future_set_result, *future_set_exception;

/* What a step needs stands together. */
struct task {
    struct kit_work work;
    PyObject *self; /* the object it is part of; borrowed */
    struct core *core;
    PyObject *coro;
    sendfunc send; /* a coroutine's own; NULL: it is something like one */
    PyObject *context;
    PyObject *waits;  /* for this future */
    PyObject *thrown; /* at the next step */
    bool must_cancel;
    bool finished;
    bool look;  /* at the result of what it waited for: it is not asyncio's own */
    bool again; /* it goes on without waiting */
    bool log_destroy;
    int cancels;
    struct kit_task *body;
    struct kit_list bodies; /* in core->bodies */
    PyObject *name;         /* NULL: by number */
    PyObject *cancel_message;
    struct kit_task_share share;
    uint64_t number;
};

struct wakeup {
    PyObject_HEAD PyObject *task;
};

static struct task *task_of(PyObject *self)
{
    return (struct task *)(void *)((char *)self + task_offset);
}

/* ---- going on ---------------------------------------------------------------------------------
 */

static void task_step(struct task *task, PyObject *error);

/* Operations that may ask a policy in Python: a panic of theirs is noted in `broken`. */
static int task_guarded_spawn(struct core *core, const struct kit_task_spec *spec,
                              struct kit_task **out)
{
    int rc;
    KIT_GUARDED(rc = kit_sched_spawn(core->s, spec, out), core->broken = true; return KIT_EPANIC);
    return rc;
}

static int task_guarded_set_share(struct task *task, const struct kit_task_share *share)
{
    struct core *core = task->core;
    int rc;
    KIT_GUARDED(rc = kit_sched_set_share(core->s, task->body, share), core->broken = true;
                return KIT_EPANIC);
    return rc;
}

static void task_guarded_wake(struct task *task)
{
    KIT_GUARDED(kit_sched_wake(task->core->s, task->body), task->core->broken = true; return );
}

static void task_post(struct task *task)
{
    struct core *core = task->core;
    if (core->s == NULL)
        return;
    if (task->body != NULL) {
        task_guarded_wake(task);
        return;
    }
    if (task->work.queued)
        return;
    Py_INCREF(task->self); /* the queue's */
    kit_sched_post(core->s, &task->work);
}

void task_wake(PyObject *object)
{
    struct wakeup *wakeup = (struct wakeup *)object;
    if (wakeup->task != NULL)
        task_post(task_of(wakeup->task));
}

static void task_run(struct kit_work *work)
{
    struct task *task = KIT_CONTAINER_OF(work, struct task, work);
    PyObject *self = task->self;
    struct core *core = task->core;
    if (core->raised != NULL && !core->draining) {
        kit_sched_post(core->s, work);
        return;
    }
    if (!core->draining) {
        task_step(task, NULL);
        if (task->again) {
            task->again = false;
            kit_sched_post(core->s, work); /* with the queue's reference */
            return;
        }
    }
    Py_DECREF(self);
}

static void task_step_on_host(void *argument)
{
    struct task *task = argument;
    struct core *core = task->core;
    task->again = core->raised != NULL && !core->draining;
    if (!task->again && !core->draining)
        task_step(task, NULL);
}

static void task_leave_on_host(void *argument)
{
    struct task *task = argument;
    kit_list_remove(&task->bodies);
    task->body = NULL;
    Py_DECREF(task->self);
}

/* The body: it holds a reference until it ends. */
static void task_live(void *argument)
{
    struct task *task = argument;
    struct core *core = task->core;
    while (!task->finished) {
        core_on_host(core, task_step_on_host, task);
        if (task->again)
            kit_sched_yield(core->s);
        else if (!task->finished)
            kit_sched_block(core->s, KIT_NEVER);
    }
    core_on_host(core, task_leave_on_host, task);
}

/* ---- one step ---------------------------------------------------------------------------------
 */

/* Calls one of Future's own methods, which Task's hide. */
static void task_settle(struct task *task, PyObject *method, PyObject *value)
{
    PyObject *args[2] = {task->self, value};
    PyObject *done = PyObject_Vectorcall(method, args, 2, NULL);
    if (done == NULL)
        PyErr_WriteUnraisable(task->self);
    Py_XDECREF(done);
    task->finished = true;
    Py_CLEAR(task->waits);
}

static void task_settle_cancelled(struct task *task, PyObject *message)
{
    PyObject *args[2] = {task->self, message ? message : Py_None};
    PyObject *names = PyTuple_Pack(1, name_msg);
    PyObject *done = names ? PyObject_Vectorcall(future_cancel, args, 1, names) : NULL;
    if (done == NULL)
        PyErr_WriteUnraisable(task->self);
    Py_XDECREF(names);
    Py_XDECREF(done);
    task->finished = true;
    Py_CLEAR(task->waits);
}

/* The coroutine has raised. */
static void task_failed(struct task *task)
{
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    PyErr_NormalizeException(&kind, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    if (PyErr_GivenExceptionMatches(kind, cancelled_error)) {
        PyObject *arguments = PyObject_GetAttrString(value, "args"), *message = NULL;
        if (arguments != NULL && PyTuple_GET_SIZE(arguments) > 0)
            message = PyTuple_GET_ITEM(arguments, 0);
        PyErr_Clear();
        task_settle_cancelled(task, message);
        Py_XDECREF(arguments);
    } else {
        task_settle(task, future_set_exception, value);
        if (PyErr_GivenExceptionMatches(kind, PyExc_KeyboardInterrupt) ||
            PyErr_GivenExceptionMatches(kind, PyExc_SystemExit)) {
            PyErr_Restore(kind, value, traceback);
            core_interrupt(task->core);
            return;
        }
    }
    Py_XDECREF(kind);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* The next step raises this in the coroutine; the error is set. */
static void task_blame(struct task *task)
{
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    PyErr_NormalizeException(&kind, &value, &traceback);
    Py_XDECREF(kind);
    Py_XDECREF(traceback);
    Py_XSETREF(task->thrown, value);
    task->again = true;
}

static int task_subscribe(struct task *task, PyObject *future)
{
    struct wakeup *wakeup = PyObject_GC_New(struct wakeup, wakeup_type);
    if (wakeup == NULL)
        return -1;
    wakeup->task = Py_NewRef(task->self);
    PyObject_GC_Track((PyObject *)wakeup);
    PyObject *args[3] = {future, (PyObject *)wakeup, task->context};
    static PyObject *names;
    if (names == NULL)
        names = PyTuple_Pack(1, name_context);
    PyObject *done = PyObject_VectorcallMethod(name_add_done_callback, args, 2, names);
    Py_DECREF(wakeup);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* A request to cancel that came while it ran reaches what it waits for now. */
static int task_pass_cancel(struct task *task, PyObject *future)
{
    PyObject *args[2] = {future, task->cancel_message ? task->cancel_message : Py_None};
    PyObject *names = PyTuple_Pack(1, name_msg);
    PyObject *done = names ? PyObject_VectorcallMethod(name_cancel, args, 1, names) : NULL;
    Py_XDECREF(names);
    if (done == NULL)
        return -1;
    if (PyObject_IsTrue(done) == 1)
        task->must_cancel = false;
    Py_DECREF(done);
    return 0;
}

static int task_wait(struct task *task, PyObject *future)
{
    if (future == task->self) {
        PyErr_Format(PyExc_RuntimeError, "Task cannot await on itself: %R", task->self);
        return -1;
    }
    PyObject *loop = PyObject_CallMethodNoArgs(future, name_get_loop);
    if (loop == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        loop = PyObject_GetAttr(future, name_loop);
    }
    if (loop == NULL)
        return -1;
    Py_DECREF(loop);
    if (loop != (PyObject *)task->core) {
        PyErr_Format(PyExc_RuntimeError, "Task %R got Future %R attached to a different loop",
                     task->self, future);
        return -1;
    }
    if (PyObject_SetAttr(future, name_blocking, Py_False) < 0 || task_subscribe(task, future) < 0)
        return -1;
    task->look = !Py_IS_TYPE(future, future_type) && !Py_IS_TYPE(future, task_type) &&
                 !Py_IS_TYPE(future, task_base);
    Py_XSETREF(task->waits, Py_NewRef(future));
    return task->must_cancel ? task_pass_cancel(task, future) : 0;
}

/* The coroutine has yielded. */
static void task_yielded(struct task *task, PyObject *result)
{
    if (result == Py_None) {
        task->again = true;
        return;
    }
    PyObject *blocking = NULL;
    if (PyObject_GetOptionalAttr(result, name_blocking, &blocking) < 0 && blocking == NULL) {
        task_blame(task);
        return;
    }
    bool future = blocking != NULL && blocking != Py_None;
    int waits = future ? PyObject_IsTrue(blocking) : 0;
    Py_XDECREF(blocking);
    if (waits > 0) {
        if (task_wait(task, result) < 0)
            task_blame(task);
        return;
    }
    if (future)
        PyErr_Format(PyExc_RuntimeError, "yield was used instead of yield from in task %R with %R",
                     task->self, result);
    else if (PyGen_CheckExact(result))
        PyErr_Format(PyExc_RuntimeError,
                     "yield was used instead of yield from for generator in task %R with %R",
                     task->self, result);
    else
        PyErr_Format(PyExc_RuntimeError, "Task got bad yield: %R", result);
    task_blame(task);
}

static PySendResult task_send(struct task *task, PyObject *error, PyObject **result)
{
    if (error == NULL)
        return task->send != NULL ? task->send(task->coro, Py_None, result)
                                  : PyIter_Send(task->coro, Py_None, result);
    *result = PyObject_CallMethodOneArg(task->coro, name_throw, error);
    if (*result != NULL)
        return PYGEN_NEXT;
    return _PyGen_FetchStopIterationValue(result) == 0 ? PYGEN_RETURN : PYGEN_ERROR;
}

/* What the step throws in, instead of going on; a new reference or NULL. */
static PyObject *task_take_error(struct task *task, PyObject *error)
{
    if (error != NULL)
        Py_INCREF(error);
    else if (task->thrown != NULL) {
        error = task->thrown;
        task->thrown = NULL;
    } else if (task->look && task->waits != NULL) {
        PyObject *value = PyObject_CallMethodNoArgs(task->waits, name_result), *kind, *traceback;
        Py_XDECREF(value);
        if (value == NULL) {
            PyErr_Fetch(&kind, &error, &traceback);
            PyErr_NormalizeException(&kind, &error, &traceback);
            Py_XDECREF(kind);
            Py_XDECREF(traceback);
        }
    }
    task->look = false;
    if (!task->must_cancel)
        return error;
    task->must_cancel = false;
    if (error == NULL || !PyErr_GivenExceptionMatches(error, cancelled_error)) {
        Py_XSETREF(error, task->cancel_message && task->cancel_message != Py_None
                              ? PyObject_CallOneArg(cancelled_error, task->cancel_message)
                              : PyObject_CallNoArgs(cancelled_error));
        Py_CLEAR(task->cancel_message);
    }
    return error;
}

static void task_finish_or_wait(struct task *task, PySendResult sent, PyObject *result)
{
    if (sent == PYGEN_NEXT) {
        task_yielded(task, result);
    } else if (sent == PYGEN_ERROR) {
        task_failed(task);
    } else if (task->must_cancel) { /* the request came during its last step */
        task->must_cancel = false;
        task_settle_cancelled(task, task->cancel_message);
    } else {
        task_settle(task, future_set_result, result);
    }
    Py_XDECREF(result);
}

static void task_step(struct task *task, PyObject *error)
{
    struct core *core = task->core;
    PyObject *result = NULL;
    if (task->finished)
        return;
    uint64_t start_ns = core->debug ? kit_env_now_ns(core->env) : 0;
    if (core_enter(core, task->self) < 0 || PyContext_Enter(task->context) < 0) {
        task_failed(task);
        return;
    }
    error = task_take_error(task, error);
    Py_CLEAR(task->waits);
    PySendResult sent = task_send(task, error, &result);
    Py_XDECREF(error);
    task_finish_or_wait(task, sent, result);
    PyContext_Exit(task->context);
    if (core->debug) {
        PyObject *done = PyObject_CallMethod((PyObject *)core, "_slow_step", "OK", task->self,
                                             (unsigned long long)start_ns);
        if (done == NULL)
            PyErr_WriteUnraisable(task->self);
        Py_XDECREF(done);
    }
}

/* ---- making -----------------------------------------------------------------------------------
 */

/* Fills a new object. 0 or -1. */
static int task_fill(PyObject *self, struct core *core, PyObject *coro, PyObject *name,
                     PyObject *context, const struct kit_task_share *share)
{
    struct task *task = task_of(self);
    task->self = self;
    kit_list_init(&task->bodies);
    PyObject *empty = PyTuple_New(0), *kwargs = PyDict_New();
    int rc = empty && kwargs ? PyDict_SetItem(kwargs, name_keyword, (PyObject *)core) : -1;
    if (rc == 0)
        rc = future_type->tp_init(self, empty, kwargs);
    Py_XDECREF(empty);
    Py_XDECREF(kwargs);
    if (rc < 0)
        return -1;
    if (!PyCoro_CheckExact(coro)) {
        PyObject *found = PyObject_CallOneArg(iscoroutine, coro);
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
    PyObject *done = PyObject_CallOneArg(register_task, self);
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

/* A Share as C has it: its attribute `_c` is the struct's bytes. */
static int task_share(PyObject *share, struct kit_task_share *out)
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
    PyObject *factory = PyObject_GetAttr(self, name_factory);
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

static int task_init(PyObject *self, PyObject *args, PyObject *kwargs)
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

/* ---- methods ----------------------------------------------------------------------------------
 */

static PyObject *task_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    struct task *task = task_of(self);
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message))
        return NULL;
    if (task->finished)
        Py_RETURN_FALSE;
    task->cancels++;
    if (task->waits != NULL) {
        PyObject *arguments[2] = {task->waits, message};
        PyObject *keys = PyTuple_Pack(1, name_msg);
        PyObject *waits = Py_NewRef(task->waits);
        PyObject *done = keys ? PyObject_VectorcallMethod(name_cancel, arguments, 1, keys) : NULL;
        int rc = done ? PyObject_IsTrue(done) : -1;
        Py_DECREF(waits);
        Py_XDECREF(keys);
        Py_XDECREF(done);
        if (rc != 0)
            return rc < 0 ? NULL : Py_NewRef(Py_True);
    }
    task->must_cancel = true;
    Py_XSETREF(task->cancel_message, Py_NewRef(message));
    Py_RETURN_TRUE;
}

static PyObject *task_cancelling(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(task_of(self)->cancels);
}

static PyObject *task_uncancel(PyObject *self, PyObject *unused)
{
    struct task *task = task_of(self);
    (void)unused;
    if (task->cancels > 0)
        task->cancels--;
#if PY_VERSION_HEX >= 0x030D0000
    if (task->cancels == 0)
        task->must_cancel = false;
#endif
    return PyLong_FromLong(task->cancels);
}

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
        PyObject *done =
            details ? PyObject_CallMethodOneArg((PyObject *)task->core, name_handler, details)
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

/* ---- wakeups: what a task leaves with a future ------------------------------------------------
 */

static int wakeup_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct wakeup *)object)->task);
    return 0;
}

static int wakeup_clear(PyObject *object)
{
    Py_CLEAR(((struct wakeup *)object)->task);
    return 0;
}

static void wakeup_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    wakeup_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *wakeup_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    task_wake(object);
    Py_RETURN_NONE;
}

static PyObject *wakeup_repr(PyObject *object)
{
    PyObject *task = ((struct wakeup *)object)->task;
    return PyUnicode_FromFormat("<Task.__wakeup of %p>", task);
}

static PyType_Slot wakeup_slots[] = {
    {Py_tp_dealloc, wakeup_dealloc}, {Py_tp_traverse, wakeup_traverse}, {Py_tp_clear, wakeup_clear},
    {Py_tp_call, wakeup_call},       {Py_tp_repr, wakeup_repr},         {0, NULL},
};

static PyType_Spec wakeup_spec = {
    .name = "unikit.aio.Wakeup",
    .basicsize = sizeof(struct wakeup),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wakeup_slots,
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
    static const struct {
        PyObject **where;
        const char *text;
    } names[] = {
        {&name_blocking, "_asyncio_future_blocking"},
        {&name_cancel, "cancel"},
        {&name_add_done_callback, "add_done_callback"},
        {&name_context, "context"},
        {&name_get_loop, "get_loop"},
        {&name_loop, "_loop"},
        {&name_msg, "msg"},
        {&name_result, "result"},
        {&name_keyword, "loop"},
        {&name_set_exception, "set_exception"},
        {&name_set_result, "set_result"},
        {&name_throw, "throw"},
        {&name_factory, "_task_factory"},
        {&name_handler, "call_exception_handler"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *names[i].where = PyUnicode_InternFromString(names[i].text);
        if (*names[i].where == NULL)
            return -1;
    }
    return 0;
}

int task_setup(PyObject *module)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio"), *c = PyImport_ImportModule("_asyncio");
    if (asyncio == NULL || c == NULL || task_names() < 0)
        return -1;
    task_base = (PyTypeObject *)PyObject_GetAttrString(c, "Task");
    future_type = (PyTypeObject *)PyObject_GetAttrString(c, "Future");
    register_task = PyObject_GetAttrString(c, "_register_task");
    cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
    iscoroutine = PyObject_GetAttrString(asyncio, "iscoroutine");
    Py_DECREF(asyncio);
    Py_DECREF(c);
    if (!task_base || !future_type || !register_task || !cancelled_error || !iscoroutine)
        return -1;
    future_cancel = PyObject_GetAttr((PyObject *)future_type, name_cancel);
    future_set_result = PyObject_GetAttr((PyObject *)future_type, name_set_result);
    future_set_exception = PyObject_GetAttr((PyObject *)future_type, name_set_exception);
    task_offset = ((size_t)task_base->tp_basicsize + 15) & ~(size_t)15;
    task_spec.basicsize = (int)(task_offset + sizeof(struct task));
    wakeup_type = (PyTypeObject *)PyType_FromSpec(&wakeup_spec);
    task_type = (PyTypeObject *)PyType_FromSpecWithBases(&task_spec, (PyObject *)task_base);
    if (!future_cancel || !future_set_result || !future_set_exception || !wakeup_type || !task_type)
        return -1;
    return PyModule_AddObjectRef(module, "Task", (PyObject *)task_type);
}
