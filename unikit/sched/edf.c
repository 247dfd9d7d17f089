/* SPDX-License-Identifier: MIT */
/* sched.edf: earliest deadline first with admission control and reservations, each kept apart from
 * the others' overruns, and what is left over shared out.
 * Sources: C. L. Liu, J. W. Layland, «Scheduling algorithms for multiprogramming in a
 * hard-real-time environment», JACM 20(1), 1973 (EDF); L. Abeni, G. Buttazzo, «Integrating
 * multimedia applications in hard real-time systems», RTSS 1998 (constant bandwidth server); I.
 * Leslie et al., «The design and implementation of an operating system to support distributed
 * multimedia applications», IEEE JSAC 14(7), 1996 (Nemesis, whose Atropos has slice, period and
 * extra time).
 *
 * A task reserves a slice in each period. While it has budget it is `active`, in a tree by absolute
 * deadline, and the first of these runs. When its budget is used up it `waits`, in a tree by the
 * start of its next period, where it gets a new slice; what it ran too long is taken off that.
 * Tasks that wait, unless they are strict, and tasks without a reservation stand in one list, and
 * run in turn while nobody is active. A task that wakes keeps budget and deadline, unless they
 * would give it more than its share of the time that is left until then (budget / (deadline - now)
 * > slice / deadline of a period): then a new period begins.
 *
 *     admitted: sum of slice / min(deadline, period) <= limit
 *
 * Guarantee: with tasks that stop when their budget is used up, each gets its slice by its deadline
 * in each period in which it wants it, whatever the others do. A task that cannot be stopped makes
 * the others late by at most what it runs over in one go, once, and pays for it itself.
 *
 * Invariants: a READY task is active, or it is in the list, or it is strict and waits. Cost: pick,
 * ready, yield O(log n) and one reading of the clock each; 152 bytes per task. */
#include <unikit/sched/thread.h>
#include <unikit/sched/tree.h>

enum { EDF_STACK, EDF_GUARD, EDF_CACHED, EDF_MEASURE, EDF_LIMIT, EDF_SLICE };
enum { EDF_BITS = 30 };                    /* of the fraction of a utilisation */
#define EDF_PERIOD_MAX (UINT64_C(1) << 33) /* 8.6 s: with EDF_BITS more it fits into 64 bits */

enum edf_place { EDF_NOWHERE, EDF_ACTIVE, EDF_WAITING };

struct edf_task {
    struct kit_task task;
    struct tree_node node; /* in `active` by deadline, or in `waiting` by release */
    uint64_t slice_ns, period_ns, relative_ns; /* 0: no reservation */
    uint64_t deadline_ns;                      /* absolute */
    uint64_t release_ns;                       /* when the next period begins */
    int64_t budget_ns;
    uint64_t use; /* slice / deadline, EDF_BITS after the point */
    enum edf_place place;
    bool listed; /* in `slack` */
    bool strict;
    bool late; /* counted as such in this period */
};

struct edf {
    struct threads threads;
    struct tree active, waiting;
    struct kit_list slack;
    struct edf_task *running;
    uint64_t since_ns;
    uint64_t use, limit; /* of the processor */
    uint64_t missed;
    uint64_t extra_ns; /* of tasks that run in what others left */
    size_t left;       /* runs of this turn */
    bool ran;          /* a task in this turn */
    bool reserved;     /* the running task uses its budget */
};

static struct edf *edf_of(struct threads *threads)
{
    return (struct edf *)threads;
}

static struct edf_task *edf_task_of(const struct kit_task *task)
{
    return (struct edf_task *)(uintptr_t)task;
}

static struct edf_task *edf_first(const struct tree *tree)
{
    return tree->first ? KIT_CONTAINER_OF(tree->first, struct edf_task, node) : NULL;
}

/* ---- places ---------------------------------------------------------------------------------- */

static void edf_take(struct edf *edf, struct edf_task *task)
{
    if (task->place != EDF_NOWHERE)
        tree_remove(task->place == EDF_ACTIVE ? &edf->active : &edf->waiting, &task->node);
    if (task->listed)
        kit_list_remove(&task->task.link);
    task->place = EDF_NOWHERE;
    task->listed = false;
}

/* Puts a ready task where its budget says. */
static void edf_put(struct edf *edf, struct edf_task *task)
{
    if (task->period_ns != 0) {
        task->place = task->budget_ns > 0 ? EDF_ACTIVE : EDF_WAITING;
        task->node.key = task->budget_ns > 0 ? task->deadline_ns : task->release_ns;
        tree_insert(task->budget_ns > 0 ? &edf->active : &edf->waiting, &task->node);
    }
    task->listed = task->period_ns == 0 || (task->budget_ns <= 0 && !task->strict);
    if (task->listed)
        kit_list_push_back(&edf->slack, &task->task.link);
}

