/* SPDX-License-Identifier: MIT */
/* sched.fair: weighted fair sharing by earliest eligible virtual deadline first (EEVDF).
 * Source: I. Stoica, H. Abdel-Wahab, «Earliest eligible virtual deadline first: a flexible and
 * accurate mechanism for proportional share resource allocation», Old Dominion University,
 * TR-95-22, 1995.
 *
 * Each active task (ready or running) has a virtual run time v: what it ran, in nanoseconds, times
 * 1024 / weight. The system's virtual time is the weighted mean of these,
 *
 *     V = sum(w v) / sum(w),       lag(task) = w (V - v) / 1024: what it is owed, in nanoseconds,
 *
 * so that the lags of all active tasks add up to zero. A task asks for one slice after the other;
 * the request has the virtual deadline v + slice * 1024 / w. A task that has run no more than its
 * due (v <= V) is eligible; of these the one with the earliest deadline runs. A task that goes to
 * sleep takes its lag along, cut to one slice either way, and comes back with it: sleeping neither
 * earns nor loses. Who yields without using its slice goes behind those with the same deadline.
 *
 * Invariants: every ready task is in the tree, sorted by deadline, with v as value; `weight` and
 * `moment` are the sums of w and w (v - origin) over the active tasks. Guarantee (theorem 2 of the
 * paper): with tasks that stop at the end of their slice, |lag| never exceeds one slice; a task
 * that runs longer in one go pays by just that much.
 *
 * Cost: pick, ready, yield O(log n), and one reading of the clock each; 112 bytes per task. */
#include <unikit/rt/assert.h>
#include <unikit/sched/thread.h>
#include <unikit/sched/tree.h>

enum { FAIR_STACK, FAIR_GUARD, FAIR_CACHED, FAIR_MEASURE, FAIR_SLICE };
enum { FAIR_UNIT = 1024, FAIR_WEIGHT_MAX = 1 << 16 };
#define FAIR_SLICE_MAX UINT64_C(10000000000) /* 10 s: products below stay within 64 bits */
#define FAIR_RUN_MAX (UINT64_C(1) << 42)     /* 73 minutes in one go count as so many */

struct fair_task {
    struct kit_task task;
    struct tree_node node; /* key: deadline; value: v. While not in the tree they are kept there */
    uint64_t slice_ns;
    uint64_t rest; /* of the division by the weight, so that nothing is lost over time */
    int64_t lag;   /* while it sleeps: w (V - v) */
    uint32_t weight;
    bool active;
};

struct fair {
    struct threads threads;
    struct tree tree;
    struct fair_task *running;  /* active, and not in the tree */
    struct fair_task *yielding; /* the same, between its yield and the next pick */
    uint64_t since_ns;          /* it has been charged up to here */
    uint64_t origin;            /* of `moment`: some v of the recent past */
    uint64_t weight;
    __int128 moment;
    uint64_t slice_ns;
    size_t left; /* runs of this turn */
    bool ran;    /* a task in this turn */
};

static struct fair *fair_of(struct threads *threads)
{
    return (struct fair *)threads;
}

static struct fair_task *fair_task_of(const struct kit_task *task)
{
    return (struct fair_task *)(uintptr_t)task;
}

/* ---- virtual time ---------------------------------------------------------------------------- */

/* The virtual length of a time at a weight, rounded down. */
static uint64_t fair_virtual(uint64_t time_ns, uint32_t weight)
{
    return time_ns * FAIR_UNIT / weight;
}

static __int128 fair_moment(const struct fair *fair, const struct fair_task *task)
{
    return (__int128)(int64_t)(task->node.value - fair->origin) * task->weight;
}

/* a / b rounded down, for b > 0; freestanding code has no division of 128 bits. Loses digits that
 * are below a nanosecond where the quotient does not fit otherwise. */
static int64_t fair_quotient(__int128 a, uint64_t b)
{
    while (a > INT64_MAX || a < INT64_MIN || b > INT64_MAX) {
        a >>= 1;
        b = (b >> 1) | 1;
    }
    int64_t whole = (int64_t)a / (int64_t)b;
    return whole - ((int64_t)a % (int64_t)b < 0);
}

/* V; `origin` if nothing is active. */
static uint64_t fair_now(const struct fair *fair)
{
    if (fair->weight == 0)
        return fair->origin;
    return fair->origin + (uint64_t)fair_quotient(fair->moment, fair->weight);
}

/* Takes a task into the sums, or out of them. */
static void fair_add(struct fair *fair, struct fair_task *task)
{
    fair->moment += fair_moment(fair, task);
    fair->weight += task->weight;
}

static void fair_subtract(struct fair *fair, struct fair_task *task)
{
    fair->moment -= fair_moment(fair, task);
    fair->weight -= task->weight;
}

/* Keeps the numbers small: moves the origin to V. */
static void fair_rebase(struct fair *fair)
{
    uint64_t now = fair_now(fair);
    fair->moment -= (__int128)(int64_t)(now - fair->origin) * (__int128)fair->weight;
    fair->origin = now;
}

