/* SPDX-License-Identifier: MIT */
/* An array of the program; the words before the address are those of a block of glibc. */
#include "misuse.h"

static _Alignas(64) char object[1024];

int main(int argc, char **argv)
{
    setup(argc, argv);
    char *volatile fake = object + 64;
    size_t word = (size + 24) & ~(size_t)15;
    memset(object, 0, sizeof object);
    memcpy(fake - 8, &(size_t){word | 1}, 8);
    if (word < 512) /* the chunk behind it, where there is room for one */
        memcpy(fake - 8 + word, &(size_t){word | 1}, 8);
    meanwhile();
    free(fake); /* never came from malloc */
    return aftermath();
}
