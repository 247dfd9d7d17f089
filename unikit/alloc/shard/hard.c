/* SPDX-License-Identifier: MIT */
/* alloc.shard hardened. Each switch is an option of its own; while one is on, the quick ways are
 * closed and every call comes through here. None costs anything while all are off.
 *
 *     checks      a freed address must be the start of a block in use of this heap
 *     links       the links of free blocks are encoded, and must lead into their slab
 *     canary      what follows the bytes that were asked for is written, and compared when freed
 *     poison      freed blocks are overwritten, up to WIPE bytes
 *     quarantine  freed blocks wait for so many others before they are free; their first bytes
 *                 must not have changed then
 *     shuffle     neighbours are not given out in order
 *
 * With canaries a block ends in a seal, which knows by how much less was asked for:
 *
 *     | what was asked for | canary, MARGIN bytes at most | ... | seal: address and key, slack |
 *
 * Source: seals in the vein of Robertson et al., «Run-time detection of heap-based overflows», LISA
 * 2003, but bound to the address; quarantine after Serebryany et al., «AddressSanitizer», ATC 2012.
 * Cost: O(1) beside the bytes overwritten, of which there is a limit. */
#include <unikit/alloc/shard/shard.h>

#define CANARY UINT64_C(0xa5b4c3d2e1f0a597)
enum { MARGIN = 8, POISON = 0xdb, PROBE = 64, WIPE = 1 << 20 };
enum {
    KEEP_BYTES = 1 << 20
}; /* larger blocks do not wait, and all that wait are less than 16 of it */

struct seal {
    uint32_t sign, slack;
};
_Static_assert(sizeof(struct seal) == SHARD_SEAL, "stats() knows");

static uint32_t hard_sign(const struct shard_heap *heap, const void *block)
{
    uint64_t mixed = ((uintptr_t)block ^ heap->secret) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mixed >> 32) | 1;
}

/* The seal at the end of a block of `whole` bytes. */
static struct seal *hard_seal(void *block, size_t whole)
{
    return (struct seal *)((uintptr_t)block + whole) - 1;
}

bool shard_hard_links(const struct shard_heap *heap, const struct shard_run *run,
                      const struct shard_block *next)
{
    size_t offset = (uintptr_t)next - shard_start(heap, run);
    return !next || (offset < (size_t)run->capacity * run->size && !(offset % SHARD_UNIT));
}

/* ---- blocks in use
 * ------------------------------------------------------------------------------- */

/* The run of a block; panics unless the block may be freed. */
static struct shard_run *hard_find(const struct shard_heap *heap, const void *block)
{
    struct shard_run *run = shard_run_of(heap, block);
    if (!(heap->harden & SHARD_CHECKS))
        return run;
    const struct shard_region *region = &heap->regions[0];
    size_t index = ((uintptr_t)run - (uintptr_t)region->runs) / sizeof *run;
    for (unsigned i = 1; index >= region->described && i < heap->count; i++) {
        region = &heap->regions[i];
        index = ((uintptr_t)run - (uintptr_t)region->runs) / sizeof *run;
    }
    if (index >= region->described || (uintptr_t)run % sizeof *run)
        kit_panic("alloc.shard: not a block in use");
    size_t offset = (uintptr_t)block - shard_start(heap, run);
    bool sound = run->kind == SHARD_LARGE
                     ? offset == 0
                     : run->kind == SHARD_SLAB && offset < (size_t)run->carved * run->size &&
                           (uint32_t)offset % run->size == 0;
    if (!sound)
        kit_panic("alloc.shard: not a block in use");
    return run;
}

/* Bytes asked for; panics if what follows them was overwritten, or if the block is free. */
static size_t hard_asked(const struct shard_heap *heap, void *block, size_t whole)
{
    if (!(heap->harden & SHARD_CANARY))
        return whole;
    const struct seal *seal = hard_seal(block, whole);
    uint32_t sign = hard_sign(heap, block);
    if (seal->sign == ~sign)
        kit_panic("alloc.shard: freed twice");
    if (seal->sign != sign || seal->slack < sizeof *seal || seal->slack > whole)
        kit_panic("alloc.shard: written to behind its end");
    size_t asked = whole - seal->slack, margin = seal->slack - sizeof *seal;
    uint64_t found = CANARY;
    if (margin >= MARGIN)
        memcpy(&found, (const char *)block + asked, MARGIN);
    else
        for (size_t i = 0; i < margin; i++)
            ((uint8_t *)&found)[i] = ((const uint8_t *)block)[asked + i];
    if (found != CANARY)
        kit_panic("alloc.shard: written to behind its end");
    return asked;
}

