/* SPDX-License-Identifier: MIT */
/* The conformance suite of the allocator interface. */
#ifndef KIT_TESTING_SUITE_ALLOC_H
#define KIT_TESTING_SUITE_ALLOC_H

#include <unikit/alloc/alloc.h>
#include <unikit/testing/suite.h>

/* cdef: begin */
/* Opens the component again and again inside memory[0 ... size) and checks what alloc.h promises.
 * `size` of 16 KiB and more is of use; needs 4 KiB of stack. Returns the number of failed checks,
 * or KIT_ENOMEM: the component does not open in so little memory. */
int kit_suite_alloc(const struct kit_alloc_component *component, const uint64_t *options,
                    void *memory, size_t size, struct kit_report *report);

/* The same for an allocator with layers: `choices` from the outside in, as kit_alloc_compose takes
 * them. `features`: those that the outermost layer has over what it stands on. */
int kit_suite_alloc_layers(const struct kit_alloc_choice *choices, size_t count, uint32_t features,
                           void *memory, size_t size, struct kit_report *report);
/* cdef: end */

#endif
