/* SPDX-License-Identifier: MIT */
/* A page source over a mapped region: free pages go back to the kernel, and the region grows into
 * the address space that was reserved behind it. Hosted. */
#ifndef KIT_ALLOC_HOST_PAGES_H
#define KIT_ALLOC_HOST_PAGES_H

#include <unikit/alloc/alloc.h>

/* cdef: begin */
enum { KIT_REGION_HOLES = 64 };
struct kit_region_hole {
    uintptr_t start, end;
};

struct kit_region_pages {
    struct kit_alloc_pages pages; /* for kit_alloc_source; `page` and `fresh` are the opener's */
    uintptr_t next;               /* where growth begins, a multiple of the page */
    uintptr_t limit;              /* and where it must end; next: none */
    int flags;                    /* of mmap for that kind of pages, beside MAP_FIXED */
    bool transparent;             /* advise MADV_HUGEPAGE */
    bool busy;                    /* a lock, held for two system calls at most */
    size_t holes_count;           /* what was given back below `next`, by address: grown into first.
                                   * Where the table is full, address space is lost, not memory */
    struct kit_region_hole holes[KIT_REGION_HOLES];
};
/* Fills in the functions. The region MUST be private and anonymous. */
void kit_region_pages_fill(struct kit_region_pages *region);
/* Where growth goes on, read while threads use the heap. */
uintptr_t kit_region_pages_next(const struct kit_region_pages *region);
/* kit_alloc_source with it. */
int kit_heap_source(struct kit_alloc *a, struct kit_region_pages *region);
/* cdef: end */

#endif
