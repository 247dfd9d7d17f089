/* SPDX-License-Identifier: MIT */
/* sched.steal: running tasks, switching between them, waiting and waking.
 *
 * A task that stops picks its successor and switches to it directly. What becomes of the task that
 * was left (it is ready again, it waits, it is buried) is done on the next stack, before that goes
 * on: only then is the context saved and the stack free, and another processor may run the one or
 * use the other again.
 *
 * Each turn gives the processor once to every task at home that was ready when it began, in order,
 * and then to as many tasks of the deque as were in it. From there it takes the youngest task,
 * which keeps few tasks alive where tasks make tasks (R. Blumofe, C. Leiserson, «Scheduling
 * multithreaded computations by work stealing», JACM 46(5), 1999), but the oldest after a yield, so
 * that a yield lets all others run, and each 64th time, so that none is forgotten. */
#include <unikit/rt/assert.h>
#include <unikit/rt/x86_64/switch.h>
#include <unikit/rt/x86_64/tls.h>
#include <unikit/sched/steal/steal.h>

/* ---- queues --------------------------------------------------------------------------------- */

void steal_ready(struct steal_cpu *cpu, struct kit_task *task)
{
    struct steal_cpu *home = task->home;
    STEAL_STORE(&task->state, STEAL_READY, RELAXED);
    cpu->runnable++;
    if (task->anywhere) {
        if (overflow_count(&cpu->overflow) != 0 || !deque_push(&cpu->deque, task))
            overflow_put(&cpu->overflow, &task->link);
        idle_notify(cpu);
    } else if (KIT_LIKELY(home == cpu)) {
        kit_list_push_back(&cpu->ready, &task->link);
    } else {
        inbox_put(&home->inbox, &task->letter);
        idle_ring(home);
    }
}

/* A task of the own deque; NULL: there is none. The list behind it moves up by one for each. */
static struct kit_task *steal_take(struct steal_cpu *cpu, bool oldest)
{
    struct kit_task *task;
    cpu->budget--;
    if (oldest || ++cpu->takes % STEAL_OLDEST == 0)
        task = deque_take_first(&cpu->deque);
    else
        task = deque_take_last(&cpu->deque);
    struct kit_list *link = overflow_take(&cpu->overflow);
    if (KIT_LIKELY(link == NULL))
        return task;
    struct kit_task *next = KIT_CONTAINER_OF(link, struct kit_task, link);
    if (task == NULL)
        return next;
    bool room = deque_push(&cpu->deque, next); /* where the task was that was just taken */
    KIT_ASSERT(room);
    return task;
}

/* Takes out the task that runs next in this turn; NULL: none. */
static struct kit_task *steal_next(struct steal_cpu *cpu, bool oldest)
{
    struct kit_list *link = kit_list_pop_front(&cpu->batch);
    if (link != NULL)
        return KIT_CONTAINER_OF(link, struct kit_task, link);
    return cpu->budget != 0 ? steal_take(cpu, oldest) : NULL;
}

/* ---- switching ------------------------------------------------------------------------------ */

/* By the running task. */
KIT_INLINE void steal_check_stack(struct steal_cpu *cpu, const struct kit_task *task)
{
    if (KIT_UNLIKELY((uintptr_t)__builtin_frame_address(0) < stack_end(task->stack) ||
                     !stack_intact(task->stack)))
        stack_overflowed(task->stack, cpu->message);
}

static void steal_enter(struct steal_cpu *cpu, struct kit_task *task)
{
    cpu->current = task;
    task->cpu = cpu;
    STEAL_STORE(&task->state, STEAL_RUNNING, RELAXED);
    cpu->runnable--;
    cpu->events.stats.switches++;
    STEAL_SET_POINTER(task);
}

/* On another stack, between two contexts: deals with the task that the processor has left. */
static void steal_settle(void *argument)
{
    struct steal_cpu *cpu = argument;
    struct kit_task *task = cpu->left;
    if (cpu->why == STEAL_ENDED) {
        steal_bury(cpu, task);
        return;
    }
    STEAL_STORE(&task->state, STEAL_WAITING, RELAXED);
    if (cpu->why == STEAL_YIELDED || !signal_wait(&task->signal, task->wants))
        steal_ready(cpu, task);
}

/* Where the processor goes on: with that task, or with turn(). */
KIT_INLINE void *steal_way(struct steal_cpu *cpu, struct kit_task *next)
{
    if (next == NULL) {
        cpu->current = NULL;
        STEAL_SET_POINTER(cpu);
        return cpu->context;
    }
    steal_enter(cpu, next);
    return next->context;
}

void steal_stop(struct steal_cpu *cpu, struct kit_task *task, enum steal_why why)
{
    steal_check_stack(cpu, task);
    struct kit_task *next = steal_next(cpu, why == STEAL_YIELDED);
    void *context = steal_way(cpu, next);
    cpu->left = task;
    cpu->why = why;
    FIBER_LEAVE(task, next, cpu, why == STEAL_ENDED);
    kit_switch_then(&task->context, context, steal_settle, cpu);
    FIBER_ARRIVE(task, task->cpu);
}

