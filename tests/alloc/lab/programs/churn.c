/* Threads and children that come and go while others are looked at: a process to attach to at bad
 * moments. Asked on standard input, says how many threads ended, and how many checks failed. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic unsigned long ended, wrong;

static void *live_shortly(void *argument)
{
    char *blocks[50];
    for (size_t i = 0; i < 50; i++) {
        blocks[i] = malloc(10 + i * 7);
        memset(blocks[i], (int)i, 10 + i * 7);
    }
    for (size_t i = 0; i < 50; i++) {
        wrong += blocks[i][9] != (char)i;
        free(blocks[i]);
    }
    ended++;
    return argument;
}

static void *spawn(void *argument)
{
    for (;;) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, live_shortly, NULL);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    }
    return argument;
}

static void *bear(void *argument)
{
    for (;;) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            free(malloc(100));
            _exit(0);
        }
        waitpid(child, &status, 0);
        wrong += status != 0;
        usleep(2000);
    }
    return argument;
}

int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, spawn, NULL);
    pthread_create(&thread, NULL, spawn, NULL);
    pthread_create(&thread, NULL, bear, NULL);
    puts("ready");
    fflush(stdout);
    char line[8];
    while (read(0, line, sizeof line) > 0) {
        printf("%lu %lu\n", (unsigned long)wrong, (unsigned long)ended);
        fflush(stdout);
    }
    return wrong != 0;
}