static void hard_arm(const struct shard_heap *heap, void *block, size_t whole, size_t size)
{
    size_t slack = whole - size, margin = slack - sizeof(struct seal);
    const uint64_t canary = CANARY;
    if (margin >= MARGIN)
        memcpy((char *)block + size, &canary, MARGIN);
    else
        for (size_t i = 0; i < margin; i++)
            ((uint8_t *)block)[size + i] = ((const uint8_t *)&canary)[i];
    *hard_seal(block, whole) = (struct seal){hard_sign(heap, block), (uint32_t)slack};
}

/* Bytes that a request of `size` really needs; 0: too many. */
static size_t hard_need(const struct shard_heap *heap, size_t size)
{
    size_t extra = heap->harden & SHARD_CANARY ? sizeof(struct seal) : 0;
    return size <= SHARD_REQUEST_MAX ? size + extra + !(size + extra) : 0;
}

void *shard_hard_alloc(struct shard_face *face, size_t size, size_t align)
{
    struct shard_heap *heap = face->heap;
    size_t need = hard_need(heap, size);
    if (KIT_LIKELY(need - 1 < SHARD_DIRECT && align <= SHARD_UNIT)) {
        struct shard_run *run = face->bins[face->class_of[need]].active;
        if (KIT_LIKELY(run && run->free)) {
            void *taken = shard_take(heap, run);
            if (heap->harden & SHARD_CANARY)
                hard_arm(heap, taken, run->size, size);
            return taken;
        }
    }
    void *block = need ? shard_plain_alloc(face, need, align) : NULL;
    if (!block) {
        face->failures += !need;
        return NULL;
    }
    if (heap->harden & SHARD_CANARY)
        hard_arm(heap, block, shard_block_size(heap, shard_run_of(heap, block)), size);
    return block;
}

size_t shard_hard_size(const struct shard_heap *heap, void *block)
{
    return hard_asked(heap, block, shard_block_size(heap, hard_find(heap, block)));
}

/* ---- freed blocks
 * -------------------------------------------------------------------------------- */

static void hard_return(struct shard_face *face, struct shard_run *run, void *block)
{
    if (KIT_LIKELY(run->owner == face))
        shard_put(face, run, block);
    else
        shard_plain_free(face, block);
}

/* Frees a block for good that has waited. */
static void hard_release(struct shard_face *face, const struct shard_held *held)
{
    const uint64_t *words = held->block;
    size_t probe = (held->size < PROBE ? held->size : PROBE) / sizeof *words;
    uint64_t changed = 0;
    if (face->heap->harden & SHARD_POISON)
        for (size_t i = 0; i < probe; i++)
            changed |= words[i] ^ POISON * (UINT64_MAX / 0xff);
    if (changed)
        kit_panic("alloc.shard: written to after it was freed");
    face->held_bytes -= held->whole;
    hard_return(face, shard_run_of(face->heap, held->block), held->block);
}

void shard_hard_flush(struct shard_face *face)
{
    while (face->held_count) {
        size_t at = (face->held_at - face->held_count--) % SHARD_HELD;
        struct shard_held held = face->held[at];
        hard_release(face, &held);
    }
}

void shard_hard_free(struct shard_face *face, void *block)
{
    struct shard_heap *heap = face->heap;
    struct shard_run *run = hard_find(heap, block);
    size_t whole = shard_block_size(heap, run), asked = hard_asked(heap, block, whole);
    if (heap->harden & SHARD_CANARY)
        hard_seal(block, whole)->sign = ~hard_sign(heap, block);
    if (heap->harden & SHARD_POISON)
        memset(block, POISON, asked < WIPE ? asked : WIPE);
    if (!heap->quarantine || whole > KEEP_BYTES) {
        hard_return(face, run, block);
        return;
    }
    for (uint32_t i = 0; i < face->held_count && !(heap->harden & SHARD_CANARY); i++)
        if (face->held[(face->held_at - 1 - i) % SHARD_HELD].block == block)
            kit_panic("alloc.shard: freed twice");
    if (face->held_count == heap->quarantine) {
        struct shard_held held = face->held[(face->held_at - face->held_count--) % SHARD_HELD];
        hard_release(face, &held);
    }
    face->held[face->held_at++ % SHARD_HELD] = (struct shard_held){block, asked, whole};
    face->held_count++;
    face->held_bytes += whole;
}

/* ---- sizes
 * --------------------------------------------------------------------------------------- */

bool shard_hard_resize(struct shard_heap *heap, void *block, size_t new_size)
{
    struct shard_run *run = hard_find(heap, block);
    size_t need = hard_need(heap, new_size);
    hard_asked(heap, block, shard_block_size(heap, run));
    if (!need || !shard_fits(heap, run, need))
        return false;
    if (heap->harden & SHARD_CANARY)
        hard_arm(heap, block, shard_block_size(heap, run), new_size);
    return true;
}
