/* SPDX-License-Identifier: MIT */
/* A heap in memory that processes share, each at the same address.
 *
 *     | header: state, lock, root ... |  the allocator's memory ...                             |
 *
 * The lock is a robust mutex: when a process dies in a call, the next one that comes checks the
 * heap, and goes on if it is sound; otherwise the heap is broken for all. What the allocator keeps
 * are addresses, so all map it at one; its table of operations lies elsewhere in each process, so
 * it is put in place on entry. Hosted. */
#ifndef KIT_ALLOC_HOST_SHARED_H
#define KIT_ALLOC_HOST_SHARED_H

#include <unikit/alloc/alloc.h>

/* cdef: begin */
struct kit_shared; /* this process's side of it */

struct kit_shared_facts {
    uint64_t root[3];    /* the users' own, zero at first: kit_shared_set_root */
    uint32_t recoveries; /* deaths inside a call after which the heap was sound */
    int32_t broken_by;   /* 0, or the process whose death or panic broke it */
    int32_t maker;       /* process that opened it first */
};

/* Opens the heap in memory[0 ... size), page-aligned, zero when fresh, or finds it opened by
 * another process: then component and options MUST be the same. 0, *shared and *inner;
 * KIT_EINVAL: another allocator or other options, or an option; KIT_EEXIST: it was opened at
 * another address; KIT_ENOTSUP: its code lies at another address and it is not `relocatable`, that
 * is, it keeps addresses of code and constants; KIT_EMALFORMED: something else lies there;
 * KIT_ENOMEM; KIT_ETIMEDOUT: whoever opens it does not come to an end. */
int kit_shared_open(const struct kit_alloc_component *component, const uint64_t *options,
                    size_t options_count, bool relocatable, void *memory, size_t size,
                    struct kit_shared **shared, struct kit_alloc **inner);
/* Lets go of this process's side; the heap stays as it is. */
void kit_shared_close(struct kit_shared *shared);
void kit_shared_read(struct kit_shared *shared, struct kit_shared_facts *out);
void kit_shared_set_root(struct kit_shared *shared, const uint64_t root[3]);
/* cdef: end */

/* Waits for the lock, repairs what a dead owner left, puts the operations in place. Panics if the
 * heap is broken. */
void kit_shared_enter(struct kit_shared *shared);
void kit_shared_leave(struct kit_shared *shared);
/* The call under way panicked: the heap is broken. Leaves. */
void kit_shared_abandon(struct kit_shared *shared);

#endif
