/* SPDX-License-Identifier: MIT */
/* The conformance suite of schedulers that serve several processors (KIT_SCHED_CPUS): sched.h and
 * sync.h, with all processors of a real environment at work at once. */
#ifndef KIT_TESTING_SUITE_SCHED_CPUS_H
#define KIT_TESTING_SUITE_SCHED_CPUS_H

#include <unikit/sched/sync.h>
#include <unikit/testing/suite.h>

/* cdef: begin */
/* Runs the suite on `component` opened with `options`, on the processor that booted. It starts all
 * others of `env` by cpu_start; they sleep for ever afterwards. `alloc` may be called on every
 * processor, and gives about 16 MiB; the clock of `env` runs. `rounds` makes the suite longer: 1 is
 * for every day. Returns the number of failed checks; a test that never ends is given up after some
 * seconds, and so is the suite. KIT_ENOTSUP: it needs two processors or more. */
int kit_suite_sched_cpus(const struct kit_sched_component *component, const uint64_t *options,
                         struct kit_alloc *alloc, runtime_environment_t *env, uint32_t rounds,
                         struct kit_report *report);
/* cdef: end */

#endif
