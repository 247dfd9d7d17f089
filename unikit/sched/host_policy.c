/* SPDX-License-Identifier: MIT */
/* See host_policy.h. What C does for every such policy: it counts the runs of a turn, measures who
 * ran for how long, and lets no call happen on a task's stack. It believes what the hooks answer:
 * that the task they name is ready is looked at where they are made.
 *
 * Cost: one crossing into Python for each call of a hook, about a microsecond. */
#include <unikit/rt/assert.h>
#include <unikit/rt/x86_64/switch.h>
#include <unikit/sched/host_policy.h>
#include <unikit/sched/thread.h>

#define KIT_HIDDEN __attribute__((visibility("hidden")))

enum { POLICY_STACK, POLICY_GUARD, POLICY_CACHED, POLICY_MEASURE, POLICY_HOOKS };
enum { POLICY_RED_ZONE = 256 }; /* below a suspended stack's pointer */

struct policy_task {
    struct kit_task task;
    struct kit_policy_task seen;
    bool fresh; /* was never ready */
};

struct kit_policy {
    struct threads threads;
    struct kit_policy_hooks *hooks;
    uint64_t numbers; /* given out so far */
    struct policy_task *running;
    uint64_t since_ns; /* `running` runs since */
    uint64_t stop_ns;
    uint64_t wake_ns; /* 0: not put off; else next() has nothing before */
    size_t left;      /* runs of this turn */
    bool ran;         /* a task in this turn */
};

static struct kit_policy *policy_of(struct threads *threads)
{
    return (struct kit_policy *)(void *)threads;
}

static struct policy_task *policy_task_of(const struct kit_task *task)
{
    return (struct policy_task *)(uintptr_t)task;
}

/* ---- calling on the right stack ------------------------------------------------------------- */

struct policy_call {
    int (*function)(struct policy_call *call);
    struct kit_policy *policy;
    struct policy_task *task;
    struct policy_task *other;
    const struct kit_task_share *share;
    uint64_t time_ns;
    int reason;
    int result;
    void *back;
};

static void policy_visit(void *argument)
{
    struct policy_call *call = argument;
    void *gone;
    call->result = call->function(call);
    kit_switch(&gone, call->back);
}

static bool policy_on_task_stack(const struct kit_policy *policy)
{
    const struct kit_task *task = policy->threads.current;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    return task != NULL && task->stack != NULL && here >= stack_end(task->stack) &&
           here < (uintptr_t)task->stack;
}

/* Calls a hook; a failure ends in a panic, on the stack that the guard knows. */
static int policy_ask(struct policy_call *call)
{
    struct kit_policy *policy = call->policy;
    if (policy_on_task_stack(policy)) {
        uintptr_t top =
            ((uintptr_t)policy->threads.context.stack - POLICY_RED_ZONE) & ~(uintptr_t)15;
        kit_switch(&call->back, kit_switch_prepare((void *)top, policy_visit, call));
    } else {
        call->result = call->function(call);
    }
    if (call->result < 0)
        kit_panic(policy->hooks->failure);
    return call->result;
}

static int policy_call_ready(struct policy_call *call)
{
    return call->policy->hooks->ready(call->policy, &call->task->seen, call->reason);
}

static int policy_call_stopped(struct policy_call *call)
{
    return call->policy->hooks->stopped(call->policy, &call->task->seen, call->time_ns);
}

static int policy_call_admit(struct policy_call *call)
{
    return call->policy->hooks->admit(call->policy, &call->task->seen);
}

static int policy_call_ended(struct policy_call *call)
{
    return call->policy->hooks->ended(call->policy, &call->task->seen);
}

static int policy_call_change(struct policy_call *call)
{
    return call->policy->hooks->change(call->policy, &call->task->seen, call->share);
}

static int policy_call_depend(struct policy_call *call)
{
    return call->policy->hooks->depend(call->policy, &call->task->seen,
                                       call->other == NULL ? NULL : &call->other->seen);
}

/* ---- who runs ---------------------------------------------------------------------------------
 */

/* The task that ran has stopped: what for, thread.c knows. */
static void policy_charge(struct kit_policy *policy)
{
    struct policy_task *task = policy->running;
    if (task == NULL)
        return;
    uint64_t ran_ns = kit_env_now_ns(policy->threads.events.env) - policy->since_ns;
    policy->running = NULL;
    task->seen.ran_ns += ran_ns;
    struct policy_call call = {
        .function = policy_call_stopped, .policy = policy, .task = task, .time_ns = ran_ns};
    if (policy->hooks->wants & KIT_POLICY_STOPPED)
        policy_ask(&call);
}

