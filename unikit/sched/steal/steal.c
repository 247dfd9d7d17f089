/* SPDX-License-Identifier: MIT */
/* sched.steal: cooperative threads on several processors, with work stealing (Chase, Lev, «Dynamic
 * circular work-stealing deque», SPAA 2005). Each processor has two queues: a list of the tasks
 * that stay with it, in FIFO round robin as under sched.coop, and a deque of those that may run
 * anywhere, from which idle processors help themselves, at random, the oldest task first.
 *
 *     task        on its stack, says what it waits for            run.c, signal.h
 *     processor   ready -> batch; deque, overflow; inbox          run.c, deque.h, overflow.h,
 * inbox.h all         who is idle; sleepers                           idle.c, sleepers.c
 *
 * Guarantee: of the tasks that stay, between two runs of one that is ready every other on its
 * processor runs at most twice. One that may run anywhere waits for at most 64 runs of others on
 * its processor for each such task that was ready there before it. While a task that may run
 * anywhere is ready and no processor has just been woken for it, no processor rests. On one
 * processor this is sched.coop.
 *
 * Cost: all O(1) but deadlines, O(log n), and a search for work, O(processors). Nothing that a task
 * does on its own processor takes a lock, except sleeping with a deadline where it may run
 * anywhere.
 */
#include <unikit/rt/assert.h>
#include <unikit/sched/steal/steal.h>

enum { STEAL_STACK, STEAL_GUARD, STEAL_CACHED, STEAL_MEASURE, STEAL_SLOTS, STEAL_SPIN, STEAL_SEED };

enum { STEAL_SLOTS_MAX = 1 << 20 };

/* ---- work and timers: the processor's own --------------------------------------------------- */

static struct kit_sched *steal_events(struct kit_sched *s)
{
    return &steal_here(steal_of(s))->events.base;
}

static void steal_post(struct kit_sched *s, struct kit_work *work)
{
    events_post(steal_events(s), work);
}

static bool steal_cancel_work(struct kit_sched *s, struct kit_work *work)
{
    return events_cancel_work(steal_events(s), work);
}

static int steal_arm(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns)
{
    return events_arm(steal_events(s), timer, deadline_ns);
}

static bool steal_cancel(struct kit_sched *s, struct kit_timer *timer)
{
    return events_cancel(steal_events(s), timer);
}

/* ---- looking -------------------------------------------------------------------------------- */

#ifdef __SANITIZE_THREAD__
#define STEAL_GLANCE __attribute__((no_sanitize("thread")))
#else
#define STEAL_GLANCE
#endif

/* Reads counters of processors that go on counting: each number is one that was true, all together
 * need not be of one moment. */
STEAL_GLANCE static void steal_stats(const struct kit_sched *s, struct kit_sched_stats *out)
{
    struct steal *steal = steal_of(s);
    *out = (struct kit_sched_stats){.switches = 0};
    for (uint32_t i = 0; i < steal->cpus; i++) {
        const struct steal_cpu *cpu = &steal->cpu[i];
        out->switches += cpu->events.stats.switches;
        out->turns += cpu->events.stats.turns;
        out->timers += cpu->events.stats.timers;
        out->work += cpu->events.stats.work;
        out->spawned += cpu->events.stats.spawned;
        out->tasks += cpu->alive;
        out->runnable += cpu->runnable;
        out->armed += cpu->events.timers.count - cpu->dozing;
        if (cpu->stacks.peak > out->stack_peak)
            out->stack_peak = cpu->stacks.peak;
    }
    /* Stacks in use are looked at where only this processor frees them. */
    const struct steal_cpu *cpu = steal_here(steal);
    const struct kit_list *link = cpu->all.next;
    for (; cpu->stacks.measure && link != &cpu->all; link = link->next) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        size_t depth = task->anywhere || task->stack == NULL ? 0 : stack_depth(task->stack);
        out->stack_peak = depth > out->stack_peak ? depth : out->stack_peak;
    }
}

static void steal_note(struct kit_sched *s, const void *wait)
{
    struct kit_task *task = steal_current(s);
    if (task != NULL)
        task->waits = wait;
}