/* Begins a period at `start_ns`: a new slice, less what was overrun. */
static void edf_begin(struct edf_task *task, uint64_t start_ns)
{
    int64_t slice_ns = (int64_t)task->slice_ns;
    task->budget_ns = task->budget_ns < 0 ? task->budget_ns + slice_ns : slice_ns;
    task->deadline_ns = start_ns + task->relative_ns;
    task->release_ns = start_ns + task->period_ns;
    task->late = false;
}

/* Begins the period that is due, if one is: the next one, or one now if several have gone by. */
static void edf_advance(struct edf_task *task, uint64_t now_ns)
{
    if (task->period_ns == 0 || now_ns < task->release_ns)
        return;
    bool next = now_ns - task->release_ns < task->period_ns;
    edf_begin(task, next ? task->release_ns : now_ns);
}

/* What a task that wakes may keep. */
static void edf_resume(struct edf_task *task, uint64_t now_ns)
{
    if (task->period_ns == 0)
        return;
    if (now_ns >= task->release_ns) {
        edf_begin(task, now_ns);
        return;
    }
    if (task->budget_ns <= 0)
        return;
    uint64_t left_ns = now_ns < task->deadline_ns ? task->deadline_ns - now_ns : 0;
    if ((unsigned __int128)(uint64_t)task->budget_ns * task->relative_ns >
        (unsigned __int128)left_ns * task->slice_ns)
        edf_begin(task, now_ns);
}

/* Gives waiting tasks their new slices. */
static void edf_release(struct edf *edf, uint64_t now_ns)
{
    struct edf_task *task;
    while ((task = edf_first(&edf->waiting)) != NULL && task->release_ns <= now_ns) {
        edf_take(edf, task);
        edf_advance(task, now_ns);
        edf_put(edf, task);
    }
}

/* Charges the running task. Returns the time. */
static uint64_t edf_charge(struct edf *edf)
{
    uint64_t now_ns = kit_env_now_ns(edf->threads.events.env);
    if (edf->running != NULL && edf->reserved)
        edf->running->budget_ns -= (int64_t)(now_ns - edf->since_ns);
    edf->since_ns = now_ns;
    return now_ns;
}

/* ---- the policy ------------------------------------------------------------------------------ */

void thread_policy_begin(struct threads *threads)
{
    edf_of(threads)->left = threads->ready;
    edf_of(threads)->ran = false;
}

void thread_policy_ready(struct threads *threads, struct kit_task *which)
{
    struct edf *edf = edf_of(threads);
    struct edf_task *task = edf_task_of(which);
    uint64_t now_ns = edf_charge(edf);
    if (task == edf->running) {
        edf->running = NULL;
        edf_advance(task, now_ns);
    } else {
        edf_resume(task, now_ns);
    }
    edf_put(edf, task);
}

/* The active task with the earliest deadline; one whose whole period went by has missed it. */
static struct edf_task *edf_urgent(struct edf *edf, uint64_t now_ns)
{
    struct edf_task *task;
    while ((task = edf_first(&edf->active)) != NULL && task->deadline_ns < now_ns) {
        edf->missed += !task->late;
        task->late = true;
        if (now_ns < task->release_ns)
            break;
        edf_take(edf, task);
        edf_advance(task, now_ns);
        edf_put(edf, task);
    }
    return task;
}

struct kit_task *thread_policy_next(struct threads *threads)
{
    struct edf *edf = edf_of(threads);
    uint64_t now_ns = edf_charge(edf);
    edf->running = NULL; /* if it is not ready again, it goes to sleep with what it has */
    if (edf->left == 0 || (edf->ran && timer_queue_first(&threads->events.timers) <= now_ns))
        return NULL; /* a timer is due, and perhaps a task that is more urgent than all: a new turn
                      */
    edf_release(edf, now_ns);
    struct edf_task *task = edf_urgent(edf, now_ns);
    edf->reserved = task != NULL;
    if (task == NULL && !kit_list_empty(&edf->slack)) {
        struct kit_task *first = KIT_CONTAINER_OF(edf->slack.next, struct kit_task, link);
        task = edf_task_of(first);
    }
    if (task == NULL)
        return NULL;
    edf->left--;
    edf->ran = true;
    edf_take(edf, task);
    edf->running = task;
    return &task->task;
}

