/* SPDX-License-Identifier: MIT */
/* Inner loops of bench_sched.py: prints ns of CPU time per operation for the mode that is named.
 * Compiled as an image is: -O2, link-time optimisation, one scheduler named at compile time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include <unikit/rt/x86_64/context.h>
#include <unikit/sched/sched.h>
#include <unikit/testing/virtual.h>

enum { STACK = 16384, SWITCHES = 20000000, SYSTEM_SWITCHES = 1000000, YIELDS = 20000000 };
enum { LIVES = 2000000, CHANGES = 4000000, RING = 16, SLEEPERS = 100000 };

extern const struct kit_sched_component KIT_SOLE_SCHED;

static struct kit_virtual world;
static struct kit_sched *s;
static uint64_t turns_left;

_Noreturn void kit_panic(const char *message)
{
    fprintf(stderr, "%s\n", message);
    exit(1);
}

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    size_t step = align < 16 ? 16 : align;
    (void)a;
    return aligned_alloc(step, (size + step - 1) / step * step);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a;
    (void)size;
    (void)align;
    free(block);
}

static void *heap_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    (void)a;
    (void)old_size;
    (void)align;
    return realloc(block, new_size);
}

static const struct kit_alloc_ops heap_ops = {
    .alloc = heap_alloc, .free = heap_free, .realloc = heap_realloc};
static struct kit_alloc heap = {&heap_ops};

static double cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252u; /* xorshift64, Marsaglia 2003 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* ---- bare switches -------------------------------------------------------------------------- */

static struct kit_context here, there;

static void bounce(struct kit_context *self)
{
    (void)self;
    for (;;)
        kit_context_switch(&there, &here);
}

static double switches(void)
{
    char *stack = aligned_alloc(64, STACK);
    kit_context_make(&there, stack + STACK, bounce);
    double began = cpu_ns();
    for (int i = 0; i < SWITCHES / 2; i++)
        kit_context_switch(&here, &there);
    return (cpu_ns() - began) / SWITCHES;
}

static ucontext_t system_here, system_there;

static void system_bounce(void)
{
    for (;;)
        swapcontext(&system_there, &system_here);
}

static double system_switches(void)
{
    getcontext(&system_there);
    system_there.uc_stack.ss_sp = malloc(STACK);
    system_there.uc_stack.ss_size = STACK;
    makecontext(&system_there, system_bounce, 0);
    double began = cpu_ns();
    for (int i = 0; i < SYSTEM_SWITCHES / 2; i++)
        swapcontext(&system_here, &system_there);
    return (cpu_ns() - began) / SYSTEM_SWITCHES;
}

/* ---- through the scheduler ------------------------------------------------------------------ */

static void yields(void *argument)
{
    (void)argument;
    while (turns_left > 0) {
        turns_left--;
        kit_sched_yield(s);
    }
}

static void nothing(void *argument)
{
    (void)argument;
}

static struct kit_timer timers[SLEEPERS];

static void timer_nothing(struct kit_timer *timer)
{
    (void)timer;
}

static void sleepers(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        timers[i] = (struct kit_timer){.run = timer_nothing};
        kit_sched_arm(s, &timers[i], (UINT64_C(1) << 40) + next_random() % (UINT64_C(1) << 40));
    }
}

static double yielding(size_t sleeping)
{
    struct kit_task_spec spec = {.entry = yields, .flags = KIT_TASK_DETACHED};
    sleepers(sleeping);
    turns_left = YIELDS;
    for (int i = 0; i < RING; i++)
        kit_sched_spawn(s, &spec, NULL);
    double began = cpu_ns();
    while (kit_sched_turn(s)) {
    }
    return (cpu_ns() - began) / YIELDS;
}

static double lives(void)
{
    struct kit_task_spec spec = {.entry = nothing, .name = "task"};
    double began = cpu_ns();
    for (int i = 0; i < LIVES / RING; i++) {
        struct kit_task *tasks[RING];
        for (int j = 0; j < RING; j++)
            kit_sched_spawn(s, &spec, &tasks[j]);
        kit_sched_turn(s);
        for (int j = 0; j < RING; j++)
            kit_sched_join(s, tasks[j], 0);
    }
    return (cpu_ns() - began) / LIVES;
}

/* A pair of cancel and arm of a timer at random. */
static double changes(size_t count)
{
    sleepers(count);
    double began = cpu_ns();
    for (int i = 0; i < CHANGES; i++) {
        struct kit_timer *timer = &timers[next_random() % count];
        kit_sched_cancel(s, timer);
        kit_sched_arm(s, timer, (UINT64_C(1) << 40) + next_random() % (UINT64_C(1) << 40));
    }
    return (cpu_ns() - began) / CHANGES;
}

int main(int argc, char **argv)
{
    const uint64_t options[16] = {STACK, 0, 64, 0};
    const char *mode = argc > 1 ? argv[1] : "";
    size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    kit_virtual_open(&world, NULL, 0, 1);
    if (KIT_SOLE_SCHED.open(options, &world.env, &heap, &s) != 0)
        return 1;
    double ns = strcmp(mode, "switch") == 0        ? switches()
                : strcmp(mode, "swapcontext") == 0 ? system_switches()
                : strcmp(mode, "yield") == 0       ? yielding(count)
                : strcmp(mode, "life") == 0        ? lives()
                : strcmp(mode, "timer") == 0       ? changes(count)
                                                   : -1;
    printf("%.3f\n", ns);
    return ns < 0;
}