static void steal_describe(const struct kit_task *task, struct kit_task_info *out)
{
    static const uint32_t states[] = {[STEAL_READY] = KIT_TASK_READY,
                                      [STEAL_RUNNING] = KIT_TASK_RUNNING,
                                      [STEAL_WAITING] = KIT_TASK_BLOCKED,
                                      [STEAL_FINISHED] = KIT_TASK_ENDED};
    *out = (struct kit_task_info){
        .name = task->stack != NULL ? task->stack->name : "(ended)",
        .state = task->joins != NULL ? (uint32_t)KIT_TASK_JOINING : states[task->state],
        .deadline_ns = task->timer.position != 0 ? task->timer.deadline_ns : KIT_NEVER,
        .joins = task->joins,
        .waits = task->waits};
}

/* Processor by processor. For times when nothing goes on: while others make and end tasks, what it
 * says of theirs may be gone. */
static struct kit_task *steal_next_task(const struct kit_sched *s, const struct kit_task *after,
                                        struct kit_task_info *out)
{
    const struct steal *steal = steal_of(s);
    uint32_t number = after == NULL ? 0 : after->home->number;
    const struct kit_list *link = after == NULL ? steal->cpu[0].all.next : after->all.next;
    while (link == &steal->cpu[number].all) {
        if (++number == steal->cpus)
            return NULL;
        link = steal->cpu[number].all.next;
    }
    struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
    steal_describe(task, out);
    return task;
}

/* A list of tasks that stay. */
static int steal_check_list(const struct steal_cpu *cpu, const struct kit_list *list, size_t *found)
{
    const struct kit_list *link = list->next;
    for (; link != list && *found < cpu->known; link = link->next) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, link);
        if (link->next->prev != link || task->anywhere || task->home != cpu ||
            STEAL_LOAD(&task->state, RELAXED) != STEAL_READY)
            return KIT_ECORRUPT;
        ++*found;
    }
    return link == list ? 0 : KIT_ECORRUPT;
}

/* A task that stays, seen from its home. */
static bool steal_sound(const struct steal_cpu *cpu, const struct kit_task *task)
{
    uint32_t state = STEAL_LOAD(&task->state, RELAXED);
    if (state == STEAL_FINISHED)
        return task->stack == NULL && task->timer.position == 0;
    return task->home == cpu && task->cpu == cpu && state < STEAL_FINISHED &&
           (state != STEAL_RUNNING || task == cpu->current) && task->stack != NULL &&
           task->stack->magic == KIT_STACK_MAGIC && stack_intact(task->stack);
}

/* Counts that belong to one processor alone; only where there is one. */
static bool steal_balanced(const struct steal_cpu *cpu, size_t listed)
{
    size_t alive = 0, ready = 0, dozing = 0;
    for (const struct kit_list *link = cpu->all.next; link != &cpu->all; link = link->next) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        uint32_t waits = (SIGNAL_WAKE | SIGNAL_END) << SIGNAL_WAITS;
        if ((task->state == STEAL_WAITING) != ((task->signal & waits) != 0))
            return false;
        alive += task->state != STEAL_FINISHED;
        ready += task->state == STEAL_READY;
        dozing += task->timer.position != 0;
    }
    return alive == cpu->alive && ready == cpu->runnable && ready == listed &&
           dozing == cpu->dozing;
}

/* What belongs to the processor that calls; the others go on meanwhile. */
static int steal_check(const struct kit_sched *s)
{
    const struct steal *steal = steal_of(s);
    const struct steal_cpu *cpu = steal_here(steal_of(s));
    size_t listed = 0, left = cpu->known;
    if (steal_check_list(cpu, &cpu->ready, &listed) != 0 ||
        steal_check_list(cpu, &cpu->batch, &listed) != 0 ||
        deque_count(&cpu->deque) > steal->slots || (cpu->searching && cpu->resting))
        return KIT_ECORRUPT;
    const struct kit_list *link = cpu->all.next;
    for (; link != &cpu->all && left > 0; link = link->next, left--) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        if (link->next->prev != link || task->home != cpu ||
            (!task->anywhere && !steal_sound(cpu, task)))
            return KIT_ECORRUPT;
    }
    if (link != &cpu->all || left != 0 || (steal->cpus == 1 && !steal_balanced(cpu, listed)))
        return KIT_ECORRUPT;
    return events_check(&cpu->events);
}

