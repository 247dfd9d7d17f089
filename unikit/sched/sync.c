/* SPDX-License-Identifier: MIT */
/* Synchronisation over block() and wake() alone, so it works on any scheduler with threads.
 *
 * A task that waits has a struct kit_wait on its stack, and for each thing it waits for a waiter in
 * that object's FIFO. Whoever has something for it decides the wait (`chosen`, by one exchange,
 * since on several processors several may try), hands it over, and wakes the task, all under the
 * object's lock. So what was given can neither be lost nor taken by a task that comes later; and
 * the waiting task takes each lock once more before it returns, so its stack outlives whoever
 * serves it. A waiter that is found decided is passed over.
 *
 * block() may return for a wake that was meant for something else; so every wait looks at `chosen`.
 * Who waits for a mutex depends on its owner (sched.h), so a policy with priorities inherits them.
 * The locks are held for some tens of instructions and wake(), by a broadcast for so many per
 * waiter. Cost: every operation O(1), a broadcast O(waiters), and so an unlock under a policy that
 * inherits; no memory but some 100 bytes of stack per wait. */
#include <unikit/rt/assert.h>
#include <unikit/sched/sync.h>

enum { WAIT_OPEN = -1, WAIT_OVER = -2 }; /* `chosen`, if it is not an index */
enum { ONCE_NEW, ONCE_RUNS, ONCE_DONE };

/* ---- waiters --------------------------------------------------------------------------------- */

static bool wait_is_open(const struct kit_wait *wait)
{
    return __atomic_load_n(&wait->chosen, __ATOMIC_ACQUIRE) == WAIT_OPEN;
}

