/* SPDX-License-Identifier: MIT */
/* Tasks with stacks: life cycle, block and wake, join, on any policy (thread.h).
 *
 * A task that stops running or ends picks its successor itself and switches to it directly; when
 * the policy has none left for this turn it switches back to turn(). So does a task that ends and
 * whose memory is to be freed, because nobody can free the stack it stands on; mostly it is kept,
 * and then needs nothing but a place in a list.
 *
 * wake() leaves a permit (`woken`) that one block() takes, so a wake that comes before the block is
 * not lost. A block or join with a deadline arms the task's own timer, in a queue that was made
 * with the first task, so sleeping never fails for lack of memory.
 *
 * With preemption (rt/x86_64/inside.h) a task's own code runs outside of components, everything
 * here inside; how deep a task was when it stopped is kept on its stack. Before a task runs, and
 * whenever something happens that it may have to stop for, the platform is told until when it may
 * run.
 *
 * Cost: spawn (with a spare task), join, block, wake, yield: O(1) plus the policy. */
#include <unikit/rt/assert.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/x86_64/tls.h>
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
                                       (uintptr_t)to - stack_end(to->stack));
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
static void thread_clean(const struct kit_task *task)
{
    __asan_unpoison_memory_region((const void *)stack_end(task->stack),
                                  (uintptr_t)task - stack_end(task->stack));
}

#define THREAD_LEAVE(from, to, t) thread_leave(&(from)->fake_stack, to, t)
#define THREAD_LEAVE_FOR_EVER(to, t) thread_leave(NULL, to, t)
#define THREAD_ARRIVE(at, t) thread_arrive((at)->fake_stack, t)
#define THREAD_ARRIVE_FIRST(t) thread_arrive(NULL, t)
#define THREAD_FROM_TURN(t) ((t)->from_turn = true)
#else
#define THREAD_LEAVE(from, to, t) ((void)0)
#define THREAD_LEAVE_FOR_EVER(to, t) ((void)0)
#define THREAD_ARRIVE(at, t) ((void)0)
#define THREAD_ARRIVE_FIRST(t) ((void)0)
#define THREAD_FROM_TURN(t) ((void)0)
#define thread_clean(task) ((void)(task))
#endif

/* By the running task. */
static void thread_check_stack(struct threads *t, const struct kit_task *task)
{
    if (task->canary != 0 && KIT_UNLIKELY((uintptr_t)__builtin_frame_address(0) < task->canary ||
                                          *(const uint64_t *)task->canary != STACK_CANARY))
        stack_overflowed(task->stack, t->message);
}

#if KIT_WITH_PREEMPTION
static void thread_tell(struct threads *t, uint64_t stop_ns)
{
    if (stop_ns == t->stop_ns)
        return;
    t->stop_ns = stop_ns;
    (void)kit_env_cpu_slice(t->events.env, stop_ns); /* where there is none, tasks stop at will */
}

void thread_slice(struct threads *t)
{
    if (t->current == NULL)
        return;
    uint64_t stop_ns = kit_sched_stop_ns(&t->events.base);
    if (stop_ns == 0) /* somebody more urgent is ready: the next safe point will do */
        kit_inside_set_due(1);
    else if (t->events.queued != 0) /* work for the next turn: at the next tick */
        stop_ns = 0;
    thread_tell(t, stop_ns);
}

/* The slice of the task that was just entered begins; the last one's end means nothing to it. */
static void thread_slice_begin(struct threads *t)
{
    kit_inside_set_due(0);
    thread_slice(t);
}

/* A turn ends, and perhaps no task will run for long. */
static void thread_slice_end(struct threads *t)
{
    if (t->ready == 0)
        thread_tell(t, KIT_NEVER);
}

void thread_post(struct kit_sched *s, struct kit_work *work)
{
    events_post(s, work);
    thread_slice(threads_of(s));
}

int thread_arm(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns)
{
    int rc = events_arm(s, timer, deadline_ns);
    thread_slice(threads_of(s));
    return rc;
}
#else
#define thread_slice_begin(t) ((void)(t))
#define thread_slice_end(t) ((void)(t))
#endif

#if KIT_WITH_TLS
#define THREAD_POINTER(context, value) ((context)->thread_pointer = (value))
#else
#define THREAD_POINTER(context, value) ((void)(value))
#endif

/* From one context to another, and back some time; how deep it was inside is the context's. */
KIT_INLINE void thread_switch(struct kit_context *from, const struct kit_context *to)
{
    uint32_t depth = kit_inside_depth();
    kit_context_switch(from, to);
    kit_inside_set_depth(depth);
}

