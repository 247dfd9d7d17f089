/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    free(block);
    memset(block, 'x', 16); /* where many keep their list of free blocks */
    meanwhile();
    char *volatile next = malloc(size);
    char *volatile another = malloc(size);
    free(another);
    free(next);
    return aftermath();
}