/* Decides a wait; false: that has been done. */
static bool wait_decide(struct kit_wait *wait, int32_t chosen)
{
#if KIT_WITH_CPUS
    int32_t open = WAIT_OPEN;
    return __atomic_compare_exchange_n(&wait->chosen, &open, chosen, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
#else
    if (wait->chosen != WAIT_OPEN)
        return false;
    wait->chosen = chosen;
    return true;
#endif
}

static void waiters_add(struct kit_waiters *waiters, struct kit_waiter *waiter,
                        struct kit_wait *wait)
{
    waiter->wait = wait;
    waiter->next = NULL;
    waiter->previous = waiters->last;
    if (waiters->last != NULL)
        waiters->last->next = waiter;
    else
        waiters->first = waiter;
    waiters->last = waiter;
    waiter->queued = true;
}

static void waiters_remove(struct kit_waiters *waiters, struct kit_waiter *waiter)
{
    if (waiter->previous != NULL)
        waiter->previous->next = waiter->next;
    else
        waiters->first = waiter->next;
    if (waiter->next != NULL)
        waiter->next->previous = waiter->previous;
    else
        waiters->last = waiter->previous;
    waiter->queued = false;
}

static struct kit_choice *choice_of(struct kit_waiter *waiter)
{
    return KIT_CONTAINER_OF(waiter, struct kit_choice, waiter);
}

/* Takes a waiter out of the queue and decides its wait for it. */
static bool waiter_claim(struct kit_waiters *waiters, struct kit_waiter *waiter)
{
    struct kit_choice *choice = choice_of(waiter);
    waiters_remove(waiters, waiter);
    return wait_decide(waiter->wait, (int32_t)(choice - waiter->wait->choices));
}

/* The first waiter whose wait could be decided for it; NULL: there is none. */
static struct kit_choice *waiters_claim(struct kit_waiters *waiters)
{
    struct kit_waiter *waiter;
    while ((waiter = waiters->first) != NULL)
        if (waiter_claim(waiters, waiter))
            return choice_of(waiter);
    return NULL;
}

static void choice_wake(struct kit_sched *s, const struct kit_choice *choice)
{
    kit_sched_wake(s, choice->waiter.wait->task);
}

/* Serves the first waiter; its task, or NULL if there is none. */
static struct kit_task *waiters_serve(struct kit_sched *s, struct kit_waiters *waiters, int rc)
{
    struct kit_choice *choice = waiters_claim(waiters);
    if (choice == NULL)
        return NULL;
    choice->rc = rc;
    choice_wake(s, choice);
    return choice->waiter.wait->task;
}

static void waiters_serve_all(struct kit_sched *s, struct kit_waiters *waiters, int rc)
{
    while (waiters_serve(s, waiters, rc) != NULL) {
    }
}

/* ---- choices --------------------------------------------------------------------------------- */

#define CHOICE(object, type) ((struct type *)(object))

static struct kit_spin *choice_spin(const struct kit_choice *choice)
{
    switch (choice->kind) {
    case KIT_WAIT_EVENT:
        return &CHOICE(choice->object, kit_event)->spin;
    case KIT_WAIT_SEMAPHORE:
        return &CHOICE(choice->object, kit_semaphore)->spin;
    case KIT_WAIT_RECEIVE:
    case KIT_WAIT_SEND:
        return &CHOICE(choice->object, kit_queue)->spin;
    case KIT_WAIT_MUTEX:
        return &CHOICE(choice->object, kit_mutex)->spin;
    case KIT_WAIT_CONDITION:
        return &CHOICE(choice->object, kit_condition)->spin;
    case KIT_WAIT_ONCE:
        return &CHOICE(choice->object, kit_once)->spin;
    default:
        return &CHOICE(choice->object, kit_rwlock)->spin;
    }
}

static struct kit_waiters *choice_waiters(const struct kit_choice *choice)
{
    switch (choice->kind) {
    case KIT_WAIT_EVENT:
        return &CHOICE(choice->object, kit_event)->waiters;
    case KIT_WAIT_SEMAPHORE:
        return &CHOICE(choice->object, kit_semaphore)->waiters;
    case KIT_WAIT_RECEIVE:
        return &CHOICE(choice->object, kit_queue)->receivers;
    case KIT_WAIT_SEND:
        return &CHOICE(choice->object, kit_queue)->senders;
    case KIT_WAIT_MUTEX:
        return &CHOICE(choice->object, kit_mutex)->waiters;
    case KIT_WAIT_CONDITION:
        return &CHOICE(choice->object, kit_condition)->waiters;
    case KIT_WAIT_ONCE:
        return &CHOICE(choice->object, kit_once)->waiters;
    default:
        return &CHOICE(choice->object, kit_rwlock)->waiters;
    }
}

static void queue_put(struct kit_queue *queue, const void *item)
{
    size_t at = (queue->first + queue->count++) % queue->capacity;
    memcpy(queue->items + at * queue->item_size, item, queue->item_size);
}

/* Takes the oldest item; the first sender that waits puts its own in. */
static void queue_take(struct kit_sched *s, struct kit_queue *queue, void *item)
{
    memcpy(item, queue->items + queue->first * queue->item_size, queue->item_size);
    queue->first = (queue->first + 1) % queue->capacity;
    queue->count--;
    struct kit_choice *sender = waiters_claim(&queue->senders);
    if (sender == NULL)
        return;
    sender->rc = 0;
    queue_put(queue, sender->item);
    choice_wake(s, sender);
}

/* Whether it can be had now. Under its lock, as the next one. */
static bool choice_ready(const struct kit_choice *choice)
{
    const struct kit_queue *queue = choice->object;
    switch (choice->kind) {
    case KIT_WAIT_EVENT:
        return CHOICE(choice->object, kit_event)->set;
    case KIT_WAIT_SEMAPHORE:
        return CHOICE(choice->object, kit_semaphore)->count > 0;
    case KIT_WAIT_RECEIVE:
        return queue->count > 0 || queue->closed;
    case KIT_WAIT_SEND:
        return queue->count < queue->capacity || queue->closed;
    default:
        kit_panic("sched: a choice of a kind that cannot be waited for");
    }
}

static void choice_take(struct kit_sched *s, struct kit_choice *choice)
{
    struct kit_queue *queue = choice->object;
    choice->rc = 0;
    if (choice->kind == KIT_WAIT_EVENT) {
        struct kit_event *event = choice->object;
        event->set = !event->automatic;
    } else if (choice->kind == KIT_WAIT_SEMAPHORE) {
        CHOICE(choice->object, kit_semaphore)->count--;
    } else if (choice->kind == KIT_WAIT_RECEIVE) {
        if (queue->count > 0)
            queue_take(s, queue, choice->item);
        else
            choice->rc = KIT_ECLOSED;
    } else if (queue->closed) {
        choice->rc = KIT_ECLOSED;
    } else {
        struct kit_choice *receiver = waiters_claim(&queue->receivers);
        if (receiver == NULL) {
            queue_put(queue, choice->item);
            return;
        }
        receiver->rc = 0;
        memcpy(receiver->item, choice->item, queue->item_size);
        choice_wake(s, receiver);
    }
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Takes a choice if it can be had, else gets in line. */
static void wait_begin(struct kit_sched *s, struct kit_wait *wait, struct kit_choice *choice)
{
    int32_t index = (int32_t)(choice - wait->choices);
    choice->waiter = (struct kit_waiter){0};
    if (choice->kind == KIT_WAIT_TASK) {
        int rc = kit_sched_attend(s, choice->object, true);
        if (rc != 0 && wait_decide(wait, index))
            choice->rc = rc == KIT_EAGAIN ? 0 : rc;
        return;
    }
    struct kit_spin *spin = choice_spin(choice);
    kit_spin_lock(spin);
    if (!choice_ready(choice))
        waiters_add(choice_waiters(choice), &choice->waiter, wait);
    else if (wait_decide(wait, index))
        choice_take(s, choice);
    kit_spin_unlock(spin);
}

static void wait_end(struct kit_sched *s, struct kit_choice *choice)
{
    if (choice->kind == KIT_WAIT_TASK) {
        kit_sched_attend(s, choice->object, false);
        return;
    }
    struct kit_spin *spin = choice_spin(choice);
    kit_spin_lock(spin);
    if (choice->waiter.queued)
        waiters_remove(choice_waiters(choice), &choice->waiter);
    kit_spin_unlock(spin);
}

/* A task that ends wakes, but decides nothing. */
static void wait_look_at_tasks(struct kit_sched *s, struct kit_wait *wait)
{
    for (uint32_t i = 0; i < wait->count; i++) {
        struct kit_choice *choice = &wait->choices[i];
        if (choice->kind == KIT_WAIT_TASK &&
            kit_sched_attend(s, choice->object, true) == KIT_EAGAIN &&
            wait_decide(wait, (int32_t)i))
            choice->rc = 0;
    }
}

/* Sleeps until the wait is decided or its deadline has passed. Its index, or KIT_ETIMEDOUT. */
static int wait_sleep(struct kit_sched *s, struct kit_wait *wait, uint64_t deadline_ns)
{
    int rc = 0;
    if (wait_is_open(wait)) {
        kit_sched_note(s, wait);
        while (wait_is_open(wait) && rc == 0) {
            rc = kit_sched_block(s, deadline_ns);
            wait_look_at_tasks(s, wait);
        }
        kit_sched_note(s, NULL);
    }
    wait_decide(wait, WAIT_OVER);
    for (uint32_t i = 0; i < wait->count; i++)
        wait_end(s, &wait->choices[i]);
    return wait->chosen >= 0 ? wait->chosen : rc;
}

int kit_wait_any(struct kit_sched *s, struct kit_choice *choices, uint32_t count,
                 uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_wait wait = {.task = kit_sched_current(s), .choices = choices, .chosen = WAIT_OPEN};
    while (wait.count < count && wait_is_open(&wait))
        wait_begin(s, &wait, &choices[wait.count++]);
    if (wait.task != NULL && deadline_ns != 0)
        return wait_sleep(s, &wait, deadline_ns);
    wait_decide(&wait, WAIT_OVER);
    for (uint32_t i = 0; i < wait.count; i++)
        wait_end(s, &choices[i]);
    if (wait.chosen >= 0)
        return wait.chosen;
    return wait.task != NULL ? KIT_ETIMEDOUT : KIT_ENOTSUP;
}

static int wait_for(struct kit_sched *s, uint32_t kind, void *object, void *item,
                    uint64_t deadline_ns)
{
    struct kit_choice choice = {.kind = kind, .object = object, .item = item};
    int rc = kit_wait_any(s, &choice, 1, deadline_ns);
    return rc == 0 ? choice.rc : rc;
}

/* Gets in line for something that cannot be had; under its lock, which is released. Then waits. */
static int wait_in_line(struct kit_sched *s, uint32_t kind, void *object, struct kit_task *self,
                        uint64_t deadline_ns)
{
    struct kit_choice choice = {.kind = kind, .object = object};
    struct kit_wait wait = {.task = self, .choices = &choice, .count = 1, .chosen = WAIT_OPEN};
    waiters_add(choice_waiters(&choice), &choice.waiter, &wait);
    kit_spin_unlock(choice_spin(&choice));
    return wait_sleep(s, &wait, deadline_ns);
}

/* ---- mutex and condition --------------------------------------------------------------------- */

int kit_mutex_lock(struct kit_sched *s, struct kit_mutex *mutex, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    kit_spin_lock(&mutex->spin);
    KIT_ASSERT(mutex->owner != self);
    if (mutex->owner == NULL) {
        mutex->owner = self;
        kit_spin_unlock(&mutex->spin);
        return 0;
    }
    kit_sched_depend(s, self, mutex->owner);
    int rc = wait_in_line(s, KIT_WAIT_MUTEX, mutex, self, deadline_ns);
    if (rc != 0)
        kit_sched_depend(s, self, NULL);
    return rc;
}

int kit_mutex_trylock(struct kit_sched *s, struct kit_mutex *mutex)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    kit_spin_lock(&mutex->spin);
    bool taken = mutex->owner == NULL;
    if (taken)
        mutex->owner = self;
    kit_spin_unlock(&mutex->spin);
    return taken ? 0 : KIT_EAGAIN;
}

void kit_mutex_unlock(struct kit_sched *s, struct kit_mutex *mutex)
{
    KIT_INSIDE;
    KIT_ASSERT(mutex->owner != NULL && mutex->owner == kit_sched_current(s));
    kit_spin_lock(&mutex->spin);
    struct kit_task *next = waiters_serve(s, &mutex->waiters, 0);
    mutex->owner = next;
    if (next != NULL) {
        kit_sched_depend(s, next, NULL); /* it waits no longer; the others now wait for it */
        for (struct kit_waiter *waiter = mutex->waiters.first; waiter; waiter = waiter->next)
            kit_sched_depend(s, waiter->wait->task, next);
    }
    kit_spin_unlock(&mutex->spin);
}

int kit_condition_wait(struct kit_sched *s, struct kit_condition *condition,
                       struct kit_mutex *mutex, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_choice choice = {.kind = KIT_WAIT_CONDITION, .object = condition};
    struct kit_wait wait = {
        .task = kit_sched_current(s), .choices = &choice, .count = 1, .chosen = WAIT_OPEN};
    if (wait.task == NULL)
        return KIT_ENOTSUP;
    kit_spin_lock(&condition->spin);
    waiters_add(&condition->waiters, &choice.waiter,
                &wait); /* before the unlock: no signal is lost */
    kit_spin_unlock(&condition->spin);
    kit_mutex_unlock(s, mutex);
    int rc = wait_sleep(s, &wait, deadline_ns);
    int locked = kit_mutex_lock(s, mutex, KIT_NEVER);
    KIT_ASSERT(locked == 0);
    return rc;
}

void kit_condition_signal(struct kit_sched *s, struct kit_condition *condition)
{
    KIT_INSIDE;
    kit_spin_lock(&condition->spin);
    waiters_serve(s, &condition->waiters, 0);
    kit_spin_unlock(&condition->spin);
}

void kit_condition_broadcast(struct kit_sched *s, struct kit_condition *condition)
{
    KIT_INSIDE;
    kit_spin_lock(&condition->spin);
    waiters_serve_all(s, &condition->waiters, 0);
    kit_spin_unlock(&condition->spin);
}

/* ---- semaphore, event, once ------------------------------------------------------------------ */

int kit_semaphore_wait(struct kit_sched *s, struct kit_semaphore *semaphore, uint64_t deadline_ns)
{
    KIT_INSIDE;
    if (kit_sched_current(s) == NULL)
        return KIT_ENOTSUP;
    return wait_for(s, KIT_WAIT_SEMAPHORE, semaphore, NULL, deadline_ns);
}

void kit_semaphore_post(struct kit_sched *s, struct kit_semaphore *semaphore)
{
    KIT_INSIDE;
    kit_spin_lock(&semaphore->spin);
    if (waiters_serve(s, &semaphore->waiters, 0) == NULL)
        semaphore->count++;
    kit_spin_unlock(&semaphore->spin);
}

int kit_event_wait(struct kit_sched *s, struct kit_event *event, uint64_t deadline_ns)
{
    KIT_INSIDE;
    return wait_for(s, KIT_WAIT_EVENT, event, NULL, deadline_ns);
}

void kit_event_set(struct kit_sched *s, struct kit_event *event)
{
    KIT_INSIDE;
    kit_spin_lock(&event->spin);
    if (!event->automatic) {
        event->set = true;
        waiters_serve_all(s, &event->waiters, 0);
    } else if (waiters_serve(s, &event->waiters, 0) == NULL) {
        event->set = true;
    }
    kit_spin_unlock(&event->spin);
}

void kit_event_clear(struct kit_sched *s, struct kit_event *event)
{
    KIT_INSIDE;
    (void)s;
    kit_spin_lock(&event->spin);
    event->set = false;
    kit_spin_unlock(&event->spin);
}

/* 0: it has been run; KIT_EAGAIN: by the caller, now; KIT_ENOTSUP. */
static int once_begin(struct kit_sched *s, struct kit_once *once)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    kit_spin_lock(&once->spin);
    if (once->state == ONCE_RUNS && self != NULL)
        return wait_in_line(s, KIT_WAIT_ONCE, once, self, KIT_NEVER);
    int rc = once->state == ONCE_DONE ? 0 : once->state == ONCE_NEW ? KIT_EAGAIN : KIT_ENOTSUP;
    if (rc == KIT_EAGAIN) {
        __atomic_store_n(&once->state, ONCE_RUNS, __ATOMIC_RELAXED);
        once->runner = self;
    }
    kit_spin_unlock(&once->spin);
    return rc;
}

