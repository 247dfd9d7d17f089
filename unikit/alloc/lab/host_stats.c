/* SPDX-License-Identifier: MIT */
/* One pass over the events with one small record per block; time O(events), space O(blocks). */
#include <stdlib.h>

#include <unikit/alloc/lab/host_stats.h>
#include <unikit/rt/error.h>

struct block {
    uint64_t size;
    uint16_t thread;
    bool live;
};

static void take_block(struct kit_stats_survey *survey, struct block *block)
{
    block->live = false;
    survey->live_blocks--;
    survey->live_bytes -= block->size;
}

static void give_block(struct kit_stats_survey *survey, struct block *block, uint64_t size,
                       uint16_t thread)
{
    *block = (struct block){size, thread, true};
    survey->requested += size;
    survey->live_bytes += size;
    survey->live_blocks++;
    if (size > survey->largest)
        survey->largest = size;
    if (survey->live_blocks > survey->peak_blocks)
        survey->peak_blocks = survey->live_blocks;
}

KIT_HIDDEN int kit_stats_survey(const struct kit_stats_columns *columns,
                                struct kit_stats_survey *out)
{
    struct block *blocks = calloc(columns->blocks + 1, sizeof *blocks);
    if (!blocks)
        return KIT_ENOMEM;
    struct kit_stats_survey survey = {0};
    int code = 0;
    for (size_t i = 0; i < columns->events; i++) {
        uint8_t op = columns->op[i];
        survey.operations[op & 15]++;
        if (op > KIT_TRACE_SIZED_FREE)
            continue;
        struct block *block = &blocks[columns->block[i]];
        if (columns->block[i] >= columns->blocks || block->live != (op >= KIT_TRACE_REALLOC)) {
            code = KIT_EINVAL;
            break;
        }
        if (op >= KIT_TRACE_FREE)
            survey.remote += block->thread != columns->thread[i];
        if (block->live)
            take_block(&survey, block);
        if (kit_trace_gives(op))
            give_block(&survey, block, columns->size[i], columns->thread[i]);
        if (survey.live_bytes > survey.peak_bytes) {
            survey.peak_bytes = survey.live_bytes;
            survey.peak_at = i;
        }
    }
    free(blocks);
    *out = survey;
    return code;
}
