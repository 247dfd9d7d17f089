/* SPDX-License-Identifier: MIT */
/* Every code a unikit function may return, one meaning each. 0 is success; codes are negative.
 * unikit/errors.py maps each to one exception class; tests/test_errors.py keeps the two equal. */
#ifndef KIT_RT_ERROR_H
#define KIT_RT_ERROR_H

/* cdef: begin */
enum kit_error {
    KIT_OK = 0,
    KIT_ENOMEM = -1,     /* out of memory, table full: the call had no effect */
    KIT_EINVAL = -2,     /* an argument outside what the contract allows */
    KIT_EAGAIN = -3,     /* would block: try again after an event */
    KIT_ECLOSED = -4,    /* the object (or its other end) was closed in good order */
    KIT_ETIMEDOUT = -5,  /* the deadline passed, or the peer did not answer */
    KIT_EMALFORMED = -6, /* bytes from outside that break their format */
    KIT_ERESET = -7,     /* the peer reset the connection */
    KIT_EREFUSED = -8,   /* the peer refused the connection */
    KIT_ENOTSUP = -9,    /* this component or platform does not have the feature */
    KIT_EEXIST = -10,    /* name, port or address already taken */
    KIT_ENOENT = -11,    /* no such name, file, option or route */
    KIT_EPERM = -12,     /* the host or the platform refuses permission */
    KIT_EMSGSIZE = -13,  /* larger than the unit (frame, datagram) that can carry it */
    KIT_EUNREACH = -14,  /* no route, or no neighbour answered for the next hop */
    KIT_EIO = -15,       /* a device failed */
    KIT_ECORRUPT = -16,  /* a check found a broken invariant */
    KIT_EDEADLOCK = -17, /* every thread is blocked and nothing can wake one */
    KIT_EPANIC = -18,    /* a contract was broken inside; the object must not be used again */
    KIT_ECALLBACK = -19  /* a callback into Python raised */
};
/* cdef: end */

#endif
