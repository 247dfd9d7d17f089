/* SPDX-License-Identifier: MIT */
/* sched.coop: cooperative threads in FIFO round robin. A task runs until it yields, blocks or
 * ends. Each turn gives every task that was ready when it began the processor once; what becomes
 * ready meanwhile waits for the next turn, so devices are polled after at most one round.
 *
 * Two queues, exchanged by each turn: ready (for the next turn) and batch (of this turn); a READY
 * task is in exactly one. Everything else is thread.c. Guarantee: between two runs of a ready task
 * every other ready task runs at most twice. */
#include <unikit/sched/thread.h>

enum { COOP_STACK, COOP_GUARD, COOP_CACHED, COOP_MEASURE };

struct coop {
    struct threads threads;
    struct kit_list ready;
    struct kit_list batch;
};

static struct coop *coop_of(struct threads *threads)
{
    return (struct coop *)threads;
}

void thread_policy_begin(struct threads *threads)
{
    struct coop *coop = coop_of(threads);
    kit_list_take(&coop->batch, &coop->ready);
}

void thread_policy_ready(struct threads *threads, struct kit_task *task)
{
    kit_list_push_back(&coop_of(threads)->ready, &task->link);
}

struct kit_task *thread_policy_next(struct threads *threads)
{
    struct kit_list *link = kit_list_pop_front(&coop_of(threads)->batch);
    return link == NULL ? NULL : KIT_CONTAINER_OF(link, struct kit_task, link);
}

static int coop_check_list(const struct kit_list *list, size_t *left)
{
    const struct kit_list *link = list->next;
    for (; link != list && *left > 0; link = link->next, --*left) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, link);
        if (link->next->prev != link || task->state != THREAD_READY)
            return KIT_ECORRUPT;
    }
    return link == list ? 0 : KIT_ECORRUPT;
}

static int coop_check(const struct kit_sched *s)
{
    const struct coop *coop = (const struct coop *)(const void *)s;
    size_t left = coop->threads.ready;
    if (coop_check_list(&coop->ready, &left) != 0 || coop_check_list(&coop->batch, &left) != 0 ||
        left != 0)
        return KIT_ECORRUPT;
    return threads_check(&coop->threads);
}

static void coop_close(struct kit_sched *s)
{
    struct coop *coop = coop_of(threads_of(s));
    struct kit_alloc *alloc = coop->threads.events.alloc;
    threads_close(&coop->threads);
    kit_alloc_free(alloc, coop, sizeof(*coop), alignof(struct coop));
}

static const struct kit_sched_ops coop_ops = {
    .turn = thread_turn,
    .deadline_ns = thread_deadline_ns,
    .post = events_post,
    .cancel_work = events_cancel_work,
    .arm = events_arm,
    .cancel = events_cancel,
    .spawn = thread_spawn,
    .current = thread_current,
    .yield = thread_yield,
    .block = thread_block,
    .wake = thread_wake,
    .exit = thread_exit,
    .join = thread_join,
    .stats = thread_stats,
    .check = coop_check,
    .close = coop_close,
    .note = thread_note,
    .attend = thread_attend,
    .next_task = thread_next_task,
};

static int coop_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                     struct kit_sched **out)
{
    struct coop *coop = kit_alloc_alloc(alloc, sizeof(*coop), alignof(struct coop));
    if (coop == NULL)
        return KIT_ENOMEM;
    int rc = threads_open(&coop->threads, env, alloc, (size_t)options[COOP_STACK],
                          options[COOP_GUARD] != 0, (size_t)options[COOP_CACHED],
                          options[COOP_MEASURE] != 0);
    if (rc != 0) {
        kit_alloc_free(alloc, coop, sizeof(*coop), alignof(struct coop));
        return rc;
    }
    kit_list_init(&coop->ready);
    kit_list_init(&coop->batch);
    KIT_SCHED_BIND(&coop->threads.events.base, &coop_ops);
    *out = &coop->threads.events.base;
    return 0;
}

const struct kit_sched_component kit_sched_coop = {
    .id = "sched.coop",
    .abi = KIT_SCHED_ABI,
    .features = KIT_SCHED_THREADS,
    .ops = &coop_ops,
    .open = coop_open,
};
