/* SPDX-License-Identifier: MIT */
/* What schedulers are measured with: loops over the calls of sched.h alone, so that each runs on
 * any scheduler, in a process and in an image. The clock is the environment's. A loop drives the
 * scheduler itself, is called outside of any turn, and leaves it as it was.
 *
 * A task that works reaches a safe point every few microseconds: there it yields if the policy says
 * that its time is over (stop_ns), as preemption makes it do in an image. */
#ifndef KIT_SCHED_LAB_KERNELS_H
#define KIT_SCHED_LAB_KERNELS_H

#include <unikit/sched/sched.h>

enum { KIT_KERNEL_PIECE_NS = 10000 }; /* of work, between two safe points */

struct kit_kernel {
    runtime_environment_t *env;
    struct kit_alloc *alloc;
    struct kit_sched *s;
    uint32_t features; /* of the component */
    /* Processor time used so far, ns; for costs, so that neighbours do not count. */
    uint64_t (*cpu_ns)(struct kit_kernel *kernel);
    /* Reports a value, in thousandths. */
    void (*value)(struct kit_kernel *kernel, const char *name, uint64_t value);
    /* Reports times, ns; the array may be sorted. */
    void (*samples)(struct kit_kernel *kernel, uint64_t *values, size_t count);
};

/* A periodic task for kit_kernel_deadlines. */
struct kit_kernel_task {
    uint64_t work_ns;
    uint64_t period_ns;
};

/* All return 0 or an error of the scheduler. */

/* `tasks` tasks yield in turn, `count` times in all, with `sleepers` timers armed; per yield. */
int kit_kernel_yield(struct kit_kernel *kernel, size_t tasks, uint64_t count, size_t sleepers);
/* Spawns, runs and joins tasks that do nothing, 16 at a time; per task. */
int kit_kernel_spawn(struct kit_kernel *kernel, uint64_t count);
/* Cancels a timer and arms it again, with `sleepers` armed: always the same one, as a task does
 * that sleeps (`own`), then a random one (`random`), most of whose memory is in no cache; per pair.
 */
int kit_kernel_timers(struct kit_kernel *kernel, size_t sleepers, uint64_t count);
/* Wake-up latency as schbench defines it: a task that hands out work wakes those that do it, which
 * work for a while and ask for more; from the wake to the running. */
int kit_kernel_wakeup(struct kit_kernel *kernel, size_t workers, uint64_t work_ns, size_t count);
/* Timer latency as cyclictest defines it: a task with the best share sleeps until the next multiple
 * of an interval, while others work without end; how late it runs. */
int kit_kernel_cyclic(struct kit_kernel *kernel, size_t load, uint64_t interval_ns, size_t count);
/* Message passing as hackbench defines it: in each of `groups` groups, 20 senders each send `loops`
 * messages of 100 bytes to each of 20 receivers; per message. */
int kit_kernel_messages(struct kit_kernel *kernel, size_t groups, size_t loops);
/* Three tasks work without end for a time; reports how far any was from its ideal share at worst
 * (`lag`, us) and at the end (`error`, % of the whole). With weights 1024:526:272, else equal. */
int kit_kernel_fairness(struct kit_kernel *kernel, uint64_t time_ns);
/* Periodic tasks for a time; reports jobs and those that missed their deadline, the period's end
 * (`jobs`, `missed`), and tasks whose reservation was refused, which run without (`refused`).
 * Priorities are rate monotonic, weights and reservations what each task needs. */
int kit_kernel_deadlines(struct kit_kernel *kernel, const struct kit_kernel_task *tasks,
                         size_t count, uint64_t time_ns);

/* ---- shared by the files above ----------------------------------------------------------------
 */

KIT_INLINE uint64_t kit_kernel_now_ns(const struct kit_kernel *kernel)
{
    return kit_env_now_ns(kernel->env);
}

/* Turns, and sleeps where there is nothing to do, until no task is left. */
void kit_kernel_drive(struct kit_kernel *kernel);
/* Spawns a detached task; a reservation that is refused is left away. */
int kit_kernel_start(struct kit_kernel *kernel, void (*entry)(void *argument), void *argument,
                     const struct kit_task_share *share);
/* Works for a time, with safe points in between; for the running task. A policy without stop_ns is
 * yielded to after each `slice_ns`. */
void kit_kernel_work(struct kit_kernel *kernel, uint64_t time_ns, uint64_t slice_ns);

#endif
