/* SPDX-License-Identifier: MIT */
/* The conformance suite of schedulers: sched.h and, on schedulers with threads, sync.h. */
#ifndef KIT_TESTING_SUITE_SCHED_H
#define KIT_TESTING_SUITE_SCHED_H

#include <unikit/sched/sync.h>
#include <unikit/testing/suite.h>
#include <unikit/testing/virtual.h>

/* cdef: begin */
/* Runs the suite on `component` opened with `options`. `alloc` gives memory (64 MiB are enough for
 * all of it; with less, the test of many tasks takes fewer); `clock` was opened by
 * kit_virtual_open, and MAY have page_protect set. Returns the number of failed checks. */
int kit_suite_sched(const struct kit_sched_component *component, const uint64_t *options,
                    struct kit_alloc *alloc, struct kit_virtual *clock, struct kit_report *report);
/* cdef: end */

#endif
