/* SPDX-License-Identifier: MIT */
/* The replay inside an image: the trace is a packed file, the allocator the image's own. Its
 * tables stand outside the heap. KIT_GUEST_SLOTS and KIT_GUEST_OPS say how large they are, and
 * KIT_GUEST_ROUNDS, _LATENCY and _TOUCH what to do. Says on the console what it found. */
#include <unikit/app.h>

#define KIT_REPLAY_ALLOC(context, thread, size, align) kit_memory_alloc(size, align)
#define KIT_REPLAY_ZEROED(context, thread, size, align) guest_zeroed(size, align)
#define KIT_REPLAY_REALLOC(context, thread, block, old_size, size, align)                          \
    kit_memory_realloc(block, old_size, size, align)
#define KIT_REPLAY_FREE(context, thread, block, size, align) kit_memory_free(block, size, align)

static void *guest_zeroed(size_t size, size_t align)
{
    void *block = kit_memory_alloc(size, align);
    return block ? memset(block, 0, size) : NULL;
}

#include <unikit/alloc/lab/replay.h>

static struct kit_replay_block blocks[KIT_GUEST_SLOTS];
static uint32_t least[KIT_GUEST_LATENCY ? KIT_GUEST_OPS : 1];
static uint32_t bins[KIT_REPLAY_BINS];

static void say_latency(const char *name, const struct kit_replay_latency *found)
{
    kit_log("replay.%s %lu %u %u %u %u %u %u", name, (unsigned long)found->count, found->p50,
            found->p90, found->p99, found->p999, found->p9999, found->max);
}

static void replay_timed(const struct kit_replay_op *ops, size_t count)
{
    uint64_t best_ns = UINT64_MAX, best_ticks = UINT64_MAX, first_ns = 0;
    struct kit_replay_counts counts = {0};
    for (unsigned round = 0; round <= KIT_GUEST_ROUNDS; round++) {
        counts = (struct kit_replay_counts){0};
        uint64_t from = kit_clock_now();
        uint64_t ticks = kit_replay_pass(NULL, ops, count, blocks, KIT_GUEST_TOUCH, NULL, &counts);
        uint64_t took = kit_clock_now() - from;
        if (round == 0)
            first_ns = took; /* pages came when they were touched */
        else {
            best_ns = took < best_ns ? took : best_ns;
            best_ticks = ticks < best_ticks ? ticks : best_ticks;
        }
        kit_replay_clear(NULL, blocks, KIT_GUEST_SLOTS);
    }
    for (unsigned op = 0; op < 8; op++)
        kit_log("replay.count %u %lu", op, (unsigned long)counts.operations[op]);
    kit_log("replay.failures %lu", (unsigned long)counts.failures);
    kit_log("replay.time %lu %lu %lu", (unsigned long)first_ns, (unsigned long)best_ns,
            (unsigned long)best_ticks);
}

/* What the allocator has given out at most, looked at 200 times: not each one keeps its peak. */
static void replay_memory(const struct kit_replay_op *ops, size_t count)
{
    struct kit_replay_counts counts = {0};
    struct kit_alloc_stats before, now;
    size_t most = 0, every = count / 200 + 1;
    kit_statistics(&before, NULL, NULL);
    for (size_t i = 0; i < count; i++) {
        struct kit_replay_block *block = &blocks[ops[i].slot];
        kit_replay_step(NULL, 0, &ops[i], block, &counts);
        if ((i + 1) % every == 0 || i + 1 == count) {
            kit_statistics(&now, NULL, NULL);
            most = now.used - before.used > most ? now.used - before.used : most;
        }
    }
    kit_replay_clear(NULL, blocks, KIT_GUEST_SLOTS);
    kit_log("replay.memory %lu %lu", (unsigned long)most, (unsigned long)before.capacity);
}

static void replay_latency(const struct kit_replay_op *ops, size_t count)
{
    struct kit_replay_counts counts = {0};
    struct kit_replay_latency found;
    for (size_t i = 0; i < count; i++)
        least[i] = UINT32_MAX;
    for (unsigned round = 0; round < KIT_GUEST_LATENCY; round++) {
        kit_replay_pass(NULL, ops, count, blocks, KIT_GUEST_TOUCH, least, &counts);
        kit_replay_clear(NULL, blocks, KIT_GUEST_SLOTS);
    }
    kit_replay_distribution(ops, least, count, false, bins, &found);
    say_latency("give", &found);
    kit_replay_distribution(ops, least, count, true, bins, &found);
    say_latency("take", &found);
    kit_log("replay.empty %u", kit_replay_empty());
}

int init_application(void)
{
    const struct kit_file *file = kit_file_find("trace", 5);
    const struct kit_replay_program *program = file ? file->data : NULL;
    if (!program || file->size < sizeof *program || program->magic != KIT_REPLAY_MAGIC ||
        program->slots > KIT_GUEST_SLOTS || program->count > KIT_GUEST_OPS) {
        kit_log("replay: the packed file is no trace for this image");
        return 1;
    }
    const struct kit_replay_op *ops = (const struct kit_replay_op *)(program + 1);
    replay_timed(ops, program->count);
    replay_memory(ops, program->count);
    if (KIT_GUEST_LATENCY)
        replay_latency(ops, program->count);
    kit_log("replay.end");
    return 0;
}
