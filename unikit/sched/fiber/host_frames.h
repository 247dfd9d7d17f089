/* SPDX-License-Identifier: MIT */
/* See host_frames.c. */
#ifndef KIT_SCHED_FIBER_HOST_FRAMES_H
#define KIT_SCHED_FIBER_HOST_FRAMES_H

#include <unikit/sched/fiber/host_state.h>

#if !FIBER_UNSUPPORTED
/* Visits what the frames of a suspended fiber refer to; as for tp_traverse. */
int fiber_frames_visit(const struct fiber_state *state, visitproc visit, void *arg);
#endif

#endif
