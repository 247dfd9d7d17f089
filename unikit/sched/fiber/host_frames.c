/* SPDX-License-Identifier: MIT */
/* The garbage collector's view of a suspended fiber: the local variables of its Python frames, so
 * that a fiber in a cycle with what it runs can be found. What C functions and expressions in the
 * middle of their evaluation hold on its stack is not seen, and so counts as used from outside. */
#define Py_BUILD_CORE 1
#include <unikit/sched/fiber/host_state.h>

#if !FIBER_UNSUPPORTED

#include <internal/pycore_frame.h>

#include <unikit/sched/fiber/host_frames.h>

#if PY_VERSION_HEX < 0x030C0000
#define FIBER_FUNCTION f_func
#else
#define FIBER_FUNCTION f_funcobj
#endif

int fiber_frames_visit(const struct fiber_state *state, visitproc visit, void *arg)
{
#if PY_VERSION_HEX < 0x030D0000
    _PyInterpreterFrame *frame = state->cframe != NULL ? state->cframe->current_frame : NULL;
#else
    _PyInterpreterFrame *frame = state->current_frame;
#endif
    for (; frame != NULL; frame = frame->previous) {
        if (frame->owner != FRAME_OWNED_BY_THREAD) /* a generator visits its frame itself */
            continue;
#if PY_VERSION_HEX < 0x030D0000
        PyCodeObject *code = frame->f_code;
#else
        PyCodeObject *code = _PyFrame_GetCode(frame);
#endif
        for (int i = 0; i < code->co_nlocalsplus; i++)
            Py_VISIT(frame->localsplus[i]);
        Py_VISIT((PyObject *)frame->FIBER_FUNCTION);
    }
    return 0;
}

#endif
