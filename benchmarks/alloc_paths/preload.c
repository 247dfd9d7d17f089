/* SPDX-License-Identifier: MIT */
/* The loop as a Linux program has it: calls of libc's malloc and free, whoever provides them. */
#include <stdlib.h>

#define TAKE(size) malloc(size)
#define GIVE(block, size) free(block)
#include "loop.h"

static struct live live[LIVE];

int main(void)
{
    free(malloc(1));
    return (int)(replace(live, PAIRS) & 1) - 1 > 0;
}