static void fair_request(struct fair_task *task)
{
    task->node.key = task->node.value + fair_virtual(task->slice_ns, task->weight);
}

/* Charges the running task for the time since it was charged last. */
static void fair_charge(struct fair *fair)
{
    struct fair_task *task = fair->running;
    if (task == NULL)
        return;
    uint64_t now_ns = kit_env_now_ns(fair->threads.events.env);
    uint64_t ran_ns = now_ns - fair->since_ns;
    fair->since_ns = now_ns;
    if (ran_ns == 0)
        return;
    if (ran_ns > FAIR_RUN_MAX)
        ran_ns = FAIR_RUN_MAX;
    uint64_t units = ran_ns * FAIR_UNIT + task->rest, advance = units / task->weight;
    task->rest = units % task->weight;
    task->node.value += advance;
    fair->moment += (__int128)advance * task->weight;
    if (!tree_before(task->node.value, task->node.key))
        fair_request(task);
    fair_rebase(fair);
}

/* ---- coming and going ------------------------------------------------------------------------ */

/* An inactive task becomes active with the lag it left with. Adding it moves V towards its v, so it
 * is placed further off by just as much: v = V - lag (W + w) / (W w). */
static void fair_enter(struct fair *fair, struct fair_task *task)
{
    uint64_t now = fair_now(fair);
    __int128 distance = task->lag;
    if (fair->weight != 0)
        distance += fair_quotient((__int128)task->lag * task->weight, fair->weight);
    task->node.value =
        fair->weight == 0 ? now : now - (uint64_t)fair_quotient(distance, task->weight);
    fair_request(task);
    task->active = true;
    fair_add(fair, task);
}

static void fair_leave(struct fair *fair, struct fair_task *task)
{
    int64_t limit = (int64_t)(task->slice_ns * FAIR_UNIT);
    __int128 lag = (__int128)(int64_t)(fair_now(fair) - task->node.value) * task->weight;
    task->lag = lag > limit ? limit : lag < -limit ? -limit : (int64_t)lag;
    task->active = false;
    fair_subtract(fair, task);
}

void thread_policy_begin(struct threads *threads)
{
    fair_of(threads)->left = threads->ready;
    fair_of(threads)->ran = false;
}

void thread_policy_ready(struct threads *threads, struct kit_task *which)
{
    struct fair *fair = fair_of(threads);
    struct fair_task *task = fair_task_of(which);
    uint64_t deadline = task->node.key;
    fair_charge(fair);
    if (task != fair->running) {
        fair_enter(fair, task);
    } else {
        fair->running = NULL;
        if (task->node.key == deadline && !threads->preempted) { /* it leaves some of its request */
            fair->yielding = task;
            return;
        }
    }
    tree_insert(&fair->tree, &task->node);
}

/* The eligible task with the earliest deadline; the one that yields stands back this once. */
static struct fair_task *fair_pick(struct fair *fair)
{
    struct tree_node *node = tree_first_upto(&fair->tree, fair_now(fair));
    if (fair->yielding != NULL) {
        tree_insert(&fair->tree, &fair->yielding->node);
        if (node == NULL)
            node = &fair->yielding->node;
        fair->yielding = NULL;
    }
    if (node == NULL) /* V was rounded down below all of them */
        node = fair->tree.first;
    return node == NULL ? NULL : KIT_CONTAINER_OF(node, struct fair_task, node);
}