void thread_policy_begin(struct threads *threads)
{
    struct kit_policy *policy = policy_of(threads);
    policy->left = threads->ready;
    policy->ran = false;
    policy->wake_ns = 0;
    if (policy->hooks->wants & KIT_POLICY_BEGIN && policy->hooks->begin(policy) < 0)
        kit_panic(policy->hooks->failure);
}

void thread_policy_ready(struct threads *threads, struct kit_task *which)
{
    struct kit_policy *policy = policy_of(threads);
    struct policy_task *task = policy_task_of(which);
    bool yields = task == policy->running;
    struct policy_call call = {.function = policy_call_ready,
                               .policy = policy,
                               .task = task,
                               .reason = task->fresh ? KIT_POLICY_NEW
                                         : yields    ? KIT_POLICY_YIELDED
                                                     : KIT_POLICY_WOKEN};
    if (yields)
        policy_charge(policy);
    task->fresh = false;
    policy->wake_ns = 0;
    policy_ask(&call);
}

/* Asks the policy, on turn()'s stack: a task that stops goes back there. */
struct kit_task *thread_policy_next(struct threads *threads)
{
    struct kit_policy *policy = policy_of(threads);
    policy_charge(policy);
    if (threads->current != NULL || threads->ready == 0 || policy->left == 0)
        return NULL;
    if (policy->ran && policy->hooks->wants & KIT_POLICY_PREEMPTIVE &&
        timer_queue_first(&threads->events.timers) <= kit_env_now_ns(threads->events.env))
        return NULL; /* a new turn runs the timer, which may make a more urgent task ready */
    uint64_t wake_ns = 0;
    struct kit_policy_task *seen = NULL;
    int found = policy->hooks->next(policy, &seen, &wake_ns);
    if (found < 0)
        kit_panic(policy->hooks->failure);
    if (found == 0) {
        policy->wake_ns = wake_ns;
        return NULL;
    }
    struct policy_task *task = KIT_CONTAINER_OF(seen, struct policy_task, seen);
    KIT_ASSERT(task->task.state == THREAD_READY);
    policy->left--;
    policy->ran = true;
    policy->running = task;
    policy->since_ns = kit_env_now_ns(threads->events.env);
    policy->stop_ns = KIT_NEVER;
    if (policy->hooks->wants & KIT_POLICY_STOP_NS &&
        policy->hooks->stop_ns(policy, seen, &policy->stop_ns) < 0)
        kit_panic(policy->hooks->failure);
    return &task->task;
}

static uint64_t policy_deadline_ns(struct kit_sched *s)
{
    struct kit_policy *policy = policy_of(threads_of(s));
    uint64_t deadline_ns = events_deadline_ns(&policy->threads.events);
    if (policy->threads.ready == 0)
        return deadline_ns;
    return policy->wake_ns < deadline_ns ? policy->wake_ns : deadline_ns;
}

static uint64_t policy_stop_ns(const struct kit_sched *s)
{
    const struct kit_policy *policy = (const struct kit_policy *)(const void *)s;
    uint64_t stop_ns = policy->stop_ns, timer_ns;
    if (!(policy->hooks->wants & KIT_POLICY_PREEMPTIVE))
        return stop_ns;
    timer_ns = timer_queue_first(&policy->threads.events.timers);
    return timer_ns < stop_ns ? timer_ns : stop_ns;
}

/* ---- tasks ------------------------------------------------------------------------------------
 */

/* What admit and change answer, as the interface's codes. */
static int policy_verdict(int answer)
{
    return answer == 0 ? 0 : answer == 1 ? KIT_ENOMEM : KIT_EINVAL;
}

static int policy_admit(struct threads *threads, struct kit_task *which,
                        const struct kit_task_spec *spec)
{
    struct kit_policy *policy = policy_of(threads);
    struct policy_task *task = policy_task_of(which);
    task->seen = (struct kit_policy_task){.number = ++policy->numbers, .name = spec->name};
    task->seen.share =
        spec->share != NULL ? *spec->share : (struct kit_task_share){.priority = spec->priority};
    task->fresh = true;
    if (task->seen.share.priority > KIT_SCHED_PRIORITY_MAX)
        return KIT_EINVAL;
    struct policy_call call = {.function = policy_call_admit, .policy = policy, .task = task};
    return policy_verdict(policy_ask(&call));
}

static void policy_retire(struct threads *threads, struct kit_task *which)
{
    struct kit_policy *policy = policy_of(threads);
    struct policy_task *task = policy_task_of(which);
    struct policy_call call = {.function = policy_call_ended, .policy = policy, .task = task};
    if (task == policy->running)
        policy_charge(policy);
    policy_ask(&call);
}

