/* SPDX-License-Identifier: MIT */
/* sched.rank: cooperative threads of two ranks. In each turn all ready tasks with a priority run,
 * then the others: each once, in order of arrival. Every operation is O(1), and nobody starves. */
#include <unikit/sched/thread.h>

enum { RANK_STACK }; /* options, in the order of the record */
enum { RANKS = 2, RANK_CACHED = 16 };

struct rank {
    struct threads threads; /* first */
    struct kit_list ready[RANKS];
    struct kit_list turn[RANKS];
};

/* ---- the policy: three functions that thread.c calls ---------------------------------------- */

void thread_policy_begin(struct threads *threads)
{
    struct rank *rank = (struct rank *)threads;
    for (int i = 0; i < RANKS; i++)
        kit_list_take(&rank->turn[i], &rank->ready[i]);
}

void thread_policy_ready(struct threads *threads, struct kit_task *task)
{
    struct rank *rank = (struct rank *)threads;
    kit_list_push_back(&rank->ready[task->priority > 0 ? 0 : 1], &task->link);
}

struct kit_task *thread_policy_next(struct threads *threads)
{
    struct rank *rank = (struct rank *)threads;
    for (int i = 0; i < RANKS; i++) {
        struct kit_list *link = kit_list_pop_front(&rank->turn[i]);
        if (link != NULL)
            return KIT_CONTAINER_OF(link, struct kit_task, link);
    }
    return NULL;
}

/* ---- the component -------------------------------------------------------------------------- */

static int rank_check(const struct kit_sched *s)
{
    return threads_check((const struct threads *)(const void *)s);
}

static void rank_close(struct kit_sched *s)
{
    struct threads *threads = threads_of(s);
    threads_close(threads);
    kit_alloc_free(threads->events.alloc, threads, sizeof(struct rank), alignof(struct rank));
}

static const struct kit_sched_ops rank_ops = {
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
    .check = rank_check,
    .close = rank_close,
};

static int rank_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                     struct kit_sched **out)
{
    struct rank *rank = kit_alloc_alloc(alloc, sizeof(*rank), alignof(struct rank));
    if (rank == NULL)
        return KIT_ENOMEM;
    int rc = threads_open(&rank->threads, env, alloc, (size_t)options[RANK_STACK], true,
                          RANK_CACHED, false);
    if (rc != 0) {
        kit_alloc_free(alloc, rank, sizeof(*rank), alignof(struct rank));
        return rc;
    }
    for (int i = 0; i < RANKS; i++) {
        kit_list_init(&rank->ready[i]);
        kit_list_init(&rank->turn[i]);
    }
    KIT_SCHED_BIND(&rank->threads.events.base, &rank_ops);
    *out = &rank->threads.events.base;
    return 0;
}

const struct kit_sched_component kit_sched_rank = {.id = "sched.rank",
                                                   .abi = KIT_SCHED_ABI,
                                                   .features = KIT_SCHED_THREADS,
                                                   .ops = &rank_ops,
                                                   .open = rank_open};
