/* SPDX-License-Identifier: MIT */
/* How tasks go on. One that goes on is a work item of the scheduler; where the scheduler has
 * threads it is a task of the scheduler (its body), which waits in block() and whose share counts.
 * The body's own stack carries nothing but that: each step of the coroutine runs on the loop's. */
#include <unikit/sched/aio/host_task.h>

/* ---- going on */

static void task_step(struct task *task, PyObject *error);

/* It may ask a policy in Python: a panic is noted in `broken`. */
static void task_guarded_wake(struct task *task)
{
    KIT_GUARDED(kit_sched_wake(task->core->s, task->body), task->core->broken = true; return );
}

void task_post(struct task *task)
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

void task_run(struct kit_work *work)
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
void task_live(void *argument)
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

/* ---- one step */

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

/* The coroutine has raised. */
static void task_failed(struct task *task)
{
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    PyErr_NormalizeException(&kind, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    if (PyErr_GivenExceptionMatches(kind, task_constants.cancelled_error)) {
        task_settle_cancelled(task, value, NULL);
    } else {
        task_settle(task, task_constants.future_set_exception, value);
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

static int task_wait(struct task *task, PyObject *future)
{
    if (future == task->self) {
        PyErr_Format(PyExc_RuntimeError, "Task cannot await on itself: %R", task->self);
        return -1;
    }
    PyObject *loop = PyObject_CallMethodNoArgs(future, task_constants.get_loop);
    if (loop == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        loop = PyObject_GetAttr(future, task_constants.loop);
    }
    if (loop == NULL)
        return -1;
    Py_DECREF(loop);
    if (loop != (PyObject *)task->core) {
        PyErr_Format(PyExc_RuntimeError, "Task %R got Future %R attached to a different loop",
                     task->self, future);
        return -1;
    }
    if (PyObject_SetAttr(future, task_constants.blocking, Py_False) < 0 ||
        task_subscribe(task, future) < 0)
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
    if (PyObject_GetOptionalAttr(result, task_constants.blocking, &blocking) < 0 &&
        blocking == NULL) {
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
    *result = PyObject_CallMethodOneArg(task->coro, task_constants.throw, error);
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
        PyObject *value = PyObject_CallMethodNoArgs(task->waits, task_constants.result), *kind,
                 *traceback;
        Py_XDECREF(value);
        if (value == NULL) {
            PyErr_Fetch(&kind, &error, &traceback);
            PyErr_NormalizeException(&kind, &error, &traceback);
            Py_XDECREF(kind);
            Py_XDECREF(traceback);
        }
    }
    task->look = false;
    return task->must_cancel ? task_take_cancel(task, error) : error;
}

static void task_finish_or_wait(struct task *task, PySendResult sent, PyObject *result)
{
    if (sent == PYGEN_NEXT) {
        task_yielded(task, result);
    } else if (sent == PYGEN_ERROR) {
        task_failed(task);
    } else if (task->must_cancel) { /* the request came during its last step */
        task->must_cancel = false;
        task_settle_cancelled(task, NULL, task->cancel_message);
    } else {
        task_settle(task, task_constants.future_set_result, result);
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