static uint64_t edf_deadline_ns(struct kit_sched *s)
{
    struct edf *edf = edf_of(threads_of(s));
    uint64_t deadline_ns = events_deadline_ns(&edf->threads.events);
    const struct edf_task *first = edf_first(&edf->waiting);
    if (edf->active.root != NULL || !kit_list_empty(&edf->slack))
        return 0;
    return first != NULL && first->release_ns < deadline_ns ? first->release_ns : deadline_ns;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

/* Sets what a task reserves. 0, KIT_EINVAL, or KIT_ENOMEM if there is not so much left. */
static int edf_set(struct edf *edf, struct edf_task *task, const struct kit_task_share *share)
{
    static const struct kit_task_share none;
    share = share != NULL ? share : &none;
    uint64_t relative_ns = share->deadline_ns != 0 ? share->deadline_ns : share->period_ns;
    uint64_t use = 0;
    if (share->flags & ~(uint32_t)KIT_SHARE_STRICT)
        return KIT_EINVAL;
    if (share->period_ns != 0) {
        if (share->slice_ns == 0 || share->slice_ns > relative_ns ||
            relative_ns > share->period_ns || share->period_ns > EDF_PERIOD_MAX)
            return KIT_EINVAL;
        use = ((share->slice_ns << EDF_BITS) + relative_ns - 1) / relative_ns;
        if (edf->use - task->use + use > edf->limit)
            return KIT_ENOMEM;
    } else if (share->deadline_ns != 0 || share->flags != 0) {
        return KIT_EINVAL; /* of no use without a period */
    }
    edf->use += use - task->use;
    task->use = use;
    task->slice_ns = share->slice_ns;
    task->period_ns = share->period_ns;
    task->relative_ns = share->period_ns != 0 ? relative_ns : 0;
    task->strict = share->flags & KIT_SHARE_STRICT;
    task->budget_ns = 0;
    task->release_ns = 0; /* the first period begins when it is ready */
    return 0;
}

static int edf_admit(struct threads *threads, struct kit_task *which,
                     const struct kit_task_spec *spec)
{
    struct edf_task *task = edf_task_of(which);
    task->node = (struct tree_node){0};
    task->use = 0;
    task->deadline_ns = 0;
    task->place = EDF_NOWHERE;
    task->listed = task->late = false;
    return edf_set(edf_of(threads), task, spec->share);
}

static void edf_retire(struct threads *threads, struct kit_task *which)
{
    struct edf *edf = edf_of(threads);
    edf->use -= edf_task_of(which)->use;
    edf_task_of(which)->use = 0;
    if (edf->running == edf_task_of(which))
        edf->running = NULL;
}

static int edf_set_share(struct kit_sched *s, struct kit_task *which,
                         const struct kit_task_share *share)
{
    struct edf *edf = edf_of(threads_of(s));
    struct edf_task *task = edf_task_of(which);
    if (which->state == THREAD_FINISHED)
        return KIT_EINVAL;
    int rc = edf_set(edf, task, share);
    if (rc != 0)
        return rc;
    if (which->state == THREAD_READY) {
        edf_take(edf, task);
        edf_resume(task, kit_env_now_ns(edf->threads.events.env));
        edf_put(edf, task);
    }
    thread_slice(&edf->threads);
    return 0;
}

static void edf_get_share(const struct kit_sched *s, const struct kit_task *which,
                          struct kit_task_share *out)
{
    const struct edf_task *task = edf_task_of(which);
    (void)s;
    *out = (struct kit_task_share){.slice_ns = task->slice_ns,
                                   .period_ns = task->period_ns,
                                   .deadline_ns = task->relative_ns,
                                   .flags = task->strict ? KIT_SHARE_STRICT : 0};
}

/* The end of the budget, or what may bring a more urgent task: a new period, a timer. */
static uint64_t edf_stop_ns(const struct kit_sched *s)
{
    const struct edf *edf = (const struct edf *)(const void *)s;
    const struct edf_task *task = edf->running, *next = edf_first(&edf->waiting);
    uint64_t stop_ns = timer_queue_first(&edf->threads.events.timers);
    if (next != NULL && next->release_ns < stop_ns)
        stop_ns = next->release_ns;
    if (task == NULL)
        return stop_ns;
    uint64_t end_ns = edf->since_ns + (task->budget_ns > 0 ? (uint64_t)task->budget_ns : 0);
    if (!edf->reserved) { /* it runs in what others left: in turn, and until its own next slice */
        end_ns = kit_list_empty(&edf->slack) ? KIT_NEVER : edf->since_ns + edf->extra_ns;
        if (task->period_ns != 0 && task->release_ns < end_ns)
            end_ns = task->release_ns;
    }
    return end_ns < stop_ns ? end_ns : stop_ns;
}

/* ---- looking, opening, closing --------------------------------------------------------------- */

static void edf_stats(const struct kit_sched *s, struct kit_sched_stats *out)
{
    thread_stats(s, out);
    out->missed = ((const struct edf *)(const void *)s)->missed;
}

/* Verifies one tree; how many of its tasks count as ready here, SIZE_MAX: something is wrong. */
static size_t edf_check_tree(const struct tree *tree, enum edf_place place)
{
    size_t count = 0;
    if (tree_check(tree) == SIZE_MAX)
        return SIZE_MAX;
    for (const struct tree_node *node = tree->first; node; node = tree_next(node)) {
        const struct edf_task *task = KIT_CONTAINER_OF(node, struct edf_task, node);
        bool active = place == EDF_ACTIVE;
        if (task->task.state != THREAD_READY || task->place != place ||
            (task->budget_ns > 0) != active ||
            node->key != (active ? task->deadline_ns : task->release_ns) ||
            task->listed != (!active && !task->strict))
            return SIZE_MAX;
        count += !task->listed;
    }
    return count;
}

static int edf_check(const struct kit_sched *s)
{
    const struct edf *edf = (const struct edf *)(const void *)s;
    size_t active = edf_check_tree(&edf->active, EDF_ACTIVE);
    size_t waiting = edf_check_tree(&edf->waiting, EDF_WAITING);
    if (active == SIZE_MAX || waiting == SIZE_MAX || active + waiting > edf->threads.ready ||
        edf->use > edf->limit)
        return KIT_ECORRUPT;
    size_t left = edf->threads.ready - active - waiting;
    const struct kit_list *link = edf->slack.next;
    for (; link != &edf->slack && left > 0; link = link->next, left--) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, link);
        if (link->next->prev != link || task->state != THREAD_READY || !edf_task_of(task)->listed)
            return KIT_ECORRUPT;
    }
    return link == &edf->slack && left == 0 ? threads_check(&edf->threads) : KIT_ECORRUPT;
}

