/* SPDX-License-Identifier: MIT */
/* Threads that come and go: blocks outlive the thread that made them, are freed by others, and the
 * destructors of thread-specific data allocate and free in every round of them. Exits with the
 * number of expectations that did not hold. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, ROUNDS = 60, BLOCKS = 200 };

static _Atomic int failures;
static pthread_key_t keys[40]; /* more than fit into a thread's first table */
static _Atomic int destroyed;

static void expect(int holds, int line, const char *text)
{
    if (!holds) {
        failures++;
        printf("line %d: %s\n", line, text);
    }
}

#define EXPECT(condition) expect(!!(condition), __LINE__, #condition)

struct message {
    unsigned char *block[BLOCKS];
    size_t size[BLOCKS];
    unsigned char mark;
};

/* Runs in up to four rounds at the end of a thread, around the library's own destructor. */
static void destroy(void *value)
{
    int *left = value;
    void *block = malloc(300);
    memset(block, 1, 300);
    free(block);
    destroyed++;
    if (--*left > 0) {
        pthread_key_t *key = (pthread_key_t *)(left + 1);
        pthread_setspecific(*key, value);
        return;
    }
    free(value);
}

static void set_keys(void)
{
    for (size_t index = 0; index < sizeof keys / sizeof *keys; index++) {
        int *value = malloc(2 * sizeof(int) + sizeof(pthread_key_t));
        *value = 1 + (int)(index % 4);
        memcpy(value + 1, &keys[index], sizeof keys[index]);
        pthread_setspecific(keys[index], value);
    }
}

static void *work(void *argument)
{
    struct message *in = argument, *out = malloc(sizeof *out);
    uint32_t seed = in->mark * 2654435761u + 1;
    for (size_t index = 0; index < BLOCKS; index++) {
        for (size_t byte = 0; byte < in->size[index]; byte++)
            if (in->block[index][byte] != in->mark) {
                EXPECT(!"a block of another thread was overwritten");
                break;
            }
        free(in->block[index]);
        seed = seed * 1664525 + 1013904223;
        out->size[index] = (seed >> 8) % (index % 50 ? 500 : 50000);
        out->block[index] = malloc(out->size[index]);
        EXPECT(out->block[index]);
        memset(out->block[index], in->mark + 1, out->size[index]);
    }
    out->mark = in->mark + 1;
    free(in);
    set_keys();
    return out;
}

int main(void)
{
    for (size_t index = 0; index < sizeof keys / sizeof *keys; index++)
        pthread_key_create(&keys[index], destroy);
    struct message *box[THREADS];
    for (int i = 0; i < THREADS; i++)
        box[i] = calloc(1, sizeof *box[i]);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread[THREADS];
        for (int i = 0; i < THREADS; i++)
            EXPECT(pthread_create(&thread[i], NULL, work, box[(i + round) % THREADS]) == 0);
        struct message *next[THREADS];
        for (int i = 0; i < THREADS; i++) {
            void *result;
            pthread_join(thread[i], &result);
            next[i] = result;
        }
        memcpy(box, next, sizeof box);
    }
    EXPECT(destroyed >= THREADS * ROUNDS * 40);
    return failures > 100 ? 100 : failures;
}
