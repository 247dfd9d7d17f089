/* SPDX-License-Identifier: MIT */
/* The scheduler interface: tasks, deferred work and timers.
 *
 * The image's main loop (image/runtime/main.c) polls the devices, then calls turn(), then sleeps
 * until deadline_ns() or an event; a scheduler never sleeps by itself. Work items and timers run
 * to completion in the context of turn(). A task runs on its own stack where KIT_SCHED_THREADS is
 * claimed, and then MAY block; elsewhere its entry is called once, from turn(), and MUST NOT block.
 * Where it is claimed, a task of an image with thread-local variables MUST find its own ones
 * (rt/x86_64/tls.h).
 * Ops are appended, never reordered. All calls are made on the processor that opened the scheduler.
 *
 * With KIT_SCHED_CPUS one scheduler serves all env->cpus processors, and ops may be called on each:
 * turn() and deadline_ns() are for the processor that calls (env->cpu_self), whose loop is turn,
 * else env->wait until deadline_ns or KIT_WAKE_CPU. Work and timers run on the processor they were
 * posted or armed on, and are cancelled there. A task starts on the processor that spawned it; with
 * KIT_TASK_ANYWHERE it may run on any, else it stays. wake() and spawn() put a task where it
 * belongs and call env->cpu_wake if that processor sleeps. docs/design/processors.rst. */
#ifndef KIT_SCHED_SCHED_H
#define KIT_SCHED_SCHED_H

#include <unikit/alloc/alloc.h>
#include <unikit/platform/env.h>
#include <unikit/rt/list.h>

/* cdef: begin */
struct kit_sched;
struct kit_task;

enum {
    KIT_SCHED_ABI = 1,
    /* features */
    KIT_SCHED_THREADS = 1,      /* tasks have stacks: block, yield and join from a task work */
    KIT_SCHED_PRIORITIES = 2,   /* share.priority decides who runs; depend() lends it on */
    KIT_SCHED_WEIGHTS = 4,      /* share.weight divides the processor */
    KIT_SCHED_RESERVATIONS = 8, /* share.slice_ns in each share.period_ns is guaranteed */
    KIT_SCHED_CPUS = 16,        /* serves several processors */
    KIT_SCHED_PREEMPTION = 32,  /* a task may lose the processor at any instruction of its own:
                                 * stop_ns says when, and nothing relies on tasks that yield */
    KIT_SCHED_PRIORITY_MAX = 63
};

/* What a task shall get of the processor. Each policy knows some of it and ignores the rest. */
struct kit_task_share {
    uint32_t priority;    /* 0 ... KIT_SCHED_PRIORITY_MAX; the largest runs first */
    uint32_t weight;      /* in proportion to the others'; 0: 1024 */
    uint64_t slice_ns;    /* reserved in each period; under weights: how long it wants to run at a
                           * time, so a short one runs sooner. 0: the component's option */
    uint64_t period_ns;   /* of the reservation; 0: none, it runs in what others leave */
    uint64_t deadline_ns; /* by which the slice is served, from the start of a period; 0: the
                           * period's end */
    uint32_t flags;       /* KIT_SHARE_* */
};

enum { KIT_SHARE_STRICT = 1 /* runs in its reservation alone, not in what others leave */ };

/* Deferred work: runs once, to completion, in the next turn. Memory is the caller's and stays in
 * place until it ran or was cancelled. Zero it before first use. */
struct kit_work {
    struct kit_list link;
    void (*run)(struct kit_work *work);
    bool queued;
};

/* A one-shot timer; memory as for kit_work. It may be armed again from its own function. */
struct kit_timer {
    uint64_t deadline_ns;
    void (*run)(struct kit_timer *timer);
    size_t position; /* the scheduler's; 0: not armed */
    struct kit_timer *next, *previous;
};

struct kit_task_spec {
    void (*entry)(void *argument);
    void *argument;
    const char *name;                   /* valid as long as the task; NULL: unnamed */
    size_t stack_size;                  /* bytes; 0: the component's option */
    uint32_t priority;                  /* share.priority where there is no share */
    uint32_t flags;                     /* KIT_TASK_* */
    const struct kit_task_share *share; /* NULL: all zero but the priority */
};

