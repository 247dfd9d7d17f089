/* SPDX-License-Identifier: MIT */
/* sched.prio: fixed priorities, 64 levels, FIFO within each, with priority inheritance.
 * Source: L. Sha, R. Rajkumar, J. P. Lehoczky, «Priority inheritance protocols: an approach to
 * real-time synchronization», IEEE Transactions on Computers 39(9), 1990 (the basic protocol).
 *
 * One list per level and a bitmap of the levels that have a task: picking is one find-last-set. A
 * task's level is the highest of its own priority and of the levels of all tasks that depend on it,
 * through any number of others:
 *
 *     level(t) = max(own(t), max { level(d) : d depends on t })
 *
 * Invariants: a READY task is in the list of its level; a level's bit is set exactly if its list is
 * not empty. Guarantee: when a task stops, the one that runs next is one of the highest level that
 * is ready; tasks of lower levels may wait for ever. A task that is stopped against its will stays
 * first in its level until it has run for a slice, then it goes behind the others.
 *
 * Cost: pick, ready, yield O(1); a change of who depends on whom O(dependants) for each task along
 * the chain whose level changes by it. 80 bytes per task, 1 KiB for the lists. */
#include <unikit/rt/bits.h>
#include <unikit/sched/thread.h>

enum { PRIO_STACK, PRIO_GUARD, PRIO_CACHED, PRIO_MEASURE, PRIO_SLICE };
enum { PRIO_LEVELS = KIT_SCHED_PRIORITY_MAX + 1 };

struct prio_task {
    struct kit_task task;
    uint32_t own;           /* as asked for */
    uint32_t level;         /* with what others lend */
    uint64_t left_ns;       /* of its slice */
    struct prio_task *on;   /* it waits for what this one holds; NULL: for nothing */
    struct kit_list lender; /* in on->lenders */
    struct kit_list lenders;
};

struct prio {
    struct threads threads;
    uint64_t levels; /* bit per list that is not empty */
    size_t left;     /* runs of this turn */
    uint64_t slice_ns;
    uint64_t since_ns; /* the running task uses its slice from here on; 0: nobody asked yet */
    struct kit_list ready[PRIO_LEVELS];
};

static struct prio *prio_of(struct threads *threads)
{
    return (struct prio *)threads;
}

static struct prio_task *prio_task_of(const struct kit_task *task)
{
    return (struct prio_task *)(uintptr_t)task;
}

/* ---- the queue ----------------------------------------------------------------------------------
 */

void thread_policy_begin(struct threads *threads)
{
    prio_of(threads)->left = threads->ready;
}

/* Whether a task that was stopped has some of its slice left; else it gets a new one. */
static bool prio_goes_on(struct prio *prio, struct prio_task *task)
{
    if (prio->threads.preempted && prio->since_ns != 0) {
        uint64_t ran_ns = kit_env_now_ns(prio->threads.events.env) - prio->since_ns;
        if (ran_ns < task->left_ns) {
            task->left_ns -= ran_ns;
            return true;
        }
    }
    task->left_ns = prio->slice_ns;
    return prio->threads.preempted && prio->since_ns == 0;
}

void thread_policy_ready(struct threads *threads, struct kit_task *task)
{
    struct prio *prio = prio_of(threads);
    uint32_t level = prio_task_of(task)->level;
    if (prio_goes_on(prio, prio_task_of(task)))
        kit_list_push_front(&prio->ready[level], &task->link);
    else
        kit_list_push_back(&prio->ready[level], &task->link);
    prio->levels |= UINT64_C(1) << level;
}

static void prio_take(struct prio *prio, struct kit_task *task)
{
    uint32_t level = prio_task_of(task)->level;
    kit_list_remove(&task->link);
    if (kit_list_empty(&prio->ready[level]))
        prio->levels &= ~(UINT64_C(1) << level);
}

