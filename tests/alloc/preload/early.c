/* SPDX-License-Identifier: MIT */
/* A program with early_library.c: what was allocated before main is as good as any other block. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern unsigned char *early_block;
extern unsigned long early_calls;

static char *made;

__attribute__((constructor)) static void begin(void)
{
    made = strdup("made by a constructor of the program");
}

__attribute__((destructor)) static void end(void)
{
    free(realloc(made, 1000));
}

static void at_exit(void)
{
    free(malloc(100));
}

int main(void)
{
    atexit(at_exit);
    for (int index = 0; index < 5000; index++)
        if (early_block[index] != 0x11)
            return 1;
    free(early_block);
    if (!early_calls || strcmp(made, "made by a constructor of the program"))
        return 2;
    for (int index = 0; index < 100; index++) {
        void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        if (!library || !dlsym(library, "cos") || dlsym(library, "no such symbol") || !dlerror())
            return 3;
        dlclose(library);
    }
    return 0;
}