static int policy_set_share(struct kit_sched *s, struct kit_task *which,
                            const struct kit_task_share *share)
{
    struct kit_policy *policy = policy_of(threads_of(s));
    struct policy_task *task = policy_task_of(which);
    struct policy_call call = {
        .function = policy_call_change, .policy = policy, .task = task, .share = share};
    if (!(policy->hooks->wants & KIT_POLICY_CHANGE))
        return KIT_ENOTSUP;
    if (share->priority > KIT_SCHED_PRIORITY_MAX)
        return KIT_EINVAL;
    int rc = policy_verdict(policy_ask(&call));
    if (rc == 0)
        task->seen.share = *share;
    policy->wake_ns = 0;
    return rc;
}

static void policy_get_share(const struct kit_sched *s, const struct kit_task *task,
                             struct kit_task_share *out)
{
    (void)s;
    *out = policy_task_of(task)->seen.share;
}

static void policy_depend(struct kit_sched *s, struct kit_task *task, struct kit_task *on)
{
    struct kit_policy *policy = policy_of(threads_of(s));
    struct policy_call call = {.function = policy_call_depend,
                               .policy = policy,
                               .task = policy_task_of(task),
                               .other = on == NULL ? NULL : policy_task_of(on)};
    if (policy->hooks->wants & KIT_POLICY_DEPEND)
        policy_ask(&call);
}

/* ---- looking, opening, closing ----------------------------------------------------------------
 */

static int policy_check(const struct kit_sched *s)
{
    struct kit_policy *policy = policy_of(threads_of((struct kit_sched *)(uintptr_t)s));
    int rc = threads_check(&policy->threads);
    if (rc == 0 && policy->hooks->wants & KIT_POLICY_CHECK && policy->hooks->check(policy) < 0)
        kit_panic(policy->hooks->failure);
    return rc;
}

static void policy_close(struct kit_sched *s)
{
    struct kit_policy *policy = policy_of(threads_of(s));
    struct kit_alloc *alloc = policy->threads.events.alloc;
    policy->hooks->close(policy);
    threads_close(&policy->threads);
    kit_alloc_free(alloc, policy, sizeof(*policy), alignof(struct kit_policy));
}

static const struct kit_sched_ops policy_ops = {
    .turn = thread_turn,
    .deadline_ns = policy_deadline_ns,
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
    .check = policy_check,
    .close = policy_close,
    .set_share = policy_set_share,
    .get_share = policy_get_share,
    .depend = policy_depend,
    .stop_ns = policy_stop_ns,
};

static int policy_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                       struct kit_sched **out)
{
    struct kit_policy *policy = kit_alloc_alloc(alloc, sizeof(*policy), alignof(struct kit_policy));
    if (policy == NULL)
        return KIT_ENOMEM;
    memset(policy, 0, sizeof(*policy));
    policy->hooks = (struct kit_policy_hooks *)(uintptr_t)options[POLICY_HOOKS];
    int rc = threads_open(&policy->threads, env, alloc, (size_t)options[POLICY_STACK],
                          options[POLICY_GUARD] != 0, (size_t)options[POLICY_CACHED],
                          options[POLICY_MEASURE] != 0);
    if (rc == 0 && policy->hooks->open(policy->hooks, policy) < 0) {
        threads_close(&policy->threads);
        rc = KIT_ECALLBACK;
    }
    if (rc != 0) {
        kit_alloc_free(alloc, policy, sizeof(*policy), alignof(struct kit_policy));
        return rc;
    }
    policy->threads.task_size = sizeof(struct policy_task);
    policy->threads.admit = policy_admit;
    policy->threads.retire = policy_retire;
    KIT_SCHED_BIND(&policy->threads.events.base, &policy_ops);
    *out = &policy->threads.events.base;
    return 0;
}

/* ---- for Python -------------------------------------------------------------------------------
 */

KIT_HIDDEN void kit_policy_component(struct kit_sched_component *out, const char *id,
                                     uint32_t features)
{
    *out = (struct kit_sched_component){.id = id,
                                        .abi = KIT_SCHED_ABI,
                                        .features = features,
                                        .ops = &policy_ops,
                                        .open = policy_open};
}

KIT_HIDDEN uint64_t kit_policy_now_ns(struct kit_policy *policy)
{
    return kit_env_now_ns(policy->threads.events.env);
}

KIT_HIDDEN uint64_t kit_policy_timer_ns(struct kit_policy *policy)
{
    return timer_queue_first(&policy->threads.events.timers);
}

KIT_HIDDEN uint64_t kit_policy_ran_ns(struct kit_policy *policy, struct kit_policy_task *task)
{
    bool runs = policy->running != NULL && &policy->running->seen == task;
    return task->ran_ns + (runs ? kit_policy_now_ns(policy) - policy->since_ns : 0);
}
