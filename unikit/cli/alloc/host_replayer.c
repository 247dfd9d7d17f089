/* SPDX-License-Identifier: MIT */
/* Replays a trace through malloc() and its family, so through whatever library is preloaded.
 *
 *   replayer FILE time TOUCH          one replay: its times, and the memory it took at most
 *   replayer FILE sample TOUCH COUNT  one replay, looked at COUNT times
 *   replayer FILE latency LEAST       one replay, each operation timed; LEAST keeps the smaller of
 *                                     what it held and these cycles, so that replays in processes
 *                                     of their own leave the cost of each operation without noise
 *   replayer FILE spread LEAST        what is in LEAST: the distribution of its numbers
 *
 * FILE: a program of replay.h in one order. Everything that is not the allocator's is mapped and
 * touched beforehand, so that nothing but the replay changes. Answers are lines of «name number
 * ...»; «done» are the operations carried out, by operation. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <unikit/alloc/lab/trace.h>
#include <unikit/rt/types.h>

static void *give(size_t size, size_t align)
{
    void *block = NULL;
    if (!align)
        return malloc(size);
    return posix_memalign(&block, align < sizeof(void *) ? sizeof(void *) : align, size) ? NULL
                                                                                         : block;
}

static void *give_zeroed(size_t size, size_t align)
{
    if (!align)
        return calloc(1, size);
    void *block = give(size, align);
    return block ? memset(block, 0, size) : NULL;
}

static void *change(void *old, size_t old_size, size_t size, size_t align)
{
    if (!align)
        return realloc(old, size ? size : 1);
    void *block = give(size, align); /* C knows no aligned realloc */
    if (block && old) {
        memcpy(block, old, old_size < size ? old_size : size);
        free(old);
    }
    return block;
}

#define KIT_REPLAY_ALLOC(context, thread, size, align) give(size, align)
#define KIT_REPLAY_ZEROED(context, thread, size, align) give_zeroed(size, align)
#define KIT_REPLAY_REALLOC(context, thread, block, old, size, align) change(block, old, size, align)
#define KIT_REPLAY_FREE(context, thread, block, size, align) free(block)
#include <unikit/alloc/lab/replay.h>

struct job {
    const struct kit_replay_program *program;
    const struct kit_replay_op *ops;
    struct kit_replay_block *blocks;
    struct kit_replay_counts counts;
    size_t table; /* bytes of `blocks` */
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "replayer: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *map_file(const char *path, int flags, size_t least)
{
    struct stat stat;
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) != 0 || (size_t)stat.st_size < least)
        fail(path);
    int shared = flags == O_RDWR ? MAP_SHARED : MAP_PRIVATE;
    int access = flags == O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ;
    void *at = mmap(NULL, (size_t)stat.st_size, access, shared | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED)
        fail(path);
    close(fd);
    return at;
}

static struct job prepare(const char *path)
{
    struct job job = {.program = map_file(path, O_RDONLY, sizeof *job.program)};
    if (job.program->magic != KIT_REPLAY_MAGIC)
        fail("no program to replay");
    job.ops = (const struct kit_replay_op *)(job.program + 1);
    job.table = ((size_t)job.program->slots + 1) * sizeof *job.blocks;
    job.blocks = mmap(NULL, job.table, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (job.blocks == MAP_FAILED)
        fail("the table of blocks");
    return job;
}

static uint64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* The bytes that a line of a file of /proc/self gives in KiB; reads without allocating. */
static size_t field(const char *path, const char *name)
{
    char text[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) << 10 : 0;
}

/* Memory of this process that no file backs. */
static size_t anonymous(void)
{
    return field("/proc/self/smaps_rollup", "\nAnonymous:") +
           field("/proc/self/smaps_rollup", "\nPss_Shmem:");
}

static void timed(struct job *job, unsigned touch)
{
    size_t backed = field("/proc/self/smaps_rollup", "\nRss:") - anonymous();
    uint64_t wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    kit_replay_pass(NULL, job->ops, job->program->count, job->blocks, touch, NULL, &job->counts);
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = now(CLOCK_MONOTONIC) - wall;
    size_t peak = field("/proc/self/status", "\nVmHWM:");
    printf("wall %llu\ncpu %llu\npeak %zu\n", (unsigned long long)wall, (unsigned long long)cpu,
           peak > backed + job->table ? peak - backed - job->table : 0);
}

/* Prints operations done, bytes requested, and bytes of memory taken. */
static void sampled(struct job *job, unsigned touch, size_t count)
{
    uint64_t requested = 0, total = job->program->count;
    size_t bare = anonymous();
    printf("sample 0 0 %zu\n", bare > job->table ? bare - job->table : 0);
    for (uint64_t i = 0, next = 1; i < total; i++) {
        const struct kit_replay_op *op = &job->ops[i];
        struct kit_replay_block *block = &job->blocks[op->slot];
        requested -= block->at ? block->size : 0;
        kit_replay_step(NULL, 0, op, block, &job->counts);
        requested += block->at ? block->size : 0;
        if (op->op <= KIT_TRACE_REALLOC)
            kit_replay_touch(block->at, block->size, touch);
        if ((i + 1) * count >= next * total) {
            size_t taken = anonymous();
            printf("sample %llu %llu %zu\n", (unsigned long long)i + 1,
                   (unsigned long long)requested, taken > job->table ? taken - job->table : 0);
            next = (i + 1) * count / total + 1;
        }
    }
}

static void latency(struct job *job, const char *path)
{
    uint64_t count = job->program->count;
    uint32_t *least = map_file(path, O_RDWR, count * sizeof *least);
    uint64_t wall = now(CLOCK_MONOTONIC);
    uint64_t ticks = kit_replay_pass(NULL, job->ops, count, job->blocks, KIT_REPLAY_TOUCH_FIRST,
                                     least, &job->counts);
    wall = now(CLOCK_MONOTONIC) - wall;
    printf("ticks %llu\nwall %llu\nempty %u\n", (unsigned long long)ticks, (unsigned long long)wall,
           kit_replay_empty());
}

static void spread(const struct job *job, const char *path)
{
    static uint32_t bins[KIT_REPLAY_BINS];
    const uint32_t *least = map_file(path, O_RDONLY, job->program->count * sizeof *least);
    for (int takes = 0; takes < 2; takes++) {
        struct kit_replay_latency out;
        kit_replay_distribution(job->ops, least, job->program->count, takes, bins, &out);
        printf("%s %llu %u %u %u %u %u %u\n", takes ? "free" : "malloc",
               (unsigned long long)out.count, out.p50, out.p90, out.p99, out.p999, out.p9999,
               out.max);
    }
}

int main(int count, char **words)
{
    if (count < 4)
        return 2;
    struct job job = prepare(words[1]);
    unsigned touch = (unsigned)atoi(words[3]);
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer); /* so that stdio allocates nothing */
    if (!strcmp(words[2], "time"))
        timed(&job, touch);
    else if (!strcmp(words[2], "sample") && count > 4)
        sampled(&job, touch, (size_t)atoi(words[4]));
    else if (!strcmp(words[2], "latency"))
        latency(&job, words[3]);
    else if (!strcmp(words[2], "spread"))
        spread(&job, words[3]);
    else
        return 2;
    printf("operations %llu\nfailures %llu\ndone", (unsigned long long)job.program->count,
           (unsigned long long)job.counts.failures);
    for (size_t op = 0; op < KIT_ARRAY_SIZE(job.counts.operations); op++)
        printf(" %llu", (unsigned long long)job.counts.operations[op]);
    putchar('\n');
    return fflush(stdout) == 0 ? 0 : 2;
}
