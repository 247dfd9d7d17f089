/* SPDX-License-Identifier: MIT */
/* alloc.shard hardened. While it is, the quick ways are closed and every call comes through here,
 * or through hard.h if the heap is `hardened` and no more. None costs anything while all are off.
 *
 *     checks      a freed address must be the start of a block in use of this heap
 *     links       the links of free blocks are encoded, and must lead into their slab
 *     canary      a seal at the end of each block, and a byte behind what was asked for, are
 *                 written, and compared when it is freed
 *     poison      freed blocks are overwritten, up to WIPE bytes
 *     quarantine  freed blocks wait for so many others before they are free; their first bytes
 *                 must not have changed then
 *     shuffle     neighbours are not given out in order
 *     hardened    checks, links, canary; and runs of their own wait, their first bytes overwritten
 *
 * Source: seals in the vein of Robertson et al., «Run-time detection of heap-based overflows», LISA
 * 2003, but bound to the address; quarantine after Serebryany et al., «AddressSanitizer», ATC 2012.
 * Cost: O(1) beside the bytes overwritten, of which there is a limit. */
#include <unikit/alloc/shard/hard.h>

enum { POISON = 0xdb, PROBE = 64, WIPE = 1 << 20 };
enum {
    KEEP_BYTES = 1 << 20
}; /* larger blocks do not wait, and all that wait are less than 16 of it */

bool shard_hard_links(const struct shard_heap *heap, const struct shard_run *run,
                      const struct shard_block *next)
{
    size_t offset = (uintptr_t)next - shard_start(heap, run);
    return !next || (offset < (size_t)run->capacity * run->size && !(offset % SHARD_UNIT));
}

/* ---- blocks in use
 * ------------------------------------------------------------------------------- */

/* The run of a block; panics unless the block may be freed. Others describe runs meanwhile; that of
 * a block in use was described before. */
static SHARD_RACY struct shard_run *hard_find(const struct shard_heap *heap, const void *block)
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
    size_t slack = shard_slack(heap, block, whole);
    if (slack == 0)
        kit_panic("alloc.shard: freed twice");
    if (!shard_intact(block, whole, slack))
        kit_panic("alloc.shard: written to behind its end");
    return whole - slack;
}

/* Bytes that a request of `size` really needs; 0: too many. */
static size_t hard_need(const struct shard_heap *heap, size_t size)
{
    size_t extra = heap->harden & SHARD_CANARY ? SHARD_SEAL : 0;
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
                shard_arm(heap, taken, run->size, size);
            return taken;
        }
    }
    void *block = need ? shard_plain_alloc(face, need, align) : NULL;
    if (!block) {
        face->failures += !need;
        return NULL;
    }
    if (heap->harden & SHARD_CANARY)
        shard_arm(heap, block, shard_block_size(heap, shard_run_of(heap, block)), size);
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
    if (face->heap->harden & (SHARD_POISON | SHARD_LIGHT))
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
    bool light = heap->harden & SHARD_LIGHT, waits = heap->quarantine && whole <= KEEP_BYTES;
    if (heap->harden & SHARD_CANARY)
        shard_seal_set(block, whole, shard_seal(heap, block));
    if (light && shard_is_slab(run))
        waits = false;
    else if (light)
        memset(block, POISON, asked < PROBE ? asked : PROBE);
    else if (heap->harden & SHARD_POISON)
        memset(block, POISON, asked < WIPE ? asked : WIPE);
    if (!waits) {
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
        shard_arm(heap, block, shard_block_size(heap, run), new_size);
    return true;
}
