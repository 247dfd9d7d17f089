/* SPDX-License-Identifier: MIT */
/* A C program that gets C++ late: argv[1] is a library in C++, loaded into a scope of its own. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    int (*catches)(void) = library ? (int (*)(void))dlsym(library, "catches") : NULL;
    if (!catches) {
        puts(dlerror());
        return 2;
    }
    return catches() == 1 ? 0 : 1;
}
