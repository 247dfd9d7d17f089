/* SPDX-License-Identifier: MIT */
/* What is explored: the deque, the inbox, waiting and waking, and the sleep of processors. Prints
 * the number of states of each. */
#include "explore.h"

#include <stdio.h>
#include <string.h>

#include <unikit/sched/steal/steal.h>

enum { ITEMS = 6 };

#define ITEM(i) ((struct kit_task *)(uintptr_t)(16 * ((i) + 1)))

/* ---- the deque: every task is taken once -------------------------------------------------------
 */

static struct {
    struct steal_deque deque;
    struct kit_task *slots[2];
    uint64_t taken[ITEMS];
    uint64_t pushed;
} d;

static void deque_reset(void)
{
    memset(&d, 0, sizeof(d));
    deque_open(&d.deque, d.slots, 2);
}

static void deque_got(struct kit_task *task)
{
    if (task != NULL)
        d.taken[(uintptr_t)task / 16 - 1]++;
}

static void owner_push(void)
{
    if (deque_push(&d.deque, ITEM(d.pushed)))
        d.pushed++;
}

static void owner_of_one(void)
{
    owner_push();
    deque_got(deque_take_last(&d.deque));
    owner_push();
    deque_got(deque_take_last(&d.deque));
}

static void owner_of_two(void)
{
    owner_push();
    owner_push();
    deque_got(deque_take_last(&d.deque));
    deque_got(deque_take_last(&d.deque));
    owner_push();
}

static void owner_of_both_ends(void)
{
    owner_push();
    owner_push();
    deque_got(deque_take_first(&d.deque));
    owner_push();
    deque_got(deque_take_last(&d.deque));
}

static void owner_of_three(void) /* the third fits only if a thief was there before */
{
    owner_push();
    owner_push();
    owner_push();
    deque_got(deque_take_last(&d.deque));
}

static void thief(void)
{
    struct kit_task *task = NULL;
    if (deque_steal(&d.deque, &task) > 0)
        deque_got(task);
}

static void thief_of_two(void)
{
    thief();
    thief();
}

static void deque_finish(void)
{
    struct kit_task *task = NULL;
    while (deque_steal(&d.deque, &task) > 0)
        deque_got(task);
    for (size_t i = 0; i < ITEMS; i++)
        explore_check(d.taken[i] == (i < d.pushed), "a task was lost, or taken twice");
}

/* ---- the inbox: everything arrives, in order of its sender --------------------------------------
 */

static struct {
    struct steal_inbox inbox;
    struct steal_letter letters[2][2];
    uint64_t got[2]; /* of each sender */
    uint64_t wrong;
} m;

static void mail_reset(void)
{
    memset(&m, 0, sizeof(m));
}

static void mail_read(void)
{
    for (struct steal_letter *letter = inbox_take(&m.inbox); letter; letter = letter->next) {
        size_t index = (size_t)(letter - m.letters[0]);
        m.wrong += m.got[index / 2]++ != index % 2;
    }
}

static void sender_first(void)
{
    inbox_put(&m.inbox, &m.letters[0][0]);
    inbox_put(&m.inbox, &m.letters[0][1]);
}

static void sender_second(void)
{
    inbox_put(&m.inbox, &m.letters[1][0]);
    inbox_put(&m.inbox, &m.letters[1][1]);
}

static void receiver(void)
{
    mail_read();
    mail_read();
}

static void mail_finish(void)
{
    mail_read();
    explore_check(m.got[0] == 2 && m.got[1] == 2 && m.wrong == 0, "mail was lost or out of order");
}

/* ---- waiting and waking: made ready once, and no wake is lost -----------------------------------
 */

static struct {
    uint32_t word;
    uint32_t ready; /* how a task that was made ready goes on */
    uint64_t data[2];
    uint64_t readied;
    uint64_t slept;
} w;

static void wake_reset(void)
{
    memset(&w, 0, sizeof(w));
}

static void wake_ready(void)
{
    explore_check(++w.readied == w.slept, "a task was made ready that did not wait");
    STEAL_STORE(&w.ready, 1, SEQ_CST);
}

/* The task, and the processor that it leaves. */
static bool wake_block(uint32_t event)
{
    if (!signal_there(&w.word, event)) {
        w.slept++;
        if (signal_wait(&w.word, event))
            explore_wait(&w.ready);
        else
            w.readied++;
    }
    return signal_take(&w.word, event);
}

static void sleeper_for_both(void)
{
    while (STEAL_LOAD(&w.data[0], ACQUIRE) == 0 || STEAL_LOAD(&w.data[1], ACQUIRE) == 0)
        wake_block(SIGNAL_WAKE);
}

static void sleeper_once(void)
{
    wake_block(SIGNAL_WAKE);
}

static void sleeper_for_end(void)
{
    while (!wake_block(SIGNAL_END)) {
    }
}

static void waker(uint64_t *data)
{
    STEAL_STORE(data, 1, RELEASE);
    if (signal_send(&w.word, SIGNAL_WAKE))
        wake_ready();
}

static void waker_first(void)
{
    waker(&w.data[0]);
}

static void waker_second(void)
{
    waker(&w.data[1]);
}

static void clock_run(void)
{
    if (signal_expire(&w.word))
        wake_ready();
}

static void ender(void)
{
    if (signal_send(&w.word, SIGNAL_END))
        wake_ready();
}

static void wake_finish(void)
{
    explore_check(explore_ended(0), "a task sleeps for ever");
}

/* ---- processors that sleep: not while there is work
 * ---------------------------------------------- */

