/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    block[size] = 'x'; /* one byte behind what was asked for */
    meanwhile();
    free(block);
    return aftermath();
}