static void edf_close(struct kit_sched *s)
{
    struct edf *edf = edf_of(threads_of(s));
    struct kit_alloc *alloc = edf->threads.events.alloc;
    threads_close(&edf->threads);
    kit_alloc_free(alloc, edf, sizeof(*edf), alignof(struct edf));
}

static const struct kit_sched_ops edf_ops = {
    .turn = thread_turn,
    .deadline_ns = edf_deadline_ns,
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
    .stats = edf_stats,
    .check = edf_check,
    .close = edf_close,
    .set_share = edf_set_share,
    .get_share = edf_get_share,
    .stop_ns = edf_stop_ns,
    .note = thread_note,
    .attend = thread_attend,
    .next_task = thread_next_task,
    .preempt = thread_preempt,
};

static int edf_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                    struct kit_sched **out)
{
    if (options[EDF_LIMIT] == 0 || options[EDF_LIMIT] > 100 || options[EDF_SLICE] == 0)
        return KIT_EINVAL;
    struct edf *edf = kit_alloc_alloc(alloc, sizeof(*edf), alignof(struct edf));
    if (edf == NULL)
        return KIT_ENOMEM;
    memset(edf, 0, sizeof(*edf));
    int rc =
        threads_open(&edf->threads, env, alloc, (size_t)options[EDF_STACK], options[EDF_GUARD] != 0,
                     (size_t)options[EDF_CACHED], options[EDF_MEASURE] != 0);
    if (rc != 0) {
        kit_alloc_free(alloc, edf, sizeof(*edf), alignof(struct edf));
        return rc;
    }
    edf->threads.task_size = sizeof(struct edf_task);
    edf->threads.admit = edf_admit;
    edf->threads.retire = edf_retire;
    edf->extra_ns = options[EDF_SLICE];
    edf->limit = (options[EDF_LIMIT] << EDF_BITS) / 100;
    kit_list_init(&edf->slack);
    KIT_SCHED_BIND(&edf->threads.events.base, &edf_ops);
    *out = &edf->threads.events.base;
    return 0;
}

const struct kit_sched_component kit_sched_edf = {
    .id = "sched.edf",
    .abi = KIT_SCHED_ABI,
    .features = KIT_SCHED_THREADS | KIT_SCHED_RESERVATIONS | KIT_SCHED_PREEMPTION,
    .ops = &edf_ops,
    .open = edf_open,
};
