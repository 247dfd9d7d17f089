/* SPDX-License-Identifier: MIT */
/* Tasks with stacks: life cycle, block and wake, join, on any policy (thread.h).
 *
 * A task that stops running picks its successor itself and switches to it directly; when the policy
 * has none left for this turn it switches back to turn(). A task that ends goes back to turn() in
 * any case, because nobody can free the stack it stands on.
 *
 * wake() leaves a permit (`woken`) that one block() takes, so a wake that comes before the block is
 * not lost. A block or join with a deadline arms the task's own timer; its place in the timer queue
 * was promised when the task was made, so sleeping never fails for lack of memory.
 *
 * Cost: spawn (with a kept stack and object), join, block, wake, yield: O(1) plus the policy, plus
 * the timer queue for a deadline. */
#include <unikit/rt/assert.h>
#include <unikit/rt/x86_64/switch.h>
#include <unikit/sched/thread.h>

/* ---- switching ---------------------------------------------------------------------------- */

#ifdef __SANITIZE_ADDRESS__
/* AddressSanitizer must know which stack runs (compiler-rt, sanitizer/common_interface_defs.h). */
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);

static void thread_leave(void **fake_stack, const struct kit_task *to, const struct threads *t)
{
    if (to == NULL)
        __sanitizer_start_switch_fiber(fake_stack, t->stack, t->stack_size);
    else
        __sanitizer_start_switch_fiber(fake_stack, (const void *)stack_end(to->stack),
                                       (uintptr_t)to->stack - stack_end(to->stack));
}

static void thread_arrive(void *fake_stack, struct threads *t)
{
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &size);
    if (t->from_turn) {
        t->stack = bottom;
        t->stack_size = size;
    }
    t->from_turn = false;
}

/* What dropped or ended frames left poisoned must not hurt the stack's next user. */
static void thread_clean(struct kit_stack_tag *stack)
{
    __asan_unpoison_memory_region((const void *)stack_end(stack),
                                  (uintptr_t)stack - stack_end(stack));
}

#define THREAD_LEAVE(from, to, t) thread_leave(&(from)->fake_stack, to, t)
#define THREAD_LEAVE_FOR_EVER(t) thread_leave(NULL, NULL, t)
#define THREAD_ARRIVE(at, t) thread_arrive((at)->fake_stack, t)
#define THREAD_ARRIVE_FIRST(t) thread_arrive(NULL, t)
#define THREAD_FROM_TURN(t) ((t)->from_turn = true)
#else
#define THREAD_LEAVE(from, to, t) ((void)0)
#define THREAD_LEAVE_FOR_EVER(t) ((void)0)
#define THREAD_ARRIVE(at, t) ((void)0)
#define THREAD_ARRIVE_FIRST(t) ((void)0)
#define THREAD_FROM_TURN(t) ((void)0)
#define thread_clean(stack) ((void)(stack))
#endif

/* By the running task. */
static void thread_check_stack(struct threads *t, const struct kit_task *task)
{
    if (KIT_UNLIKELY((uintptr_t)__builtin_frame_address(0) < stack_end(task->stack) ||
                     !stack_intact(task->stack)))
        stack_overflowed(task->stack, t->message);
}

static void thread_enter(struct threads *t, struct kit_task *task)
{
    t->current = task;
    task->state = THREAD_RUNNING;
    t->ready--;
    t->events.stats.switches++;
}

/* The current task, whose state says why, stops; returns when it runs again. */
static void thread_stop(struct threads *t, struct kit_task *task)
{
    thread_check_stack(t, task);
    struct kit_task *next = thread_policy_next(t);
    if (next == NULL) {
        t->current = NULL;
        THREAD_LEAVE(task, NULL, t);
        kit_switch(&task->context, t->context);
    } else {
        thread_enter(t, next);
        if (next == task)
            return;
        THREAD_LEAVE(task, next, t);
        kit_switch(&task->context, next->context);
    }
    THREAD_ARRIVE(task, t);
}

static void thread_make_ready(struct threads *t, struct kit_task *task)
{
    task->state = THREAD_READY;
    t->ready++;
    thread_policy_ready(t, task);
}

/* ---- sleeping and waking -------------------------------------------------------------------- */

static void thread_timed_out(struct kit_timer *timer)
{
    struct kit_task *task = KIT_CONTAINER_OF(timer, struct kit_task, timer);
    struct threads *t = task->threads;
    t->events.promised++; /* the place it had is free for its next sleep */
    t->events.stats.timers--;
    thread_make_ready(t, task);
}

static void thread_sleep(struct threads *t, struct kit_task *task, uint32_t state,
                         uint64_t deadline_ns)
{
    task->state = state;
    if (deadline_ns != KIT_NEVER) {
        timer_queue_arm(&t->events.timers, &task->timer, deadline_ns);
        t->events.promised--;
    }
    thread_stop(t, task);
}

