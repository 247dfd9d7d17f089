/* SPDX-License-Identifier: MIT */
/* Seals, and the quick ways of a hardened heap. They differ from those of a plain one by the seal
 * behind each block and the encoded links of free ones, and leave everything unusual to hard.c.
 *
 *     | what was asked for | SEAL_BYTE | ... | seal: address and secret, slack, SEAL_BYTE |
 *
 * The slack is the distance from the end of what was asked for to the end of the block, so it is at
 * least the size of the seal; 0 says that the block is free. An address that is not the start of a
 * block has no seal where it should be. */
#ifndef KIT_ALLOC_SHARD_HARD_H
#define KIT_ALLOC_SHARD_HARD_H

#include <unikit/alloc/shard/shard.h>

/* 1: the library is built for one hardened heap, and no call looks whether it is one. */
#ifndef KIT_SHARD_HARDENED
#define KIT_SHARD_HARDENED 0
#endif

enum { SEAL_BYTE = 0xa5, SEAL_SLACK = 1 << 24, LINK_REACH = 1 << 20 };

_Static_assert(LINK_REACH > SHARD_SLAB_PAGES << SHARD_PAGE_SHIFT, "links stay within their slab");

/* The seal of a free block. */
KIT_INLINE uint64_t shard_seal(const struct shard_heap *heap, const void *block)
{
    return (uint64_t)((uintptr_t)block ^ heap->secret) << 32 | SEAL_BYTE;
}

KIT_INLINE void shard_seal_set(void *block, size_t whole, uint64_t seal)
{
    memcpy((char *)block + whole - sizeof seal, &seal, sizeof seal);
}

/* Seals a block of `whole` bytes of which `size` were asked for. */
KIT_INLINE void shard_arm(const struct shard_heap *heap, void *block, size_t whole, size_t size)
{
    ((uint8_t *)block)[size] = SEAL_BYTE;
    shard_seal_set(block, whole, shard_seal(heap, block) ^ (uint64_t)(whole - size) << 8);
}

/* The slack that a seal tells, 0 for a free block, SEAL_SLACK or more if it is broken. */
KIT_INLINE size_t shard_slack(const struct shard_heap *heap, const void *block, size_t whole)
{
    uint64_t seal;
    memcpy(&seal, (const char *)block + whole - sizeof seal, sizeof seal);
    seal ^= shard_seal(heap, block);
    return seal >> 8 | seal << 56;
}

/* Whether a block that has this slack is in use, and nothing was written behind its end. */
KIT_INLINE bool shard_intact(const void *block, size_t whole, size_t slack)
{
    size_t most = whole < SEAL_SLACK ? whole : SEAL_SLACK - 1;
    return slack - SHARD_SEAL <= most - SHARD_SEAL &&
           ((const uint8_t *)block)[whole - slack] == SEAL_BYTE;
}

/* Whether a link may lead from one free block to the next: a look at the two addresses alone. */
KIT_INLINE bool shard_reaches(const struct shard_block *block, const struct shard_block *next)
{
    size_t way = (uintptr_t)next - (uintptr_t)block + LINK_REACH;
    return (way >> 4 | way << 60) < 2 * LINK_REACH >> 4 || !next;
}

KIT_INLINE void *shard_swift_alloc(struct shard_face *face, size_t size, size_t align)
{
    if (KIT_LIKELY(size <= SHARD_DIRECT - SHARD_SEAL && align <= SHARD_UNIT)) {
        const struct shard_heap *heap = face->heap;
        struct shard_run *run = face->bins[face->class_of[size + SHARD_SEAL]].active;
        struct shard_block *block;
        if (KIT_LIKELY(run && (block = run->free))) {
            struct shard_block *next = shard_next(heap, block);
            if (KIT_LIKELY(shard_reaches(block, next))) {
                run->free = next;
                run->allocs++;
                shard_arm(heap, block, run->size, size);
                return block;
            }
        }
    }
    return shard_hard_alloc(face, size, align);
}

KIT_INLINE void shard_swift_free(struct shard_face *face, void *block)
{
    struct shard_heap *heap = face->heap;
    const struct shard_region *region = &heap->regions[0];
    size_t offset = (uintptr_t)block - region->base;
    if (KIT_LIKELY(offset < (size_t)region->pages << SHARD_PAGE_SHIFT)) {
        struct shard_run *run = region->map[offset >> SHARD_PAGE_SHIFT];
        size_t at = (uintptr_t)run - (uintptr_t)region->runs; /* whether it is a descriptor */
        struct shard_face *owner;
        if (KIT_LIKELY((at >> 6 | at << 58) < region->pages && (owner = run->owner))) {
            size_t slack = shard_slack(heap, block, run->size);
            if (KIT_LIKELY(shard_intact(block, run->size, slack))) {
                shard_seal_set(block, run->size, shard_seal(heap, block));
                if (KIT_UNLIKELY(owner != face)) {
                    shard_free_remote(face, run, block);
                    return;
                }
                shard_set_next(heap, block, run->free);
                run->free = block;
                if (KIT_UNLIKELY(--run->due == 0))
                    shard_due(face, run);
                return;
            }
        }
    }
    if (block)
        shard_hard_free(face, block);
}

#endif