enum {
    KIT_TASK_DETACHED = 1, /* nobody joins: freed on exit */
    KIT_TASK_ANYWHERE = 2, /* may run on any processor (KIT_SCHED_CPUS) */
    KIT_TASK_CONTROL = 4   /* changes the control words of SSE or x87 (rounding): they are kept for
                            * it, and from others. Else they are the image's, and a task that
                            * changes them MUST put them back before it yields or blocks */
};

enum kit_task_state {
    KIT_TASK_READY,
    KIT_TASK_RUNNING,
    KIT_TASK_BLOCKED,
    KIT_TASK_JOINING,
    KIT_TASK_ENDED /* and not joined yet */
};

/* What a task does, for people. Pointers are good until the task runs again. */
struct kit_task_info {
    const char *name;
    uint32_t state;         /* enum kit_task_state */
    uint64_t deadline_ns;   /* of its block or join; KIT_NEVER: none */
    struct kit_task *joins; /* while JOINING */
    const void *waits;      /* what it said by note(): a struct kit_wait of sync.h */
};

struct kit_sched_stats {
    uint64_t switches; /* to a task's stack */
    uint64_t turns;    /* turns that found something to do */
    uint64_t timers;   /* fired */
    uint64_t work;     /* items run */
    uint64_t spawned;
    size_t tasks;      /* alive now */
    size_t runnable;   /* of these, ready */
    size_t armed;      /* timers */
    size_t stack_peak; /* deepest use of any stack so far, bytes; 0: not measured */
    uint64_t missed;   /* slices that were not served by their deadline */
};

struct kit_sched_ops {
    /* Runs what is due: expired timers, the work queued when the turn began, and tasks: as many
     * runs as tasks were ready when it began, so that devices are looked at in between. Without
     * shares those are each of these tasks once, in order; a policy with shares chooses anew for
     * each run. Returns whether there was anything. MUST NOT be called from a task, work or
     * timer. */
    bool (*turn)(struct kit_sched *s);
    /* When turn() will have something to do: 0 means now, KIT_NEVER means only after an event. */
    uint64_t (*deadline_ns)(struct kit_sched *s);
    /* Queues work; a no-op if it is queued. */
    void (*post)(struct kit_sched *s, struct kit_work *work);
    /* Takes work out of the queue; false if it was not in it. */
    bool (*cancel_work)(struct kit_sched *s, struct kit_work *work);
    /* (Re)arms a timer, O(1). 0 or KIT_ENOMEM (for the first timer of a scheduler alone). Equal
     * deadlines fire in order of arming; a deadline in the past counts as now. */
    int (*arm)(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns);
    /* Disarms a timer, O(1); false if it was not armed. */
    bool (*cancel)(struct kit_sched *s, struct kit_timer *timer);
    /* Creates a task, ready to run. 0 and *out (NULL allowed for a detached task); KIT_ENOMEM,
     * KIT_EINVAL. A task that is not detached MUST be joined. */
    int (*spawn)(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out);
    /* The running task; NULL in the context of turn()'s caller, work and timers. */
    struct kit_task *(*current)(const struct kit_sched *s);
    /* Lets other ready tasks run; from a task. Elsewhere a no-op. */
    void (*yield)(struct kit_sched *s);
    /* Sleeps until wake() or the deadline; from a task. 0: woken (also if the wake came before);
     * KIT_ETIMEDOUT; KIT_ENOTSUP outside a task or without KIT_SCHED_THREADS. Several wakes before
     * the task runs count as one, and one may be meant for an earlier wait: callers look at their
     * condition again. */
    int (*block)(struct kit_sched *s, uint64_t deadline_ns);
    /* Ends a block(), or makes the task's next one return at once. */
    void (*wake)(struct kit_sched *s, struct kit_task *task);
    /* Ends the running task; from a task with a stack. MUST NOT return. */
    void (*exit)(struct kit_sched *s);
    /* Waits for a task to end and frees it. 0; KIT_ETIMEDOUT; KIT_EAGAIN: not ended, and the
     * caller cannot block; KIT_EINVAL: a task joins itself, or the task is detached or has a
     * joiner. */
    int (*join)(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns);
    void (*stats)(const struct kit_sched *s, struct kit_sched_stats *out);
    /* Verifies every invariant; 0 or KIT_ECORRUPT. */
    int (*check)(const struct kit_sched *s);
    /* Frees everything; tasks that are still alive are dropped as they stand. */
    void (*close)(struct kit_sched *s);
    /* optional: changes what a task gets. 0; KIT_EINVAL: out of range; KIT_ENOMEM: more of the
     * processor than is left to promise, and nothing changed. */
    int (*set_share)(struct kit_sched *s, struct kit_task *task,
                     const struct kit_task_share *share);
    /* optional: what a task gets, by its own share and by what others lend it. */
    void (*get_share)(const struct kit_sched *s, const struct kit_task *task,
                      struct kit_task_share *out);
    /* optional: `task` waits for what `on` holds, so `on` runs with the better share of both until
     * it does not (on NULL). sync.h says so of its own accord. */
    void (*depend)(struct kit_sched *s, struct kit_task *task, struct kit_task *on);
    /* optional: until when, by now_ns, the running task may run before it should yield: to the end
     * of its slice or budget, or to what may make a more urgent task ready. KIT_NEVER: there is
     * nobody to yield to, and nothing to wait for. */
    uint64_t (*stop_ns)(const struct kit_sched *s);
    /* optional: what the running task is about to wait for (a struct kit_wait of sync.h), to be
     * told in reports; NULL: it waits no longer. sync.h says so of its own accord. */
    void (*note)(struct kit_sched *s, const void *wait);
    /* optional: `on`: when `task` ends it wakes the running task. 0; KIT_EAGAIN: it has ended
     * already; KIT_EINVAL: the running task itself, or one that is detached or has a joiner.
     * Not `on`: takes that back; MUST be called before the task is joined. */
    int (*attend)(struct kit_sched *s, struct kit_task *task, bool on);
    /* optional: the task behind `after` (NULL: the first) in some order that stays while none comes
     * or goes, and what it does; NULL: that was the last. */
    struct kit_task *(*next_task)(const struct kit_sched *s, const struct kit_task *after,
                                  struct kit_task_info *out);
    /* optional: stops the running task, which did not ask for it, and ends the turn, so that
     * devices are looked at. The task has given nothing up: it is ready as one that became so when
     * it last began to run. Elsewhere a no-op. */
    void (*preempt)(struct kit_sched *s);
};