static void thread_rouse(struct threads *t, struct kit_task *task)
{
    if (timer_queue_cancel(&t->events.timers, &task->timer))
        t->events.promised++;
    thread_make_ready(t, task);
}

int thread_block(struct kit_sched *s, uint64_t deadline_ns)
{
    struct threads *t = threads_of(s);
    struct kit_task *task = t->current;
    if (task == NULL)
        return KIT_ENOTSUP;
    if (!task->woken)
        thread_sleep(t, task, THREAD_BLOCKED, deadline_ns);
    int rc = task->woken ? 0 : KIT_ETIMEDOUT;
    task->woken = false;
    return rc;
}

void thread_wake(struct kit_sched *s, struct kit_task *task)
{
    task->woken = true;
    if (task->state == THREAD_BLOCKED)
        thread_rouse(threads_of(s), task);
}

void thread_yield(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    struct kit_task *task = t->current;
    if (task == NULL)
        return;
    thread_make_ready(t, task);
    thread_stop(t, task);
}

struct kit_task *thread_current(const struct kit_sched *s)
{
    return ((const struct threads *)(const void *)s)->current;
}

/* ---- life cycle ----------------------------------------------------------------------------- */

static void thread_free(struct threads *t, struct kit_task *task)
{
    kit_list_remove(&task->all);
    t->known--;
    if (t->spares < t->stacks.limit) {
        kit_list_push_front(&t->spare, &task->all);
        t->spares++;
        return;
    }
    kit_alloc_free(t->events.alloc, task, t->task_size, alignof(struct kit_task));
}

void thread_exit(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    struct kit_task *task = t->current;
    if (task == NULL)
        kit_panic("sched: exit() outside a task");
    thread_check_stack(t, task);
    task->state = THREAD_FINISHED;
    if (t->retire != NULL)
        t->retire(t, task);
    t->alive--;
    t->events.promised--;
    if (task->joiner != NULL)
        thread_rouse(t, task->joiner);
    t->current = NULL;
    t->ended = task;
    THREAD_LEAVE_FOR_EVER(t);
    kit_switch(&task->context, t->context);
    kit_panic("sched: a task that ended runs again");
}

static void thread_main(void *argument)
{
    struct kit_task *task = argument;
    THREAD_ARRIVE_FIRST(task->threads);
    task->entry(task->argument);
    thread_exit(&task->threads->events.base);
}

static void thread_bury(struct threads *t)
{
    struct kit_task *task = t->ended;
    t->ended = NULL;
    thread_clean(task->stack);
    stack_put(&t->stacks, task->stack);
    task->stack = NULL;
    if (task->flags & KIT_TASK_DETACHED)
        thread_free(t, task);
}

bool thread_turn(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    struct kit_task *task;
    KIT_ASSERT(t->current == NULL);
    events_begin(&t->events);
    thread_policy_begin(t);
    bool any = events_run(&t->events);
    while ((task = thread_policy_next(t)) != NULL) {
        any = true;
        thread_enter(t, task);
        THREAD_FROM_TURN(t);
        THREAD_LEAVE(t, task, t);
        kit_switch(&t->context, task->context);
        THREAD_ARRIVE(t, t);
        if (t->ended != NULL)
            thread_bury(t);
    }
    return events_end(&t->events, any);
}

uint64_t thread_deadline_ns(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    return t->ready != 0 ? 0 : events_deadline_ns(&t->events);
}

/* The object of a new task; NULL: out of memory. */
static struct kit_task *thread_object(struct threads *t)
{
    struct kit_list *link = kit_list_pop_front(&t->spare);
    if (link == NULL)
        return kit_alloc_alloc(t->events.alloc, t->task_size, alignof(struct kit_task));
    t->spares--;
    return KIT_CONTAINER_OF(link, struct kit_task, all);
}

/* Gives a new task its stack, the policy's consent and its place in the timer queue. 0 or an error
 * of spawn. */
static int thread_equip(struct threads *t, struct kit_task *task, const struct kit_task_spec *spec)
{
    task->stack = stack_get(&t->stacks, spec->stack_size, spec->name);
    if (task->stack == NULL)
        return KIT_ENOMEM;
    int rc = t->admit != NULL ? t->admit(t, task, spec) : 0;
    if (rc == 0) {
        rc = events_promise(&t->events);
        if (rc == 0)
            return 0;
        if (t->retire != NULL)
            t->retire(t, task);
    }
    stack_put(&t->stacks, task->stack);
    return rc;
}

