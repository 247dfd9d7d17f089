/* SPDX-License-Identifier: MIT */
/* See kernels.h: latencies and messages. Sources: C. Mason, schbench; T. Gleixner, cyclictest
 * (rt-tests); R. Russell, P. Zijlstra, hackbench. */
#include <unikit/sched/lab/kernels.h>
#include <unikit/sched/sync.h>

enum { WORKERS = 64, LOAD = 16, SIDE = 20, MESSAGE = 100, QUEUE = 64 };
enum { URGENT_NS = 100000, URGENT_PERIOD_NS = 1000000, SLICE_NS = 100000 };

/* What the task gets whose latency counts, in the words of each policy. */
static const struct kit_task_share urgent = {
    .priority = 50, .weight = 1024, .slice_ns = URGENT_NS, .period_ns = URGENT_PERIOD_NS};

/* ---- schbench ---------------------------------------------------------------------------------
 */

struct wake;

struct wake_worker {
    struct wake *wake;
    struct kit_task *task;
    uint64_t posted_ns; /* when its work was handed out */
    bool asks, has;     /* it waits for work; it was given some */
};

struct wake {
    struct kit_kernel *kernel;
    struct wake_worker workers[WORKERS];
    struct kit_task *messenger;
    size_t count;
    uint64_t work_ns;
    uint64_t *samples;
    size_t taken, most;
    bool over;
};

static void wake_worker_run(void *argument)
{
    struct wake_worker *self = argument;
    struct wake *wake = self->wake;
    struct kit_sched *s = wake->kernel->s;
    self->task = kit_sched_current(s);
    while (!wake->over) {
        self->asks = true;
        kit_sched_wake(s, wake->messenger);
        while (!self->has && !wake->over)
            kit_sched_block(s, KIT_NEVER);
        if (!self->has)
            return;
        if (wake->taken < wake->most)
            wake->samples[wake->taken++] = kit_kernel_now_ns(wake->kernel) - self->posted_ns;
        self->has = false;
        kit_kernel_work(wake->kernel, wake->work_ns, SLICE_NS);
    }
}

static void wake_messenger_run(void *argument)
{
    struct wake *wake = argument;
    struct kit_sched *s = wake->kernel->s;
    wake->messenger = kit_sched_current(s);
    while (wake->taken < wake->most) {
        for (size_t i = 0; i < wake->count; i++) {
            struct wake_worker *worker = &wake->workers[i];
            if (!worker->asks)
                continue;
            worker->asks = false;
            worker->has = true;
            worker->posted_ns = kit_kernel_now_ns(wake->kernel);
            kit_sched_wake(s, worker->task);
        }
        kit_sched_block(s, KIT_NEVER);
    }
    wake->over = true;
    for (size_t i = 0; i < wake->count; i++)
        if (wake->workers[i].task != NULL && wake->workers[i].asks)
            kit_sched_wake(s, wake->workers[i].task);
}

int kit_kernel_wakeup(struct kit_kernel *kernel, size_t workers, uint64_t work_ns, size_t count)
{
    struct wake *wake;
    if (workers > WORKERS)
        return KIT_EINVAL;
    uint64_t *samples = kit_alloc_alloc(kernel->alloc, count * sizeof(*samples), 0);
    if (samples == NULL || (wake = kit_alloc_alloc(kernel->alloc, sizeof(*wake), 0)) == NULL)
        return KIT_ENOMEM;
    *wake = (struct wake){
        .kernel = kernel, .count = workers, .work_ns = work_ns, .samples = samples, .most = count};
    int rc = kit_kernel_start(kernel, wake_messenger_run, wake, &urgent);
    while (wake->messenger == NULL && rc == 0)
        kit_sched_turn(kernel->s);
    for (size_t i = 0; i < workers && rc == 0; i++) {
        wake->workers[i] = (struct wake_worker){.wake = wake};
        rc = kit_kernel_start(kernel, wake_worker_run, &wake->workers[i], NULL);
    }
    if (rc == 0) {
        kit_kernel_drive(kernel);
        kernel->samples(kernel, samples, count);
    }
    kit_alloc_free(kernel->alloc, wake, sizeof(*wake), 0);
    kit_alloc_free(kernel->alloc, samples, count * sizeof(*samples), 0);
    return rc;
}

/* ---- cyclictest -------------------------------------------------------------------------------
 */

struct cyclic {
    struct kit_kernel *kernel;
    uint64_t interval_ns;
    uint64_t *samples;
    size_t taken, most;
};

