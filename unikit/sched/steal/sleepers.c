/* SPDX-License-Identifier: MIT */
/* Deadlines of waits. Those of tasks that stay are in the timer queue of their processor, which
 * nobody else touches. Those of tasks that may run anywhere are in one queue under a spin lock: the
 * processor on which such a task fell asleep may compute for a long time, and then any other one
 * ends the wait. A copy of the first deadline tells everybody, without the lock, whether there is
 * something to do.
 *
 * A task never fails to sleep for lack of memory: its place is promised when it is made. Places for
 * sleepers are promised to processors, some at a time, so that most spawns take no lock. The lock
 * is held over the allocator when the queue grows, which happens once per doubling.
 *
 * A deadline that passes is written into the task's word under the lock; the task takes its timer
 * out under the lock, too, before it looks at the word. So no deadline of one wait is met in the
 * next. */
#include <unikit/sched/steal/steal.h>

int sleepers_promise(struct steal_cpu *cpu, bool anywhere)
{
    struct steal_sleepers *sleepers = &cpu->steal->sleepers;
    if (!anywhere)
        return events_promise(&cpu->events);
    if (cpu->credits == 0) {
        kit_spin_lock(&sleepers->lock);
        int rc = timer_queue_reserve(&sleepers->queue, cpu->steal->alloc,
                                     sleepers->promised + STEAL_CREDITS);
        if (rc == 0)
            sleepers->promised += STEAL_CREDITS;
        kit_spin_unlock(&sleepers->lock);
        if (rc != 0)
            return rc;
        cpu->credits = STEAL_CREDITS;
    }
    cpu->credits--;
    return 0;
}

void sleepers_release(struct steal_cpu *cpu, bool anywhere)
{
    struct steal_sleepers *sleepers = &cpu->steal->sleepers;
    if (!anywhere) {
        cpu->events.promised--;
        return;
    }
    if (++cpu->credits < 2 * STEAL_CREDITS)
        return;
    kit_spin_lock(&sleepers->lock);
    sleepers->promised -= STEAL_CREDITS;
    kit_spin_unlock(&sleepers->lock);
    cpu->credits -= STEAL_CREDITS;
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
        cpu->events.promised--;
        cpu->dozing++;
        return;
    }
    kit_spin_lock(&sleepers->lock);
    uint64_t before_ns = timer_queue_first(&sleepers->queue);
    timer_queue_arm(&sleepers->queue, &task->timer, deadline_ns);
    sleepers->promised--;
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
            cpu->events.promised++;
            cpu->dozing--;
        }
        return;
    }
    kit_spin_lock(&sleepers->lock);
    if (timer_queue_cancel(&sleepers->queue, &task->timer)) {
        sleepers->promised++;
        sleepers_publish(sleepers);
    }
    kit_spin_unlock(&sleepers->lock);
}

/* A task that stays, by the timers of its processor. */
void sleepers_expired(struct kit_timer *timer)
{
    struct kit_task *task = KIT_CONTAINER_OF(timer, struct kit_task, timer);
    struct steal_cpu *cpu = task->home;
    cpu->events.promised++; /* the place it had is free for its next sleep */
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
    bool any = false;
    uint64_t first_ns = STEAL_LOAD(&sleepers->first_ns, RELAXED);
    if (first_ns == KIT_NEVER)
        return false;
    uint64_t now_ns = kit_env_now_ns(cpu->steal->env);
    if (first_ns > now_ns)
        return false;
    kit_list_init(&roused);
    kit_spin_lock(&sleepers->lock);
    uint64_t order = sleepers->queue.order;
    while ((timer = timer_queue_due(&sleepers->queue, now_ns, order)) != NULL) {
        struct kit_task *task = KIT_CONTAINER_OF(timer, struct kit_task, timer);
        sleepers->promised++;
        any = true;
        if (signal_expire(&task->signal))
            kit_list_push_back(&roused, &task->link);
    }
    sleepers_publish(sleepers);
    kit_spin_unlock(&sleepers->lock);
    while ((link = kit_list_pop_front(&roused)) != NULL)
        steal_ready(cpu, KIT_CONTAINER_OF(link, struct kit_task, link));
    return any;
}
