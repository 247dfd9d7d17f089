/* SPDX-License-Identifier: MIT */
/* Preloaded after an allocator in a run that is not measured: each process of the program adds a
 * line to the file of $UNIKIT_WITNESS that says whose malloc() its calls really reach. The dynamic
 * linker only warns when it cannot preload, and a program may bring an allocator of its own; this
 * looks the name up as the program's own calls do.
 *
 * Line: PID, the object that malloc() comes from, then every mapped object, separated by tabs. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 16384, NAME = 1024 };

/* Adds `text` to the line; what does not fit is left out. */
static size_t append(char *line, size_t used, const char *text)
{
    size_t length = strlen(text);
    if (used + length + 2 > LINE) {
        return used;
    }
    memcpy(line + used, text, length);
    return used + length;
}

/* Adds the file of every executable mapping of this process. Reads by the byte: no buffer of stdio
 * that would be allocated. */
static size_t append_maps(char *line, size_t used)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    char chunk[4096], row[NAME];
    size_t length = 0;
    ssize_t got;
    while (fd >= 0 && (got = read(fd, chunk, sizeof chunk)) > 0) {
        for (ssize_t at = 0; at < got; at++) {
            if (chunk[at] != '\n') {
                length += length < sizeof row - 1;
                row[length - 1] = chunk[at];
                continue;
            }
            row[length] = '\0';
            length = 0;
            const char *path = strchr(row, '/');
            if (path != NULL && strstr(row, " r-xp ") != NULL) {
                used = append(line, append(line, used, "\t"), path);
            }
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return used;
}

/* The object whose malloc() the program's calls reach, or "?". A program at a fixed address that
 * takes the address of malloc() has a symbol for it with the address of its own jump stub, which is
 * what dlsym() finds then; but it defines nothing. What its stub leads to is the first definition
 * in the order of the linker's list, preloaded libraries at its head. */
static const char *provider(void)
{
    Dl_info info = {0};
    const ElfW(Sym) *symbol = NULL;
    const void *found = dlsym(RTLD_DEFAULT, "malloc");
    if (found == NULL || dladdr1(found, &info, (void **)&symbol, RTLD_DL_SYMENT) == 0 ||
        info.dli_fname == NULL) {
        return "?";
    }
    struct link_map *map = NULL;
    if (symbol == NULL || symbol->st_shndx != SHN_UNDEF ||
        dladdr1(found, &info, (void **)&map, RTLD_DL_LINKMAP) == 0) {
        return info.dli_fname;
    }
    while ((map = map->l_next) != NULL) {
        void *object = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
        found = object != NULL ? dlsym(object, "malloc") : NULL; /* its own, or of what it needs */
        struct link_map *of = NULL;
        bool own =
            found != NULL && dladdr1(found, &info, (void **)&of, RTLD_DL_LINKMAP) != 0 && of == map;
        if (object != NULL) {
            dlclose(object);
        }
        if (own) {
            return map->l_name;
        }
    }
    return "?";
}

__attribute__((constructor)) static void testify(void)
{
    const char *path = getenv("UNIKIT_WITNESS");
    if (path == NULL) {
        return;
    }
    int kept = errno;
    static char line[LINE];
    size_t used = (size_t)snprintf(line, NAME, "%d\t", (int)getpid());
    used = append_maps(line, append(line, used, provider()));
    line[used++] = '\n';
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, line, used) < 0) {
            used = 0;
        }
        close(fd);
    }
    errno = kept;
}
