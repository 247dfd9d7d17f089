/* SPDX-License-Identifier: MIT */
/* Replays in a process. Each replay opens the component anew: on fresh memory, whose pages the
 * kernel gives when they are touched, or on the memory of the replay before, whose pages are there
 * and whose contents are anything. The latter repeats identically, so the least cycles of each
 * operation over the rounds are its own, without the machine's interruptions. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <unikit/alloc/alloc.h>
#include <unikit/rt/error.h>

struct heap {
    struct kit_alloc **faces; /* by thread */
    bool zeroes;
    bool locks; /* real threads share one face */
    pthread_spinlock_t lock;
};

#define HEAP(context) ((struct heap *)(context))
#define FACE(context, thread) (HEAP(context)->faces[thread])

static inline void *heap_zeroed(struct heap *heap, unsigned thread, size_t size, size_t align)
{
    if (heap->zeroes)
        return kit_alloc_zeroed(heap->faces[thread], size, align);
    void *block = kit_alloc_alloc(heap->faces[thread], size, align);
    return block ? __builtin_memset(block, 0, size) : NULL;
}

#define KIT_REPLAY_ALLOC(context, thread, size, align)                                             \
    kit_alloc_alloc(FACE(context, thread), size, align)
#define KIT_REPLAY_ZEROED(context, thread, size, align)                                            \
    heap_zeroed(HEAP(context), thread, size, align)
#define KIT_REPLAY_REALLOC(context, thread, block, old_size, size, align)                          \
    kit_alloc_realloc(FACE(context, thread), block, old_size, size, align)
#define KIT_REPLAY_FREE(context, thread, block, size, align)                                       \
    kit_alloc_free(FACE(context, thread), block, size, align)
#include <unikit/alloc/lab/host_replay.h>

#ifdef KIT_SOLE_ALLOC /* a library of its own */
#define KIT_REPLAY_EXPORT __attribute__((visibility("default")))
KIT_REPLAY_EXPORT void kit_replay_bind(const struct kit_host_hooks *table);

/* Panics go where those of the whole process go. */
KIT_REPLAY_EXPORT void kit_replay_bind(const struct kit_host_hooks *table)
{
    kit_host_bind(table);
}
#else
#define KIT_REPLAY_EXPORT KIT_HIDDEN
#endif

struct run {
    const struct kit_replay_setup *setup;
    struct kit_replay_outcome *out;
    struct kit_replay_block *blocks;
    _Atomic uint16_t *turns;
    uint8_t *memory;
    unsigned char *resident; /* for mincore */
    struct kit_alloc_pages pages;
    struct heap heap;
};

/* ---- memory --------------------------------------------------------------------------------- */

static void decommit(void *context, void *start, size_t size)
{
    (void)context;
    madvise(start, size, MADV_DONTNEED);
}