struct kit_sched {
    const struct kit_sched_ops *ops;
};

struct kit_sched_component {
    const char *id;
    uint32_t abi;
    uint32_t features;
    const struct kit_sched_ops *ops;
    /* Time comes from env->now_ns, memory (tasks, stacks, timers) from alloc; both stay the
     * caller's and outlive the scheduler. env->page_protect, where present, guards stacks.
     * 0 and *out; KIT_EINVAL, KIT_ENOMEM. */
    int (*open)(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                struct kit_sched **out);
};
/* cdef: end */

#ifdef KIT_SOLE_SCHED
extern const struct kit_sched_component KIT_SOLE_SCHED;
#define KIT_SCHED_OPS(s) ((void)(s), KIT_SOLE_SCHED.ops)
#define KIT_SCHED_BIND(s, table) ((void)(s), (void)(table))
#else
#define KIT_SCHED_OPS(s) ((s)->ops)
#define KIT_SCHED_BIND(s, table) ((void)((s)->ops = (table)))
#endif

/* cdef: begin */
KIT_INLINE bool kit_sched_turn(struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->turn(s);
}

KIT_INLINE uint64_t kit_sched_deadline_ns(struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->deadline_ns(s);
}

KIT_INLINE void kit_sched_post(struct kit_sched *s, struct kit_work *work)
{
    KIT_FROM_APPLICATION;
    KIT_SCHED_OPS(s)->post(s, work);
}

KIT_INLINE bool kit_sched_cancel_work(struct kit_sched *s, struct kit_work *work)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->cancel_work(s, work);
}

KIT_INLINE int kit_sched_arm(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->arm(s, timer, deadline_ns);
}