struct kit_task *thread_policy_next(struct threads *threads)
{
    struct prio *prio = prio_of(threads);
    if (prio->left == 0 || prio->levels == 0)
        return NULL;
    prio->left--;
    struct kit_list *link = prio->ready[kit_fls64(prio->levels)].next;
    struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, link);
    prio_take(prio, task);
    prio->since_ns = 0;
    return task;
}

/* ---- inheritance --------------------------------------------------------------------------------
 */

static uint32_t prio_due(const struct prio_task *task)
{
    uint32_t level = task->own;
    for (const struct kit_list *link = task->lenders.next; link != &task->lenders;
         link = link->next) {
        uint32_t lent = KIT_CONTAINER_OF(link, struct prio_task, lender)->level;
        level = lent > level ? lent : level;
    }
    return level;
}

/* Brings the level of a task up to date, and of those it depends on. In a circle of tasks that wait
 * for each other (a deadlock) it ends when a level stays. */
static void prio_update(struct prio *prio, struct prio_task *task)
{
    for (; task != NULL; task = task->on) {
        uint32_t level = prio_due(task);
        if (level == task->level)
            return;
        if (task->task.state == THREAD_READY) {
            prio_take(prio, &task->task);
            task->level = level;
            thread_policy_ready(&prio->threads, &task->task);
        }
        task->level = level;
    }
}

static void prio_depend(struct kit_sched *s, struct kit_task *which, struct kit_task *on)
{
    struct prio *prio = prio_of(threads_of(s));
    struct prio_task *task = prio_task_of(which), *before = task->on;
    if (before != NULL) {
        kit_list_remove(&task->lender);
        task->on = NULL;
        prio_update(prio, before);
    }
    if (on != NULL) {
        task->on = prio_task_of(on);
        kit_list_push_back(&task->on->lenders, &task->lender);
        prio_update(prio, task->on);
    }
    thread_slice(&prio->threads);
}

/* ---- tasks --------------------------------------------------------------------------------------
 */

static int prio_admit(struct threads *threads, struct kit_task *which,
                      const struct kit_task_spec *spec)
{
    struct prio_task *task = prio_task_of(which);
    (void)threads;
    task->own = spec->share != NULL ? spec->share->priority : spec->priority;
    task->level = task->own;
    task->on = NULL;
    kit_list_init(&task->lender);
    kit_list_init(&task->lenders);
    return task->own < PRIO_LEVELS ? 0 : KIT_EINVAL;
}

/* Whoever still depends on a task that ended depends on nobody. */
static void prio_retire(struct threads *threads, struct kit_task *which)
{
    (void)threads;
    struct kit_list *link;
    while ((link = kit_list_pop_front(&prio_task_of(which)->lenders)) != NULL)
        KIT_CONTAINER_OF(link, struct prio_task, lender)->on = NULL;
}

static int prio_set_share(struct kit_sched *s, struct kit_task *task,
                          const struct kit_task_share *share)
{
    if (share->priority >= PRIO_LEVELS)
        return KIT_EINVAL;
    prio_task_of(task)->own = share->priority;
    prio_update(prio_of(threads_of(s)), prio_task_of(task));
    thread_slice(threads_of(s));
    return 0;
}

static void prio_get_share(const struct kit_sched *s, const struct kit_task *task,
                           struct kit_task_share *out)
{
    (void)s;
    *out = (struct kit_task_share){.priority = prio_task_of(task)->level};
}

/* A higher task is ready, or can only become so by an event or a timer; others of the same level
 * wait for the end of the slice, which begins when somebody asks: where nobody does, where tasks
 * stop of their own accord, no switch pays for reading the clock. */
