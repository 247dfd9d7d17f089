/* SPDX-License-Identifier: MIT */
/* The replay of a trace at full speed: one loop for a process, an image and a program under a
 * preload library. Whoever includes it says beforehand how memory is asked for:
 *
 *   KIT_REPLAY_ALLOC(context, thread, size, align)     KIT_REPLAY_ZEROED(the same)
 *   KIT_REPLAY_REALLOC(context, thread, block, old_size, size, align)
 *   KIT_REPLAY_FREE(context, thread, block, size, align)
 *
 * with align 0 where none was asked for. A request that is refused leaves its block empty (a
 * realloc: as it was), and what comes after goes on: the counts are those of the trace on every
 * allocator. Freestanding, no state. */
#ifndef KIT_ALLOC_LAB_REPLAY_H
#define KIT_ALLOC_LAB_REPLAY_H

#include <unikit/alloc/lab/trace.h>
#include <unikit/rt/bits.h>

/* cdef: begin */
enum {
    KIT_REPLAY_MAGIC = 0x4C50524B, /* «KRPL» */
    KIT_REPLAY_WAIT = 0x80,        /* with an operation: first its block's turn must come */
    /* what is written into a new block */
    KIT_REPLAY_TOUCH_NONE = 0,
    KIT_REPLAY_TOUCH_FIRST = 1, /* its first bytes */
    KIT_REPLAY_TOUCH_PAGES = 2, /* a word in each page */
    KIT_REPLAY_TOUCH_ALL = 3,
    KIT_REPLAY_BINS = 9408 /* of a histogram of cycles */
};

/* One operation, ready to be carried out. */
struct kit_replay_op {
    uint64_t size;   /* frees: not looked at */
    uint32_t slot;   /* where its block stands in the replayer's table */
    uint16_t thread; /* in one order: its thread; among real threads: the block's turn */
    uint8_t op;      /* KIT_TRACE_ALLOC ... KIT_TRACE_SIZED_FREE, perhaps | KIT_REPLAY_WAIT */
    uint8_t align;   /* logarithm; 0: none */
};

/* What stands before the operations in a file. */
struct kit_replay_program {
    uint32_t magic;
    uint32_t slots;
    uint64_t count;
};

struct kit_replay_block {
    void *at; /* NULL: none */
    uint64_t size;
};

struct kit_replay_counts {
    uint64_t operations[8]; /* by operation, as carried out */
    uint64_t failures;
};

struct kit_replay_latency {
    uint64_t count;
    uint32_t p50, p90, p99, p999, p9999, max; /* cycles */
};
/* cdef: end */

_Static_assert(sizeof(struct kit_replay_op) == 16, "four to a cache line");

KIT_INLINE bool kit_replay_takes(uint8_t op)
{
    return op == KIT_TRACE_FREE || op == KIT_TRACE_SIZED_FREE;
}

/* The bin of a number of cycles: exact below 8192, then 64 to the doubling. */
KIT_INLINE size_t kit_replay_bin(uint32_t cycles)
{
    if (cycles < 8192)
        return cycles;
    unsigned power = kit_fls64(cycles);
    return 8192 + (power - 13) * 64 + ((cycles >> (power - 6)) & 63);
}

/* The largest number of cycles in a bin. */
KIT_INLINE uint32_t kit_replay_edge(size_t bin)
{
    if (bin < 8192)
        return (uint32_t)bin;
    unsigned power = (unsigned)(bin - 8192) / 64 + 13;
    uint64_t part = 64 + (bin - 8192) % 64;
    return (uint32_t)(((part + 1) << (power - 6)) - 1);
}

KIT_INLINE uint32_t kit_replay_quantile(const uint32_t *bins, uint64_t count, uint64_t parts,
                                        uint64_t of, uint32_t most)
{
    uint64_t rank = count * parts / of, seen = 0;
    for (size_t bin = 0; bin < KIT_REPLAY_BINS; bin++)
        if ((seen += bins[bin]) > rank)
            return kit_replay_edge(bin) < most ? kit_replay_edge(bin) : most;
    return 0;
}

/* The distribution of the cycles of the operations that take (free), or of those that give.
 * `bins` is room for KIT_REPLAY_BINS numbers. */