static void thread_enter(struct threads *t, struct kit_task *task)
{
    t->current = task;
    task->state = THREAD_RUNNING;
    t->ready--;
    t->events.stats.switches++;
    thread_slice_begin(t);
}

/* The current task, whose state says why, stops; returns when it runs again. */
static void thread_stop(struct threads *t, struct kit_task *task)
{
    thread_check_stack(t, task);
    struct kit_task *next = t->over ? NULL : thread_policy_next(t);
    if (next != NULL)
        thread_enter(t, next);
    else
        t->current = NULL;
    if (next == task)
        return;
    if (KIT_UNLIKELY(task->flags & KIT_TASK_CONTROL)) {
        task->control = kit_control_read();
        kit_control_write(t->control);
    }
    THREAD_LEAVE(task, next, t);
    thread_switch(&task->context, next != NULL ? &next->context : &t->context);
    THREAD_ARRIVE(task, t);
    if (KIT_UNLIKELY(task->flags & KIT_TASK_CONTROL))
        kit_control_write(task->control);
}

static void thread_make_ready(struct threads *t, struct kit_task *task)
{
    task->state = THREAD_READY;
    t->ready++;
    thread_policy_ready(t, task);
    if (task != t->current)
        thread_slice(t);
}

/* ---- sleeping and waking -------------------------------------------------------------------- */

static void thread_timed_out(struct kit_timer *timer)
{
    struct kit_task *task = KIT_CONTAINER_OF(timer, struct kit_task, timer);
    struct threads *t = task->threads;
    t->asleep--;
    t->events.stats.timers--; /* that one is not the application's */
    task->joins = NULL;
    thread_make_ready(t, task);
}

static void thread_sleep(struct threads *t, struct kit_task *task, uint32_t state,
                         uint64_t deadline_ns)
{
    task->state = state;
    if (deadline_ns != KIT_NEVER) {
        timer_queue_arm(&t->events.timers, &task->timer, deadline_ns);
        t->asleep++;
    }
    thread_stop(t, task);
}