int thread_spawn(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out)
{
    struct threads *t = threads_of(s);
    if (spec->entry == NULL || (spec->flags & ~(uint32_t)KIT_TASK_DETACHED) != 0 ||
        (out == NULL && !(spec->flags & KIT_TASK_DETACHED)))
        return KIT_EINVAL;
    struct kit_task *task = thread_object(t);
    if (task == NULL)
        return KIT_ENOMEM;
    *task = (struct kit_task){.threads = t,
                              .flags = spec->flags,
                              .timer = {.run = thread_timed_out},
                              .entry = spec->entry,
                              .argument = spec->argument,
                              .name = spec->name,
                              .priority = spec->priority};
    kit_list_init(&task->link);
    kit_list_push_back(&t->all, &task->all);
    t->known++;
    int rc = thread_equip(t, task, spec);
    if (rc != 0) {
        thread_free(t, task);
        return rc;
    }
    task->context = kit_switch_prepare(task->stack, thread_main, task);
    t->alive++;
    t->events.stats.spawned++;
    thread_make_ready(t, task);
    if (out != NULL)
        *out = task;
    return 0;
}

int thread_join(struct kit_sched *s, struct kit_task *task, uint64_t deadline_ns)
{
    struct threads *t = threads_of(s);
    struct kit_task *self = t->current;
    if (task == self || (task->flags & KIT_TASK_DETACHED) || task->joiner != NULL)
        return KIT_EINVAL;
    if (task->state != THREAD_FINISHED) {
        if (self == NULL)
            return KIT_EAGAIN;
        task->joiner = self;
        thread_sleep(t, self, THREAD_JOINING, deadline_ns);
        task->joiner = NULL;
        if (task->state != THREAD_FINISHED)
            return KIT_ETIMEDOUT;
    }
    thread_free(t, task);
    return 0;
}

/* ---- looking and closing -------------------------------------------------------------------- */

void thread_stats(const struct kit_sched *s, struct kit_sched_stats *out)
{
    const struct threads *t = (const struct threads *)(const void *)s;
    *out = t->events.stats;
    out->tasks = t->alive;
    out->runnable = t->ready;
    out->armed = t->events.timers.count - (t->alive - t->events.promised);
    out->stack_peak = t->stacks.peak;
    if (!t->stacks.measure)
        return;
    for (const struct kit_list *link = t->all.next; link != &t->all; link = link->next) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        size_t depth = task->stack != NULL ? stack_depth(task->stack) : 0;
        out->stack_peak = depth > out->stack_peak ? depth : out->stack_peak;
    }
}

static bool thread_sound(const struct threads *t, const struct kit_task *task)
{
    bool finished = task->state == THREAD_FINISHED;
    bool sleeping = task->state == THREAD_BLOCKED || task->state == THREAD_JOINING;
    return task->threads == t && task->state <= THREAD_FINISHED &&
           (task->timer.position == 0 || sleeping) &&
           (task->state != THREAD_RUNNING || task == t->current) &&
           (task->state != THREAD_BLOCKED || !task->woken) &&
           (finished ? task->stack == NULL || task == t->ended
                     : task->stack->magic == KIT_STACK_MAGIC && stack_intact(task->stack));
}

int threads_check(const struct threads *t)
{
    size_t left = t->known, alive = 0, ready = 0, asleep = 0;
    const struct kit_list *link = t->all.next;
    for (; link != &t->all && left > 0; link = link->next, left--) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        if (link->next->prev != link || !thread_sound(t, task))
            return KIT_ECORRUPT;
        alive += task->state != THREAD_FINISHED;
        ready += task->state == THREAD_READY;
        asleep += task->timer.position != 0;
    }
    if (link != &t->all || left != 0 || alive != t->alive || ready != t->ready ||
        t->events.promised + asleep != alive)
        return KIT_ECORRUPT;
    return events_check(&t->events);
}

int threads_open(struct threads *t, runtime_environment_t *env, struct kit_alloc *alloc,
                 size_t stack_size, bool guard, size_t cached, bool measure)
{
    memset(t, 0, sizeof(*t));
    t->task_size = sizeof(struct kit_task);
    events_open(&t->events, env, alloc);
    kit_list_init(&t->all);
    kit_list_init(&t->spare);
    return stack_pool_open(&t->stacks, env, alloc, stack_size, guard, cached, measure);
}

void threads_close(struct threads *t)
{
    KIT_ASSERT(t->current == NULL);
    t->stacks.limit = 0; /* keep nothing from now on */
    while (!kit_list_empty(&t->all)) {
        struct kit_task *task = KIT_CONTAINER_OF(t->all.next, struct kit_task, all);
        if (task->stack != NULL) {
            thread_clean(task->stack);
            stack_put(&t->stacks, task->stack);
        }
        thread_free(t, task);
    }
    while (!kit_list_empty(&t->spare)) {
        struct kit_task *task = KIT_CONTAINER_OF(t->spare.next, struct kit_task, all);
        kit_list_remove(&task->all);
        kit_alloc_free(t->events.alloc, task, t->task_size, alignof(struct kit_task));
    }
    stack_pool_close(&t->stacks);
    events_close(&t->events);
}
