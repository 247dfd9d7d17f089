/* SPDX-License-Identifier: MIT */
/* The peak is known beforehand (kit_stats_survey), so that one more pass can take stock of what is
 * alive at that event: per class of size and per call site, from running sums. A reallocation is a
 * request of its new size; the block's life goes on. */
#include <stdlib.h>
#include <string.h>

#include <unikit/alloc/lab/host_shape.h>
#include <unikit/rt/error.h>

struct block {
    uint64_t birth;
    uint64_t size;
    uint32_t site;
    bool live;
};

struct look {
    const struct kit_stats_columns *columns;
    struct block *blocks;
    struct kit_shape_moment *moments;
    size_t moment_count;
    struct kit_shape_site *sites;
    size_t site_count;
    struct kit_shape *out;
    uint64_t class_blocks[KIT_SHAPE_SIZES]; /* alive now */
    uint64_t class_bytes[KIT_SHAPE_SIZES];
    uint64_t live_bytes, live_blocks;
};

static unsigned power_of(uint64_t value)
{
    unsigned power = value ? kit_fls64(value) + 1 : 0;
    return power < KIT_SHAPE_POWERS ? power : KIT_SHAPE_POWERS - 1;
}

static unsigned class_of(uint64_t size)
{
    if (size <= 8)
        return (unsigned)size;
    unsigned power = kit_fls64(size - 1); /* sizes 2^power + 1 ... 2^(power + 1): four classes */
    unsigned class_ = 9 + (power - 3) * 4 + (unsigned)(((size - 1) >> (power - 2)) & 3);
    return class_ < KIT_SHAPE_SIZES ? class_ : KIT_SHAPE_SIZES - 1;
}

KIT_HIDDEN uint64_t kit_shape_edge(uint32_t class_)
{
    if (class_ <= 8)
        return class_;
    unsigned power = 3 + (class_ - 9) / 4, part = (class_ - 9) % 4;
    return power > 61 ? UINT64_MAX : (uint64_t)(5 + part) << (power - 2);
}

static void forget(struct look *look, struct block *block)
{
    unsigned class_ = class_of(block->size);
    look->class_blocks[class_]--;
    look->class_bytes[class_] -= block->size;
    look->sites[block->site].live_blocks--;
    look->sites[block->site].live_bytes -= block->size;
    look->live_bytes -= block->size;
    look->live_blocks--;
}

static void remember(struct look *look, const struct block *block)
{
    unsigned class_ = class_of(block->size);
    struct kit_shape_site *site = &look->sites[block->site];
    look->out->sizes[class_].requests++;
    look->out->sizes[class_].bytes += block->size;
    look->class_blocks[class_]++;
    look->class_bytes[class_] += block->size;
    site->requests++;
    site->bytes += block->size;
    site->live_blocks++;
    site->live_bytes += block->size;
    look->live_bytes += block->size;
    look->live_blocks++;
}

static void bury(struct look *look, const struct block *block, uint64_t now)
{
    uint64_t life = now - block->birth;
    unsigned class_ = power_of(life);
    look->out->lives[class_]++;
    look->out->life_bytes[class_] += block->size;
    look->out->heat[power_of(block->size)][class_]++;
    look->sites[block->site].frees++;
    look->sites[block->site].life += life;
}

/* One event of a block; false: it contradicts what went before. */
static bool take_in(struct look *look, size_t index, struct kit_shape_moment *moment)
{
    const struct kit_stats_columns *columns = look->columns;
    uint8_t op = columns->op[index];
    struct block *block = &look->blocks[columns->block[index]];
    if (columns->block[index] >= columns->blocks || block->live != (op >= KIT_TRACE_REALLOC) ||
        columns->site[index] >= look->site_count)
        return false;
    if (block->live)
        forget(look, block);
    if (op >= KIT_TRACE_FREE) {
        bury(look, block, columns->time[index]);
        block->live = false;
        moment->frees++;
        return true;
    }
    if (op == KIT_TRACE_REALLOC) {
        look->out->grown += columns->size[index] > block->size;
        look->out->shrunk += columns->size[index] < block->size;
    } else {
        block->birth = columns->time[index];
    }
    block->size = columns->size[index];
    block->site = columns->site[index];
    block->live = true;
    remember(look, block);
    moment->allocations++;
    moment->bytes += block->size;
    return true;
}

static void take_stock(struct look *look, size_t index)
{
    look->out->peak_at = index;
    look->out->peak_ns = look->columns->time[index];
    for (unsigned i = 0; i < KIT_SHAPE_SIZES; i++) {
        look->out->sizes[i].peak_blocks = look->class_blocks[i];
        look->out->sizes[i].peak_bytes = look->class_bytes[i];
    }
    for (size_t i = 0; i < look->site_count; i++)
        look->sites[i].peak_bytes = look->sites[i].live_bytes;
}

static int pass(struct look *look, uint64_t peak_at)
{
    const struct kit_stats_columns *columns = look->columns;
    uint64_t first = columns->events ? columns->time[0] : 0;
    uint64_t span = columns->events ? columns->time[columns->events - 1] - first + 1 : 1;
    size_t at = 0;
    for (size_t i = 0; i < columns->events; i++) {
        uint64_t passed = columns->time[i] > first ? columns->time[i] - first : 0;
        size_t now = (size_t)((__uint128_t)passed * look->moment_count / span);
        for (; at < now && at + 1 < look->moment_count; at++) {
            look->moments[at].live_bytes = look->live_bytes;
            look->moments[at].live_blocks = look->live_blocks;
            look->moments[at + 1].top_bytes = look->live_bytes;
        }
        if (columns->op[i] <= KIT_TRACE_SIZED_FREE && !take_in(look, i, &look->moments[at]))
            return KIT_EINVAL;
        if (look->live_bytes > look->moments[at].top_bytes)
            look->moments[at].top_bytes = look->live_bytes;
        if (i == peak_at)
            take_stock(look, i);
    }
    for (; at < look->moment_count; at++) {
        look->moments[at].live_bytes = look->live_bytes;
        look->moments[at].live_blocks = look->live_blocks;
        if (look->live_bytes > look->moments[at].top_bytes)
            look->moments[at].top_bytes = look->live_bytes;
    }
    for (size_t i = 0; i < columns->blocks; i++)
        if (look->blocks[i].live)
            look->out->survivors[power_of(look->blocks[i].size)]++;
    return 0;
}

KIT_HIDDEN int kit_shape_look(const struct kit_stats_columns *columns,
                              struct kit_shape_moment *moments, size_t moment_count,
                              struct kit_shape_site *sites, size_t site_count,
                              struct kit_shape *out)
{
    struct kit_stats_survey survey;
    int code = kit_stats_survey(columns, &survey);
    if (code)
        return code;
    if (!moment_count || !site_count)
        return KIT_EINVAL;
    struct look *look = calloc(1, sizeof *look);
    struct block *blocks = calloc(columns->blocks + 1, sizeof *blocks);
    if (look && blocks) {
        memset(out, 0, sizeof *out);
        memset(moments, 0, moment_count * sizeof *moments);
        memset(sites, 0, site_count * sizeof *sites);
        *look = (struct look){.columns = columns,
                              .blocks = blocks,
                              .moments = moments,
                              .moment_count = moment_count,
                              .sites = sites,
                              .site_count = site_count,
                              .out = out};
        code = pass(look, survey.peak_at);
    } else {
        code = KIT_ENOMEM;
    }
    free(blocks);
    free(look);
    return code;
}
