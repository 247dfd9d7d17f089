/* SPDX-License-Identifier: MIT */
/* Tasks with stacks: everything about threads that is not policy. Inner interface of unikit/sched.
 *
 * A scheduler with threads is this file plus a policy: one .c file that starts its state with a
 * struct threads, defines the three thread_policy_ functions below, and puts the thread_ functions
 * into its ops. Its record lists that file and thread.c, stack.c, events.c, timer.c as sources;
 * joining them binds the policy without an indirect call. A policy that remembers things of each
 * task starts a struct of its own with a struct kit_task, and sets task_size, admit and retire
 * after threads_open. */
#ifndef KIT_SCHED_THREAD_H
#define KIT_SCHED_THREAD_H

#include <unikit/rt/x86_64/context.h>
#include <unikit/sched/events.h>
#include <unikit/sched/stack.h>

enum thread_state {
    THREAD_READY,    /* with the policy */
    THREAD_RUNNING,  /* threads->current */
    THREAD_BLOCKED,  /* in block(): ended by wake() or the timer */
    THREAD_JOINING,  /* in join(): ended by the other's end or the timer */
    THREAD_FINISHED, /* waits for its join */
    THREAD_SPARE     /* kept for the next spawn */
};

/* Lies at the top of its own stack, so that a task is one block of memory. First the 64 bytes that
 * every switch touches. A spare one is as its last task left it: spawn sets what is not named as
 * being kept so. */
struct kit_task {
    struct kit_context context; /* while it does not run */
    struct kit_list link;       /* the policy's while READY, else in no list */
    uintptr_t canary;           /* lowest address of a stack without a guard page; 0: it has one */
    uint32_t state;             /* enum thread_state */
    uint32_t flags;
    struct threads *threads;

    void (*entry)(void *argument);
    void *argument;
    struct kit_task *joiner; /* it is woken when this task ends */
    bool woken;              /* a wake() that no block() has taken yet */
    bool standard;           /* its stack has the default size */
    uint32_t priority;       /* of its spec */
    struct kit_stack_tag *stack;
    struct kit_task *next;      /* in threads->spare */
    const void *waits;          /* what it says it waits for; NULL outside of note() pairs */
    struct kit_task *joins;     /* NULL but while JOINING */
    struct kit_timer timer;     /* end of a block() or join(); not armed else */
    struct kit_list all;        /* in threads->all, until its memory is freed */
    struct kit_control control; /* while it does not run, with KIT_TASK_CONTROL */
#ifdef __SANITIZE_ADDRESS__
    void *fake_stack;
#endif
};

struct threads {
    struct events events;
    struct kit_task *current;   /* NULL: turn() itself runs */
    struct kit_context context; /* of turn() while a task runs */
    struct kit_control control; /* of everybody but tasks with KIT_TASK_CONTROL */
    struct kit_task *ended;     /* has just finished; turn() frees its memory */
    bool preempted;             /* the task that becomes ready did not ask to stop ... */
    bool over;                  /* ... and so this turn ends */
    uint64_t stop_ns;           /* what the platform was told last */
    struct stack_pool stacks;
    struct kit_list all;
    struct kit_task *spare; /* the last in comes out first, while its stack is in the cache */
    size_t spares;
    size_t limit;     /* of spares */
    size_t known;     /* in `all` */
    size_t alive;     /* of these, neither finished nor spare */
    size_t ready;     /* of these, READY */
    size_t asleep;    /* of these, with an armed timer */
    size_t task_size; /* of a task object: a policy with more to remember makes it larger */
    /* NULL, or: a policy with shares looks at a new task before it is ready. 0 or spawn's error. */
    int (*admit)(struct threads *threads, struct kit_task *task, const struct kit_task_spec *spec);
    /* NULL, or: a task that was admitted has ended. */
    void (*retire)(struct threads *threads, struct kit_task *task);
    char message[STACK_MESSAGE]; /* of a panic */
#ifdef __SANITIZE_ADDRESS__
    void *fake_stack;
    const void *stack; /* turn()'s */
    size_t stack_size;
    bool from_turn; /* the last switch was away from turn() */
#endif
};

/* ---- what a policy defines ---------------------------------------------------------------- */

/* A turn begins: tasks that become ready from now on wait for the next one. */
void thread_policy_begin(struct threads *threads);
/* `task` has become ready: new, woken, yielding or, with threads->preempted, stopped against its
 * will. The policy owns task->link until it hands the task out. */
void thread_policy_ready(struct threads *threads, struct kit_task *task);
/* Takes out the task that runs next in this turn; NULL ends the turn. */
struct kit_task *thread_policy_next(struct threads *threads);

/* ---- what it gets: ops as they are ---------------------------------------------------------- */

bool thread_turn(struct kit_sched *s);
uint64_t thread_deadline_ns(struct kit_sched *s);
int thread_spawn(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out);
struct kit_task *thread_current(const struct kit_sched *s);
void thread_yield(struct kit_sched *s);
void thread_preempt(struct kit_sched *s);
int thread_block(struct kit_sched *s, uint64_t deadline_ns);
void thread_wake(struct kit_sched *s, struct kit_task *task);
void thread_exit(struct kit_sched *s);
int thread_join(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns);
void thread_stats(const struct kit_sched *s, struct kit_sched_stats *out);
void thread_note(struct kit_sched *s, const void *wait);
int thread_attend(struct kit_sched *s, struct kit_task *task, bool on);
struct kit_task *thread_next_task(const struct kit_sched *s, const struct kit_task *after,
                                  struct kit_task_info *out);
#if KIT_WITH_PREEMPTION
/* These may give the running task somebody to stop for. */
void thread_post(struct kit_sched *s, struct kit_work *work);
int thread_arm(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns);
#else
#define thread_post events_post
#define thread_arm events_arm
#endif

/* ---- ... and parts of ops ------------------------------------------------------------------- */

/* Options of the stacks as for stack_pool_open. 0 or KIT_EINVAL. */
int threads_open(struct threads *threads, runtime_environment_t *env, struct kit_alloc *alloc,
                 size_t stack_size, bool guard, size_t cached, bool measure);
/* Something changed that stop_ns depends on while a task may be running: the platform is told when
 * that one shall stop. */
#if KIT_WITH_PREEMPTION
void thread_slice(struct threads *threads);
#else
KIT_INLINE void thread_slice(struct threads *threads)
{
    (void)threads;
}
#endif
/* Verifies all but the policy's own lists; 0 or KIT_ECORRUPT. */
int threads_check(const struct threads *threads);
/* Drops every task and frees everything but the object itself. */
void threads_close(struct threads *threads);

KIT_INLINE struct threads *threads_of(struct kit_sched *s)
{
    return (struct threads *)(void *)s;
}

#endif
