/* SPDX-License-Identifier: MIT */
/* What a program never freed, for a component that keeps call sites (alloc.guard).
 *
 * UNIKIT_ALLOC_LEAKS=1 lists it on standard error when the program exits, a line for each place
 * that asked, most bytes first; any other value is the path of a file. What a program holds until
 * its end on purpose is listed too: it was never freed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <unikit/alloc/preload/host.h>

#if KIT_PRELOAD_LEAKS

enum { PLACES = 1024, SHOWN = 100 };

struct place {
    uintptr_t site;
    size_t blocks, bytes;
};

static struct place places[PLACES]; /* the last one is for all that find none of their own */
static struct place all;

static int count(void *argument, const struct kit_alloc_live *block)
{
    (void)argument;
    size_t at = (size_t)(block->site * UINT64_C(0x9e3779b97f4a7c15) >> 54);
    size_t tries = 0;
    while (places[at].blocks && places[at].site != block->site && ++tries < PLACES)
        at = (at + 1) % PLACES;
    struct place *place = tries < PLACES ? &places[at] : &places[PLACES - 1];
    *place = (struct place){tries < PLACES ? block->site : 0, place->blocks + 1,
                            place->bytes + block->size};
    all.blocks++;
    all.bytes += block->size;
    return 0;
}

static int more_bytes(const void *left, const void *right)
{
    size_t a = ((const struct place *)left)->bytes, b = ((const struct place *)right)->bytes;
    return (a < b) - (a > b);
}

static void write_places(int file)
{
    dprintf(file,
            "unikit: alloc.%s in %s (process %d): %zu blocks with %zu bytes were never freed\n",
            kit_preload_name, program_invocation_short_name, (int)getpid(), all.blocks, all.bytes);
    for (size_t at = 0; at < SHOWN && places[at].blocks; at++) {
        char site[512];
        kit_preload_describe((const void *)places[at].site, site, sizeof site);
        dprintf(file, "unikit:   %zu blocks, %zu bytes, allocated by %s\n", places[at].blocks,
                places[at].bytes, site);
    }
}

void kit_preload_leaks(void)
{
    const char *where = kit_preload_option("UNIKIT_ALLOC_LEAKS");
    if (!where || !*where || !strcmp(where, "0") || kit_preload_thread.forking)
        return;
    kit_preload_lock();
    kit_alloc_live(kit_preload_heap, count, NULL);
    kit_preload_unlock();
    qsort(places, PLACES, sizeof *places, more_bytes);
    int file = STDERR_FILENO;
    if (strcmp(where, "1") != 0)
        file = open(where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0)
        dprintf(STDERR_FILENO, "unikit: cannot write what was never freed to %s\n", where);
    else
        write_places(file);
    if (file > STDERR_FILENO)
        close(file);
}

#else

void kit_preload_leaks(void)
{
}

#endif
