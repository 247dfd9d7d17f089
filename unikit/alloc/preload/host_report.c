/* SPDX-License-Identifier: MIT */
/* What the library tells people and programs: panics, statistics at exit, mallinfo and its kin.
 *
 * UNIKIT_ALLOC_STATS=1 writes statistics to standard error when the program exits; any other value
 * is the path of a file that gets one line of JSON for each process. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <unikit/alloc/preload/host.h>

#define PUBLIC __attribute__((visibility("default")))
enum { SCAN_WORDS = 4096, SCAN_STEP = 1024, HIGH_FD = 200 };

static int stats_fd = -1; /* a copy of standard error that the program does not close */

void kit_preload_set_errno(int error)
{
    errno = error;
}

static void say(const char *text)
{
    size_t length = strlen(text);
    while (length) {
        ssize_t written = write(STDERR_FILENO, text, length);
        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

static void write_line(const char *const *parts)
{
    char line[1024];
    size_t used =
        (size_t)snprintf(line, sizeof line, "unikit: preloaded alloc.%s: ", kit_preload_name);
    for (; *parts; parts++) {
        size_t length = strnlen(*parts, sizeof line - 2 - used);
        memcpy(line + used, *parts, length);
        used += length;
    }
    line[used] = '\n';
    line[used + 1] = 0;
    say(line);
}

void kit_preload_die(const char *const *parts)
{
    write_line(parts);
    abort();
}

/* Copies memory that may not be there; bytes copied. */
static size_t peek(const void *from, void *to, size_t size)
{
    struct iovec here = {to, size}, there = {(void *)(uintptr_t)from, size};
    ssize_t copied = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
    return copied > 0 ? (size_t)copied : 0;
}

/* Whether a call instruction ends at `place`. */
static bool after_call(uintptr_t place)
{
    unsigned char code[7];
    if (peek((const void *)(place - sizeof code), code, sizeof code) != sizeof code)
        return false;
    if (code[2] == 0xe8) /* call relative: five bytes */
        return true;
    for (size_t at = 0; at + 2 <= sizeof code; at++) /* call by register or memory: ff /2 */
        if (code[at] == 0xff && (code[at + 1] & 0x38) == 0x10)
            return true;
    return false;
}

/* The return address to whoever called into this library: the first one on the stack that is not
 * of ours. Approximate, for a message only. */
static const void *call_site(void)
{
    Dl_info own, other;
    static uintptr_t words[SCAN_WORDS]; /* static: the stack may be small */
    const char *stack = __builtin_frame_address(0);
    size_t count = 0;
    for (size_t got = 1; got && count < SCAN_WORDS; count += got) /* page by page, to the end */
        got = peek(stack + count * sizeof *words, words + count, SCAN_STEP) / sizeof *words;
    if (!dladdr((void *)(uintptr_t)call_site, &own))
        return NULL;
    for (size_t index = 0; index < count; index++)
        if (dladdr((void *)words[index], &other) && other.dli_fbase != own.dli_fbase &&
            after_call(words[index]))
            return (const void *)words[index];
    return NULL;
}

void kit_preload_describe(const void *place, char *text, size_t size)
{
    Dl_info info;
    if (!place || !dladdr(place, &info) || !info.dli_fname)
        snprintf(text, size, "%p", place);
    else if (info.dli_sname)
        snprintf(text, size, "%p (%s+%#zx in %s)", place, info.dli_sname,
                 (size_t)((const char *)place - (const char *)info.dli_saddr), info.dli_fname);
    else
        snprintf(text, size, "%p (%s+%#zx)", place, info.dli_fname,
                 (size_t)((const char *)place - (const char *)info.dli_fbase));
}

/* Says what the code addresses are that a message names as «... by 0x7f..». */
static void explain(const char *message)
{
    char line[600] = "unikit:   ";
    while ((message = strstr(message, " by 0x"))) {
        message += strlen(" by ");
        kit_preload_describe((const void *)strtoul(message, NULL, 16), line + 10, sizeof line - 12);
        strcat(line, "\n");
        say(line);
    }
}

/* A broken contract that the component found. One that keeps call sites names the block itself. */
_Noreturn void kit_panic(const char *message)
{
    char site[512], block[64] = "";
    const struct kit_preload_thread *thread = &kit_preload_thread;
    kit_preload_describe(KIT_PRELOAD_NOTES ? thread->site : call_site(), site, sizeof site);
    if (KIT_PRELOAD_NOTES && !KIT_PRELOAD_SITES && thread->block)
        snprintf(block, sizeof block, ": block %p", thread->block);
    write_line((const char *[]){message, block, ", called from ", site, NULL});
    if (KIT_PRELOAD_SITES)
        explain(message);
    abort();
}

static struct kit_alloc_stats stats(void)
{
    struct kit_alloc_stats found;
    if (!kit_preload_heap)
        kit_preload_open();
    bool lock = !kit_preload_thread.forking;
    if (lock)
        kit_preload_lock();
    kit_alloc_stats(kit_preload_heap, &found);
    if (lock)
        kit_preload_unlock();
    return found;
}

static long peak_rss_kib(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss : 0;
}

/* Writes the program's name so that it can stand between quotes in JSON. */
static void json_name(const char *name, char *text, size_t size)
{
    size_t used = 0;
    for (; *name && used + 7 < size; name++) {
        unsigned char byte = (unsigned char)*name;
        bool plain = byte >= 32 && byte < 127 && byte != '"' && byte != '\\';
        used += (size_t)snprintf(text + used, size - used, plain ? "%c" : "\\u%04x", byte);
    }
    text[used] = 0;
}

static void write_json(const char *path, const struct kit_alloc_stats *s)
{
    char name[256], line[1024];
    json_name(program_invocation_short_name, name, sizeof name);
    int length =
        snprintf(line, sizeof line,
                 "{\"allocator\": \"%s\", \"program\": \"%s\", \"pid\": %d, \"capacity\": %zu, "
                 "\"used\": %zu, \"peak\": %zu, \"blocks\": %zu, \"allocations\": %llu, "
                 "\"frees\": %llu, \"failures\": %llu, \"peak_rss\": %lld}\n",
                 kit_preload_name, name, (int)getpid(), s->capacity, s->used, s->peak, s->blocks,
                 (unsigned long long)s->allocations, (unsigned long long)s->frees,
                 (unsigned long long)s->failures, (long long)peak_rss_kib() * 1024);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0 || write(file, line, (size_t)length) != length) {
        say("unikit: cannot write allocator statistics to ");
        say(path);
        say("\n");
    }
    if (file >= 0)
        close(file);
}

static void write_text(int file, const struct kit_alloc_stats *s)
{
    dprintf(file,
            "unikit: alloc.%s in %s (process %d): %llu allocations, %llu frees, %llu refused, "
            "%zu blocks with %zu bytes left, peak %zu bytes, peak RSS %ld KiB\n",
            kit_preload_name, program_invocation_short_name, (int)getpid(),
            (unsigned long long)s->allocations, (unsigned long long)s->frees,
            (unsigned long long)s->failures, s->blocks, s->used, s->peak, peak_rss_kib());
}

__attribute__((constructor)) static void begin(void)
{
    const char *where = kit_preload_option("UNIKIT_ALLOC_STATS");
    if (!kit_preload_heap)
        kit_preload_open(); /* our handlers for fork come before those of the program */
    if (where && !strcmp(where, "1"))
        stats_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, HIGH_FD);
}

