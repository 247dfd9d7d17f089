/* SPDX-License-Identifier: MIT */
/* glibc-simple: n blocks of one size allocated and written, half of them freed in order, the rest
 * in reverse; for several n and three sizes, in the first thread before there is another one, in
 * another one, and in the first again.
 *
 *   simple BLOCKS      allocations of each combination */
#include "pattern.h"

enum { MOST = 1600 };

static const size_t counts[] = {25, 100, 400, MOST};

struct plan {
    size_t size;
    size_t allocations;
    char **blocks;
};

static void rounds(const struct plan *plan, size_t count)
{
    char **blocks = plan->blocks;
    for (size_t round = plan->allocations / count; round > 0; round--) {
        for (size_t n = 0; n < count; n++) {
            volatile char *block = must(malloc(plan->size));
            for (size_t at = 0; at < plan->size; at++)
                block[at] = (char)at;
            blocks[n] = (char *)block;
        }
        for (size_t n = 0; n < count / 2; n++)
            free(blocks[n]);
        for (size_t n = count; n > count / 2; n--)
            free(blocks[n - 1]);
    }
}

static void *all_counts(void *argument)
{
    for (size_t n = 0; n < sizeof counts / sizeof counts[0]; n++)
        rounds(argument, counts[n]);
    return NULL;
}

int main(int count, char **values)
{
    struct plan plan = {.allocations = argument(count, values, 1, 500000)};
    for (plan.size = 16; plan.size <= 64; plan.size *= 2) {
        plan.blocks = must(malloc(MOST * sizeof *plan.blocks));
        all_counts(&plan); /* warm */
        all_counts(&plan);
        in_threads(1, all_counts, &plan, sizeof plan);
        all_counts(&plan);
        free(plan.blocks);
    }
    return 0;
}
