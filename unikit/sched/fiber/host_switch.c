/* SPDX-License-Identifier: MIT */
/* Switching between fibers. Each thread has a home: its fibers, of which the first, `main`, is the
 * thread's own stack. What a switch hands over travels in the home. A reference to the running
 * fiber is held by the home; a fiber that is left and that nobody else refers to is ended by
 * FiberExit, on arrival elsewhere. */
#include <unikit/sched/fiber/host_fiber.h>

#if !FIBER_UNSUPPORTED

#include <unikit/rt/x86_64/switch.h>

PyTypeObject *fiber_type;
PyObject *fiber_exit;
static _Thread_local struct home *own_home;

/* ---- homes ------------------------------------------------------------------------------------
 */

void home_release(struct home *home)
{
    if (--home->fibers == 0 && home->thread == NULL)
        PyMem_Free(home);
}

/* The thread ends. Fibers that are still suspended can never run again. */
static void home_close(PyObject *capsule)
{
    struct home *home = PyCapsule_GetPointer(capsule, "unikit.sched.fiber");
    if (own_home == home)
        own_home = NULL;
    home->thread = NULL;
    home->fibers++;
    fiber_stacks_close(&home->stacks);
    Py_CLEAR(home->doomed);
    Py_CLEAR(home->main);
    Py_CLEAR(home->current);
    home_release(home);
}

static struct home *home_make(PyThreadState *thread)
{
    PyObject *dict = PyThreadState_GetDict();
    struct home *home = PyMem_Calloc(1, sizeof(*home));
    struct fiber *main = home ? PyObject_GC_New(struct fiber, fiber_type) : NULL;
    PyObject *capsule = main ? PyCapsule_New(home, "unikit.sched.fiber", home_close) : NULL;
    if (capsule == NULL || dict == NULL) {
        Py_XDECREF(main);
        PyMem_Free(home);
        return NULL;
    }
    memset((char *)main + sizeof(PyObject), 0, sizeof(*main) - sizeof(PyObject));
    main->phase = FIBER_STARTED;
    main->home = home;
    *home = (struct home){.thread = thread, .fibers = 1, .main = main, .current = main};
    Py_INCREF(main);
    PyObject_GC_Track((PyObject *)main);
    own_home = home;
    int rc = PyDict_SetItemString(dict, "unikit.sched.fiber", capsule);
    Py_DECREF(capsule);
    return rc < 0 ? NULL : home;
}

struct home *home_get(void)
{
    PyThreadState *thread = PyThreadState_Get();
    struct home *home = own_home;
    return home != NULL && home->thread == thread ? home : home_make(thread);
}

/* ---- switching --------------------------------------------------------------------------------
 */

/* On the stack of home->current, which has just been switched to. Returns the value handed over,
 * or NULL with the exception. */
static PyObject *fiber_arrive(struct home *home)
{
    PyObject *value = home->value, *error = home->error;
    struct fiber *left = home->left;
    home->value = home->error = NULL;
    home->left = NULL;
    fiber_state_load(&home->current->state, home->thread);
    if (home->ended != NULL) {
        struct fiber_stack *ended = home->ended;
        home->ended = NULL;
        fiber_stack_put(&home->stacks, ended, home->ended_chunk);
    }
    Py_DECREF(left); /* may end it, which switches there and back */
    if (error == NULL)
        return value;
    PyObject *kind = (PyObject *)Py_TYPE(error);
    Py_INCREF(kind);
    PyErr_Restore(kind, error, PyException_GetTraceback(error));
    return NULL;
}

static PyObject *fiber_jump(struct home *home, struct fiber *to)
{
    struct fiber *from = home->current;
    fiber_state_save(&from->state, home->thread);
    home->left = from;
    Py_INCREF(to);
    home->current = to;
    kit_switch(&from->context, to->context);
    return fiber_arrive(home);
}

