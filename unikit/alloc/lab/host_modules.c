/* SPDX-License-Identifier: MIT */
/* Which code is mapped where: the executable lines of /proc/self/maps, copied into the trace when a
 * call site lies in none that was seen. Calls must exclude each other, but for record_known(). */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <unikit/alloc/lab/host_record.h>

enum { RANGES = 512 };

static struct {
    uint64_t start, end;
} ranges[RANGES];
static _Atomic uint32_t range_count;

bool record_known(uint64_t site)
{
    uint32_t count = atomic_load_explicit(&range_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (site - ranges[i].start < ranges[i].end - ranges[i].start)
            return true;
    return false;
}

void record_forget_modules(void)
{
    atomic_store(&range_count, 0);
}

static void note_range(const char *line)
{
    char *next;
    uint64_t start = strtoull(line, &next, 16), end = strtoull(next + 1, &next, 16);
    uint32_t count = atomic_load(&range_count);
    if (count == RANGES || record_known(start))
        return;
    ranges[count].start = start;
    ranges[count].end = end;
    atomic_store_explicit(&range_count, count + 1, memory_order_release);
}

/* Copies the executable mappings among `text` into chunks. */
static void copy(const char *text, record_mapper *map)
{
    struct kit_trace_chunk *chunk = NULL;
    for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        size_t length = (size_t)(end - line) + 1;
        const char *rights = memchr(line, ' ', length);
        if (!rights || rights[3] != 'x')
            continue;
        note_range(line);
        if (chunk && chunk->used + length > RECORD_CHUNK - sizeof *chunk) {
            munmap(chunk, RECORD_CHUNK);
            chunk = NULL;
        }
        if (!chunk && !(chunk = map()))
            return;
        memcpy((char *)(chunk + 1) + chunk->used, line, length);
        chunk->used += (uint32_t)length;
    }
    if (chunk)
        munmap(chunk, RECORD_CHUNK);
}

void record_modules(record_mapper *map)
{
    size_t room = (size_t)4 << 20, used = 0;
    char *text = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file >= 0 && text != MAP_FAILED) {
        for (ssize_t got; used < room - 1 && (got = read(file, text + used, room - 1 - used)) > 0;)
            used += (size_t)got;
        copy(text, map);
    }
    if (text != MAP_FAILED)
        munmap(text, room);
    if (file >= 0)
        close(file);
}
