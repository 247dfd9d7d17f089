/* SPDX-License-Identifier: MIT */
/* The conformance suite of the console interface. */
#ifndef KIT_TESTING_SUITE_CONSOLE_H
#define KIT_TESTING_SUITE_CONSOLE_H

#include <unikit/platform/console/console.h>
#include <unikit/testing/suite.h>

/* cdef: begin */
/* Opens the component again and again with `options` on `parts`, which hold everything it needs,
 * and checks what console.h and env.h promise. Consoles are never closed: what they took of
 * parts->alloc stays taken (64 KiB beside what the options ask for, times four, is enough). What
 * is written does not matter and may be lost. Returns the number of failed checks. */
int kit_suite_console(const struct kit_console_component *component, const uint64_t *options,
                      const struct kit_console_parts *parts, struct kit_report *report);
/* cdef: end */

#endif