/* ---- opening and closing -------------------------------------------------------------------- */

static size_t steal_size(const struct steal *steal)
{
    return sizeof(*steal) +
           steal->cpus * (sizeof(struct steal_cpu) + steal->slots * sizeof(struct kit_task *));
}

static int steal_open_cpu(struct steal *steal, uint32_t number, const uint64_t *options)
{
    struct steal_cpu *cpu = &steal->cpu[number];
    struct kit_task **slots = (struct kit_task **)(void *)&steal->cpu[steal->cpus];
    cpu->steal = steal;
    cpu->number = number;
    /* Never 0, which xorshift does not leave. */
    cpu->random = (options[STEAL_SEED] + number) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    events_open(&cpu->events, steal->env, steal->alloc);
    kit_list_init(&cpu->ready);
    kit_list_init(&cpu->batch);
    overflow_open(&cpu->overflow);
    kit_list_init(&cpu->all);
    kit_list_init(&cpu->spare);
    deque_open(&cpu->deque, slots + number * steal->slots, steal->slots);
    return stack_pool_open(&cpu->stacks, steal->env, steal->alloc, (size_t)options[STEAL_STACK],
                           options[STEAL_GUARD] != 0, (size_t)options[STEAL_CACHED],
                           options[STEAL_MEASURE] != 0);
}

static void steal_close(struct kit_sched *s)
{
    struct steal *steal = steal_of(s);
    for (uint32_t i = 0; i < steal->cpus; i++) {
        KIT_ASSERT(steal->cpu[i].current == NULL);
        steal_drop(&steal->cpu[i]);
    }
    timer_queue_release(&steal->sleepers.queue, steal->alloc);
    kit_alloc_free(steal->alloc, steal, steal_size(steal), STEAL_LINE);
}

static const struct kit_sched_ops steal_ops = {
    .turn = steal_turn,
    .deadline_ns = steal_deadline_ns,
    .post = steal_post,
    .cancel_work = steal_cancel_work,
    .arm = steal_arm,
    .cancel = steal_cancel,
    .spawn = steal_spawn,
    .current = steal_current,
    .yield = steal_yield,
    .block = steal_block,
    .wake = steal_wake,
    .exit = steal_exit,
    .join = steal_join,
    .stats = steal_stats,
    .check = steal_check,
    .close = steal_close,
    .note = steal_note,
    .attend = steal_attend,
    .next_task = steal_next_task,
};

static int steal_open(const uint64_t *options, runtime_environment_t *env, struct kit_alloc *alloc,
                      struct kit_sched **out)
{
    struct steal shape = {.env = env,
                          .alloc = alloc,
                          .cpus = KIT_WITH_CPUS && env->cpus > 1 ? env->cpus : 1,
                          .spin = (uint32_t)options[STEAL_SPIN],
                          .slots = 2,
                          .sleepers = {.first_ns = KIT_NEVER}};
    if (shape.cpus > STEAL_CPUS_MAX || options[STEAL_SLOTS] > STEAL_SLOTS_MAX)
        return KIT_EINVAL;
    while (shape.slots < options[STEAL_SLOTS])
        shape.slots *= 2;
    struct steal *steal = kit_alloc_alloc(alloc, steal_size(&shape), STEAL_LINE);
    if (steal == NULL)
        return KIT_ENOMEM;
    memset(steal, 0, steal_size(&shape));
    *steal = shape;
    int rc = sleepers_open(steal);
    for (uint32_t i = 0; i < steal->cpus && rc == 0; i++)
        rc = steal_open_cpu(steal, i, options);
    if (rc != 0) {
        timer_queue_release(&steal->sleepers.queue, alloc);
        kit_alloc_free(alloc, steal, steal_size(steal), STEAL_LINE);
        return rc;
    }
    KIT_SCHED_BIND(&steal->base, &steal_ops);
    *out = &steal->base;
    return 0;
}

const struct kit_sched_component kit_sched_steal = {
    .id = "sched.steal",
    .abi = KIT_SCHED_ABI,
    .features = KIT_SCHED_THREADS | KIT_SCHED_CPUS,
    .ops = &steal_ops,
    .open = steal_open,
};
