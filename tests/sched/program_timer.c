/* SPDX-License-Identifier: MIT */
/* sched/timer.c against a list that is searched from end to end. Arguments: seed, steps. */
#include "hosted.h"

#include <unikit/sched/timer.h>

enum { TIMERS = 200 };

static struct timer_queue queue;
static struct kit_timer timers[TIMERS];
static uint64_t due_ns[TIMERS], order_of[TIMERS], order, now_ns, state;
static uint64_t turned_ns; /* the clock of the last turn that had timers */
static bool armed[TIMERS];

static uint64_t draw(uint64_t below)
{
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (state >> 33) % below;
}

static void must(bool condition, const char *what)
{
    if (!condition) {
        printf("FAILED: %s\n", what);
        exit(1);
    }
}

static size_t count(void)
{
    size_t found = 0;
    for (size_t i = 0; i < TIMERS; i++)
        found += armed[i];
    return found;
}

/* The first by (deadline, order of arming) among those armed before `limit`; TIMERS: none. */
static size_t first(uint64_t limit)
{
    size_t best = TIMERS;
    for (size_t i = 0; i < TIMERS; i++)
        if (armed[i] && order_of[i] < limit &&
            (best == TIMERS || due_ns[i] < due_ns[best] ||
             (due_ns[i] == due_ns[best] && order_of[i] < order_of[best])))
            best = i;
    return best;
}

/* From the past to the end of time, many of them equal. */
static uint64_t deadline(void)
{
    uint64_t span = UINT64_C(1) << draw(64);
    switch (draw(8)) {
    case 0:
        return draw(now_ns + 1);
    case 1:
        return KIT_NEVER - draw(3);
    case 2:
        return now_ns + 100;
    default:
        return now_ns > KIT_NEVER - span ? KIT_NEVER : now_ns + draw(span < 2 ? 2 : span);
    }
}

static void arm(size_t i)
{
    uint64_t at_ns = deadline();
    timer_queue_arm(&queue, &timers[i], at_ns);
    due_ns[i] = at_ns > turned_ns ? at_ns : turned_ns;
    order_of[i] = order++;
    armed[i] = true;
}

/* A turn at a later time; what runs arms and cancels others. */
static void turn(void)
{
    uint64_t limit = order, before = timer_queue_first(&queue);
    size_t expected = first(KIT_NEVER);
    uint64_t exact = expected == TIMERS ? KIT_NEVER : due_ns[expected];
    must(before <= exact && (count() > 64 || before == exact), "the first deadline");
    switch (draw(4)) {
    case 0: /* to the next deadline, or short of it */
        if (before != KIT_NEVER && before - draw(2) > now_ns)
            now_ns = before;
        break;
    case 1: {
        uint64_t jump = UINT64_C(1) << draw(60);
        now_ns = now_ns > KIT_NEVER - 2 * jump ? now_ns : now_ns + draw(jump);
        break;
    }
    default:
        now_ns = now_ns > KIT_NEVER - 200 ? now_ns : now_ns + draw(200);
    }
    if (queue.count == 0)
        return;
    turned_ns = now_ns;
    must(timer_queue_collect(&queue, now_ns) == (before <= now_ns), "whether there was anything");
    for (struct kit_timer *timer; (timer = timer_queue_due(&queue)) != NULL;) {
        size_t i = first(limit);
        must(i < TIMERS && timer == &timers[i] && due_ns[i] <= now_ns, "which comes next");
        must(timer->position == 0, "one that has fired says that it is armed");
        armed[i] = false;
        if (draw(3) == 0)
            arm(draw(2) ? i : draw(TIMERS));
        size_t other = draw(TIMERS);
        if (draw(4) == 0) {
            must(timer_queue_cancel(&queue, &timers[other]) == armed[other], "cancel in a turn");
            armed[other] = false;
        }
    }
    size_t left = first(limit);
    must(left == TIMERS || due_ns[left] > now_ns, "one that was due is left");
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
    must(timer_queue_reserve(&queue, &hosted_heap) == 0, "memory");
    for (uint64_t step = 0; step < steps; step++) {
        size_t i = draw(TIMERS);
        if (step % 5000 == 0 && now_ns > UINT64_C(1) << 62) { /* the end of time: start again */
            for (size_t n = 0; n < TIMERS; n++)
                armed[n] = timer_queue_cancel(&queue, &timers[n]) && false;
            queue.now_ns = turned_ns = now_ns = 0;
        }
        switch (draw(step / 1000 % 2 ? 3 : 6)) {
        case 0:
            turn();
            break;
        case 1:
            must(timer_queue_cancel(&queue, &timers[i]) == armed[i], "cancel");
            armed[i] = false;
            break;
        default:
            arm(i);
        }
        must(queue.count == count(), "how many are armed");
        must(step % 8 != 0 || timer_queue_check(&queue) == 0, "its own check");
    }
    timer_queue_release(&queue, &hosted_heap);
    printf("%llu steps, %llu armed\n", (unsigned long long)steps, (unsigned long long)order);
    return 0;
}
