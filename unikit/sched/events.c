/* SPDX-License-Identifier: MIT */
/* Deferred work and timers, run to completion by each turn. Work is a FIFO; a turn takes over what
 * is queued when it begins, so that work that posts itself again cannot hold up the devices. The
 * clock is read once per turn, and only if a timer is armed.
 *
 * Cost: post, cancel_work O(1), no memory; timers as in timer.c. */
#include <unikit/rt/assert.h>
#include <unikit/sched/events.h>

void events_open(struct events *events, runtime_environment_t *env, struct kit_alloc *alloc)
{
    memset(events, 0, sizeof(*events));
    events->env = env;
    events->alloc = alloc;
    kit_list_init(&events->work);
    kit_list_init(&events->batch);
}

void events_close(struct events *events)
{
    timer_queue_release(&events->timers, events->alloc);
}

void events_begin(struct events *events)
{
    KIT_ASSERT(!events->turning);
    events->turning = true;
    kit_list_take(&events->batch, &events->work);
}

static bool events_run_timers(struct events *events)
{
    struct kit_timer *timer;
    bool any = timer_queue_collect(&events->timers, kit_env_now_ns(events->env));
    while ((timer = timer_queue_due(&events->timers)) != NULL) {
        events->stats.timers++;
        timer->run(timer);
    }
    return any;
}

bool events_run(struct events *events)
{
    struct kit_list *link;
    bool any = events->timers.count != 0 && events->run_timers(events);
    while ((link = kit_list_pop_front(&events->batch)) != NULL) {
        struct kit_work *work = KIT_CONTAINER_OF(link, struct kit_work, link);
        any = true;
        work->queued = false; /* before it runs: it may be posted again, or be gone afterwards */
        events->queued--;
        events->stats.work++;
        work->run(work);
    }
    return any;
}

bool events_end(struct events *events, bool any)
{
    events->turning = false;
    events->stats.turns += any;
    return any;
}

uint64_t events_deadline_ns(const struct events *events)
{
    return events->queued != 0 ? 0 : timer_queue_first(&events->timers);
}

int events_reserve(struct events *events)
{
    events->run_timers = events_run_timers;
    return timer_queue_reserve(&events->timers, events->alloc);
}

static int events_check_list(const struct kit_list *list, size_t *left)
{
    const struct kit_list *link = list->next;
    for (; link != list && *left > 0; link = link->next, --*left) {
        const struct kit_work *work = KIT_CONTAINER_OF(link, struct kit_work, link);
        if (link->next->prev != link || !work->queued)
            return KIT_ECORRUPT;
    }
    return link == list ? 0 : KIT_ECORRUPT;
}

int events_check(const struct events *events)
{
    size_t left = events->queued;
    if (events_check_list(&events->work, &left) != 0 ||
        events_check_list(&events->batch, &left) != 0 || left != 0)
        return KIT_ECORRUPT;
    return timer_queue_check(&events->timers);
}

void events_post(struct kit_sched *s, struct kit_work *work)
{
    struct events *events = events_of(s);
    if (work->queued)
        return;
    work->queued = true;
    events->queued++;
    kit_list_push_back(&events->work, &work->link);
}

bool events_cancel_work(struct kit_sched *s, struct kit_work *work)
{
    if (!work->queued)
        return false;
    work->queued = false;
    events_of(s)->queued--;
    kit_list_remove(&work->link);
    return true;
}

int events_arm(struct kit_sched *s, struct kit_timer *timer, uint64_t deadline_ns)
{
    struct events *events = events_of(s);
    if (events_reserve(events) != 0)
        return KIT_ENOMEM;
    timer_queue_arm(&events->timers, timer, deadline_ns);
    return 0;
}

bool events_cancel(struct kit_sched *s, struct kit_timer *timer)
{
    return timer_queue_cancel(&events_of(s)->timers, timer);
}