static void once_end(struct kit_sched *s, struct kit_once *once)
{
    KIT_INSIDE;
    kit_spin_lock(&once->spin);
    __atomic_store_n(&once->state, ONCE_DONE, __ATOMIC_RELEASE);
    waiters_serve_all(s, &once->waiters, 0);
    kit_spin_unlock(&once->spin);
}

int kit_once_run(struct kit_sched *s, struct kit_once *once, void (*function)(void *argument),
                 void *argument)
{
    if (__atomic_load_n(&once->state, __ATOMIC_ACQUIRE) == ONCE_DONE)
        return 0;
    int rc = once_begin(s, once);
    if (rc != KIT_EAGAIN)
        return rc;
    function(argument); /* the application's: not inside */
    once_end(s, once);
    return 0;
}

/* ---- queue ----------------------------------------------------------------------------------- */

void kit_queue_open(struct kit_queue *queue, void *memory, size_t item_size, size_t capacity)
{
    KIT_ASSERT(capacity >= 1);
    *queue = (struct kit_queue){.items = memory, .item_size = item_size, .capacity = capacity};
}

int kit_queue_send(struct kit_sched *s, struct kit_queue *queue, const void *item,
                   uint64_t deadline_ns)
{
    KIT_INSIDE;
    return wait_for(s, KIT_WAIT_SEND, queue, (void *)(uintptr_t)item, deadline_ns);
}

