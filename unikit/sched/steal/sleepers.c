/* SPDX-License-Identifier: MIT */
/* Deadlines of waits. Those of tasks that stay are in the timer queue of their processor, which
 * nobody else touches. Those of tasks that may run anywhere are in one queue under a spin lock: the
 * processor on which such a task fell asleep may compute for a long time, and then any other one
 * ends the wait. A copy of the first deadline tells everybody, without the lock, whether there is
 * something to do.
 *
 * A task never fails to sleep for lack of memory: both queues were made before it.
 *
 * A deadline that passes is written into the task's word under the lock; the task takes its timer
 * out under the lock, too, before it looks at the word. So no deadline of one wait is met in the
 * next. */
#include <unikit/sched/steal/steal.h>

int sleepers_open(struct steal *steal)
{
    return steal->cpus > 1 ? timer_queue_reserve(&steal->sleepers.queue, steal->alloc) : 0;
}

/* Under the lock, after a change. */
static void sleepers_publish(struct steal_sleepers *sleepers)
{
    STEAL_STORE(&sleepers->first_ns, timer_queue_first(&sleepers->queue), RELEASE);
}

void sleepers_arm(struct steal_cpu *cpu, struct kit_task *task, uint64_t deadline_ns)
{
    struct steal_sleepers *sleepers = &cpu->steal->sleepers;
    if (!task->anywhere) {
        timer_queue_arm(&cpu->events.timers, &task->timer, deadline_ns);
        cpu->dozing++;
        return;
    }
    kit_spin_lock(&sleepers->lock);
    uint64_t before_ns = timer_queue_first(&sleepers->queue);
    timer_queue_arm(&sleepers->queue, &task->timer, deadline_ns);
    uint64_t first_ns = timer_queue_first(&sleepers->queue);
    sleepers_publish(sleepers);
    kit_spin_unlock(&sleepers->lock);
    if (first_ns < before_ns)
        idle_watch(cpu, first_ns);
}

void sleepers_disarm(struct steal_cpu *cpu, struct kit_task *task)
{
    struct steal_sleepers *sleepers = &cpu->steal->sleepers;
    if (!task->anywhere) {
        if (timer_queue_cancel(&cpu->events.timers, &task->timer)) {
            cpu->dozing--;
        }
        return;
    }
    kit_spin_lock(&sleepers->lock);
    if (timer_queue_cancel(&sleepers->queue, &task->timer)) {
        sleepers_publish(sleepers);
    }
    kit_spin_unlock(&sleepers->lock);
}

/* A task that stays, by the timers of its processor. */
void sleepers_expired(struct kit_timer *timer)
{
    struct kit_task *task = KIT_CONTAINER_OF(timer, struct kit_task, timer);
    struct steal_cpu *cpu = task->home;
    cpu->dozing--;
    cpu->events.stats.timers--;
    if (signal_expire(&task->signal))
        steal_ready(cpu, task);
}

bool sleepers_run(struct steal_cpu *cpu)
{
    struct steal_sleepers *sleepers = &cpu->steal->sleepers;
    struct kit_list roused;
    struct kit_list *link;
    struct kit_timer *timer;
    uint64_t first_ns = STEAL_LOAD(&sleepers->first_ns, RELAXED);
    if (first_ns == KIT_NEVER)
        return false;
    uint64_t now_ns = kit_env_now_ns(cpu->steal->env);
    if (first_ns > now_ns)
        return false;
    kit_list_init(&roused);
    kit_spin_lock(&sleepers->lock);
    bool any = timer_queue_collect(&sleepers->queue, now_ns);
    while ((timer = timer_queue_due(&sleepers->queue)) != NULL) {
        struct kit_task *task = KIT_CONTAINER_OF(timer, struct kit_task, timer);
        if (signal_expire(&task->signal))
            kit_list_push_back(&roused, &task->link);
    }
    first_ns = timer_queue_first(&sleepers->queue);
    sleepers_publish(sleepers);
    kit_spin_unlock(&sleepers->lock);
    if (first_ns != KIT_NEVER)
        idle_watch(cpu, first_ns); /* this processor has something else to do now */
    while ((link = kit_list_pop_front(&roused)) != NULL)
        steal_ready(cpu, KIT_CONTAINER_OF(link, struct kit_task, link));
    return any;
}
