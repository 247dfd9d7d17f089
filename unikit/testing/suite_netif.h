/* SPDX-License-Identifier: MIT */
/* The conformance suite of network interfaces in memory: netif.h and network_interface_t. */
#ifndef KIT_TESTING_SUITE_NETIF_H
#define KIT_TESTING_SUITE_NETIF_H

#include <unikit/net/netif.h>
#include <unikit/testing/suite.h>

/* cdef: begin */
/* Opens `component` with `options` in memory[0 ... size) (aligned to 64) and runs the suite on it.
 * What end 0 sends, the last end MUST receive, and the other way round. Returns the number of
 * failed checks; KIT_ENOMEM: `size` is too small for the component. */
int kit_suite_netif(const struct kit_netif_component *component, const uint64_t *options,
                    void *memory, size_t size, struct kit_report *report);
/* cdef: end */

#endif