KIT_INLINE bool kit_sched_cancel(struct kit_sched *s, struct kit_timer *timer)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->cancel(s, timer);
}

KIT_INLINE int kit_sched_spawn(struct kit_sched *s, const struct kit_task_spec *spec,
                               struct kit_task **out)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->spawn(s, spec, out);
}

KIT_INLINE struct kit_task *kit_sched_current(const struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->current(s);
}

KIT_INLINE void kit_sched_yield(struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    KIT_SCHED_OPS(s)->yield(s);
}

KIT_INLINE int kit_sched_block(struct kit_sched *s, uint64_t deadline_ns)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->block(s, deadline_ns);
}

KIT_INLINE void kit_sched_wake(struct kit_sched *s, struct kit_task *task)
{
    KIT_FROM_APPLICATION;
    KIT_SCHED_OPS(s)->wake(s, task);
}

KIT_INLINE void kit_sched_exit(struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    KIT_SCHED_OPS(s)->exit(s);
}

KIT_INLINE int kit_sched_join(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->join(s, task, deadline_ns);
}

KIT_INLINE void kit_sched_stats(const struct kit_sched *s, struct kit_sched_stats *out)
{
    KIT_FROM_APPLICATION;
    KIT_SCHED_OPS(s)->stats(s, out);
}

KIT_INLINE int kit_sched_check(const struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->check(s);
}

KIT_INLINE void kit_sched_close(struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    KIT_SCHED_OPS(s)->close(s);
}

/* KIT_ENOTSUP: the policy knows no shares. */
KIT_INLINE int kit_sched_set_share(struct kit_sched *s, struct kit_task *task,
                                   const struct kit_task_share *share)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->set_share ? KIT_SCHED_OPS(s)->set_share(s, task, share) : KIT_ENOTSUP;
}

/* KIT_ENOTSUP: the policy knows no shares. */
KIT_INLINE int kit_sched_get_share(const struct kit_sched *s, const struct kit_task *task,
                                   struct kit_task_share *out)
{
    KIT_FROM_APPLICATION;
    if (!KIT_SCHED_OPS(s)->get_share)
        return KIT_ENOTSUP;
    KIT_SCHED_OPS(s)->get_share(s, task, out);
    return 0;
}

/* KIT_NEVER where the policy leaves it to the tasks. */
KIT_INLINE uint64_t kit_sched_stop_ns(const struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    return KIT_SCHED_OPS(s)->stop_ns ? KIT_SCHED_OPS(s)->stop_ns(s) : KIT_NEVER;
}

/* A yield, where the policy knows no difference. */
KIT_INLINE void kit_sched_preempt(struct kit_sched *s)
{
    KIT_FROM_APPLICATION;
    if (KIT_SCHED_OPS(s)->preempt)
        KIT_SCHED_OPS(s)->preempt(s);
    else
        KIT_SCHED_OPS(s)->yield(s);
}

/* Nothing, where the policy does not know it. */
KIT_INLINE void kit_sched_depend(struct kit_sched *s, struct kit_task *task, struct kit_task *on)
{
    KIT_FROM_APPLICATION;
    if (KIT_SCHED_OPS(s)->depend)
        KIT_SCHED_OPS(s)->depend(s, task, on);
}

/* Nothing, where nobody remembers it. */
KIT_INLINE void kit_sched_note(struct kit_sched *s, const void *wait)
{
    if (KIT_SCHED_OPS(s)->note)
        KIT_SCHED_OPS(s)->note(s, wait);
}

/* KIT_ENOTSUP: tasks have no stacks. */
KIT_INLINE int kit_sched_attend(struct kit_sched *s, struct kit_task *task, bool on)
{
    return KIT_SCHED_OPS(s)->attend ? KIT_SCHED_OPS(s)->attend(s, task, on) : KIT_ENOTSUP;
}

/* NULL where nobody can tell. */
KIT_INLINE struct kit_task *kit_sched_next_task(const struct kit_sched *s,
                                                const struct kit_task *after,
                                                struct kit_task_info *out)
{
    return KIT_SCHED_OPS(s)->next_task ? KIT_SCHED_OPS(s)->next_task(s, after, out) : NULL;
}
/* cdef: end */

#endif
