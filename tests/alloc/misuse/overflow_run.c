/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    memset(block + malloc_usable_size(block), 'x', 64); /* behind all that may be used */
    meanwhile();
    free(block);
    return aftermath();
}
