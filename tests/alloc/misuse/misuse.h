/* SPDX-License-Identifier: MIT */
/* What every misuse program shares: its arguments, neighbours for its block, and the two ends. */
#ifndef MISUSE_H
#define MISUSE_H

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NEIGHBOURS = 8, CHURN = 200 };

static size_t size;          /* of the block that is misused */
static bool later;           /* other requests come between */
static char *volatile block; /* volatile: the compiler shall not know what we do to it */
static char *volatile neighbour[NEIGHBOURS];

static inline void say(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        _exit(9);
}

/* Reads «SIZE once|later» and puts the block among others of its size. */
static inline void setup(int argc, char **argv)
{
    if (argc != 3)
        _exit(9);
    size = (size_t)atol(argv[1]);
    later = strcmp(argv[2], "later") == 0;
    for (int i = 0; i < NEIGHBOURS; i++) {
        if (i == NEIGHBOURS / 2)
            block = malloc(size);
        neighbour[i] = malloc(size);
        if (!neighbour[i] || !block == (i >= NEIGHBOURS / 2))
            _exit(9);
        memset(neighbour[i], 'n', size);
    }
    memset(block, 's', size); /* the secret of read_after_free */
}

/* Other requests, around the size of the block, if this is the case «later». */
static inline void meanwhile(void)
{
    char *volatile held[16] = {0};
    for (int i = 0; later && i < CHURN; i++) {
        int at = i * 7 % 16;
        size_t request = size / 2 + size * (size_t)(i % 5) / 4;
        free(held[at]);
        held[at] = malloc(i % 3 ? request : size);
        if (!held[at])
            _exit(9);
        memset(held[at], 'm', request < size ? request : size);
    }
    for (int at = 0; later && at < 16; at++)
        free(held[at]);
}

/* The program is through: nobody minded. The neighbours go back first, as at any orderly end. */
static inline int aftermath(void)
{
    for (int i = 0; i < NEIGHBOURS; i++)
        free(neighbour[i]);
    say("unnoticed\n");
    _exit(0);
}

#endif
