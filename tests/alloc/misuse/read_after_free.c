/* SPDX-License-Identifier: MIT */
#include "misuse.h"

int main(int argc, char **argv)
{
    setup(argc, argv);
    free(block);
    meanwhile();
    for (size_t i = 0; i + 4 <= size; i++)
        if (memcmp(block + i, "ssss", 4) == 0) /* four bytes of the secret are left somewhere */
            return aftermath();
    say("blunted\n");
    _exit(0);
}