static struct {
    uint32_t rung[4];
    runtime_environment_t env;
    struct kit_task *slots[3][4];
    union {
        struct steal steal;
        char room[sizeof(struct steal) + 3 * sizeof(struct steal_cpu)];
    };
} p;

static void rest_wake(runtime_environment_t *env, uint32_t number)
{
    (void)env;
    STEAL_STORE(&p.rung[number], 1, SEQ_CST);
}

static void rest_reset(void)
{
    memset(&p, 0, sizeof(p));
    p.env.cpu_wake = rest_wake;
    p.steal.env = &p.env;
    p.steal.cpus = 3;
    p.steal.spin = 1;
    p.steal.slots = 4;
    p.steal.sleepers.first_ns = KIT_NEVER;
    for (uint32_t i = 0; i < 3; i++) { /* `random` stays 0: always the same victim first */
        struct steal_cpu *cpu = &p.steal.cpu[i];
        cpu->steal = &p.steal;
        cpu->number = i;
        deque_open(&cpu->deque, p.slots[i], 4);
        overflow_open(&cpu->overflow);
    }
}

/* A processor without work, until it has some: then it computes for ever. */
static void rest_loop(struct steal_cpu *cpu)
{
    for (;;) {
        idle_awake(cpu);
        struct steal_letter *letter = inbox_take(&cpu->inbox);
        if (letter != NULL || idle_steal(cpu) != NULL) {
            idle_found(cpu);
            return;
        }
        if (STEAL_LOAD(&p.steal.sleepers.first_ns, RELAXED) != KIT_NEVER) {
            STEAL_STORE(&p.steal.sleepers.first_ns, KIT_NEVER, SEQ_CST);
            idle_found(cpu);
            return;
        }
        if (idle_rest(cpu, KIT_NEVER))
            explore_wait(&p.rung[cpu->number]);
    }
}

static void idler_first(void)
{
    rest_loop(&p.steal.cpu[1]);
}

static void idler_second(void)
{
    rest_loop(&p.steal.cpu[2]);
}

static void maker(void)
{
    deque_push(&p.steal.cpu[0].deque, ITEM(0));
    idle_notify(&p.steal.cpu[0]);
}

static void maker_of_two(void)
{
    maker();
    maker();
}

static void sender(void)
{
    static struct steal_letter letter;
    inbox_put(&p.steal.cpu[1].inbox, &letter);
    idle_ring(&p.steal.cpu[1]);
}

static void sender_and_maker(void)
{
    sender();
    maker();
}

static void napper(void)
{
    STEAL_STORE(&p.steal.sleepers.first_ns, 5, RELEASE);
    idle_watch(&p.steal.cpu[0], 5);
}

static void maker_and_napper(void)
{
    maker();
    napper();
}

static void rest_finish(void)
{
    bool loot = deque_count(&p.steal.cpu[0].deque) != 0;
    bool due = p.steal.sleepers.first_ns != KIT_NEVER;
    explore_check(explore_ended(0), "who makes work is held up");
    explore_check(explore_ended(1) || explore_ended(2), "nobody has found anything");
    for (unsigned i = 1; i < 3; i++)
        explore_check(explore_ended(i) || !(loot || due || !inbox_empty(&p.steal.cpu[i].inbox)),
                      "a processor sleeps while there is work");
    explore_check(p.steal.idle >> STEAL_CPUS_MAX == 0, "somebody counts as searching for ever");
}

static const struct explore_scenario scenarios[] = {
    {"deque, one", &d, sizeof(d), deque_reset, {owner_of_one, thief, thief}, deque_finish},
    {"deque, two", &d, sizeof(d), deque_reset, {owner_of_two, thief_of_two, thief}, deque_finish},
    {"deque, both ends",
     &d,
     sizeof(d),
     deque_reset,
     {owner_of_both_ends, thief_of_two, thief},
     deque_finish},
    {"deque, full", &d, sizeof(d), deque_reset, {owner_of_three, thief, thief}, deque_finish},
    {"inbox", &m, sizeof(m), mail_reset, {sender_first, sender_second, receiver}, mail_finish},
    {"two wakes",
     &w,
     sizeof(w),
     wake_reset,
     {sleeper_for_both, waker_first, waker_second},
     wake_finish},
    {"a wake and a deadline",
     &w,
     sizeof(w),
     wake_reset,
     {sleeper_once, waker_first, clock_run},
     wake_finish},
    {"an end, a wake",
     &w,
     sizeof(w),
     wake_reset,
     {sleeper_for_end, ender, waker_first},
     wake_finish},
    {"one task, two idle",
     &p,
     sizeof(p),
     rest_reset,
     {maker, idler_first, idler_second},
     rest_finish},
    {"two tasks, two idle",
     &p,
     sizeof(p),
     rest_reset,
     {maker_of_two, idler_first, idler_second},
     rest_finish},
    {"a letter", &p, sizeof(p), rest_reset, {sender, idler_first, idler_second}, rest_finish},
    {"a letter and a task",
     &p,
     sizeof(p),
     rest_reset,
     {sender_and_maker, idler_first, idler_second},
     rest_finish},
    {"a deadline", &p, sizeof(p), rest_reset, {napper, idler_first, idler_second}, rest_finish},
    {"a task and a deadline",
     &p,
     sizeof(p),
     rest_reset,
     {maker_and_napper, idler_first, idler_second},
     rest_finish},
};

int main(void)
{
    uint64_t all = 0;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(scenarios); i++) {
        uint64_t states = explore_run(&scenarios[i]);
        printf("%s: %llu states\n", scenarios[i].name, (unsigned long long)states);
        fflush(stdout);
        all += states;
    }
    printf("%llu states in all\n", (unsigned long long)all);
    return 0;
}
