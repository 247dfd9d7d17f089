/* SPDX-License-Identifier: MIT */
/* The recorder's file. Each stream writes into a chunk of the file that is mapped and shared, so
 * that what was noted is in the file however the program ends: by exit, _exit, exec or a signal.
 * The file is opened for each chunk and closed again, for programs close what they do not know.
 * Blocks of the disk are reserved with each chunk: a full disk ends the recording, not the program.
 *
 * Nothing here allocates, takes a lock that a program could hold, or changes errno. After a fork
 * the child begins a file of its own, NAME.PID; blocks older than the fork are foreign there. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <unikit/alloc/lab/host_record.h>
#include <unikit/alloc/preload/host.h>

enum {
    REFRESHES = 64, /* times that the mappings are read; programs that make code have no names */
    EARLY = 65536,
    PATH = 1024
};

_Thread_local struct record_thread record_thread;
RECORD_PUBLIC void *record_next[RECORD_COUNT];
RECORD_PUBLIC _Atomic int record_state;

static struct {
    char path[PATH];
    struct kit_trace_header *header;
    _Atomic uint32_t slots, threads, streams, module_chunks;
    _Atomic int lock;
    struct record_stream *spare, *all;
    uint16_t turn;
    uint8_t *pool, *pool_end; /* for streams */
    pthread_key_t key;
    uint32_t refreshes;
} record;

static uint8_t early[EARLY] __attribute__((aligned(64)));
static _Atomic size_t early_used;

/* ---- before anything can be passed on ------------------------------------------------------- */

void *record_early(size_t size, size_t align)
{
    align = align < 16 ? 16 : align;
    size_t room = size + align + 16;
    size_t at = atomic_fetch_add(&early_used, (room + 15) & ~(size_t)15);
    if (size > EARLY || at + room > EARLY)
        return NULL;
    uint8_t *block = (uint8_t *)kit_align_up((uintptr_t)early + at + 16, align);
    memcpy(block - 16, &size, sizeof size);
    return block;
}

int record_is_early(const void *block)
{
    return (uintptr_t)block - (uintptr_t)early < EARLY;
}

size_t record_early_size(const void *block)
{
    size_t size;
    memcpy(&size, (const uint8_t *)block - 16, sizeof size);
    return size;
}

void kit_preload_die(const char *const *words)
{
    (void)words;
    abort();
}

/* ---- the file ------------------------------------------------------------------------------- */

static void lock(void)
{
    int free = 0;
    while (!atomic_compare_exchange_weak(&record.lock, &free, 1)) {
        free = 0;
        sched_yield();
    }
}