/* The exception that is set, with its traceback, as one object. */
static PyObject *fiber_caught(void)
{
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    PyErr_NormalizeException(&kind, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(kind);
    Py_XDECREF(traceback);
    return value;
}

/* A fiber ends with a value or an exception, of which the latter FiberExit is none. */
void fiber_outcome(PyObject **value, PyObject **error)
{
    if (*error != NULL && PyErr_GivenExceptionMatches(*error, fiber_exit)) {
        *value = *error;
        *error = NULL;
    }
}

/* Where a dead fiber's outcome goes. */
struct fiber *fiber_heir(struct fiber *fiber)
{
    while (fiber->phase == FIBER_DEAD)
        fiber = fiber->parent != NULL ? fiber->parent : fiber->home->main;
    return fiber;
}

static void fiber_main(void *argument)
{
    struct home *home = argument;
    struct fiber *self = home->current;
    PyObject *value = fiber_arrive(home);
    Py_XDECREF(value); /* the arguments came another way */
    value = value == NULL ? NULL : PyObject_Call(self->run, self->args, self->kwargs);
    PyObject *error = value == NULL ? fiber_caught() : NULL;
    Py_CLEAR(self->run);
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    fiber_outcome(&value, &error);
    self->phase = FIBER_DEAD;
    Py_CLEAR(self->state.exc_base.exc_value);
    fiber_state_save(&self->state, home->thread);
    home->ended = self->stack;
    home->ended_chunk = self->state.chunk;
    self->stack = NULL;
    fiber_go(home, fiber_heir(self), value, error);
    Py_FatalError("a fiber that ended runs again");
}

/* A new fiber gets its stack. 0, or -1 with an exception. */
static int fiber_prepare(struct home *home, struct fiber *fiber)
{
    PyObject *run = PyObject_GetAttrString((PyObject *)fiber, "run");
    if (run == NULL)
        return -1;
    PyObject *context = PyContext_CopyCurrent();
    struct fiber_stack *stack =
        context != NULL ? fiber_stack_get(&home->stacks, fiber->stack_size) : NULL;
    if (stack == NULL) {
        Py_XDECREF(context);
        Py_DECREF(run);
        return -1;
    }
    Py_XSETREF(fiber->run, run);
    fiber->stack = stack;
    fiber->phase = FIBER_STARTED;
    fiber_state_fresh(&fiber->state, home->thread, (int)(stack->size / FIBER_BYTES_PER_CALL),
                      context);
    if (stack->chunk != NULL) {
        fiber->state.chunk = stack->chunk;
        fiber->state.top = &stack->chunk->data[1]; /* the first one is never popped */
        fiber->state.limit = (PyObject **)(void *)((char *)stack->chunk + stack->chunk->size);
        stack->chunk = NULL;
    }
    uintptr_t top = (uintptr_t)stack & ~(uintptr_t)15;
    fiber->context = kit_switch_prepare((void *)top, fiber_main, home);
    return 0;
}

/* Ends the fibers that other threads have dropped. */
void fiber_sweep(struct home *home)
{
    PyObject *doomed = home->doomed;
    home->doomed = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(doomed); i++) {
        PyObject *error = PyObject_CallNoArgs(fiber_exit);
        struct fiber *fiber = (struct fiber *)PyList_GET_ITEM(doomed, i);
        Py_INCREF(home->current);
        Py_XSETREF(fiber->parent, home->current);
        PyObject *value = error ? fiber_go(home, fiber, NULL, error) : NULL;
        if (value == NULL)
            PyErr_WriteUnraisable((PyObject *)fiber);
        Py_XDECREF(value);
    }
    Py_DECREF(doomed);
}

/* Goes on in `to` with a value or an exception, both taken over; what comes back is the result. */
PyObject *fiber_go(struct home *home, struct fiber *to, PyObject *value, PyObject *error)
{
    while (to->phase == FIBER_NEW) {
        if (error == NULL && to->args == NULL) { /* a parent that starts with what its child left */
            to->args = PyTuple_Pack(1, value);
            Py_CLEAR(value);
            value = to->args != NULL ? Py_NewRef(Py_None) : NULL;
            error = to->args == NULL ? fiber_caught() : NULL;
        }
        if (error == NULL && fiber_prepare(home, to) == 0)
            break;
        if (error == NULL) {
            Py_CLEAR(value);
            Py_CLEAR(to->args);
            Py_CLEAR(to->kwargs);
            if (home->current->phase != FIBER_DEAD)
                return NULL; /* it can be tried again */
            error = fiber_caught();
        }
        to->phase = FIBER_DEAD;
        Py_CLEAR(to->run);
        fiber_outcome(&value, &error);
        to = fiber_heir(to);
    }
    home->value = value;
    home->error = error;
    if (to != home->current)
        return fiber_jump(home, to);
    home->left = (struct fiber *)Py_NewRef((PyObject *)to);
    fiber_state_save(&to->state, home->thread);
    return fiber_arrive(home);
}

/* Ends a suspended fiber that nobody refers to any more. */
void fiber_end(struct fiber *self)
{
    struct home *home = self->home;
    PyObject *error = PyObject_CallNoArgs(fiber_exit);
    Py_INCREF(home->current);
    Py_XSETREF(self->parent, home->current); /* it comes back here */
    PyObject *value = error ? fiber_go(home, self, NULL, error) : NULL;
    if (value == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(value);
    if (self->phase == FIBER_STARTED && Py_REFCNT(self) == 1) {
        Py_INCREF(self); /* its stack is in use for ever */
        if (PyErr_WarnFormat(PyExc_ResourceWarning, 1, "%R goes on after FiberExit: it is lost",
                             self) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
    }
}

#endif