int kit_queue_receive(struct kit_sched *s, struct kit_queue *queue, void *item,
                      uint64_t deadline_ns)
{
    KIT_INSIDE;
    return wait_for(s, KIT_WAIT_RECEIVE, queue, item, deadline_ns);
}

void kit_queue_close(struct kit_sched *s, struct kit_queue *queue)
{
    KIT_INSIDE;
    kit_spin_lock(&queue->spin);
    queue->closed = true;
    waiters_serve_all(s, &queue->receivers, KIT_ECLOSED);
    waiters_serve_all(s, &queue->senders, KIT_ECLOSED);
    kit_spin_unlock(&queue->spin);
}

/* ---- readers and writers --------------------------------------------------------------------- */

/* Lets in who may come in now, in order; under the lock. */
static void rwlock_admit(struct kit_sched *s, struct kit_rwlock *lock)
{
    struct kit_waiter *waiter;
    while ((waiter = lock->waiters.first) != NULL && lock->writer == NULL) {
        struct kit_choice *choice = choice_of(waiter);
        bool writes = choice->kind == KIT_WAIT_WRITE;
        if (writes && lock->readers > 0)
            return;
        if (!waiter_claim(&lock->waiters, waiter))
            continue;
        if (writes)
            lock->writer = waiter->wait->task;
        else
            lock->readers++;
        choice->rc = 0;
        choice_wake(s, choice);
    }
}

