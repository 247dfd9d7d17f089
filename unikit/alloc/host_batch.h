/* SPDX-License-Identifier: MIT */
/* Many blocks by one call: what a loop in Python would spend a thousand times over. Hosted. */
#ifndef KIT_ALLOC_HOST_BATCH_H
#define KIT_ALLOC_HOST_BATCH_H

#include <unikit/alloc/alloc.h>

/* cdef: begin */
/* One block, by its address as a number: half of what a pointer costs on the way to Python. 0: no
 * memory. */
uint64_t kit_word_alloc(struct kit_alloc *a, size_t size, size_t align);
void kit_word_free(struct kit_alloc *a, uint64_t block, size_t size, size_t align);
/* Allocates sizes[0 ... count), all or none, into blocks[]. Returns
 * how many it could: `count`, or less, and then none of them is left. */
size_t kit_batch_alloc(struct kit_alloc *a, const uint64_t *sizes, size_t count, size_t align,
                       uint64_t *blocks);
/* Frees what kit_batch_alloc allocated. */
void kit_batch_free(struct kit_alloc *a, const uint64_t *sizes, size_t count, size_t align,
                    const uint64_t *blocks);
struct kit_extent {
    uint64_t address, size, used;
};
/* Writes the first `room` extents of a walk to out[]; *count says how many there are. 0, or what
 * the walk says. */
int kit_batch_walk(const struct kit_alloc *a, struct kit_extent *out, size_t room, size_t *count);
/* Allocates one block and frees it, `count` times: the cost of an operation without Python. */
void kit_batch_cycle(struct kit_alloc *a, size_t size, size_t count);
/* cdef: end */

#endif
