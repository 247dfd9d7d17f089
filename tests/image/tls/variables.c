/* SPDX-License-Identifier: MIT */
/* Thread-local variables: each task, and the main loop, has its own from their first values on. */
#include <unikit/app.h>

enum { TASKS = 1000, ROUNDS = 5, LINE = 64 };

static _Thread_local int counter = 41;
static _Thread_local uint64_t zeroed;
static _Thread_local char text[] = "first";
static _Thread_local _Alignas(LINE) unsigned char line[100];
_Thread_local int shared_by_name = 7; /* other.c */
int other_sum(int number);

static unsigned wrong, ended;
static uint32_t used_cpus;
static volatile int opaque;
static bool spins; /* the argument */

static void check(bool right)
{
    if (!right)
        __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

/* As it must be before anybody has touched it. */
static void check_fresh(void)
{
    bool clean = true;
    for (size_t i = 0; i < sizeof line; i++)
        clean &= line[i] == 0;
    check(clean && counter == 41 && zeroed == 0 && shared_by_name == 7);
    check(strlen(text) == 5 && text[0] == 'f' && text[4] == 't');
    uintptr_t address = (uintptr_t)line;
    __asm__("" : "+r"(address)); /* else the compiler takes it for granted */
    check(address % LINE == 0);
}

static void work(int number)
{
    counter += number;
    zeroed = (uint64_t)number << 32;
    text[0] = (char)('a' + number % 26);
    memset(line, number & 0xff, sizeof line);
    check(other_sum(number) == 7 + number);
}

static void check_kept(int number, int rounds)
{
    check(counter == 41 + rounds * number && zeroed == (uint64_t)number << 32);
    check(text[0] == 'a' + number % 26 && text[1] == 'i');
    check(line[0] == (number & 0xff) && line[sizeof line - 1] == (number & 0xff));
    check(shared_by_name == 7 + number);
}

static void task(void *argument)
{
    int number = (int)(uintptr_t)argument;
    int *mine = &counter;
    check_fresh();
    for (int round = 1; round <= ROUNDS; round++) {
        shared_by_name = 7;
        work(number);
        for (int i = 0; spins && i < 20000; i++) {
            opaque = i; /* no safe point: only an upcall stops this */
            check(counter == 41 + round * number);
        }
        kit_task_yield();
        check_kept(number, round);
        check(mine == &counter);
        __atomic_or_fetch(&used_cpus, UINT32_C(1) << kit_cpu_number(), __ATOMIC_RELAXED);
    }
    __atomic_add_fetch(&ended, 1, __ATOMIC_RELEASE);
}

/* Timers run in the main loop's context. */
static void look(struct kit_timer *timer)
{
    check(counter == 100000 && line[3] == 3 && shared_by_name == 9);
    if (__atomic_load_n(&ended, __ATOMIC_ACQUIRE) < TASKS) {
        kit_timer_start(timer, 200000);
        return;
    }
    kit_log("%u ended, %u wrong, processors %u", ended, wrong, used_cpus);
    kit_exit(wrong == 0 ? 0 : 1);
}

int init_application(void)
{
    static struct kit_timer timer = {.run = look};
    const char *argument = kit_boot_option("");
    spins = argument != NULL && argument[0] == 's';
    check_fresh();
    counter = 100000;
    line[3] = 3;
    shared_by_name = 9;
    for (uintptr_t i = 1; i <= TASKS; i++) {
        struct kit_task_spec spec = {.entry = task,
                                     .argument = (void *)i,
                                     .flags = KIT_TASK_DETACHED |
                                              (kit_cpu_count() > 1 ? KIT_TASK_ANYWHERE : 0u)};
        if (kit_task_spawn(&spec, NULL) != 0)
            return 3;
    }
    check(counter == 100000);
    return kit_timer_start(&timer, 200000);
}