__attribute__((destructor)) static void end(void)
{
    const char *where = kit_preload_option("UNIKIT_ALLOC_STATS");
    kit_preload_leaks();
    if (!where || !*where || !strcmp(where, "0"))
        return;
    struct kit_alloc_stats found = stats();
    if (!strcmp(where, "1"))
        write_text(stats_fd >= 0 ? stats_fd : STDERR_FILENO, &found);
    else
        write_json(where, &found);
}

/* Statistics and hints of glibc. */

PUBLIC int malloc_trim(size_t pad)
{
#if KIT_PRELOAD_PAGES
    bool locked;
    struct kit_alloc *a = kit_preload_enter(&locked);
    size_t given = kit_alloc_trim(a, pad);
    kit_preload_leave(locked);
    return given > 0;
#else
    return (void)pad, 0;
#endif
}

/* Hints for another allocator: accepted, and without effect. */
PUBLIC int mallopt(int name, int value)
{
    (void)value;
    return name == M_MXFAST || (name <= M_TRIM_THRESHOLD && name >= M_ARENA_MAX);
}

PUBLIC struct mallinfo2 mallinfo2(void)
{
    struct kit_alloc_stats s = stats();
    return (struct mallinfo2){
        .arena = s.peak,
        .ordblks = 1,
        .uordblks = s.used,
        .fordblks = s.peak - s.used,
    };
}

static int clipped(size_t value)
{
    return value > INT32_MAX ? INT32_MAX : (int)value;
}

PUBLIC struct mallinfo mallinfo(void)
{
    struct mallinfo2 info = mallinfo2();
    return (struct mallinfo){
        .arena = clipped(info.arena),
        .ordblks = clipped(info.ordblks),
        .uordblks = clipped(info.uordblks),
        .fordblks = clipped(info.fordblks),
    };
}

PUBLIC int malloc_info(int options, FILE *stream)
{
    if (options != 0) {
        errno = EINVAL;
        return -1;
    }
    struct kit_alloc_stats s = stats();
    int written = fprintf(stream,
                          "<malloc version=\"1\" allocator=\"alloc.%s\">\n"
                          "<system type=\"current\" size=\"%zu\"/>\n"
                          "<system type=\"max\" size=\"%zu\"/>\n"
                          "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
                          "</malloc>\n",
                          kit_preload_name, s.used, s.peak, s.blocks, s.used);
    return written < 0 ? -1 : 0;
}

PUBLIC void malloc_stats(void)
{
    struct kit_alloc_stats s = stats();
    write_text(STDERR_FILENO, &s);
}
