/* SPDX-License-Identifier: MIT */
/* fork() while other threads allocate: the child must find every lock open and every block sound,
 * whatever they were doing, and handlers around the fork may allocate. Also vfork, posix_spawn,
 * and a child that makes threads of its own. argv[1]: how often. Exits with the number of failures.
 */
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3, FORKS = 150, SHARED = 64 };

static _Atomic int stop;
static _Atomic(char *) shared[SHARED];
static _Atomic int handled;

static void handler(void)
{
    char *block = malloc(1000);
    memset(block, 3, 1000);
    free(realloc(block, 5000));
    handled++;
}

static void *busy(void *argument)
{
    uint32_t seed = (uint32_t)(uintptr_t)argument;
    while (!stop) {
        seed = seed * 1664525 + 1013904223;
        size_t size = 1 + (seed >> 8) % ((seed >> 4) % 64 ? 600 : 100000);
        char *block = malloc(size);
        memset(block, 7, size);
        free(atomic_exchange(&shared[(seed >> 3) % SHARED], block));
    }
    return NULL;
}

static void *in_child(void *argument)
{
    for (size_t size = 1; size < 5000; size += 37) {
        char *block = calloc(1, size);
        if (!block || block[size - 1])
            _exit(3);
        free(block);
    }
    return argument;
}

static void child(void)
{
    for (int i = 0; i < SHARED; i++) { /* made by threads that this process does not have */
        char *block = atomic_exchange(&shared[i], NULL);
        if (block && block[0] != 7)
            _exit(4);
        free(block);
    }
    in_child(NULL);
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread[i], NULL, in_child, NULL))
            _exit(5);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    pid_t grandchild = fork();
    if (grandchild == 0) {
        in_child(NULL);
        _exit(0);
    }
    int status;
    waitpid(grandchild, &status, 0);
    _exit(status != 0);
}

static int spawned(void)
{
    char *words[] = {"true", NULL}, *none[] = {NULL};
    int status, first, second;
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", NULL);
        _exit(9);
    }
    waitpid(pid, &first, 0);
    second = posix_spawn(&pid, "/bin/true", NULL, NULL, words, none);
    waitpid(pid, &status, 0);
    return (first != 0) + (second != 0) + (status != 0);
}

int main(int argc, char **argv)
{
    int forks = argc > 1 ? atoi(argv[1]) : FORKS;
    int failures = 0, status;
    pthread_atfork(handler, handler, handler);
    pthread_t thread[THREADS];
    for (intptr_t i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, busy, (void *)(i + 1));
    for (int round = 0; round < forks; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20); /* a deadlock ends as a signal */
            child();
        }
        waitpid(pid, &status, 0);
        if (status != 0) {
            printf("fork %d: status %#x\n", round, status);
            failures++;
        }
        failures += round % 10 == 0 ? spawned() : 0;
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    if (handled < 2 * forks)
        failures++;
    return failures > 100 ? 100 : failures;
}
