/* SPDX-License-Identifier: MIT */
/* asyncio on a scheduler: what its event loop consists of. host_loop.c has the core of the loop,
 * host_handle.c the callbacks, host_task.c the type of tasks and host_task.h what else tasks
 * consist of, host_poll.c the wait for files.
 *
 * Everything runs with the GIL held, which is also what keeps the scheduler's state whole: another
 * thread gets it only while Python code runs, and then its calls look like that code's own. */
#ifndef KIT_SCHED_AIO_HOST_AIO_H
#define KIT_SCHED_AIO_HOST_AIO_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include <unikit/ffi/hooks/guard.h>
#include <unikit/sched/sched.h>

#if PY_VERSION_HEX >= 0x030D0000 /* exported, and no longer in a public header */
PyAPI_FUNC(int) _PyGen_FetchStopIterationValue(PyObject **value);
PyAPI_FUNC(int)
    _PyDict_SetItem_KnownHash(PyObject *dict, PyObject *key, PyObject *item, Py_hash_t hash);
#else
#define PyObject_GetOptionalAttr _PyObject_LookupAttr
#endif

#define AIO_BUSY_NS 50000 /* while there is work, files are looked at after this time */
enum { AIO_TURNS = 64 };  /* from one look at Python's loop to the next */

/* The base of unikit.aio.EventLoop. */
struct core {
    PyObject_HEAD struct kit_sched *s;
    runtime_environment_t *env;
    PyObject *tasks;   /* the open scheduler */
    PyObject *raised;  /* an exception that ends the loop's run */
    PyObject *entered; /* the task that asyncio.current_task() returns; borrowed */
    PyObject *epoll_map;
    struct kit_list timers; /* armed handles */
    struct kit_list bodies; /* tasks with a stack on the scheduler */
    Py_hash_t hash;         /* of itself, for asyncio's table of running tasks */
    uint64_t polled_ns;
    int epoll;
    bool threads; /* tasks have stacks */
    bool debug;
    bool closed;
    bool draining; /* what is queued is dropped */
    bool stopping;
    bool broken; /* the scheduler panicked */
    bool virtual_time;
    uint64_t task_names;
};

struct handle {
    PyObject_HEAD struct kit_work work;
    struct core *core;
    PyObject *callback; /* NULL: cancelled */
    PyObject *args;     /* a tuple, NULL: none */
    PyObject *context;
    PyObject *weakrefs;
    bool cancelled;
    bool foreign; /* callback is asyncio's Handle */
};

struct timer_handle {
    struct handle handle;
    struct kit_timer timer;
    struct kit_list armed; /* in core->timers */
    double when;
};

extern PyTypeObject *core_type, *handle_type, *timer_handle_type, *task_type, *wakeup_type;

/* ---- host_loop.c */
PyObject *core_check(struct core *core); /* borrowed core, or NULL: closed */
/* Calls function(argument) on the stack of the loop: at once, or from a task's stack. */
void core_on_host(struct core *core, void (*function)(void *argument), void *argument);
/* An exception is set that a callback or task raised, which must end the run: keeps it. */
void core_interrupt(struct core *core);
/* asyncio.current_task() becomes this one, or none. 0 or -1. */
int core_enter_slow(struct core *core, PyObject *task);
/* The scheduler panicked: sets the exception. */
void core_panicked(struct core *core);

static inline int core_enter(struct core *core, PyObject *task)
{
    return core->entered == task ? 0 : core_enter_slow(core, task);
}

/* ---- host_handle.c */
int handle_setup(PyObject *module);
PyObject *core_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *kwnames);
PyObject *core_call_at(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *kwnames);
PyObject *core_call_later(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *kwnames);
PyObject *core_add_callback(PyObject *self, PyObject *handle);
void handles_drop(struct core *core);

/* ---- host_task.c, host_create.c, host_wakeup.c */
int task_setup(PyObject *module);
/* A wakeup object was called, or would have been: its task goes on. */
void task_wake(PyObject *wakeup);
PyObject *core_create_task(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *kwnames);
void tasks_drop(struct core *core);

/* ---- host_poll.c */
/* Waits for files until a time by env->now_ns (0: not at all) and hands over what is ready. 0 or
 * -1 with an exception. */
int core_poll(struct core *core, uint64_t deadline_ns);

#endif
