/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    meanwhile();
    free(block + 1); /* no allocator gives out such an address */
    return aftermath();
}
