/* Allocates without end from several threads and checks what it keeps. Asked on standard input, it
 * says how many checks failed and how far each thread is: a process to attach to, which must go on
 * unharmed. Vector and string code runs all the time. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEEP = 256, THREADS = 16 };

static _Atomic unsigned long done[THREADS], wrong;
static void *(*volatile maker)(size_t) = malloc; /* without PIE: an entry of our own jump table */

static void *work(void *argument)
{
    unsigned long number = (unsigned long)argument, seed = number + 1;
    char *kept[KEEP] = {0};
    size_t sizes[KEEP] = {0};
    double sum = 1.0, again = 1.0;
    for (;;) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (seed >> 33) % KEEP, size = 1 + (seed >> 41) % 4000;
        for (size_t i = 0; i < sizes[at]; i += 97)
            if (kept[at][i] != (char)at)
                wrong++;
        if (seed & 64) {
            free(kept[at]);
            kept[at] = seed & 128 ? malloc(size) : maker(size);
        } else {
            kept[at] = realloc(kept[at], size);
        }
        sizes[at] = size;
        memset(kept[at], (char)at, size);
        for (int i = 0; i < 20; i++) {
            sum = sum * 1.0000001 + i;
            again = again * 1.0000001 + i;
        }
        if (sum != again)
            wrong++;
        if (sum > 1e9)
            sum = again = 1.0;
        done[number]++;
    }
    return NULL;
}

int main(int count, char **words)
{
    int threads = count > 1 ? atoi(words[1]) : 2;
    for (long i = 0; i < threads; i++) {
        pthread_t id;
        pthread_create(&id, NULL, work, (void *)i);
    }
    puts("ready");
    fflush(stdout);
    char line[8];
    while (read(0, line, sizeof line) > 0) {
        printf("%lu", (unsigned long)wrong);
        for (int i = 0; i < threads; i++)
            printf(" %lu", (unsigned long)done[i]);
        putchar('\n');
        fflush(stdout);
    }
    return wrong != 0;
}