static uint64_t prio_stop_ns(const struct kit_sched *s)
{
    struct prio *prio = (struct prio *)(uintptr_t)s;
    const struct kit_task *task = prio->threads.current;
    uint64_t stop_ns = timer_queue_first(&prio->threads.events.timers);
    if (task == NULL || prio->levels >> prio_task_of(task)->level == 0)
        return stop_ns;
    if (prio->levels >> prio_task_of(task)->level > 1)
        return 0;
    if (prio->slice_ns == 0)
        return stop_ns;
    if (prio->since_ns == 0)
        prio->since_ns = kit_env_now_ns(prio->threads.events.env);
    uint64_t end_ns = prio->since_ns + prio_task_of(task)->left_ns;
    return end_ns < stop_ns ? end_ns : stop_ns;
}

/* ---- looking, opening, closing --------------------------------------------------------------- */

static int prio_check(const struct kit_sched *s)
{
    const struct prio *prio = (const struct prio *)(const void *)s;
    size_t left = prio->threads.ready;
    for (uint32_t level = 0; level < PRIO_LEVELS; level++) {
        const struct kit_list *list = &prio->ready[level], *link = list->next;
        if (kit_list_empty(list) == (prio->levels >> level & 1))
            return KIT_ECORRUPT;
        for (; link != list && left > 0; link = link->next, left--) {
            const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, link);
            if (link->next->prev != link || task->state != THREAD_READY ||
                prio_task_of(task)->level != level || prio_due(prio_task_of(task)) != level)
                return KIT_ECORRUPT;
        }
        if (link != list)
            return KIT_ECORRUPT;
    }
    return left == 0 ? threads_check(&prio->threads) : KIT_ECORRUPT;
}

static void prio_close(struct kit_sched *s)
{
    struct prio *prio = prio_of(threads_of(s));
    struct kit_alloc *alloc = prio->threads.events.alloc;
    threads_close(&prio->threads);
    kit_alloc_free(alloc, prio, sizeof(*prio), alignof(struct prio));
}

static const struct kit_sched_ops prio_ops = {
    .turn = thread_turn,
    .deadline_ns = thread_deadline_ns,
    .post = thread_post,
    .cancel_work = events_cancel_work,
    .arm = thread_arm,
    .cancel = events_cancel,
    .spawn = thread_spawn,
    .current = thread_current,
    .yield = thread_yield,
    .block = thread_block,
    .wake = thread_wake,
    .exit = thread_exit,
    .join = thread_join,
    .stats = thread_stats,
    .check = prio_check,
    .close = prio_close,
    .set_share = prio_set_share,
    .get_share = prio_get_share,
    .depend = prio_depend,
    .stop_ns = prio_stop_ns,
    .note = thread_note,
    .attend = thread_attend,
    .next_task = thread_next_task,
    .preempt = thread_preempt,
};

static int prio_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                     struct kit_sched **out)
{
    struct prio *prio = kit_alloc_alloc(alloc, sizeof(*prio), alignof(struct prio));
    if (prio == NULL)
        return KIT_ENOMEM;
    int rc = threads_open(&prio->threads, env, alloc, (size_t)options[PRIO_STACK],
                          options[PRIO_GUARD] != 0, (size_t)options[PRIO_CACHED],
                          options[PRIO_MEASURE] != 0);
    if (rc != 0) {
        kit_alloc_free(alloc, prio, sizeof(*prio), alignof(struct prio));
        return rc;
    }
    prio->threads.task_size = sizeof(struct prio_task);
    prio->threads.admit = prio_admit;
    prio->threads.retire = prio_retire;
    prio->levels = prio->left = 0;
    prio->slice_ns = options[PRIO_SLICE];
    prio->since_ns = 0;
    for (uint32_t level = 0; level < PRIO_LEVELS; level++)
        kit_list_init(&prio->ready[level]);
    KIT_SCHED_BIND(&prio->threads.events.base, &prio_ops);
    *out = &prio->threads.events.base;
    return 0;
}

const struct kit_sched_component kit_sched_prio = {
    .id = "sched.prio",
    .abi = KIT_SCHED_ABI,
    .features = KIT_SCHED_THREADS | KIT_SCHED_PRIORITIES | KIT_SCHED_PREEMPTION,
    .ops = &prio_ops,
    .open = prio_open,
};
