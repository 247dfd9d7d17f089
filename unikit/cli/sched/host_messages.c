/* SPDX-License-Identifier: MIT */
/* See host_reference.c: message passing as hackbench defines it, through queues of a mutex and two
 * conditions, or through pipes. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <unikit/cli/sched/host_reference.h>

enum { SIDE = 20, MESSAGE = 100, QUEUE = 64 };

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled, freed;
    size_t head, tail;
    int ends[2]; /* of a pipe instead, where `piped` */
    char messages[QUEUE][MESSAGE];
};

struct side {
    struct queue *queues;
    size_t loops;
};

static pthread_barrier_t gate;
static bool piped;

static void put(struct queue *q, const char *message)
{
    if (piped) {
        if (write(q->ends[1], message, MESSAGE) != MESSAGE)
            reference_fail("writing a message", errno);
        return;
    }
    pthread_mutex_lock(&q->lock);
    while (q->tail - q->head == QUEUE)
        pthread_cond_wait(&q->freed, &q->lock);
    memcpy(q->messages[q->tail++ % QUEUE], message, MESSAGE);
    pthread_cond_signal(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

static void take(struct queue *q, char *message)
{
    if (piped) {
        for (ssize_t got = 0, more; got < MESSAGE; got += more)
            if ((more = read(q->ends[0], message + got, MESSAGE - (size_t)got)) <= 0)
                reference_fail("reading a message", errno);
        return;
    }
    pthread_mutex_lock(&q->lock);
    while (q->tail == q->head)
        pthread_cond_wait(&q->filled, &q->lock);
    memcpy(message, q->messages[q->head++ % QUEUE], MESSAGE);
    pthread_cond_signal(&q->freed);
    pthread_mutex_unlock(&q->lock);
}

static void *sender_run(void *argument)
{
    struct side *self = argument;
    char message[MESSAGE] = {0};
    pthread_barrier_wait(&gate);
    for (size_t loop = 0; loop < self->loops; loop++)
        for (struct queue *q = self->queues; q < self->queues + SIDE; q++)
            put(q, message);
    return NULL;
}

static void *receiver_run(void *argument)
{
    struct side *self = argument;
    char message[MESSAGE];
    pthread_barrier_wait(&gate);
    for (size_t n = 0; n < self->loops * SIDE; n++)
        take(self->queues, message);
    return NULL;
}

void reference_messages(size_t groups, size_t loops, bool by_pipes)
{
    piped = by_pipes;
    size_t count = groups * SIDE;
    struct queue *queues = calloc(count, sizeof(*queues));
    struct side *sides = calloc(count * 2, sizeof(*sides));
    pthread_t *threads = calloc(count * 2, sizeof(*threads));
    if (queues == NULL || sides == NULL || threads == NULL)
        reference_fail("making queues", ENOMEM);
    pthread_barrier_init(&gate, NULL, (unsigned)count * 2 + 1);
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_init(&queues[i].lock, NULL);
        pthread_cond_init(&queues[i].filled, NULL);
        pthread_cond_init(&queues[i].freed, NULL);
        if (piped && pipe(queues[i].ends) != 0)
            reference_fail("making a pipe", errno);
        sides[2 * i] = (struct side){&queues[i], loops};
        sides[2 * i + 1] = (struct side){&queues[i / SIDE * SIDE], loops};
        reference_start(&threads[2 * i], receiver_run, &sides[2 * i]);
        reference_start(&threads[2 * i + 1], sender_run, &sides[2 * i + 1]);
    }
    uint64_t began_ns = report_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&gate);
    for (size_t i = 0; i < count * 2; i++)
        pthread_join(threads[i], NULL);
    report_value("message", (double)(report_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - began_ns) /
                                (double)(groups * SIDE * SIDE * loops));
}
