/* SPDX-License-Identifier: MIT */
/* Fibers inside: who they are (host_fiber.c has the type) and how they switch (host_switch.c). */
#ifndef KIT_SCHED_FIBER_HOST_FIBER_H
#define KIT_SCHED_FIBER_HOST_FIBER_H

#include <unikit/sched/fiber/host_stacks.h>

#if !FIBER_UNSUPPORTED

enum { FIBER_BYTES_PER_CALL = 1024, FIBER_STACK_DEFAULT = 1 << 20, FIBER_STACK_MIN = 64 << 10 };
enum fiber_phase { FIBER_NEW, FIBER_STARTED, FIBER_DEAD };

struct fiber;

struct home {
    PyThreadState *thread; /* NULL: it has ended */
    size_t fibers;         /* that refer to it */
    struct fiber *main;
    struct fiber *current; /* a reference */
    struct fiber *left;    /* a reference: what was switched away from */
    PyObject *value;       /* handed over: this one, */
    PyObject *error;       /* or this exception */
    struct fiber_stack *ended;
    _PyStackChunk *ended_chunk;
    struct fiber_stacks stacks;
    PyObject *doomed; /* a list: fibers that other threads have dropped; NULL: none */
};

struct fiber {
    PyObject_HEAD PyObject *run;
    PyObject *args; /* of the start */
    PyObject *kwargs;
    struct fiber *parent;
    struct home *home;
    void *context; /* of the C stack, while it does not run */
    struct fiber_stack *stack;
    size_t stack_size;
    PyObject *weakrefs;
    PyObject *dict;
    struct fiber_state state;
    enum fiber_phase phase;
};

/* Set when the module is made. */
extern PyTypeObject *fiber_type;
extern PyObject *fiber_exit;

/* The calling thread's; NULL with MemoryError. */
struct home *home_get(void);
void home_release(struct home *home);
/* Goes on in `to` with a value or an exception, both taken over; what comes back is the result. */
PyObject *fiber_go(struct home *home, struct fiber *to, PyObject *value, PyObject *error);
/* Where a dead fiber's outcome goes. */
struct fiber *fiber_heir(struct fiber *fiber);
/* A fiber ends with a value or an exception, of which the latter FiberExit is none. */
void fiber_outcome(PyObject **value, PyObject **error);
/* Ends the fibers that other threads have dropped. */
void fiber_sweep(struct home *home);
/* Ends a suspended fiber that nobody refers to any more. */
void fiber_end(struct fiber *self);

#endif
#endif
