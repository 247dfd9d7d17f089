/* Calls each function of the malloc family a known number of times, from known threads. */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void free_sized(void *block, size_t size);

static void *volatile passed[1000];

__attribute__((noinline)) static void *giver(void *argument)
{
    for (int i = 0; i < 1000; i++)
        passed[i] = malloc(1000 + (size_t)i);
    return argument;
}

static void family(void)
{
    void *block;
    free(malloc(7001));
    free(calloc(7, 1001));
    free(reallocarray(NULL, 7, 1002));
    free(aligned_alloc(64, 7040));
    free(memalign(128, 7009));
    free(valloc(7010));
    free(pvalloc(7011));
    if (posix_memalign(&block, 256, 7012) == 0)
        free(block);
    block = realloc(malloc(10), 70130);
    block = realloc(block, 0);
    if (malloc(PTRDIFF_MAX - 64))
        abort();
}

int main(int count, char **words)
{
    const char *how = count > 1 ? words[1] : "";
    pthread_t thread;
    family();
    pthread_create(&thread, NULL, giver, NULL);
    pthread_join(thread, NULL);
    for (int i = 0; i < 1000; i++)
        free(passed[i]);
    if (!strcmp(how, "fork")) {
        void *old = malloc(7100);
        if (fork() == 0) {
            free(old);
            free(malloc(7101));
            _exit(0);
        }
        wait(NULL);
        free(old);
    }
    if (!strcmp(how, "exec"))
        execl(words[0], words[0], "again", (char *)NULL);
    if (!strcmp(how, "kill"))
        kill(getpid(), SIGKILL);
    if (!strcmp(how, "exit"))
        _exit(3);
    return 0;
}
