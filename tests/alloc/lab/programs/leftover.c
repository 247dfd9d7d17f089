/* SPDX-License-Identifier: MIT */
/* Waits in the way of its argument, with an address on its stack that looks like a call of
 * malloc() going on: frames hold words that were never written, and old ones shine through. */
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const struct timespec tick = {0, 2000000};

static void sleep_inside(int number)
{
    (void)number;
    for (;;)
        nanosleep(&tick, NULL);
}

static const unsigned char *behind_a_call(void)
{
    const unsigned char *at = (const unsigned char *)malloc;
    while (*at != 0xE8)
        at++;
    return at + 5;
}

int main(int count, char **words)
{
    const unsigned char *volatile left[16];
    for (int i = 0; i < 16; i++)
        left[i] = behind_a_call();
    sem_t never;
    sem_init(&never, 0, 0);
    signal(SIGUSR1, sleep_inside);
    int pipes[2];
    char byte;
    void *volatile block;
    if (count != 2 || pipe(pipes) != 0)
        return 2;
    puts("ready");
    fflush(stdout);
    for (;;) {
        switch (words[1][0]) {
        case 's': /* sleep */
            nanosleep(&tick, NULL);
            block = malloc(100);
            free(block);
            break;
        case 'p': /* poll */
            poll(NULL, 0, -1);
            break;
        case 'l': /* lock */
            sem_wait(&never);
            break;
        case 'r': /* read */
            if (read(pipes[0], &byte, 1) < 0)
                return 3;
            break;
        default: /* handler */
            raise(SIGUSR1);
        }
    }
    return left[0] != left[1];
}
