/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    memset(block - 16, 'x', 16); /* where many keep a header */
    meanwhile();
    free(block);
    return aftermath();
}
