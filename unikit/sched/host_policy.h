/* SPDX-License-Identifier: MIT */
/* A scheduler whose policy is somebody else's functions: Python's (policy.py). It is a component
 * behind the ops table like any other, with the threads of thread.h; only who runs next is asked.
 *
 * The functions are always called on the stack that called turn() or the operation, never on a
 * task's: where a task is the caller, the call goes over to the free end of turn()'s stack and
 * comes back. So CPython sees its calls nested on one stack, as everywhere else. */
#ifndef KIT_SCHED_HOST_POLICY_H
#define KIT_SCHED_HOST_POLICY_H

#include <unikit/sched/sched.h>

/* cdef: begin */
struct kit_policy; /* an open scheduler */

enum { KIT_POLICY_NEW, KIT_POLICY_WOKEN, KIT_POLICY_YIELDED };

/* Functions that are not called unless they are wanted. */
enum {
    KIT_POLICY_BEGIN = 1,
    KIT_POLICY_STOPPED = 2,
    KIT_POLICY_STOP_NS = 4,
    KIT_POLICY_CHANGE = 8,
    KIT_POLICY_DEPEND = 16,
    KIT_POLICY_CHECK = 32,
    KIT_POLICY_PREEMPTIVE = 64 /* stop_ns ends at the next timer, too */
};

/* What a policy sees of a task. */
struct kit_policy_task {
    uint64_t number; /* of all tasks that this scheduler ever had, from 1 */
    uint64_t ran_ns; /* without the run that goes on now */
    struct kit_task_share share;
    const char *name;
};

/* Each returns a negative code where the policy failed: then the scheduler panics with
 * `failure`, and whoever made the policy knows why. */
struct kit_policy_hooks {
    uint32_t wants; /* KIT_POLICY_* */
    const char *failure;
    int (*open)(struct kit_policy_hooks *hooks, struct kit_policy *policy);
    void (*close)(struct kit_policy *policy);
    int (*begin)(struct kit_policy *policy);
    /* 0, or 1: refused for lack of processor time, 2: the share is out of range. */
    int (*admit)(struct kit_policy *policy, struct kit_policy_task *task);
    int (*ended)(struct kit_policy *policy, struct kit_policy_task *task);
    int (*ready)(struct kit_policy *policy, struct kit_policy_task *task, int reason);
    int (*stopped)(struct kit_policy *policy, struct kit_policy_task *task, uint64_t ran_ns);
    /* 1 and the task to run; 0: none before *wake_ns. */
    int (*next)(struct kit_policy *policy, struct kit_policy_task **task, uint64_t *wake_ns);
    int (*stop_ns)(struct kit_policy *policy, struct kit_policy_task *task, uint64_t *stop_ns);
    /* As for admit; the task has its old share still, and gets this one if it answers 0. */
    int (*change)(struct kit_policy *policy, struct kit_policy_task *task,
                  const struct kit_task_share *share);
    /* `on` may be NULL. */
    int (*depend)(struct kit_policy *policy, struct kit_policy_task *task,
                  struct kit_policy_task *on);
    int (*check)(struct kit_policy *policy);
};

/* Makes a component whose option number 4, after those of stacks, is the address of hooks. */
void kit_policy_component(struct kit_sched_component *out, const char *id, uint32_t features);
uint64_t kit_policy_now_ns(struct kit_policy *policy);
/* When the next timer is due; KIT_NEVER: none is armed. */
uint64_t kit_policy_timer_ns(struct kit_policy *policy);
/* What a task has run, the run that goes on now included. */
uint64_t kit_policy_ran_ns(struct kit_policy *policy, struct kit_policy_task *task);
/* cdef: end */

#endif
