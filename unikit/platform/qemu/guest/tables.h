/* SPDX-License-Identifier: MIT */
/* Bits of page-table entries (Intel SDM volume 3A, tables 4-15 to 4-20). */
#ifndef KIT_PLATFORM_QEMU_TABLES_H
#define KIT_PLATFORM_QEMU_TABLES_H

#include <unikit/rt/types.h>

#define PVH_PRESENT UINT64_C(0x01)
#define PVH_WRITE UINT64_C(0x02)
#define PVH_USER UINT64_C(0x04)
#define PVH_UNCACHED UINT64_C(0x18)
#define PVH_ACCESSED UINT64_C(0x20)
#define PVH_DIRTY UINT64_C(0x40)
#define PVH_LARGE_PAGE UINT64_C(0x80)
#define PVH_NO_EXECUTE (UINT64_C(1) << 63)
#define PVH_ADDRESS UINT64_C(0x000ffffffffff000)

#endif