static void unlock(void)
{
    atomic_store(&record.lock, 0);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time = {0};
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

/* Notes the moment: with the first one it says what a tick is. */
static void note_moment(void)
{
    record.header->last_ticks = __builtin_ia32_rdtsc();
    record.header->last_ns = clock_ns(CLOCK_MONOTONIC);
}

static void *map_file(size_t offset, size_t size, int flags)
{
    int file = open(record.path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (file < 0)
        return NULL;
    void *at = MAP_FAILED;
    if (fallocate(file, 0, (off_t)offset, (off_t)size) == 0 ||
        (errno == EOPNOTSUPP && ftruncate(file, (off_t)(offset + size)) == 0))
        at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file,
                  (off_t)offset);
    close(file);
    return at == MAP_FAILED ? NULL : at;
}

static void stop(void)
{
    atomic_store(&record_state, 2);
}

static struct kit_trace_chunk *map_chunk(uint32_t kind, uint32_t stream, uint32_t sequence)
{
    uint32_t slot = atomic_fetch_add(&record.slots, 1);
    struct kit_trace_chunk *chunk =
        map_file(KIT_TRACE_PAGE + (size_t)slot * RECORD_CHUNK, RECORD_CHUNK, 0);
    if (!chunk) {
        record.header->flags |= KIT_TRACE_CUT;
        stop();
        return NULL;
    }
    *chunk = (struct kit_trace_chunk){.magic = KIT_TRACE_CHUNK_MAGIC,
                                      .kind = kind,
                                      .stream = stream,
                                      .sequence = sequence,
                                      .ticks = __builtin_ia32_rdtsc()};
    note_moment();
    return chunk;
}

/* ---- modules -------------------------------------------------------------------------------- */

static struct kit_trace_chunk *map_modules(void)
{
    return map_chunk(KIT_TRACE_MODULES, 0, atomic_fetch_add(&record.module_chunks, 1));
}

RECORD_COLD void record_site(uint64_t site)
{
    if (record_known(site))
        return;
    int saved = errno;
    lock();
    if (!record_known(site) && record.refreshes < REFRESHES) {
        record.refreshes++;
        record_modules(map_modules);
    }
    unlock();
    errno = saved;
}

/* ---- streams -------------------------------------------------------------------------------- */

static struct record_stream *take_stream(void)
{
    lock();
    struct record_stream *stream = record.spare;
    if (stream) {
        record.spare = stream->next;
    } else {
        if ((size_t)(record.pool_end - record.pool) < sizeof *stream) {
            record.pool = mmap(NULL, RECORD_CHUNK, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            record.pool = record.pool == MAP_FAILED ? NULL : record.pool;
            record.pool_end = record.pool ? record.pool + RECORD_CHUNK : NULL;
        }
        stream = (struct record_stream *)(void *)record.pool;
        if (stream) {
            record.pool += sizeof *stream;
            stream->other = record.all;
            record.all = stream;
            stream->number = atomic_fetch_add(&record.streams, 1);
        }
    }
    unlock();
    return stream;
}

static void put(struct record_stream *stream, const struct kit_trace_raw *event)
{
    stream->at = kit_trace_encode(&stream->state, stream->at, event);
    atomic_signal_fence(memory_order_seq_cst);
    stream->chunk->used = (uint32_t)(stream->at - (uint8_t *)(stream->chunk + 1));
}

static bool next_chunk(struct record_stream *stream)
{
    if (stream->chunk)
        munmap(stream->chunk, RECORD_CHUNK);
    stream->chunk = map_chunk(KIT_TRACE_EVENTS, stream->number, stream->sequence++);
    if (!stream->chunk)
        return false;
    stream->at = (uint8_t *)(stream->chunk + 1);
    /* room for a turn and an event, and for what the writer scribbles behind them */
    stream->end = (uint8_t *)stream->chunk + RECORD_CHUNK - 2 * KIT_TRACE_EVENT_MAX - 16;
    stream->thread = UINT32_MAX;
    kit_trace_begin(&stream->state, stream->chunk->ticks);
    return true;
}

static void name_thread(struct record_thread *me, struct record_stream *stream, uint64_t ticks)
{
    bool fresh = !me->number || me->turn != record.turn;
    if (fresh) {
        me->number = atomic_fetch_add(&record.threads, 1) + 1;
        me->turn = record.turn;
    }
    struct kit_trace_raw turn = {.ticks = ticks, .size = me->number - 1, .op = KIT_TRACE_THREAD};
    put(stream, &turn);
    stream->thread = me->number - 1;
    if (fresh) {
        struct kit_trace_raw start = {
            .ticks = ticks, .size = (uint64_t)syscall(SYS_gettid), .op = KIT_TRACE_START};
        put(stream, &start);
    }
}

RECORD_COLD struct record_stream *record_room(uint64_t ticks)
{
    struct record_thread *me = &record_thread;
    struct record_stream *stream = me->stream;
    int saved = errno;
    if (atomic_load(&record_state) == 3 && !stream) {
        stream = me->stream = take_stream();
        pthread_setspecific(record.key, me);
    }
    if (atomic_load(&record_state) != 3 || !stream ||
        ((!stream->chunk || stream->at >= stream->end) && !next_chunk(stream)))
        stream = NULL;
    else if (stream->thread == UINT32_MAX || stream->thread != me->number - 1 ||
             me->turn != record.turn)
        name_thread(me, stream, ticks);
    errno = saved;
    return stream;
}

/* A thread ends: its stream is for the next one. */
static void end_thread(void *argument)
{
    struct record_thread *me = argument;
    struct record_stream *stream = me->stream;
    me->depth++;
    me->stream = NULL;
    if (stream && stream->chunk && atomic_load(&record_state) == 3) {
        struct kit_trace_raw end = {.ticks = __builtin_ia32_rdtsc(), .op = KIT_TRACE_EXIT};
        put(stream, &end);
        note_moment();
        lock();
        stream->next = record.spare;
        record.spare = stream;
        unlock();
    }
    me->depth--;
}

/* ---- beginning ------------------------------------------------------------------------------ */

static void add_fact(struct kit_trace_header *header, const char *key, const char *value)
{
    size_t room = sizeof header->text - header->text_size;
    int length = value && *value
                     ? snprintf(header->text + header->text_size, room, "%s=%s\n", key, value)
                     : 0;
    if (length > 0 && (size_t)length < room)
        header->text_size += (uint32_t)length;
}

/* Reads the start of a file of /proc as one line. */
static const char *one_line(const char *path, char *line, size_t room)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? 0 : read(file, line, room - 1);
    if (file >= 0)
        close(file);
    got = got < 0 ? 0 : got;
    while (got > 0 && (line[got - 1] == '\0' || line[got - 1] == '\n'))
        got--;
    for (ssize_t i = 0; i < got; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    line[got] = '\0';
    return line;
}

static bool begin_file(const char *path, bool attached)
{
    static char line[1024];
    snprintf(record.path, sizeof record.path, "%s", path);
    struct kit_trace_header *header = map_file(0, KIT_TRACE_PAGE, O_CREAT | O_EXCL);
    if (!header)
        return false;
    record.header = header;
    header->version = KIT_TRACE_VERSION;
    header->chunk = RECORD_CHUNK;
    header->flags = attached ? KIT_TRACE_ATTACHED : 0;
    header->pid = (uint32_t)getpid();
    header->start_wall_ns = clock_ns(CLOCK_REALTIME);
    header->first_ticks = __builtin_ia32_rdtsc();
    header->first_ns = clock_ns(CLOCK_MONOTONIC);
    header->cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    header->page = (uint32_t)sysconf(_SC_PAGESIZE);
    ssize_t length = readlink("/proc/self/exe", line, sizeof line - 1);
    line[length > 0 ? length : 0] = '\0';
    add_fact(header, "program", line);
    add_fact(header, "command", one_line("/proc/self/cmdline", line, sizeof line));
    add_fact(header, "kernel", one_line("/proc/sys/kernel/osrelease", line, sizeof line));
    snprintf(line, sizeof line, "%d", (int)getppid());
    add_fact(header, "parent", line);
    Dl_info found;
    if (dladdr(record_next[RECORD_AT_malloc], &found) && found.dli_fname)
        add_fact(header, "allocator", found.dli_fname);
    memcpy(header->magic, KIT_TRACE_MAGIC, sizeof header->magic);
    note_moment();
    record_modules(map_modules);
    return true;
}

/* A name that no other process and no program before this one in the process has. */
static bool begin_process(const char *base)
{
    char path[PATH];
    for (unsigned number = 0; number < 1000; number++) {
        int length = number ? snprintf(path, sizeof path, "%s.%d.%u", base, (int)getpid(), number)
                            : snprintf(path, sizeof path, "%s.%d", base, (int)getpid());
        if (length < 0 || (size_t)length >= sizeof path)
            return false;
        if (begin_file(path, false))
            return true;
        if (errno != EEXIST)
            return false;
    }
    return false;
}

static char base[PATH];

/* Forgets the file, for a new one: no thread is in the middle of an event. */
static void start_anew(void)
{
    record.turn++;
    record.refreshes = 0;
    atomic_store(&record.lock, 0);
    atomic_store(&record.slots, 0);
    atomic_store(&record.threads, 0);
    atomic_store(&record.module_chunks, 0);
    record_forget_modules();
}

static void forked_child(void)
{
    record_thread.depth++;
    record_thread.stream = NULL;
    record.spare = record.all = NULL; /* those were the parent's; its chunks are not touched */
    atomic_store(&record.streams, 0);
    start_anew();
    if (atomic_load(&record_state) == 3) {
        int saved = errno;
        if (!base[0] || !begin_process(base))
            stop();
        errno = saved;
    }
    record_thread.depth--;
}

static void look_up(void *where)
{
    static const char *const names[] = {
#define RECORD_NAME(name) #name,
        RECORD_FAMILY(RECORD_NAME)
#undef RECORD_NAME
    };
    for (size_t i = 0; i < RECORD_COUNT; i++)
        record_next[i] = dlsym(where, names[i]);
}

static bool prepare(void)
{
    return pthread_key_create(&record.key, end_thread) == 0 &&
           pthread_atfork(NULL, NULL, forked_child) == 0;
}

#ifdef KIT_RECORD_ATTACH

int kit_record_start(const char *path);
void kit_record_stop(void);

/* Called in the stopped program: 0, or an errno. */
RECORD_PUBLIC int kit_record_start(const char *path)
{
    record_thread.depth++;
    int code = 0;
    if (!record_next[RECORD_AT_malloc]) {
        look_up(RTLD_DEFAULT);
        code = prepare() ? 0 : ENOMEM;
    } else { /* once more: the streams stay with their threads and begin anew */
        for (struct record_stream *each = record.all; each; each = each->other) {
            if (each->chunk)
                munmap(each->chunk, RECORD_CHUNK);
            each->chunk = NULL;
            each->sequence = 0;
            each->at = each->end = NULL;
        }
        start_anew();
    }
    if (code == 0 && !begin_file(path, true))
        code = errno ? errno : EIO;
    if (code == 0)
        atomic_store(&record_state, 3);
    record_thread.depth--;
    return code;
}

RECORD_PUBLIC void kit_record_stop(void)
{
    stop();
    if (record.header)
        note_moment();
}

void record_begin(void)
{
}

#else

RECORD_COLD void record_begin(void)
{
    int fresh = 0;
    if (!environ || !atomic_compare_exchange_strong(&record_state, &fresh, 1))
        return;
    int saved = errno;
    record_thread.depth++;
    look_up(RTLD_NEXT);
    const char *path = getenv("UNIKIT_TRACE");
    bool on = path && *path && strlen(path) < PATH - 32 && prepare();
    if (on) {
        snprintf(base, sizeof base, "%s", path);
        on = begin_process(base);
    }
    atomic_store(&record_state, on ? 3 : 2);
    record_thread.depth--;
    errno = saved;
}

__attribute__((constructor)) static void constructor(void)
{
    record_begin();
}

#endif

__attribute__((destructor)) static void destructor(void)
{
    if (atomic_load(&record_state) == 3)
        note_moment();
}
