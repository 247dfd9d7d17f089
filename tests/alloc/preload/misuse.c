/* SPDX-License-Identifier: MIT */
/* Frees a block twice, from a function with a name of its own. */
#include <stdlib.h>

static void *volatile block;

__attribute__((noinline)) void free_it_twice(void)
{
    free(block);
    free(block);
}

int main(void)
{
    block = malloc(100);
    free_it_twice();
    return 0;
}