static int rwlock_wait(struct kit_sched *s, struct kit_rwlock *lock, uint32_t kind,
                       struct kit_task *self, uint64_t deadline_ns)
{
    int rc = wait_in_line(s, kind, lock, self, deadline_ns);
    if (rc != 0) { /* a writer that gives up no longer keeps the readers behind it */
        kit_spin_lock(&lock->spin);
        rwlock_admit(s, lock);
        kit_spin_unlock(&lock->spin);
    }
    return rc;
}

int kit_rwlock_read(struct kit_sched *s, struct kit_rwlock *lock, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    kit_spin_lock(&lock->spin);
    if (lock->writer != NULL || lock->waiters.first != NULL)
        return rwlock_wait(s, lock, KIT_WAIT_READ, self, deadline_ns);
    lock->readers++;
    kit_spin_unlock(&lock->spin);
    return 0;
}

int kit_rwlock_write(struct kit_sched *s, struct kit_rwlock *lock, uint64_t deadline_ns)
{
    KIT_INSIDE;
    struct kit_task *self = kit_sched_current(s);
    if (self == NULL)
        return KIT_ENOTSUP;
    kit_spin_lock(&lock->spin);
    KIT_ASSERT(lock->writer != self);
    if (lock->writer != NULL || lock->readers > 0 || lock->waiters.first != NULL)
        return rwlock_wait(s, lock, KIT_WAIT_WRITE, self, deadline_ns);
    lock->writer = self;
    kit_spin_unlock(&lock->spin);
    return 0;
}

void kit_rwlock_unlock(struct kit_sched *s, struct kit_rwlock *lock)
{
    KIT_INSIDE;
    kit_spin_lock(&lock->spin);
    if (lock->writer != NULL) {
        KIT_ASSERT(lock->writer == kit_sched_current(s));
        lock->writer = NULL;
    } else {
        KIT_ASSERT(lock->readers > 0);
        lock->readers--;
    }
    rwlock_admit(s, lock);
    kit_spin_unlock(&lock->spin);
}
