/* SPDX-License-Identifier: MIT */
/* sched.steal: how tasks come, end, and are joined, and what becomes of their memory.
 *
 * Stacks and task objects belong to the processor that made them. One that ends elsewhere sends its
 * stack back through an inbox, and so does the joiner with its object; they are taken in at the
 * next turn, or when a stack is wanted and none is kept. So a processor that only spawns finds its
 * own stacks again, guard pages and all, and lists of tasks have one owner.
 *
 * `joiner` is one word between the task that ends and the one that waits for it. Each side changes
 * it by one exchange, so one of them sees the other:
 *
 *     NULL            nobody waits
 *     other           `other` waits in join(), for SIGNAL_END, which comes once and must be taken
 *     other, marked   `other` attends: it is woken, and may also look for other things
 *     task, marked    has ended, and who attended is about to be woken
 *     task            has ended, and nobody who ended it will touch either of them
 *
 * Who attends no longer passes `task, marked` only when it is over, so it can go away afterwards.
 * Cost: O(1) each. */
#include <unikit/sched/steal/steal.h>

#include <unikit/rt/x86_64/switch.h>
#include <unikit/rt/x86_64/tls.h>

/* ---- memory --------------------------------------------------------------------------------- */

/* Behind the object are the task's thread-local variables. */
static size_t steal_object_size(void)
{
    return sizeof(struct kit_task) + kit_tls_room();
}

static void steal_give(struct steal_cpu *cpu, struct kit_task *task)
{
    kit_alloc_free(cpu->steal->alloc, task, steal_object_size(), alignof(struct kit_task));
}

/* By its home. */
static void steal_keep(struct steal_cpu *home, struct kit_task *task)
{
    kit_list_remove(&task->all);
    home->known--;
    if (home->spares >= home->stacks.limit) {
        steal_give(home, task);
        return;
    }
    kit_list_push_front(&home->spare, &task->all);
    home->spares++;
}

static void steal_free(struct steal_cpu *cpu, struct kit_task *task)
{
    if (task->home == cpu)
        steal_keep(cpu, task);
    else
        inbox_put(&task->home->tasks_back, &task->letter);
}

/* A stack that is not in use carries the letter in its tag. */
static struct steal_letter *steal_stack_letter(struct kit_stack_tag *stack)
{
    return (struct steal_letter *)(void *)&stack->next;
}

void steal_collect(struct steal_cpu *cpu)
{
    struct steal_letter *letter, *next;
    for (letter = inbox_take(&cpu->tasks_back); letter != NULL; letter = next) {
        next = letter->next;
        steal_keep(cpu, KIT_CONTAINER_OF(letter, struct kit_task, letter));
    }
    for (letter = inbox_take(&cpu->stacks_back); letter != NULL; letter = next) {
        next = letter->next;
        stack_put(&cpu->stacks, KIT_CONTAINER_OF(letter, struct kit_stack_tag, next));
    }
}

/* The object of a new task; NULL: out of memory. */
static struct kit_task *steal_object(struct steal_cpu *cpu)
{
    struct kit_list *link = kit_list_pop_front(&cpu->spare);
    if (link == NULL)
        return kit_alloc_alloc(cpu->steal->alloc, steal_object_size(), alignof(struct kit_task));
    cpu->spares--;
    return KIT_CONTAINER_OF(link, struct kit_task, all);
}

/* ---- coming --------------------------------------------------------------------------------- */

/* Gives a new task its stack, and sees to it that it can sleep. 0 or KIT_ENOMEM. */
static int steal_equip(struct steal_cpu *cpu, struct kit_task *task,
                       const struct kit_task_spec *spec)
{
    task->stack = stack_get(&cpu->stacks, spec->stack_size, spec->name);
    if (task->stack == NULL)
        return KIT_ENOMEM;
    int rc = events_reserve(&cpu->events);
    if (rc != 0)
        stack_put(&cpu->stacks, task->stack);
    return rc;
}

int steal_spawn(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out)
{
    struct steal *steal = steal_of(s);
    struct steal_cpu *cpu = steal_here(steal);
    const uint32_t known = KIT_TASK_DETACHED | KIT_TASK_ANYWHERE;
    if (spec->entry == NULL || (spec->flags & ~known) != 0 ||
        (out == NULL && !(spec->flags & KIT_TASK_DETACHED)))
        return KIT_EINVAL;
    if (steal->cpus > 1 && (cpu->stacks.free == NULL || cpu->spares == 0))
        steal_collect(cpu);
    struct kit_task *task = steal_object(cpu);
    if (task == NULL)
        return KIT_ENOMEM;
    *task = (struct kit_task){.steal = steal,
                              .cpu = cpu,
                              .home = cpu,
                              .state = STEAL_READY,
                              .flags = spec->flags,
                              .anywhere = steal->cpus > 1 && (spec->flags & KIT_TASK_ANYWHERE),
                              .timer = {.run = sleepers_expired},
                              .entry = spec->entry,
                              .argument = spec->argument};
    kit_list_init(&task->link);
    kit_list_push_back(&cpu->all, &task->all);
    cpu->known++;
    int rc = steal_equip(cpu, task, spec);
    if (rc != 0) {
        steal_keep(cpu, task);
        return rc;
    }
    task->context = kit_switch_prepare(task->stack, steal_main, task);
    STEAL_POINTER(task, kit_tls_make(task + 1));
    FIBER_OPEN(task, task->stack);
    cpu->alive++;
    cpu->events.stats.spawned++;
    if (out != NULL)
        *out = task; /* before it runs, which may be at once, elsewhere */
    steal_ready(cpu, task);
    return 0;
}

