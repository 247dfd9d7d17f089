/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    free(block);
    meanwhile();
    free(block); /* again */
    return aftermath();
}