static void thread_rouse(struct threads *t, struct kit_task *task)
{
    task->joins = NULL;
    if (timer_queue_cancel(&t->events.timers, &task->timer))
        t->asleep--;
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

void thread_preempt(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    struct kit_task *task = t->current;
    if (task == NULL)
        return;
    t->preempted = true;
    thread_make_ready(t, task);
    t->preempted = false;
    t->over = true;
    thread_stop(t, task);
}

struct kit_task *thread_current(const struct kit_sched *s)
{
    return ((const struct threads *)(const void *)s)->current;
}

/* ---- life cycle ----------------------------------------------------------------------------- */

/* Keeps a task that ended for the next spawn; false: there are enough, or it is an odd one. */
static bool thread_keep(struct threads *t, struct kit_task *task)
{
    stack_measure(&t->stacks, task->stack, task);
    if (!task->standard || t->spares >= t->limit)
        return false;
    task->state = THREAD_SPARE;
    task->next = t->spare;
    t->spare = task;
    t->spares++;
    return true;
}

static void thread_destroy(struct threads *t, struct kit_task *task)
{
    thread_clean(task);
    kit_list_remove(&task->all);
    t->known--;
    stack_destroy(&t->stacks, task->stack);
}

/* Not by the task itself. */
static void thread_free(struct threads *t, struct kit_task *task)
{
    if (!thread_keep(t, task))
        thread_destroy(t, task);
}

static void thread_tell_joiner(struct threads *t, struct kit_task *task)
{
    struct kit_task *joiner = task->joiner;
    if (joiner->joins == task)
        thread_rouse(t, joiner);
    else
        thread_wake(&t->events.base, joiner);
}

void thread_exit(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    struct kit_task *task = t->current, *next = NULL;
    if (task == NULL)
        kit_panic("sched: exit() outside a task");
    thread_check_stack(t, task);
    task->state = THREAD_FINISHED;
    if (t->retire != NULL)
        t->retire(t, task);
    t->alive--;
    if (task->joiner != NULL)
        thread_tell_joiner(t, task);
    if (task->flags & KIT_TASK_CONTROL)
        kit_control_write(t->control);
    if ((task->flags & KIT_TASK_DETACHED) && !thread_keep(t, task))
        t->ended = task;
    else
        next = thread_policy_next(t);
    if (next != NULL)
        thread_enter(t, next);
    else
        t->current = NULL;
    THREAD_LEAVE_FOR_EVER(next, t);
    kit_context_switch(&task->context, next != NULL ? &next->context : &t->context);
    kit_panic("sched: a task that ended runs again");
}

static void thread_main(struct kit_context *context)
{
    struct kit_task *task = KIT_CONTAINER_OF(context, struct kit_task, context);
    THREAD_ARRIVE_FIRST(task->threads);
    uint32_t depth = kit_inside_depth();
    kit_inside_set_depth(0);
    task->entry(task->argument);
    kit_inside_set_depth(depth);
    thread_exit(&task->threads->events.base);
}

bool thread_turn(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    struct kit_task *task;
    KIT_ASSERT(t->current == NULL);
    events_begin(&t->events);
    thread_policy_begin(t);
    bool any = events_run(&t->events);
    t->over = false;
    THREAD_POINTER(&t->context, kit_tls_pointer());
    while (!t->over && (task = thread_policy_next(t)) != NULL) {
        any = true;
        thread_enter(t, task);
        THREAD_FROM_TURN(t);
        THREAD_LEAVE(t, task, t);
        thread_switch(&t->context, &task->context);
        THREAD_ARRIVE(t, t);
        if (t->ended != NULL) {
            thread_destroy(t, t->ended);
            t->ended = NULL;
        }
    }
    thread_slice_end(t);
    return events_end(&t->events, any);
}

uint64_t thread_deadline_ns(struct kit_sched *s)
{
    struct threads *t = threads_of(s);
    return t->ready != 0 ? 0 : events_deadline_ns(&t->events);
}

/* Bytes at the top of each stack: the task object, and behind it its thread-local variables. */
static size_t thread_room(const struct threads *t)
{
    return kit_align_up(t->task_size, 64) + kit_tls_room();
}

static void *thread_variables(const struct threads *t, struct kit_task *task)
{
    return (char *)task + kit_align_up(t->task_size, 64);
}

/* A new task object on a new stack; NULL: out of memory. */
static struct kit_task *thread_make(struct threads *t, size_t stack_size)
{
    size_t room = thread_room(t);
    void *object;
    bool standard = stack_size == 0 || stack_size == stack_usable(&t->stacks, room);
    if (events_reserve(&t->events) != 0)
        return NULL;
    struct kit_stack_tag *stack = stack_make(&t->stacks, standard ? 0 : stack_size, room, &object);
    if (stack == NULL)
        return NULL;
    struct kit_task *task = object;
    task->threads = t;
    task->stack = stack;
    task->canary = stack->guard != 0 ? 0 : stack_end(stack);
    task->standard = standard;
    task->timer.run = thread_timed_out;
    kit_list_init(&task->link);
    kit_list_push_back(&t->all, &task->all);
    t->known++;
    return task;
}

static struct kit_task *thread_object(struct threads *t, size_t stack_size)
{
    struct kit_task *task = t->spare;
    if (task == NULL || (stack_size != 0 && stack_size > stack_usable(&t->stacks, thread_room(t))))
        return thread_make(t, stack_size);
    t->spare = task->next;
    t->spares--;
    thread_clean(task);
    return task;
}

int thread_spawn(struct kit_sched *s, const struct kit_task_spec *spec, struct kit_task **out)
{
    struct threads *t = threads_of(s);
    if (spec->entry == NULL ||
        (spec->flags & ~(uint32_t)(KIT_TASK_DETACHED | KIT_TASK_CONTROL)) != 0 ||
        (out == NULL && !(spec->flags & KIT_TASK_DETACHED)))
        return KIT_EINVAL;
    struct kit_task *task = thread_object(t, spec->stack_size);
    if (task == NULL)
        return KIT_ENOMEM;
    task->state = THREAD_FINISHED;
    task->flags = spec->flags;
    task->priority = spec->priority;
    int rc = t->admit != NULL ? t->admit(t, task, spec) : 0;
    if (rc != 0) {
        thread_free(t, task);
        return rc;
    }
    task->entry = spec->entry;
    task->argument = spec->argument;
    task->woken = false;
    kit_context_make(&task->context, task, thread_main);
    THREAD_POINTER(&task->context, kit_tls_make(thread_variables(t, task)));
    stack_set_name(task->stack, spec->name);
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
        self->joins = task;
        thread_sleep(t, self, THREAD_JOINING, deadline_ns);
        task->joiner = NULL;
        if (task->state != THREAD_FINISHED)
            return KIT_ETIMEDOUT;
    }
    thread_free(t, task);
    return 0;
}

int thread_attend(struct kit_sched *s, struct kit_task *task, bool on)
{
    struct kit_task *self = threads_of(s)->current;
    if (!on) {
        if (task->joiner == self)
            task->joiner = NULL;
        return 0;
    }
    if (self == NULL || task == self || (task->flags & KIT_TASK_DETACHED) ||
        (task->joiner != NULL && task->joiner != self))
        return KIT_EINVAL;
    if (task->state == THREAD_FINISHED)
        return KIT_EAGAIN;
    task->joiner = self;
    return 0;
}

