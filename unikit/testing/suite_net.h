/* SPDX-License-Identifier: MIT */
/* The conformance suite of TCP/IP stacks: net.h, and how TCP behaves towards a peer. Two instances
 * of the stack talk over a cable with faults in virtual time, and are checked after every step. */
#ifndef KIT_TESTING_SUITE_NET_H
#define KIT_TESTING_SUITE_NET_H

#include <unikit/net/net.h>
#include <unikit/testing/suite.h>
#include <unikit/testing/virtual.h>

/* cdef: begin */
/* Runs the suite on `component` opened with `options`, which MUST leave the address open and allow
 * 8 connections at least. `alloc` gives memory (8 MiB are enough unless options ask for more),
 * `clock` was opened by kit_virtual_open. `connections`: how many the test of many short ones opens
 * (10000 is a good number). Returns the number of failed checks; KIT_ENOMEM: `alloc` gives too
 * little. */
int kit_suite_net(const struct kit_net_component *component, const uint64_t *options,
                  struct kit_alloc *alloc, struct kit_virtual *clock, uint64_t connections,
                  struct kit_report *report);
/* cdef: end */

#endif
