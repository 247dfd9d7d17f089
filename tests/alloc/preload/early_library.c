/* SPDX-License-Identifier: MIT */
/* A library that allocates in its constructor, that is preloaded in front of an allocator and finds
 * the next malloc by dlsym, which allocates itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

void *early_block;
unsigned long early_calls;

void *__libc_malloc(size_t size);
static void *(*next_malloc)(size_t size);
static volatile int finding; /* volatile: libc says that dlsym does not come back to us */

__attribute__((constructor(101))) static void begin(void)
{
    early_block = calloc(1, 5000);
    memset(early_block, 0x11, 5000);
    char *text = realloc(strdup("early"), 100000);
    free(text);
}

void *malloc(size_t size)
{
    if (finding)
        return __libc_malloc(size);
    if (!next_malloc) {
        finding = 1;
        dlsym(RTLD_NEXT, "there is no such symbol");
        dlerror(); /* both allocate and free */
        next_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
        finding = 0;
    }
    early_calls++;
    return next_malloc(size);
}
