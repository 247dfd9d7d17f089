/* SPDX-License-Identifier: MIT */
/* Tasks from inside: what host_task.c (the type), host_create.c, host_step.c, host_cancel.c and
 * host_wakeup.c share.
 *
 * The type derives from CPython's asyncio.Task, so that a task is one; of that only the Future is
 * used: result, callbacks, waiting. Stepping, cancelling and naming are done here, on fields of its
 * own behind the base's, whose layout nobody needs to know.
 *
 * Source: PEP 3156; the documentation of asyncio.Task; Lib/asyncio/tasks.py says the same in
 * Python. */
#ifndef KIT_SCHED_AIO_HOST_TASK_H
#define KIT_SCHED_AIO_HOST_TASK_H

#include <unikit/sched/aio/host_aio.h>

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

extern PyTypeObject *task_base, *future_type; /* asyncio's, in C */
extern size_t task_offset;                    /* of struct task in the object */

/* What task_setup() keeps for all: things of asyncio, and names, interned. */
extern struct task_constants {
    PyObject *cancelled_error, *iscoroutine, *register_task;
    PyObject *future_cancel, *future_set_result, *future_set_exception; /* which Task's hide */
    PyObject *msg_keyword, *context_keyword; /* tuples of one name, for calls */
    PyObject *blocking, *add_done_callback, *cancel, *get_loop, *keyword, *loop, *result, *throw,
        *factory, *handler, *set_result, *set_exception;
} task_constants;

static inline struct task *task_of(PyObject *self)
{
    return (struct task *)(void *)((char *)self + task_offset);
}

/* ---- host_task.c */
/* A Share as C has it. 0 or -1. */
int task_share(PyObject *share, struct kit_task_share *out);

/* ---- host_create.c */
int task_init(PyObject *self, PyObject *args, PyObject *kwargs);

/* ---- host_step.c */
/* The task's turn as a work item. */
void task_run(struct kit_work *work);
/* The body of a task with a stack: `argument` is the task, and it holds a reference to it. */
void task_live(void *argument);
/* Lets it go on soon. */
void task_post(struct task *task);

/* ---- host_cancel.c */
PyObject *task_cancel(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *task_cancelling(PyObject *self, PyObject *unused);
PyObject *task_uncancel(PyObject *self, PyObject *unused);
/* A request to cancel that came while it ran reaches what it waits for now. 0 or -1. */
int task_pass_cancel(struct task *task, PyObject *future);
/* The request is taken: what the next step raises, `error` (a reference; NULL: nothing) or more. */
PyObject *task_take_cancel(struct task *task, PyObject *error);
/* It has ended by a request: by this exception, or (NULL) during its last step. */
void task_settle_cancelled(struct task *task, PyObject *error, PyObject *message);
int cancel_setup(void);

/* ---- host_wakeup.c */
int wakeup_setup(void);
/* When the future is done the task goes on. 0 or -1. */
int task_subscribe(struct task *task, PyObject *future);

#endif