void steal_main(void *argument)
{
    struct kit_task *task = argument;
    FIBER_ARRIVE(task, task->cpu);
    task->entry(task->argument);
    steal_exit(&task->steal->base);
}

/* ---- turns ---------------------------------------------------------------------------------- */

static void steal_begin(struct steal_cpu *cpu)
{
    struct steal_letter *letter, *next;
    events_begin(&cpu->events);
    if (KIT_WITH_CPUS && cpu->steal->cpus > 1) {
        idle_awake(cpu);
        steal_collect(cpu);
        for (letter = inbox_take(&cpu->inbox); letter != NULL; letter = next) {
            next = letter->next;
            kit_list_push_back(&cpu->ready,
                               &KIT_CONTAINER_OF(letter, struct kit_task, letter)->link);
        }
    }
    kit_list_take(&cpu->batch, &cpu->ready);
    cpu->budget = deque_count(&cpu->deque) + overflow_count(&cpu->overflow);
}

bool steal_turn(struct kit_sched *s)
{
    struct steal *steal = steal_of(s);
    struct steal_cpu *cpu = steal_here(steal);
    struct kit_task *task;
    KIT_ASSERT(cpu->current == NULL);
    steal_begin(cpu);
    STEAL_POINTER(cpu, kit_tls_pointer());
    bool any = events_run(&cpu->events);
    any |= sleepers_run(cpu);
    for (;;) {
        task = steal_next(cpu, false);
        if (task == NULL && !any && steal->cpus > 1)
            task = idle_steal(cpu);
        any |= task != NULL;
        if (any)
            idle_found(cpu);
        if (task == NULL)
            break;
        steal_enter(cpu, task);
        FIBER_TURN(cpu);
        FIBER_LEAVE(cpu, task, cpu, false);
        kit_switch(&cpu->context, task->context);
        FIBER_ARRIVE(cpu, cpu);
    }
    return events_end(&cpu->events, any);
}

uint64_t steal_deadline_ns(struct kit_sched *s)
{
    struct steal *steal = steal_of(s);
    struct steal_cpu *cpu = steal_here(steal);
    if (!kit_list_empty(&cpu->ready))
        return 0;
    uint64_t deadline_ns = events_deadline_ns(&cpu->events);
    if (!KIT_WITH_CPUS || steal->cpus == 1 || deadline_ns == 0)
        return deadline_ns;
    if (deque_count(&cpu->deque) != 0 || overflow_count(&cpu->overflow) != 0)
        return 0;
    uint64_t first_ns = STEAL_LOAD(&steal->sleepers.first_ns, RELAXED);
    deadline_ns = first_ns < deadline_ns ? first_ns : deadline_ns;
    if (deadline_ns != KIT_NEVER && deadline_ns <= kit_env_now_ns(steal->env))
        return deadline_ns;
    return idle_rest(cpu, deadline_ns) ? deadline_ns : 0;
}

/* ---- ops of tasks --------------------------------------------------------------------------- */

struct kit_task *steal_current(const struct kit_sched *s)
{
    return steal_here(steal_of(s))->current;
}

void steal_yield(struct kit_sched *s)
{
    struct steal_cpu *cpu = steal_here(steal_of(s));
    struct kit_task *task = cpu->current;
    if (task == NULL)
        return;
    if (task->anywhere) {
        steal_stop(cpu, task, STEAL_YIELDED);
        return;
    }
    /* Nobody else looks at the list, so there is nothing left to do for the successor. */
    steal_check_stack(cpu, task);
    STEAL_STORE(&task->state, STEAL_READY, RELAXED);
    cpu->runnable++;
    kit_list_push_back(&cpu->ready, &task->link);
    struct kit_task *next = steal_next(cpu, true);
    void *context = steal_way(cpu, next);
    FIBER_LEAVE(task, next, cpu, false);
    kit_switch(&task->context, context);
    FIBER_ARRIVE(task, task->cpu);
}

int steal_wait(struct kit_task *task, uint32_t event, uint64_t deadline_ns)
{
    if (!signal_there(&task->signal, event)) {
        if (deadline_ns != KIT_NEVER)
            sleepers_arm(task->cpu, task, deadline_ns);
        task->wants = event;
        steal_stop(task->cpu, task, STEAL_WAITED);
        if (deadline_ns != KIT_NEVER)
            sleepers_disarm(task->cpu, task);
    }
    return signal_take(&task->signal, event) ? 0 : KIT_ETIMEDOUT;
}

int steal_block(struct kit_sched *s, uint64_t deadline_ns)
{
    struct kit_task *task = steal_current(s);
    return task == NULL ? KIT_ENOTSUP : steal_wait(task, SIGNAL_WAKE, deadline_ns);
}

void steal_wake(struct kit_sched *s, struct kit_task *task)
{
    if (signal_send(&task->signal, SIGNAL_WAKE))
        steal_ready(steal_here(steal_of(s)), task);
}
