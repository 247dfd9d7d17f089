/* SPDX-License-Identifier: MIT */
/* What of a Python thread's state belongs to the stack it runs on, version by version of CPython.
 *
 * An interpreter keeps, per thread: the chain of Python frames, the memory these lie in (a stack of
 * chunks of its own), the exceptions being handled, how much deeper calls may go, the contextvars,
 * and whether a trace function runs. Whoever changes the C stack changes all of these with it.
 * Source: Include/cpython/pystate.h of 3.11, 3.12 and 3.13. */
#ifndef KIT_SCHED_FIBER_HOST_STATE_H
#define KIT_SCHED_FIBER_HOST_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000 || !defined(__x86_64__) ||         \
    defined(Py_GIL_DISABLED)
#define FIBER_UNSUPPORTED 1
#else
#define FIBER_UNSUPPORTED 0

struct fiber_state {
#if PY_VERSION_HEX < 0x030D0000
    _PyCFrame *cframe;
    _PyCFrame base; /* below the fiber's first frame */
#else
    struct _PyInterpreterFrame *current_frame;
#endif
    _PyStackChunk *chunk;
    PyObject **top;
    PyObject **limit;
    _PyErr_StackItem *exc_info;
    _PyErr_StackItem exc_base;
    PyObject *context; /* owned while the fiber does not run */
#if PY_VERSION_HEX < 0x030C0000
    int recursion;
    int trash;
#elif PY_VERSION_HEX < 0x030D0000
    int recursion, c_recursion;
    int trash;
#else
    int recursion, c_recursion;
#endif
    int tracing;
};

static inline void fiber_state_save(struct fiber_state *state, PyThreadState *t)
{
#if PY_VERSION_HEX < 0x030D0000
    state->cframe = t->cframe;
#else
    state->current_frame = t->current_frame;
#endif
    state->chunk = t->datastack_chunk;
    state->top = t->datastack_top;
    state->limit = t->datastack_limit;
    state->exc_info = t->exc_info;
    state->context = t->context;
#if PY_VERSION_HEX < 0x030C0000
    state->recursion = t->recursion_remaining;
    state->trash = t->trash_delete_nesting;
#elif PY_VERSION_HEX < 0x030D0000
    state->recursion = t->py_recursion_remaining;
    state->c_recursion = t->c_recursion_remaining;
    state->trash = t->trash.delete_nesting;
#else
    state->recursion = t->py_recursion_remaining;
    state->c_recursion = t->c_recursion_remaining;
#endif
    state->tracing = t->tracing;
}

static inline void fiber_state_load(struct fiber_state *state, PyThreadState *t)
{
#if PY_VERSION_HEX < 0x030C0000
    state->cframe->use_tracing = t->cframe->use_tracing;
#endif
#if PY_VERSION_HEX < 0x030D0000
    t->cframe = state->cframe;
#else
    t->current_frame = state->current_frame;
#endif
    t->datastack_chunk = state->chunk;
    t->datastack_top = state->top;
    t->datastack_limit = state->limit;
    t->exc_info = state->exc_info;
    if (t->context != state->context)
        t->context_ver++; /* values that contextvars have cached are another context's */
    t->context = state->context;
    state->context = NULL;
#if PY_VERSION_HEX < 0x030C0000
    t->recursion_remaining = state->recursion;
    t->trash_delete_nesting = state->trash;
#elif PY_VERSION_HEX < 0x030D0000
    t->py_recursion_remaining = state->recursion;
    t->c_recursion_remaining = state->c_recursion;
    t->trash.delete_nesting = state->trash;
#else
    t->py_recursion_remaining = state->recursion;
    t->c_recursion_remaining = state->c_recursion;
#endif
    t->tracing = state->tracing;
}

/* A thread's state as it is before its first frame. `depth`: calls that the C stack has room for;
 * `context`: taken over. */
static inline void fiber_state_fresh(struct fiber_state *state, PyThreadState *t, int depth,
                                     PyObject *context)
{
    memset(state, 0, sizeof(*state));
#if PY_VERSION_HEX < 0x030D0000
    state->cframe = &state->base;
    state->base.previous = &t->root_cframe;
#endif
    state->exc_info = &state->exc_base;
    state->context = context;
#if PY_VERSION_HEX < 0x030C0000
    state->recursion = t->recursion_limit < depth ? t->recursion_limit : depth;
#else
    state->recursion = t->py_recursion_limit;
    state->c_recursion = depth;
#endif
}

/* Gives the memory of Python frames back, all of which have ended. */
static inline void fiber_state_free_chunks(_PyStackChunk *chunk)
{
    PyObjectArenaAllocator arena;
    PyObject_GetArenaAllocator(&arena);
    while (chunk != NULL) {
        _PyStackChunk *previous = chunk->previous;
        arena.free(arena.ctx, chunk, chunk->size);
        chunk = previous;
    }
}

#endif
#endif
