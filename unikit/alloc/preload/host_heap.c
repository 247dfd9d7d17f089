/* SPDX-License-Identifier: MIT */
/* Memory for the heap: one large reservation, of which the kernel backs what is touched.
 *
 * As large as the machine's memory, or as UNIKIT_ALLOC_RESERVE says; where that is refused (a limit
 * on address space or data, strict overcommit) as much as fits, half of it left to the rest of the
 * program. Later needs are met by further regions, which the kernel may refuse as it would refuse
 * them to anybody. UNIKIT_ALLOC_HUGEPAGES=1 asks for transparent huge pages; else nobody does. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <unikit/alloc/preload/host.h>
#include <unikit/rt/bits.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
enum { PAGE = 4096 };
#define HUGE_PAGE (2 * MIB)
#define RESERVE_MIN (256 * KIB)
#define CLEAR_BY_PAGES MIB /* from here on new pages cost less than writing zeros */

struct kit_alloc *kit_preload_heap;

static bool huge_pages;
static size_t next_chunk = 64 * MIB; /* a further region: the components can hold few */

/* ld.so: where the kernel put argc, and behind it argv and the environment. */
extern void *__libc_stack_end;

const char *kit_preload_option(const char *name)
{
    char **each = environ;
    if (!each && __libc_stack_end)
        each = (char **)__libc_stack_end + 1 + *(size_t *)__libc_stack_end + 1;
    size_t length = strlen(name);
    for (; each && *each; each++)
        if (!strncmp(*each, name, length) && (*each)[length] == '=')
            return *each + length + 1;
    return NULL;
}

/* Bytes that a text such as 512M stands for; 0: none. No call of libc, which may not be ready. */
static size_t size_of(const char *text)
{
    static const char units[] = "KMGT";
    size_t size = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        size = size * 10 + (size_t)(*text - '0');
    for (unsigned power = 0; power < sizeof units - 1; power++)
        if (*text == units[power])
            return size << (10 * (power + 1));
    return size;
}

static size_t wanted(void)
{
    const char *text = kit_preload_option("UNIKIT_ALLOC_RESERVE");
    size_t size = text ? size_of(text) : 0;
    if (size)
        return kit_align_up(size, PAGE);
    struct sysinfo info;
    size = sysinfo(&info) == 0 ? info.totalram * info.mem_unit : 0;
    return kit_align_up(size | 1, GIB);
}

static void *map(size_t size, int flags)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (huge_pages)
        madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

/* Reserves *size bytes, or as many as the limits leave room for. */
static void *reserve(size_t *size)
{
    void *memory = map(*size, MAP_NORESERVE);
    if (memory)
        return memory;
    for (size_t fits = *size / 2; fits >= RESERVE_MIN; fits /= 2) {
        memory = map(fits, MAP_NORESERVE);
        if (memory) {
            *size = kit_align_up(fits / 2, PAGE);
            munmap((char *)memory + *size, fits - *size);
            return memory;
        }
    }
    return NULL;
}

/* Maps `least` bytes, whole pages, and as a rule more: each time twice as much. */
static void *map_chunk(size_t least, size_t *got)
{
    size_t size = least < next_chunk ? next_chunk : least;
    void *memory = map(size, 0);
    while (!memory && size > least) {
        size = size / 2 < least ? least : kit_align_up(size / 2, PAGE);
        memory = map(size, 0);
    }
    *got = size;
    if (memory && next_chunk < GIB)
        next_chunk *= 2;
    return memory;
}

#if KIT_PRELOAD_PAGES

static void pages_decommit(void *context, void *start, size_t size)
{
    (void)context;
    int error = errno;
    if (madvise(start, size, MADV_DONTNEED) != 0)
        memset(start, 0, size); /* locked pages stay; that they read as zero is promised */
    errno = error;
}

static void *pages_map(void *context, size_t size, size_t *got)
{
    (void)context;
    int error = errno;
    void *memory = NULL;
    if (size <= PTRDIFF_MAX)
        memory = map_chunk(kit_align_up(size, PAGE), got);
    errno = memory ? error : ENOMEM;
    return memory;
}

static void pages_unmap(void *context, void *start, size_t size)
{
    (void)context;
    int error = errno;
    munmap(start, size);
    errno = error;
}

static int pages_protect(void *context, void *start, size_t size, bool accessible)
{
    (void)context;
    int error = errno;
    int result = mprotect(start, size, accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
    errno = error;
    return result == 0 ? 0 : KIT_ENOMEM;
}

static const struct kit_alloc_pages pages = {
    .decommit = pages_decommit,
    .map = pages_map,
    .unmap = pages_unmap,
    .protect = pages_protect,
    .page = PAGE,
    .fresh = 1,
};

#endif

void kit_preload_open(void)
{
    kit_preload_lock();
    if (kit_preload_heap) {
        kit_preload_unlock();
        return;
    }
    int error = errno;
    const char *huge = kit_preload_option("UNIKIT_ALLOC_HUGEPAGES");
    huge_pages = huge && *huge == '1';
    size_t size = wanted(), at = 0;
    struct kit_alloc *heap = NULL;
    void *memory = reserve(&size);
    if (!memory)
        kit_preload_die((const char *[]){"there is no memory for a heap", NULL});
    int result =
        kit_alloc_compose(kit_preload_choices, kit_preload_choice_count, memory, size, &heap, &at);
#if KIT_PRELOAD_PAGES
    if (result == 0)
        result = kit_alloc_source(heap, &pages);
#endif
    if (result != 0)
        kit_preload_die((const char *[]){kit_preload_choices[at].component->id,
                                         " cannot be opened: see its options, the limits of the "
                                         "process and UNIKIT_ALLOC_RESERVE",
                                         NULL});
    kit_preload_heap = heap;
    errno = error;
    kit_preload_unlock();
    kit_preload_watch();
}

#if KIT_PRELOAD_ADD_REGION

/* Maps a region for a request and hands it over. */
static bool add_region(size_t size, size_t align)
{
    size_t least, bytes;
    if (kit_add_overflow(size, align, &least) || kit_add_overflow(least, least / 8, &least) ||
        kit_add_overflow(least, 64 * KIB, &least) || least > PTRDIFF_MAX)
        return false;
    void *memory = map_chunk(kit_align_up(least, PAGE), &bytes);
    if (memory && kit_alloc_add_region(kit_preload_heap, memory, bytes) == 0)
        return true;
    if (memory)
        munmap(memory, bytes);
    return false;
}

bool kit_preload_grow(size_t size, size_t align, bool locked)
{
    int error = errno;
    bool lock = KIT_PRELOAD_THREADS && !locked && !kit_preload_thread.forking;
    if (lock)
        kit_preload_lock();
    bool grown = add_region(size, align);
    if (lock)
        kit_preload_unlock();
    errno = error;
    return grown;
}

#else

bool kit_preload_grow(size_t size, size_t align, bool locked)
{
    return (void)size, (void)align, (void)locked, false;
}

#endif

void kit_preload_clear(void *block, size_t size)
{
    if (size < CLEAR_BY_PAGES) {
        memset(block, 0, size);
        return;
    }
    int error = errno;
    char *start = block, *end = start + size;
    char *first = (char *)kit_align_up((uintptr_t)start, PAGE);
    char *last = (char *)kit_align_down((uintptr_t)end, PAGE);
    memset(start, 0, (size_t)(first - start));
    if (madvise(first, (size_t)(last - first), MADV_DONTNEED) != 0)
        memset(first, 0, (size_t)(last - first)); /* locked pages stay */
    memset(last, 0, (size_t)(end - last));
    errno = error;
}