static void cyclic_run(void *argument)
{
    struct cyclic *cyclic = argument;
    uint64_t next_ns = kit_kernel_now_ns(cyclic->kernel);
    while (cyclic->taken < cyclic->most) {
        next_ns += cyclic->interval_ns;
        while (kit_kernel_now_ns(cyclic->kernel) < next_ns)
            kit_sched_block(cyclic->kernel->s, next_ns);
        uint64_t now_ns = kit_kernel_now_ns(cyclic->kernel);
        cyclic->samples[cyclic->taken++] = now_ns - next_ns;
        if (now_ns - next_ns > cyclic->interval_ns) /* as cyclictest does: no burst afterwards */
            next_ns = now_ns;
    }
}

static void cyclic_load_run(void *argument)
{
    struct cyclic *cyclic = argument;
    while (cyclic->taken < cyclic->most)
        kit_kernel_work(cyclic->kernel, SLICE_NS * 10, SLICE_NS);
}

int kit_kernel_cyclic(struct kit_kernel *kernel, size_t load, uint64_t interval_ns, size_t count)
{
    uint64_t *samples = kit_alloc_alloc(kernel->alloc, count * sizeof(*samples), 0);
    struct cyclic cyclic = {kernel, interval_ns, samples, 0, count};
    if (samples == NULL)
        return KIT_ENOMEM;
    int rc = kit_kernel_start(kernel, cyclic_run, &cyclic, &urgent);
    for (size_t i = 0; i < load && rc == 0; i++)
        rc = kit_kernel_start(kernel, cyclic_load_run, &cyclic, NULL);
    if (rc == 0) {
        kit_kernel_drive(kernel);
        kernel->samples(kernel, samples, count);
    }
    kit_alloc_free(kernel->alloc, samples, count * sizeof(*samples), 0);
    return rc;
}

/* ---- hackbench --------------------------------------------------------------------------------
 */

struct post_queue {
    struct kit_semaphore filled, free;
    size_t head, tail;
    char messages[QUEUE][MESSAGE];
};

struct post_side { /* one sender or receiver */
    struct kit_kernel *kernel;
    struct post_queue *queues; /* of its group's receivers, or its own */
    size_t loops;
};

static void post_sender_run(void *argument)
{
    struct post_side *self = argument;
    struct kit_sched *s = self->kernel->s;
    char message[MESSAGE] = {0};
    for (size_t loop = 0; loop < self->loops; loop++)
        for (struct post_queue *q = self->queues; q < self->queues + SIDE; q++) {
            kit_semaphore_wait(s, &q->free, KIT_NEVER);
            memcpy(q->messages[q->tail++ % QUEUE], message, MESSAGE);
            kit_semaphore_post(s, &q->filled);
        }
}

static void post_receiver_run(void *argument)
{
    struct post_side *self = argument;
    struct kit_sched *s = self->kernel->s;
    struct post_queue *q = self->queues;
    char message[MESSAGE];
    for (size_t n = 0; n < self->loops * SIDE; n++) {
        kit_semaphore_wait(s, &q->filled, KIT_NEVER);
        memcpy(message, q->messages[q->head++ % QUEUE], MESSAGE);
        kit_semaphore_post(s, &q->free);
    }
}

int kit_kernel_messages(struct kit_kernel *kernel, size_t groups, size_t loops)
{
    size_t queue_bytes = groups * SIDE * sizeof(struct post_queue);
    size_t side_bytes = groups * SIDE * 2 * sizeof(struct post_side);
    struct post_queue *queues = kit_alloc_alloc(kernel->alloc, queue_bytes, 0);
    struct post_side *sides = kit_alloc_alloc(kernel->alloc, side_bytes, 0);
    if (queues == NULL || sides == NULL)
        return KIT_ENOMEM;
    int rc = 0;
    memset(queues, 0, queue_bytes);
    for (size_t i = 0; i < groups * SIDE; i++)
        queues[i].free.count = QUEUE;
    for (size_t i = 0; i < groups * SIDE && rc == 0; i++) {
        sides[2 * i] = (struct post_side){kernel, &queues[i], loops};
        sides[2 * i + 1] = (struct post_side){kernel, &queues[i / SIDE * SIDE], loops};
        rc = kit_kernel_start(kernel, post_receiver_run, &sides[2 * i], NULL);
        if (rc == 0)
            rc = kit_kernel_start(kernel, post_sender_run, &sides[2 * i + 1], NULL);
    }
    if (rc != 0)
        return rc;
    uint64_t began_ns = kernel->cpu_ns(kernel);
    kit_kernel_drive(kernel);
    kernel->value(kernel, "message",
                  (kernel->cpu_ns(kernel) - began_ns) * 1000 / (groups * SIDE * SIDE * loops));
    kit_alloc_free(kernel->alloc, sides, side_bytes, 0);
    kit_alloc_free(kernel->alloc, queues, queue_bytes, 0);
    return 0;
}