/* ---- looking and closing -------------------------------------------------------------------- */

void thread_stats(const struct kit_sched *s, struct kit_sched_stats *out)
{
    const struct threads *t = (const struct threads *)(const void *)s;
    *out = t->events.stats;
    out->tasks = t->alive;
    out->runnable = t->ready;
    out->armed = t->events.timers.count - t->asleep;
    out->stack_peak = t->stacks.peak;
    if (!t->stacks.measure)
        return;
    for (const struct kit_list *link = t->all.next; link != &t->all; link = link->next) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        size_t depth = stack_depth_below(task->stack, task);
        out->stack_peak = depth > out->stack_peak ? depth : out->stack_peak;
    }
}

void thread_note(struct kit_sched *s, const void *wait)
{
    struct kit_task *task = threads_of(s)->current;
    if (task != NULL)
        task->waits = wait;
}

struct kit_task *thread_next_task(const struct kit_sched *s, const struct kit_task *after,
                                  struct kit_task_info *out)
{
    static const uint32_t states[] = {[THREAD_READY] = KIT_TASK_READY,
                                      [THREAD_RUNNING] = KIT_TASK_RUNNING,
                                      [THREAD_BLOCKED] = KIT_TASK_BLOCKED,
                                      [THREAD_JOINING] = KIT_TASK_JOINING,
                                      [THREAD_FINISHED] = KIT_TASK_ENDED};
    const struct threads *t = (const struct threads *)(const void *)s;
    const struct kit_list *link = after == NULL ? t->all.next : after->all.next;
    for (; link != &t->all; link = link->next) {
        struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        if (task->state == THREAD_SPARE)
            continue;
        *out = (struct kit_task_info){
            .name = task->stack->name,
            .state = states[task->state],
            .deadline_ns = task->timer.position != 0 ? task->timer.deadline_ns : KIT_NEVER,
            .joins = task->joins,
            .waits = task->waits};
        return task;
    }
    return NULL;
}

static bool thread_sound(const struct threads *t, const struct kit_task *task)
{
    bool sleeping = task->state == THREAD_BLOCKED || task->state == THREAD_JOINING;
    return task->threads == t && task->state <= THREAD_SPARE &&
           (task->timer.position == 0 || sleeping) &&
           (task->state != THREAD_RUNNING || task == t->current) &&
           (task->state != THREAD_BLOCKED || !task->woken) &&
           (task->joins != NULL) == (task->state == THREAD_JOINING) &&
           task->stack->magic == KIT_STACK_MAGIC && stack_intact(task->stack);
}

int threads_check(const struct threads *t)
{
    size_t left = t->known, count[THREAD_SPARE + 1] = {0}, asleep = 0, spares = 0;
    const struct kit_list *link = t->all.next;
    for (; link != &t->all && left > 0; link = link->next, left--) {
        const struct kit_task *task = KIT_CONTAINER_OF(link, struct kit_task, all);
        if (link->next->prev != link || !thread_sound(t, task))
            return KIT_ECORRUPT;
        count[task->state]++;
        asleep += task->timer.position != 0;
    }
    for (const struct kit_task *task = t->spare; task != NULL && spares <= t->known;
         task = task->next)
        spares += task->state == THREAD_SPARE && task->standard;
    if (link != &t->all || left != 0 || count[THREAD_SPARE] != t->spares || spares != t->spares ||
        t->alive + count[THREAD_FINISHED] + spares != t->known || count[THREAD_READY] != t->ready ||
        asleep != t->asleep)
        return KIT_ECORRUPT;
    return events_check(&t->events);
}

int threads_open(struct threads *t, runtime_environment_t *env, struct kit_alloc *alloc,
                 size_t stack_size, bool guard, size_t cached, bool measure)
{
    memset(t, 0, sizeof(*t));
    t->task_size = sizeof(struct kit_task);
    t->limit = cached;
    t->control = kit_control_read();
    t->stop_ns = KIT_NEVER;
    events_open(&t->events, env, alloc);
    kit_list_init(&t->all);
    /* Thread-local variables take nothing of what a stack was given. */
    return stack_pool_open(&t->stacks, env, alloc, stack_size + kit_tls_room(), guard, 0, measure);
}

void threads_close(struct threads *t)
{
    KIT_ASSERT(t->current == NULL);
    while (!kit_list_empty(&t->all))
        thread_destroy(t, KIT_CONTAINER_OF(t->all.next, struct kit_task, all));
    events_close(&t->events);
}
