/* SPDX-License-Identifier: MIT */
/* Wakeups: what a task leaves with a future it waits for. The loop knows them, and calls none. */
#include <unikit/sched/aio/host_task.h>

PyTypeObject *wakeup_type;

struct wakeup {
    PyObject_HEAD PyObject *task;
};

int task_subscribe(struct task *task, PyObject *future)
{
    struct wakeup *wakeup = PyObject_GC_New(struct wakeup, wakeup_type);
    if (wakeup == NULL)
        return -1;
    wakeup->task = Py_NewRef(task->self);
    PyObject_GC_Track((PyObject *)wakeup);
    PyObject *args[3] = {future, (PyObject *)wakeup, task->context};
    PyObject *done = PyObject_VectorcallMethod(task_constants.add_done_callback, args, 2,
                                               task_constants.context_keyword);
    Py_DECREF(wakeup);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

void task_wake(PyObject *object)
{
    struct wakeup *wakeup = (struct wakeup *)object;
    if (wakeup->task != NULL)
        task_post(task_of(wakeup->task));
}

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

int wakeup_setup(void)
{
    wakeup_type = (PyTypeObject *)PyType_FromSpec(&wakeup_spec);
    return wakeup_type == NULL ? -1 : 0;
}
