/* SPDX-License-Identifier: MIT */
/* Allocates until there is no more, under a limit that the caller sets, and goes on from there:
 * prints how many MiB there were. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) : 1 << 20, total = 0;
    void **last = NULL, **block;
    while (total < (size_t)4 << 30 && (block = malloc(size))) {
        memset(block, 1, 64);
        *block = last;
        last = block;
        total += size;
    }
    int error = errno;
    for (; last; last = block) {
        block = *last;
        free(last);
    }
    void *again = malloc(size);
    printf("%zu\n", total >> 20);
    return (total < (size_t)4 << 30 && error != ENOMEM) + 2 * !again;
}
