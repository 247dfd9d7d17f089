/* SPDX-License-Identifier: MIT */
/* In one order, a freed block's slot serves the next block (a stack of slots), so that the
 * replayer's own table stays as small as the program's live set and out of the cache's way. Among
 * real threads each block has its slot for ever, and a count of operations on it: its turn. */
#include <stdlib.h>

#include <unikit/alloc/lab/host_compile.h>
#include <unikit/rt/error.h>

struct maker {
    uint32_t *slot; /* by block */
    uint32_t *spare;
    size_t spares;
    uint32_t slots;
};

static void make_ordered(struct maker *maker, const struct kit_stats_columns *columns,
                         const uint8_t *align, size_t i, struct kit_replay_op *op)
{
    uint32_t block = columns->block[i];
    uint8_t kind = columns->op[i];
    if (kind < KIT_TRACE_REALLOC)
        maker->slot[block] = maker->spares ? maker->spare[--maker->spares] : maker->slots++;
    *op = (struct kit_replay_op){.size = columns->size[i],
                                 .slot = maker->slot[block],
                                 .thread = columns->thread[i],
                                 .op = kind,
                                 .align = align[i]};
    if (kit_replay_takes(kind))
        maker->spare[maker->spares++] = maker->slot[block];
}

static int64_t compile_ordered(const struct kit_stats_columns *columns, const uint8_t *align,
                               struct kit_replay_op *ops, uint32_t *slots)
{
    struct maker maker = {.slot = calloc(columns->blocks + 1, sizeof(uint32_t)),
                          .spare = calloc(columns->blocks + 1, sizeof(uint32_t))};
    int64_t count = KIT_ENOMEM;
    if (maker.slot && maker.spare) {
        count = 0;
        for (size_t i = 0; i < columns->events; i++)
            if (columns->op[i] <= KIT_TRACE_SIZED_FREE)
                make_ordered(&maker, columns, align, i, &ops[count++]);
    }
    *slots = maker.slots;
    free(maker.slot);
    free(maker.spare);
    return count;
}

struct turn {
    uint16_t done;
    uint16_t thread; /* that did the last one */
};

static int64_t compile_threads(const struct kit_stats_columns *columns, const uint8_t *align,
                               uint32_t threads, struct kit_replay_op *ops, uint64_t *starts,
                               uint32_t *slots)
{
    struct turn *turns = calloc(columns->blocks + 1, sizeof *turns);
    uint64_t *next = calloc(threads + 1, sizeof *next);
    int64_t count = KIT_ENOMEM;
    if (turns && next) {
        for (uint32_t t = 0; t <= threads; t++)
            starts[t] = 0;
        for (size_t i = 0; i < columns->events; i++)
            starts[columns->thread[i] + 1] += columns->op[i] <= KIT_TRACE_SIZED_FREE;
        for (uint32_t t = 0; t < threads; t++) {
            starts[t + 1] += starts[t];
            next[t] = starts[t];
        }
        count = (int64_t)starts[threads];
    }
    for (size_t i = 0; count >= 0 && i < columns->events; i++) {
        uint8_t kind = columns->op[i];
        if (kind > KIT_TRACE_SIZED_FREE)
            continue;
        struct turn *turn = &turns[columns->block[i]];
        bool other = kind >= KIT_TRACE_REALLOC && turn->thread != columns->thread[i];
        ops[next[columns->thread[i]]++] =
            (struct kit_replay_op){.size = columns->size[i],
                                   .slot = columns->block[i],
                                   .thread = turn->done,
                                   .op = (uint8_t)(kind | (other ? KIT_REPLAY_WAIT : 0)),
                                   .align = align[i]};
        *turn = (struct turn){(uint16_t)(turn->done + 1), columns->thread[i]};
    }
    *slots = (uint32_t)columns->blocks;
    free(turns);
    free(next);
    return count;
}

KIT_HIDDEN int64_t kit_replay_compile(const struct kit_stats_columns *columns, const uint8_t *align,
                                      uint32_t threads, struct kit_replay_op *ops, uint64_t *starts,
                                      uint32_t *slots)
{
    return starts ? compile_threads(columns, align, threads, ops, starts, slots)
                  : compile_ordered(columns, align, ops, slots);
}
