/* SPDX-License-Identifier: MIT */
/* Gates: what several threads, or several processes, may use as one allocator.
 *
 * A gate is an ordinary kit_alloc in front of another one. It either takes a lock around each call,
 * or, where the allocator has KIT_ALLOC_THREADS, gives each thread a face of its own. A panic lets
 * go of the lock on its way out. A fork waits until no call is under way, so that the child's copy
 * is sound. Hosted. */
#ifndef KIT_ALLOC_HOST_GATE_H
#define KIT_ALLOC_HOST_GATE_H

#include <unikit/alloc/alloc.h>

/* cdef: begin */
enum {
    KIT_GATE_LOCK,  /* one mutex of this process */
    KIT_GATE_FACES, /* a face per thread, given back when the thread ends */
    KIT_GATE_SHARED /* one robust mutex in shared memory; see host_shared.h */
};
struct kit_shared;

/* A gate in front of `inner`, which MUST outlive it and is used through it alone from now on.
 * `shared` is for KIT_GATE_SHARED. 0 and *out; KIT_ENOMEM. */
int kit_gate_new(struct kit_alloc *inner, int kind, struct kit_shared *shared,
                 struct kit_alloc **out);
/* Takes a gate away. No call may be under way; threads that used it may live on. */
void kit_gate_delete(struct kit_alloc *gate);
/* Keeps others out over several calls of this thread: not for KIT_GATE_FACES, and for
 * KIT_GATE_LOCK the calls in between wait for ever. */
void kit_gate_hold(struct kit_alloc *gate);
void kit_gate_release(struct kit_alloc *gate);
/* cdef: end */

#endif