/* ---- ending --------------------------------------------------------------------------------- */

enum { LIFE_MARK = 1 };

static struct kit_task *life_marked(struct kit_task *task)
{
    return (struct kit_task *)((uintptr_t)task | LIFE_MARK);
}

static bool life_has_ended(struct kit_task *task, const struct kit_task *joiner)
{
    return joiner == task || joiner == life_marked(task);
}

/* Says that the task has ended. It may be freed by its joiner from then on. */
static void life_end(struct steal_cpu *cpu, struct kit_task *task)
{
    struct kit_task *joiner = STEAL_LOAD(&task->joiner, RELAXED), *ended;
    bool attends;
    do {
        attends = ((uintptr_t)joiner & LIFE_MARK) != 0;
        ended = attends ? life_marked(task) : task;
    } while (!STEAL_CAS(&task->joiner, &joiner, ended, ACQ_REL));
    if (!attends) {
        if (joiner != NULL && signal_send(&joiner->signal, SIGNAL_END))
            steal_ready(cpu, joiner);
        return;
    }
    joiner = (struct kit_task *)((uintptr_t)joiner - LIFE_MARK);
    if (signal_send(&joiner->signal, SIGNAL_WAKE))
        steal_ready(cpu, joiner);
    STEAL_STORE(&task->joiner, task, RELEASE);
}

void steal_exit(struct kit_sched *s)
{
    struct steal_cpu *cpu = steal_here(steal_of(s));
    if (cpu->current == NULL)
        kit_panic("sched: exit() outside a task");
    steal_stop(cpu, cpu->current, STEAL_ENDED);
    kit_panic("sched: a task that ended runs again");
}

void steal_bury(struct steal_cpu *cpu, struct kit_task *task)
{
    struct steal_cpu *home = task->home;
    FIBER_CLOSE(task, task->stack);
    if (home == cpu)
        stack_put(&cpu->stacks, task->stack);
    else
        inbox_put(&home->stacks_back, steal_stack_letter(task->stack));
    task->stack = NULL;
    STEAL_STORE(&task->state, STEAL_FINISHED, RELAXED);
    cpu->alive--;
    if (task->flags & KIT_TASK_DETACHED) {
        steal_free(cpu, task);
        return;
    }
    life_end(cpu, task);
}

/* Waits for the end of a task whose joiner this is; whether it has come. */
static bool steal_outlive(struct kit_task *self, struct kit_task *task, uint64_t deadline_ns)
{
    struct kit_task *joiner = self;
    self->joins = task;
    int rc = steal_wait(self, SIGNAL_END, deadline_ns);
    self->joins = NULL;
    if (rc == 0)
        return true;
    if (STEAL_CAS(&task->joiner, &joiner, NULL, ACQ_REL))
        return false;
    /* It has ended meanwhile, and who buries it is about to tell the joiner that it saw. */
    steal_wait(self, SIGNAL_END, KIT_NEVER);
    return true;
}

int steal_join(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns)
{
    struct kit_task *self = steal_current(s);
    struct kit_task *joiner = NULL;
    if (task == self || (task->flags & KIT_TASK_DETACHED))
        return KIT_EINVAL;
    if (self == NULL)
        joiner = STEAL_LOAD(&task->joiner, ACQUIRE);
    else if (STEAL_CAS(&task->joiner, &joiner, self, ACQ_REL) &&
             !steal_outlive(self, task, deadline_ns))
        return KIT_ETIMEDOUT;
    if (joiner == NULL && self == NULL)
        return KIT_EAGAIN;
    if (joiner != NULL && joiner != task)
        return KIT_EINVAL;
    steal_free(steal_here(steal_of(s)), task);
    return 0;
}

static void life_look_away(struct kit_task *self, struct kit_task *task)
{
    struct kit_task *joiner = life_marked(self);
    if (STEAL_CAS(&task->joiner, &joiner, NULL, ACQ_REL))
        return;
    while (joiner == life_marked(task)) { /* for the time of a wake() on another processor */
        STEAL_PAUSE();
        joiner = STEAL_LOAD(&task->joiner, ACQUIRE);
    }
}

int steal_attend(struct kit_sched *s, struct kit_task *task, bool on)
{
    struct kit_task *self = steal_current(s), *joiner = NULL;
    if (self == NULL || task == self || (task->flags & KIT_TASK_DETACHED))
        return on ? KIT_EINVAL : 0;
    if (!on) {
        life_look_away(self, task);
        return 0;
    }
    if (STEAL_CAS(&task->joiner, &joiner, life_marked(self), ACQ_REL) ||
        joiner == life_marked(self))
        return 0;
    return life_has_ended(task, joiner) ? KIT_EAGAIN : KIT_EINVAL;
}

/* ---- closing -------------------------------------------------------------------------------- */

void steal_drop(struct steal_cpu *cpu)
{
    steal_collect(cpu);
    cpu->stacks.limit = 0; /* keep nothing from now on */
    while (!kit_list_empty(&cpu->all)) {
        struct kit_task *task = KIT_CONTAINER_OF(cpu->all.next, struct kit_task, all);
        if (task->stack != NULL) {
            FIBER_CLOSE(task, task->stack);
            stack_put(&cpu->stacks, task->stack);
        }
        steal_keep(cpu, task);
    }
    while (!kit_list_empty(&cpu->spare)) {
        struct kit_task *task = KIT_CONTAINER_OF(cpu->spare.next, struct kit_task, all);
        kit_list_remove(&task->all);
        steal_give(cpu, task);
    }
    stack_pool_close(&cpu->stacks);
    events_close(&cpu->events);
}
