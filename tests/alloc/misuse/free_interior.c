/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    meanwhile();
    free(block + 16); /* aligned, but the start of no block */
    return aftermath();
}
