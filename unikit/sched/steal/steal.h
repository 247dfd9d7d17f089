/* SPDX-License-Identifier: MIT */
/* sched.steal within: one struct steal for all processors, one struct steal_cpu for each.
 *
 * Who may touch what:
 * - everything in struct steal_cpu belongs to its processor, except where it says «shared»;
 * - a task belongs to whoever has it: the processor that runs it, or in whose list it is; by taking
 *   it from a deque, or by being the one that found it waiting (signal.h), a processor gets it;
 * - shared words are touched by the operations of atomic.h alone, shared timers under their lock.
 *
 * A task without KIT_TASK_ANYWHERE, and every task where there is one processor, stays at home: in
 * plain lists of its processor, with a timer in that processor's queue. */
#ifndef KIT_SCHED_STEAL_STEAL_H
#define KIT_SCHED_STEAL_STEAL_H

#include <unikit/rt/x86_64/tls.h>
#include <unikit/sched/events.h>
#include <unikit/sched/fiber.h>
#include <unikit/sched/steal/deque.h>
#include <unikit/sched/steal/inbox.h>
#include <unikit/sched/steal/overflow.h>
#include <unikit/sched/steal/signal.h>

/* The thread pointer of a task, or of a processor's turn(), while it does not run. */
#if KIT_WITH_TLS
#define STEAL_POINTER_MEMBER uintptr_t thread_pointer;
#define STEAL_POINTER(of, value) ((of)->thread_pointer = (value))
#define STEAL_SET_POINTER(of) kit_tls_set((of)->thread_pointer)
#else
#define STEAL_POINTER_MEMBER
#define STEAL_POINTER(of, value) ((void)(value))
#define STEAL_SET_POINTER(of) ((void)(of))
#endif

enum {
    STEAL_CPUS_MAX = 48, /* bits of struct steal's `idle` word that name processors */
    STEAL_OLDEST = 64    /* each such take from the own deque takes the oldest task */
};

enum steal_state { STEAL_READY, STEAL_RUNNING, STEAL_WAITING, STEAL_FINISHED };

/* Why a processor left the task it ran: what is to be done when it has left. */
enum steal_why { STEAL_YIELDED, STEAL_WAITED, STEAL_ENDED };

struct kit_task {
    void *context;              /* while it does not run */
    struct kit_list link;       /* in a list of its processor while READY */
    struct steal_letter letter; /* in an inbox */
    struct steal *steal;
    struct steal_cpu *cpu;       /* that runs it, or ran it last */
    struct steal_cpu *home;      /* that made it and gets its memory back */
    struct kit_stack_tag *stack; /* NULL once finished */
    uint32_t signal;             /* shared */
    uint32_t wants;              /* the event it is going to wait for */
    uint32_t state;              /* enum steal_state */
    uint32_t flags;
    bool anywhere;
    struct kit_task *joiner; /* shared: who waits for the end, and how it stands (life.c) */
    struct kit_task *joins;  /* the task whose end it waits for, by join() */
    const void *waits;       /* what it said by note() */
    struct kit_timer timer;  /* of its deadline */
    struct kit_list all;     /* in home->all; or in home->spare */
    void (*entry)(void *argument);
    void *argument;
    STEAL_POINTER_MEMBER
    FIBER_MEMBER
};

/* Where tasks that may run anywhere wait for deadlines, and any processor ends their waits. */
struct steal_sleepers {
    alignas(STEAL_LINE) struct kit_spin lock;
    struct timer_queue queue; /* under the lock */
    uint64_t first_ns;        /* shared: the first deadline; KIT_NEVER: none */
};

struct steal_cpu {
    struct events events; /* work, timers, tasks that stay; starts with a struct kit_sched */
    struct steal *steal;
    struct kit_task *current; /* NULL: turn() itself runs */
    void *context;            /* of turn() while a task runs */
    struct kit_task *left;    /* the task that was left, until that has been dealt with */
    uint32_t why;             /* enum steal_why of it */
    uint32_t number;
    struct kit_list ready; /* for the next turn: tasks that stay */
    size_t budget;         /* runs of tasks from the deque that are left in this turn */
    struct kit_list batch; /* of this turn */
    size_t takes;          /* from the deque */
    struct stack_pool stacks;
    struct kit_list all;   /* tasks made here */
    struct kit_list spare; /* task objects kept for reuse */
    size_t spares;
    size_t known;     /* in `all` */
    size_t dozing;    /* of events.timers, deadlines of tasks */
    size_t alive;     /* made here less ended here: the sum over processors is what counts */
    size_t runnable;  /* likewise made ready and run */
    uint64_t random;  /* which victim comes first */
    bool searching;   /* counted in struct steal's `idle` */
    bool resting;     /* said that it sleeps, and has not turned since */
    uint64_t rest_ns; /* shared: until when */
    char message[STACK_MESSAGE];
    STEAL_POINTER_MEMBER
    FIBER_MEMBER
    struct steal_deque deque;                     /* shared */
    struct steal_overflow overflow;               /* shared: what did not fit in */
    alignas(STEAL_LINE) struct steal_inbox inbox; /* shared: ready tasks that belong here */
    struct steal_inbox stacks_back;               /* shared: stacks of tasks that ended elsewhere */
    struct steal_inbox tasks_back;                /* shared: their objects */
};