static int fresh_memory(struct run *run)
{
    if (run->memory)
        munmap(run->memory, run->setup->memory);
    run->memory = mmap(NULL, run->setup->memory, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (run->memory == MAP_FAILED)
        run->memory = NULL;
    if (run->memory)
        madvise(run->memory, run->setup->memory,
                run->setup->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    run->pages.fresh = 1;
    return run->memory ? 0 : KIT_ENOMEM;
}

static uint64_t touched(struct run *run)
{
    uint64_t pages = 0;
    if (mincore(run->memory, run->setup->memory, run->resident) < 0)
        return 0;
    for (size_t i = 0; i < run->setup->memory / run->pages.page; i++)
        pages += run->resident[i] & 1;
    return pages * run->pages.page;
}

/* Opens the allocator over the memory, and faces for the threads: with real threads each thread
 * attaches its own. */
static int open_heap(struct run *run)
{
    const struct kit_replay_setup *setup = run->setup;
    struct kit_alloc *first = NULL;
    size_t at = 0;
#ifdef KIT_SOLE_ALLOC
    int code = KIT_SOLE_ALLOC.open(setup->choices[0].options, run->memory, setup->memory, &first);
#else
    int code = kit_alloc_compose(setup->choices, setup->choice_count, run->memory, setup->memory,
                                 &first, &at);
#endif
    run->out->refused = (uint32_t)at;
    if (code == 0 && setup->features & KIT_ALLOC_PAGES)
        code = kit_alloc_source(first, &run->pages);
    run->out->faces = setup->threads ? 1 : 0;
    for (uint32_t t = 0; code == 0 && t < setup->threads; t++) {
        run->heap.faces[t] = first;
        if (t && !setup->starts && setup->features & KIT_ALLOC_THREADS &&
            kit_alloc_attach(first, &run->heap.faces[t]) == 0)
            run->out->faces++;
    }
    run->pages.fresh = 0; /* for whoever opens the same memory next */
    run->heap.locks = setup->starts && !(setup->features & (KIT_ALLOC_THREADS | KIT_ALLOC_SHARED));
    run->heap.zeroes = (setup->features & KIT_ALLOC_ZEROED) != 0;
    for (uint32_t i = 0; i < setup->slots; i++) {
        run->blocks[i] = (struct kit_replay_block){0};
        if (run->turns)
            run->turns[i] = 0;
    }
    return code;
}

/* ---- real threads --------------------------------------------------------------------------- */

struct worker {
    struct run *run;
    pthread_t id;
    uint32_t number;
    _Atomic int *go;
    struct kit_replay_counts counts;
    int code;
};

static void await_turn(const _Atomic uint16_t *turn, uint16_t mine)
{
    for (unsigned tries = 0; atomic_load_explicit(turn, memory_order_acquire) != mine; tries++)
        if (tries & 63)
            __builtin_ia32_pause();
        else
            sched_yield();
}

static void work(struct worker *worker)
{
    struct run *run = worker->run;
    const struct kit_replay_setup *setup = run->setup;
    for (uint64_t i = setup->starts[worker->number]; i < setup->starts[worker->number + 1]; i++) {
        const struct kit_replay_op *op = &setup->ops[i];
        struct kit_replay_block *block = &run->blocks[op->slot];
        if (op->op & KIT_REPLAY_WAIT)
            await_turn(&run->turns[op->slot], op->thread);
        if (run->heap.locks)
            pthread_spin_lock(&run->heap.lock);
        kit_replay_step(&run->heap, worker->number, op, block, &worker->counts);
        if (run->heap.locks)
            pthread_spin_unlock(&run->heap.lock);
        if ((op->op & 15) <= KIT_TRACE_REALLOC)
            kit_replay_touch(block->at, block->size, setup->touch);
        atomic_store_explicit(&run->turns[op->slot], (uint16_t)(op->thread + 1),
                              memory_order_release);
    }
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct run *run = worker->run;
    struct kit_alloc *own = NULL;
    if (worker->number && run->setup->features & KIT_ALLOC_THREADS &&
        kit_alloc_attach(run->heap.faces[0], &own) == 0)
        run->heap.faces[worker->number] = own;
    while (!atomic_load_explicit(worker->go, memory_order_acquire))
        sched_yield();
    if (atomic_load_explicit(worker->go, memory_order_relaxed) > 0)
        work(worker);
    if (own)
        kit_alloc_detach(own);
    return NULL;
}

static int run_threads(struct run *run, struct kit_replay_counts *counts)
{
    uint32_t threads = run->setup->threads, started = 0;
    _Atomic int go = 0;
    struct worker *workers = calloc(threads + 1, sizeof *workers);
    if (!workers)
        return KIT_ENOMEM;
    for (; started < threads; started++) {
        workers[started] = (struct worker){.run = run, .number = started, .go = &go};
        if (pthread_create(&workers[started].id, NULL, worker_main, &workers[started]) != 0)
            break;
    }
    atomic_store_explicit(&go, started == threads ? 1 : -1, memory_order_release);
    for (uint32_t t = 0; t < started; t++) {
        pthread_join(workers[t].id, NULL);
        for (unsigned op = 0; op < 8; op++)
            counts->operations[op] += workers[t].counts.operations[op];
        counts->failures += workers[t].counts.failures;
    }
    free(workers);
    return started == threads ? 0 : KIT_ENOMEM;
}

/* ---- replays -------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * KIT_NS_PER_S + (uint64_t)time.tv_nsec;
}

/* One replay by the clock. */
static int timed(struct run *run, uint64_t *least_ns, uint64_t *least_ticks)
{
    const struct kit_replay_setup *setup = run->setup;
    struct kit_replay_counts counts = {0};
    int code = open_heap(run);
    if (code < 0)
        return code;
    uint64_t from = now_ns(), ticks = kit_replay_stamp();
    if (setup->starts)
        code = run_threads(run, &counts);
    else
        kit_replay_pass(&run->heap, setup->ops, setup->op_count, run->blocks, setup->touch, NULL,
                        &counts);
    ticks = kit_replay_stamp() - ticks;
    uint64_t took = now_ns() - from;
    *least_ns = took < *least_ns ? took : *least_ns;
    *least_ticks = ticks < *least_ticks ? ticks : *least_ticks;
    run->out->counts = counts;
    return code;
}

static int time_rounds(struct run *run)
{
    uint64_t ignored = UINT64_MAX;
    run->out->cold_ns = run->out->warm_ns = run->out->warm_ticks = UINT64_MAX;
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < run->setup->rounds; i++) {
        code = fresh_memory(run);
        if (code == 0)
            code = timed(run, &run->out->cold_ns, &ignored);
    }
    for (uint32_t i = 0; code == 0 && i < run->setup->rounds; i++)
        code = timed(run, &run->out->warm_ns, &run->out->warm_ticks);
    return code;
}

static int latency_rounds(struct run *run)
{
    const struct kit_replay_setup *setup = run->setup;
    if (!setup->latency_rounds || setup->starts)
        return 0;
    uint32_t *least = malloc((setup->op_count + 1) * sizeof *least);
    uint32_t *bins = malloc(KIT_REPLAY_BINS * sizeof *bins);
    int code = least && bins ? 0 : KIT_ENOMEM;
    for (size_t i = 0; code == 0 && i < setup->op_count; i++)
        least[i] = UINT32_MAX;
    for (uint32_t round = 0; code == 0 && round < setup->latency_rounds; round++) {
        struct kit_replay_counts counts = {0};
        code = open_heap(run);
        if (code == 0)
            kit_replay_pass(&run->heap, setup->ops, setup->op_count, run->blocks, setup->touch,
                            least, &counts);
    }
    if (code == 0) {
        kit_replay_distribution(setup->ops, least, setup->op_count, false, bins, &run->out->give);
        kit_replay_distribution(setup->ops, least, setup->op_count, true, bins, &run->out->take);
        run->out->empty = kit_replay_empty();
    }
    free(least);
    free(bins);
    return code;
}

static void take_sample(struct run *run, struct kit_replay_sample *samples, uint64_t index,
                        uint64_t requested)
{
    struct kit_alloc_stats stats = {0};
    kit_alloc_stats(run->heap.faces[0], &stats);
    uint64_t resident = touched(run);
    if (resident > run->out->peak_touched)
        run->out->peak_touched = resident;
    if (stats.used > run->out->peak_used)
        run->out->peak_used = stats.used;
    if (stats.peak > run->out->peak_used)
        run->out->peak_used = stats.peak;
    if (run->out->sampled < run->setup->samples)
        samples[run->out->sampled++] =
            (struct kit_replay_sample){index, requested, stats.used, resident};
}

/* A replay on fresh memory in one order, looked at from time to time. */
static int sample_round(struct run *run, struct kit_replay_sample *samples)
{
    const struct kit_replay_setup *setup = run->setup;
    if (!setup->samples || setup->starts)
        return 0;
    int code = fresh_memory(run);
    if (code == 0)
        code = open_heap(run);
    if (code < 0)
        return code;
    uint64_t requested = 0, every = setup->op_count / setup->samples + 1;
    struct kit_replay_counts counts = {0};
    for (size_t i = 0; i < setup->op_count; i++) {
        const struct kit_replay_op *op = &setup->ops[i];
        struct kit_replay_block *block = &run->blocks[op->slot];
        requested -= block->at ? block->size : 0;
        kit_replay_step(&run->heap, op->thread, op, block, &counts);
        requested += block->at ? block->size : 0;
        if (requested > run->out->peak_requested)
            run->out->peak_requested = requested;
        if (op->op <= KIT_TRACE_REALLOC)
            kit_replay_touch(block->at, block->size, setup->touch);
        if ((i + 1) % every == 0 || i + 1 == setup->op_count)
            take_sample(run, samples, i + 1, requested);
    }
    return 0;
}

static int replay(struct run *run, struct kit_replay_sample *samples)
{
    int code = time_rounds(run);
    if (code == 0)
        code = latency_rounds(run);
    if (code == 0)
        code = sample_round(run, samples);
    return code;
}

static int guarded(struct run *run, struct kit_replay_sample *samples)
{
    int code = 0;
    KIT_GUARDED(code = replay(run, samples), return KIT_EPANIC);
    return code;
}

KIT_REPLAY_EXPORT int kit_replay_run(const struct kit_replay_setup *setup,
                                     struct kit_replay_sample *samples,
                                     struct kit_replay_outcome *out)
{
    *out = (struct kit_replay_outcome){0};
    struct run run = {.setup = setup, .out = out};
    run.pages.page = (size_t)sysconf(_SC_PAGESIZE);
    run.pages.decommit = decommit;
    run.blocks = calloc(setup->slots + 1, sizeof *run.blocks);
    run.turns = setup->starts ? calloc(setup->slots + 1, sizeof *run.turns) : NULL;
    run.heap.faces = calloc(setup->threads + 1, sizeof *run.heap.faces);
    run.resident = malloc(setup->memory / run.pages.page + 1);
    pthread_spin_init(&run.heap.lock, PTHREAD_PROCESS_PRIVATE);
    int code = KIT_ENOMEM;
    if (run.blocks && run.heap.faces && run.resident && (run.turns || !setup->starts))
        code = guarded(&run, samples);
    if (run.memory)
        munmap(run.memory, setup->memory);
    free(run.blocks);
    free((void *)run.turns);
    free(run.heap.faces);
    free(run.resident);
    return code;
}
