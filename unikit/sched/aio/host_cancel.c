/* SPDX-License-Identifier: MIT */
/* Cancelling tasks: a request goes to the future that the task waits for, or else becomes the
 * exception that its next step raises. */
#include <unikit/sched/aio/host_task.h>

/* Where a Future keeps the exception by which its task was cancelled: who awaits the task gets this
 * very one. Only asyncio's own tasks can set it, so it is looked for in one of them, at start.
 * 0: not found. */
static size_t kept_offset;

/* future.cancel(msg=message): 1 if it took the request, 0 if it had ended, -1 with an exception. */
static int task_ask(PyObject *future, PyObject *message)
{
    PyObject *args[2] = {future, message ? message : Py_None};
    PyObject *done =
        PyObject_VectorcallMethod(task_constants.cancel, args, 1, task_constants.msg_keyword);
    int rc = done ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    return rc;
}

PyObject *task_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
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
        PyObject *waits = Py_NewRef(task->waits);
        int rc = task_ask(waits, message);
        Py_DECREF(waits);
        if (rc != 0)
            return rc < 0 ? NULL : Py_NewRef(Py_True);
    }
    task->must_cancel = true;
    Py_XSETREF(task->cancel_message, Py_NewRef(message));
    Py_RETURN_TRUE;
}

PyObject *task_cancelling(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(task_of(self)->cancels);
}

PyObject *task_uncancel(PyObject *self, PyObject *unused)
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

int task_pass_cancel(struct task *task, PyObject *future)
{
    int rc = task_ask(future, task->cancel_message);
    if (rc > 0)
        task->must_cancel = false;
    return rc < 0 ? -1 : 0;
}

PyObject *task_take_cancel(struct task *task, PyObject *error)
{
    task->must_cancel = false;
    if (error == NULL || !PyErr_GivenExceptionMatches(error, task_constants.cancelled_error)) {
        Py_XSETREF(error,
                   task->cancel_message && task->cancel_message != Py_None
                       ? PyObject_CallOneArg(task_constants.cancelled_error, task->cancel_message)
                       : PyObject_CallNoArgs(task_constants.cancelled_error));
        Py_CLEAR(task->cancel_message);
    }
    return error;
}

void task_settle_cancelled(struct task *task, PyObject *error, PyObject *message)
{
    PyObject *arguments = NULL;
    if (error != NULL && kept_offset == 0) { /* the next best: another exception that says so */
        arguments = PyObject_GetAttrString(error, "args");
        if (arguments != NULL && PyTuple_GET_SIZE(arguments) > 0)
            message = PyTuple_GET_ITEM(arguments, 0);
        PyErr_Clear();
    } else if (error != NULL) {
        PyObject **kept = (PyObject **)(void *)((char *)task->self + kept_offset);
        Py_XSETREF(*kept, Py_NewRef(error));
    }
    PyObject *args[2] = {task->self, message ? message : Py_None};
    PyObject *done =
        PyObject_Vectorcall(task_constants.future_cancel, args, 1, task_constants.msg_keyword);
    if (done == NULL)
        PyErr_WriteUnraisable(task->self);
    Py_XDECREF(done);
    Py_XDECREF(arguments);
    task->finished = true;
    Py_CLEAR(task->waits);
}

int cancel_setup(void)
{
    PyObject *probe = PyImport_ImportModule("unikit.sched.aio.probe");
    PyObject *error = PyObject_CallNoArgs(task_constants.cancelled_error);
    PyObject *task = probe && error ? PyObject_CallMethod(probe, "ended_by", "O", error) : NULL;
    size_t size = (size_t)future_type->tp_basicsize;
    for (size_t at = sizeof(PyObject); task != NULL && at + sizeof(error) <= size;
         at += sizeof(error))
        if (memcmp((char *)task + at, &error, sizeof(error)) == 0)
            kept_offset = at;
    Py_XDECREF(probe);
    Py_XDECREF(error);
    Py_XDECREF(task);
    return task == NULL ? -1 : 0;
}