struct kit_task *thread_policy_next(struct threads *threads)
{
    struct fair *fair = fair_of(threads);
    if (fair->running != NULL) { /* it goes to sleep */
        fair_charge(fair);
        fair_leave(fair, fair->running);
        fair->running = NULL;
    }
    struct fair_task *task = fair_pick(fair);
    if (task == NULL || fair->left == 0 ||
        (fair->ran && timer_queue_first(&threads->events.timers) <= fair->since_ns))
        return NULL; /* at the latest when a timer is due a new turn begins */
    fair->left--;
    fair->ran = true;
    tree_remove(&fair->tree, &task->node);
    fair->running = task;
    fair->since_ns = kit_env_now_ns(threads->events.env);
    return &task->task;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static int fair_set(const struct fair *fair, struct fair_task *task,
                    const struct kit_task_share *share)
{
    uint32_t weight = share != NULL && share->weight != 0 ? share->weight : FAIR_UNIT;
    uint64_t slice_ns = share != NULL && share->slice_ns != 0 ? share->slice_ns : fair->slice_ns;
    if (weight > FAIR_WEIGHT_MAX || slice_ns > FAIR_SLICE_MAX)
        return KIT_EINVAL;
    task->weight = weight;
    task->slice_ns = slice_ns;
    return 0;
}

static int fair_admit(struct threads *threads, struct kit_task *which,
                      const struct kit_task_spec *spec)
{
    struct fair_task *task = fair_task_of(which);
    task->node = (struct tree_node){0};
    task->rest = 0;
    task->lag = 0;
    task->active = false;
    return fair_set(fair_of(threads), task, spec->share);
}

static void fair_retire(struct threads *threads, struct kit_task *which)
{
    struct fair *fair = fair_of(threads);
    if (fair->running != fair_task_of(which))
        return; /* spawn failed: it never became active */
    fair_charge(fair);
    fair_leave(fair, fair->running);
    fair->running = NULL;
}

static int fair_set_share(struct kit_sched *s, struct kit_task *which,
                          const struct kit_task_share *share)
{
    struct fair *fair = fair_of(threads_of(s));
    struct fair_task *task = fair_task_of(which), trial = *task;
    if (fair_set(fair, &trial, share) != 0)
        return KIT_EINVAL;
    bool queued = task->node.height != 0, active = task->active;
    fair_charge(fair);
    if (queued)
        tree_remove(&fair->tree, &task->node);
    if (active)
        fair_leave(fair, task);
    fair_set(fair, task, share);
    if (active)
        fair_enter(fair, task); /* with the same lag */
    if (queued)
        tree_insert(&fair->tree, &task->node);
    thread_slice(&fair->threads);
    return 0;
}

static void fair_get_share(const struct kit_sched *s, const struct kit_task *which,
                           struct kit_task_share *out)
{
    const struct fair_task *task = fair_task_of(which);
    (void)s;
    *out = (struct kit_task_share){.weight = task->weight, .slice_ns = task->slice_ns};
}

static uint64_t fair_stop_ns(const struct kit_sched *s)
{
    const struct fair *fair = (const struct fair *)(const void *)s;
    const struct fair_task *task = fair->running;
    uint64_t stop_ns = timer_queue_first(&fair->threads.events.timers);
    if (task == NULL || fair->tree.root == NULL)
        return stop_ns;
    uint64_t left = task->node.key - task->node.value; /* of the request, when it was charged */
    uint64_t end_ns = fair->since_ns + (left * task->weight + FAIR_UNIT - 1) / FAIR_UNIT;
    return end_ns < stop_ns ? end_ns : stop_ns;
}

/* ---- looking, opening, closing --------------------------------------------------------------- */

static int fair_check(const struct kit_sched *s)
{
    const struct fair *fair = (const struct fair *)(const void *)s;
    size_t count = 0;
    uint64_t weight = 0;
    __int128 moment = 0;
    if (tree_check(&fair->tree) != fair->threads.ready)
        return KIT_ECORRUPT;
    for (const struct tree_node *node = fair->tree.first; node; node = tree_next(node), count++) {
        const struct fair_task *task = KIT_CONTAINER_OF(node, struct fair_task, node);
        if (task->task.state != THREAD_READY || !task->active || task == fair->running ||
            tree_before(node->key, node->value))
            return KIT_ECORRUPT;
        weight += task->weight;
        moment += fair_moment(fair, task);
    }
    if (fair->running != NULL) {
        weight += fair->running->weight;
        moment += fair_moment(fair, fair->running);
    }
    if (weight != fair->weight || moment != fair->moment)
        return KIT_ECORRUPT;
    return threads_check(&fair->threads);
}

static void fair_close(struct kit_sched *s)
{
    struct fair *fair = fair_of(threads_of(s));
    struct kit_alloc *alloc = fair->threads.events.alloc;
    threads_close(&fair->threads);
    kit_alloc_free(alloc, fair, sizeof(*fair), alignof(struct fair));
}

static const struct kit_sched_ops fair_ops = {
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
    .check = fair_check,
    .close = fair_close,
    .set_share = fair_set_share,
    .get_share = fair_get_share,
    .stop_ns = fair_stop_ns,
    .note = thread_note,
    .attend = thread_attend,
    .next_task = thread_next_task,
    .preempt = thread_preempt,
};

static int fair_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                     struct kit_sched **out)
{
    if (options[FAIR_SLICE] == 0 || options[FAIR_SLICE] > FAIR_SLICE_MAX)
        return KIT_EINVAL;
    struct fair *fair = kit_alloc_alloc(alloc, sizeof(*fair), alignof(struct fair));
    if (fair == NULL)
        return KIT_ENOMEM;
    memset(fair, 0, sizeof(*fair));
    int rc = threads_open(&fair->threads, env, alloc, (size_t)options[FAIR_STACK],
                          options[FAIR_GUARD] != 0, (size_t)options[FAIR_CACHED],
                          options[FAIR_MEASURE] != 0);
    if (rc != 0) {
        kit_alloc_free(alloc, fair, sizeof(*fair), alignof(struct fair));
        return rc;
    }
    fair->threads.task_size = sizeof(struct fair_task);
    fair->threads.admit = fair_admit;
    fair->threads.retire = fair_retire;
    fair->slice_ns = options[FAIR_SLICE];
    KIT_SCHED_BIND(&fair->threads.events.base, &fair_ops);
    *out = &fair->threads.events.base;
    return 0;
}

const struct kit_sched_component kit_sched_fair = {
    .id = "sched.fair",
    .abi = KIT_SCHED_ABI,
    .features = KIT_SCHED_THREADS | KIT_SCHED_WEIGHTS | KIT_SCHED_PREEMPTION,
    .ops = &fair_ops,
    .open = fair_open,
};
