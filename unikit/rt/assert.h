/* SPDX-License-Identifier: MIT */
/* KIT_ASSERT states a contract of ours: false means a bug, never bad input. */
#ifndef KIT_RT_ASSERT_H
#define KIT_RT_ASSERT_H

#include <unikit/rt/types.h>

#define KIT_ASSERT(condition) \
    (KIT_LIKELY(condition) ? (void)0 : kit_panic("assertion failed: " #condition))

#endif
