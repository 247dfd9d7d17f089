/* SPDX-License-Identifier: MIT */
/* How options reach a component: `const uint64_t *options`, one value per option in the order in
 * which the Python record declares them (text options excepted: they stay on the host side).
 * A .c file names the positions by an enum beside its open(). Sizes are bytes, times nanoseconds,
 * booleans 0 or 1, choices the index of the allowed value, IPv4 addresses host order.
 * The composer emits a constant array, so in an image they fold into the code. */
#ifndef KIT_RT_OPT_H
#define KIT_RT_OPT_H

#include <unikit/rt/types.h>

/* An IPv4 prefix `a.b.c.d/n` as one option value. */
#define KIT_OPT_PREFIX_ADDRESS(value) ((uint32_t)(value))
#define KIT_OPT_PREFIX_LENGTH(value) ((unsigned)((value) >> 32))

#endif
