/* SPDX-License-Identifier: MIT */
/* sched.loop: run to completion. A turn runs the timers that are due, then the work, then each
 * task once, in order of arrival, all on the caller's stack. A task is one call of its entry:
 * there is nothing to switch, block or wake. The smallest scheduler, and for a server that is
 * driven by events the fastest.
 *
 * A task is in one list: ready, batch (ready when the turn began) or finished (not joined yet).
 * Cost: every operation O(1); one allocation per task of 72 bytes. */
#include <unikit/rt/assert.h>
#include <unikit/sched/events.h>

struct kit_task {
    struct kit_list link;
    void (*entry)(void *argument);
    void *argument;
    const char *name;
    uint32_t flags;
    bool finished;
};

struct loop {
    struct events events;
    struct kit_task *current;
    struct kit_list ready;
    struct kit_list batch;
    struct kit_list finished;
    size_t runnable;
    size_t unjoined; /* in `finished` */
};

static struct loop *loop_of(struct kit_sched *s)
{
    return (struct loop *)s;
}

static void loop_free(struct loop *loop, struct kit_task *task)
{
    kit_list_remove(&task->link);
    kit_alloc_free(loop->events.alloc, task, sizeof(*task), alignof(struct kit_task));
}

static void loop_run(struct loop *loop, struct kit_task *task)
{
    kit_list_init(&task->link);
    loop->current = task;
    task->entry(task->argument);
    loop->current = NULL;
    loop->runnable--;
    task->finished = true;
    if (task->flags & KIT_TASK_DETACHED) {
        loop_free(loop, task);
        return;
    }
    kit_list_push_back(&loop->finished, &task->link);
    loop->unjoined++;
}

static bool loop_turn(struct kit_sched *s)
{
    struct loop *loop = loop_of(s);
    struct kit_list *link;
    events_begin(&loop->events);
    kit_list_take(&loop->batch, &loop->ready);
    bool any = events_run(&loop->events);
    while ((link = kit_list_pop_front(&loop->batch)) != NULL) {
        any = true;
        loop_run(loop, KIT_CONTAINER_OF(link, struct kit_task, link));
    }
    return events_end(&loop->events, any);
}

static uint64_t loop_deadline_ns(struct kit_sched *s)
{
    struct loop *loop = loop_of(s);
    return loop->runnable != 0 ? 0 : events_deadline_ns(&loop->events);
}

static int loop_spawn(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out)
{
    struct loop *loop = loop_of(s);
    if (spec->entry == NULL || (spec->flags & ~(uint32_t)KIT_TASK_DETACHED) != 0 ||
        (out == NULL && !(spec->flags & KIT_TASK_DETACHED)))
        return KIT_EINVAL;
    struct kit_task *task =
        kit_alloc_alloc(loop->events.alloc, sizeof(*task), alignof(struct kit_task));
    if (task == NULL)
        return KIT_ENOMEM;
    *task = (struct kit_task){
        .entry = spec->entry, .argument = spec->argument, .name = spec->name, .flags = spec->flags};
    kit_list_push_back(&loop->ready, &task->link);
    loop->runnable++;
    loop->events.stats.spawned++;
    if (out != NULL)
        *out = task;
    return 0;
}

static struct kit_task *loop_current(const struct kit_sched *s)
{
    return ((const struct loop *)s)->current;
}

static void loop_yield(struct kit_sched *s)
{
    (void)s;
}

static int loop_block(struct kit_sched *s, uint64_t deadline_ns)
{
    (void)s;
    (void)deadline_ns;
    return KIT_ENOTSUP;
}

static void loop_wake(struct kit_sched *s, struct kit_task *task)
{
    (void)s;
    (void)task;
}

static void loop_exit(struct kit_sched *s)
{
    (void)s;
    kit_panic("sched.loop: exit() needs a scheduler with threads; return from the task instead");
}

static int loop_join(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns)
{
    struct loop *loop = loop_of(s);
    (void)deadline_ns;
    if (task == loop->current || (task->flags & KIT_TASK_DETACHED))
        return KIT_EINVAL;
    if (!task->finished)
        return KIT_EAGAIN;
    loop->unjoined--;
    loop_free(loop, task);
    return 0;
}

static void loop_stats(const struct kit_sched *s, struct kit_sched_stats *out)
{
    const struct loop *loop = (const struct loop *)s;
    *out = loop->events.stats;
    out->tasks = loop->runnable;
    out->runnable = loop->runnable - (loop->current != NULL);
    out->armed = loop->events.timers.count;
}

static int loop_check_list(const struct kit_list *list, bool finished, size_t *left)
{
    const struct kit_list *link = list->next;
    for (; link != list && *left > 0; link = link->next, --*left) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, link);
        if (link->next->prev != link || task->finished != finished || task->entry == NULL)
            return KIT_ECORRUPT;
    }
    return link == list ? 0 : KIT_ECORRUPT;
}

static int loop_check(const struct kit_sched *s)
{
    const struct loop *loop = (const struct loop *)s;
    size_t waiting = loop->runnable - (loop->current != NULL);
    size_t unjoined = loop->unjoined;
    if (loop_check_list(&loop->ready, false, &waiting) != 0 ||
        loop_check_list(&loop->batch, false, &waiting) != 0 || waiting != 0 ||
        loop_check_list(&loop->finished, true, &unjoined) != 0 || unjoined != 0)
        return KIT_ECORRUPT;
    return events_check(&loop->events);
}

static void loop_drop(struct loop *loop, struct kit_list *list)
{
    while (!kit_list_empty(list))
        loop_free(loop, KIT_CONTAINER_OF(list->next, struct kit_task, link));
}

static void loop_close(struct kit_sched *s)
{
    struct loop *loop = loop_of(s);
    loop_drop(loop, &loop->ready);
    loop_drop(loop, &loop->batch);
    loop_drop(loop, &loop->finished);
    events_close(&loop->events);
    kit_alloc_free(loop->events.alloc, loop, sizeof(*loop), alignof(struct loop));
}

static const struct kit_sched_ops loop_ops = {
    .turn = loop_turn,
    .deadline_ns = loop_deadline_ns,
    .post = events_post,
    .cancel_work = events_cancel_work,
    .arm = events_arm,
    .cancel = events_cancel,
    .spawn = loop_spawn,
    .current = loop_current,
    .yield = loop_yield,
    .block = loop_block,
    .wake = loop_wake,
    .exit = loop_exit,
    .join = loop_join,
    .stats = loop_stats,
    .check = loop_check,
    .close = loop_close,
};

static int loop_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                     struct kit_sched **out)
{
    (void)options;
    struct loop *loop = kit_alloc_alloc(alloc, sizeof(*loop), alignof(struct loop));
    if (loop == NULL)
        return KIT_ENOMEM;
    memset(loop, 0, sizeof(*loop));
    events_open(&loop->events, env, alloc);
    kit_list_init(&loop->ready);
    kit_list_init(&loop->batch);
    kit_list_init(&loop->finished);
    KIT_SCHED_BIND(&loop->events.base, &loop_ops);
    *out = &loop->events.base;
    return 0;
}

const struct kit_sched_component kit_sched_loop = {
    .id = "sched.loop",
    .abi = KIT_SCHED_ABI,
    .ops = &loop_ops,
    .open = loop_open,
};
