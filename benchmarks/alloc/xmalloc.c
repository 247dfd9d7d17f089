/* SPDX-License-Identifier: MIT */
/* xmalloc: some threads only allocate, as many others only free.
 *
 * Blocks travel in batches of 4096 through one list behind a lock, last in first out, at most a
 * hundred of them at a time; the batch itself is allocated by one side and freed by the other, too.
 *
 *   xmalloc PAIRS BATCHES SIZE      BATCHES per producer */
#include "pattern.h"

enum { BATCH = 4096, WAITING_MAX = 100, WRITTEN_MAX = 128 };

struct batch {
    struct batch *next;
    void *blocks[BATCH];
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t room, work;
    struct batch *first;
    size_t waiting;
    size_t to_come; /* batches that no consumer has taken */
} queue = {
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, 0};

static size_t batches, block_size;

static void put(struct batch *batch)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.waiting >= WAITING_MAX)
        pthread_cond_wait(&queue.room, &queue.lock);
    batch->next = queue.first;
    queue.first = batch;
    queue.waiting++;
    pthread_cond_signal(&queue.work);
    pthread_mutex_unlock(&queue.lock);
}

static struct batch *take(void)
{
    struct batch *batch = NULL;
    pthread_mutex_lock(&queue.lock);
    while (!queue.first && queue.to_come)
        pthread_cond_wait(&queue.work, &queue.lock);
    if (queue.first) {
        batch = queue.first;
        queue.first = batch->next;
        queue.waiting--;
        pthread_cond_signal(&queue.room);
        if (--queue.to_come == 0)
            pthread_cond_broadcast(&queue.work);
    }
    pthread_mutex_unlock(&queue.lock);
    return batch;
}

static void produce(void)
{
    size_t written = block_size < WRITTEN_MAX ? block_size : WRITTEN_MAX;
    for (size_t n = 0; n < batches; n++) {
        struct batch *batch = must(malloc(sizeof *batch));
        for (int i = 0; i < BATCH; i++) {
            batch->blocks[i] = must(malloc(block_size));
            memset(batch->blocks[i], i & 255, written);
        }
        put(batch);
    }
}

static void consume(void)
{
    for (struct batch *batch; (batch = take());) {
        for (int i = 0; i < BATCH; i++)
            free(batch->blocks[i]);
        free(batch);
    }
}

static void *work(void *side)
{
    if (*(int *)side)
        produce();
    else
        consume();
    return NULL;
}

int main(int count, char **values)
{
    size_t pairs = argument(count, values, 1, 1);
    int sides[THREADS_MAX];
    batches = argument(count, values, 2, 800);
    block_size = argument(count, values, 3, 64);
    queue.to_come = pairs * batches;
    for (size_t n = 0; n < THREADS_MAX; n++)
        sides[n] = n & 1;
    in_threads(2 * pairs, work, sides, sizeof sides[0]);
    return 0;
}