KIT_INLINE void kit_replay_distribution(const struct kit_replay_op *ops, const uint32_t *cycles,
                                        size_t count, bool takes, uint32_t *bins,
                                        struct kit_replay_latency *out)
{
    *out = (struct kit_replay_latency){0};
    memset(bins, 0, KIT_REPLAY_BINS * sizeof *bins);
    for (size_t i = 0; i < count; i++)
        if (kit_replay_takes(ops[i].op & 15) == takes) {
            bins[kit_replay_bin(cycles[i])]++;
            out->count++;
            out->max = cycles[i] > out->max ? cycles[i] : out->max;
        }
    out->p50 = kit_replay_quantile(bins, out->count, 50, 100, out->max);
    out->p90 = kit_replay_quantile(bins, out->count, 90, 100, out->max);
    out->p99 = kit_replay_quantile(bins, out->count, 99, 100, out->max);
    out->p999 = kit_replay_quantile(bins, out->count, 999, 1000, out->max);
    out->p9999 = kit_replay_quantile(bins, out->count, 9999, 10000, out->max);
}

#ifdef KIT_REPLAY_ALLOC

KIT_INLINE uint64_t kit_replay_stamp(void)
{
    __builtin_ia32_lfence();
    uint64_t ticks = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return ticks;
}

KIT_INLINE void kit_replay_touch(void *block, uint64_t size, unsigned touch)
{
    volatile uint8_t *at = block;
    if (!block || !size || touch == KIT_REPLAY_TOUCH_NONE)
        return;
    if (touch == KIT_REPLAY_TOUCH_ALL)
        memset(block, 0xA5, size);
    else
        *at = 0xA5;
    for (uint64_t i = 4096; touch == KIT_REPLAY_TOUCH_PAGES && i < size; i += 4096)
        at[i] = 0xA5;
}

__attribute__((always_inline)) KIT_INLINE void kit_replay_step(void *context, unsigned thread,
                                                               const struct kit_replay_op *op,
                                                               struct kit_replay_block *block,
                                                               struct kit_replay_counts *counts)
{
    (void)context, (void)thread;
    size_t align = op->align ? (size_t)1 << op->align : 0;
    unsigned kind = op->op & 15;
    void *given = NULL;
    counts->operations[kind]++;
    if (kind >= KIT_TRACE_FREE) {
        KIT_REPLAY_FREE(context, thread, block->at, block->size, align);
        block->at = NULL;
        return;
    }
    if (kind == KIT_TRACE_ALLOC)
        given = KIT_REPLAY_ALLOC(context, thread, op->size, align);
    else if (kind == KIT_TRACE_ZEROED)
        given = KIT_REPLAY_ZEROED(context, thread, op->size, align);
    else
        given = KIT_REPLAY_REALLOC(context, thread, block->at, block->size, op->size, align);
    if (KIT_UNLIKELY(!given)) {
        counts->failures++;
        if (kind == KIT_TRACE_REALLOC)
            return;
    }
    *block = (struct kit_replay_block){given, op->size};
}

/* Carries out all operations in their order. With `least`, an array of `count` numbers, each of
 * which becomes the smaller of itself and the cycles of its operation. Returns the ticks of it
 * all. */
__attribute__((always_inline)) KIT_INLINE uint64_t kit_replay_pass(
    void *context, const struct kit_replay_op *ops, size_t count, struct kit_replay_block *blocks,
    unsigned touch, uint32_t *least, struct kit_replay_counts *counts)
{
    uint64_t begin = kit_replay_stamp();
    for (size_t i = 0; i < count; i++) {
        const struct kit_replay_op *op = &ops[i];
        struct kit_replay_block *block = &blocks[op->slot];
        if (least) {
            uint64_t from = kit_replay_stamp();
            kit_replay_step(context, op->thread, op, block, counts);
            uint64_t took = kit_replay_stamp() - from;
            least[i] = took < least[i] ? (uint32_t)took : least[i];
        } else {
            kit_replay_step(context, op->thread, op, block, counts);
        }
        if (op->op <= KIT_TRACE_REALLOC)
            kit_replay_touch(block->at, block->size, touch);
    }
    return kit_replay_stamp() - begin;
}

/* Frees what is left, uncounted. */
__attribute__((always_inline)) KIT_INLINE void
kit_replay_clear(void *context, struct kit_replay_block *blocks, uint32_t slots)
{
    (void)context;
    for (uint32_t i = 0; i < slots; i++)
        if (blocks[i].at) {
            KIT_REPLAY_FREE(context, 0, blocks[i].at, blocks[i].size, 0);
            blocks[i].at = NULL;
        }
}

/* The least cycles that an empty step seems to take: what is in every number above. */
KIT_INLINE uint32_t kit_replay_empty(void)
{
    uint64_t least = UINT32_MAX;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t from = kit_replay_stamp(), took = kit_replay_stamp() - from;
        least = took < least ? took : least;
    }
    return (uint32_t)least;
}

#endif
#endif