struct steal {
    struct kit_sched base;
    runtime_environment_t *env;
    struct kit_alloc *alloc;
    uint32_t cpus;
    uint32_t spin;                     /* looks around before a rest */
    size_t slots;                      /* of each deque */
    alignas(STEAL_LINE) uint64_t idle; /* shared; idle.c */
    struct steal_sleepers sleepers;
    struct steal_cpu cpu[]; /* `cpus` of them */
};

KIT_INLINE struct steal *steal_of(const struct kit_sched *s)
{
    return KIT_CONTAINER_OF(s, struct steal, base);
}

/* The processor that runs this. A task may be on another one after each switch. */
KIT_INLINE struct steal_cpu *steal_here(struct steal *steal)
{
    if (KIT_WITH_CPUS && steal->cpus > 1)
        return &steal->cpu[kit_env_cpu_self(steal->env)->number];
    return &steal->cpu[0];
}

/* ---- run.c: switching, waiting, turns ------------------------------------------------------- */

/* A task that is the caller's gets ready to run where it belongs. */
void steal_ready(struct steal_cpu *cpu, struct kit_task *task);
/* The running task leaves the processor; returns when it runs again, maybe on another one. */
void steal_stop(struct steal_cpu *cpu, struct kit_task *task, enum steal_why why);
/* The running task waits for an event (signal.h). 0 or KIT_ETIMEDOUT. */
int steal_wait(struct kit_task *task, uint32_t event, uint64_t deadline_ns);
/* First function of a task's stack. */
void steal_main(void *task);
bool steal_turn(struct kit_sched *s);
uint64_t steal_deadline_ns(struct kit_sched *s);
struct kit_task *steal_current(const struct kit_sched *s);
void steal_yield(struct kit_sched *s);
int steal_block(struct kit_sched *s, uint64_t deadline_ns);
void steal_wake(struct kit_sched *s, struct kit_task *task);

/* ---- life.c: tasks and their memory --------------------------------------------------------- */

int steal_spawn(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out);
void steal_exit(struct kit_sched *s);
int steal_join(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns);
int steal_attend(struct kit_sched *s, struct kit_task *task, bool on);
/* A task has ended and its stack is no longer in use. */
void steal_bury(struct steal_cpu *cpu, struct kit_task *task);
/* Takes in what other processors gave back. */
void steal_collect(struct steal_cpu *cpu);
/* Drops every task made here, and frees what is kept. */
void steal_drop(struct steal_cpu *cpu);

/* ---- sleepers.c: deadlines ------------------------------------------------------------------ */

/* 0 or KIT_ENOMEM. */
int sleepers_open(struct steal *steal);
void sleepers_arm(struct steal_cpu *cpu, struct kit_task *task, uint64_t deadline_ns);
/* No deadline of the task is met from now on. */
void sleepers_disarm(struct steal_cpu *cpu, struct kit_task *task);
/* Makes ready who may run anywhere and whose deadline has passed; whether there was anybody. */
bool sleepers_run(struct steal_cpu *cpu);
void sleepers_expired(struct kit_timer *timer);

/* ---- idle.c: finding work, and sleeping without missing any --------------------------------- */

/* A task was put into the caller's deque: whoever has nothing to do shall know. */
void idle_notify(struct steal_cpu *cpu);
/* Something was put into the inbox of `other`. */
void idle_ring(struct steal_cpu *other);
/* The caller, who has nothing to do, takes a task from somebody else; NULL: there is none. */
struct kit_task *idle_steal(struct steal_cpu *cpu);
/* The caller has found something to do. */
void idle_found(struct steal_cpu *cpu);
/* A turn begins. */
void idle_awake(struct steal_cpu *cpu);
/* The caller, who has nothing to do before `deadline_ns`, says that it sleeps; false: there is
 * something to do after all. */
bool idle_rest(struct steal_cpu *cpu, uint64_t deadline_ns);
/* A deadline among the sleepers has become the first: some processor that rests shall know, unless
 * one wakes early enough by itself. */
void idle_watch(struct steal_cpu *cpu, uint64_t deadline_ns);

#endif
