/* SPDX-License-Identifier: MIT */
/* Bare switches between two stacks, without a scheduler: ours, the C library's, Boost.Context's
 * (-DWITH_BOOST); and what it takes to start and end one of Boost's. Prints ns of CPU time. */
#include <string.h>
#include <ucontext.h>

#include <unikit/cli/sched/host_report.h>
#include <unikit/rt/x86_64/switch.h>

enum { STACK = 16384, SWITCHES = 10000000, SYSTEM_SWITCHES = 500000, LIVES = 2000000, RING = 16 };

static void *here, *there;
static ucontext_t system_here, system_there;

static uint64_t cpu_ns(void)
{
    return report_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void bounce(void *argument)
{
    (void)argument;
    for (;;)
        kit_switch(&there, here);
}

static double ours(void)
{
    char *stack = aligned_alloc(64, STACK);
    there = kit_switch_prepare(stack + STACK, bounce, NULL);
    uint64_t began_ns = cpu_ns();
    for (int i = 0; i < SWITCHES / 2; i++)
        kit_switch(&here, there);
    return (double)(cpu_ns() - began_ns) / SWITCHES;
}

static void system_bounce(void)
{
    for (;;)
        swapcontext(&system_there, &system_here);
}

static double swapping(void)
{
    getcontext(&system_there);
    system_there.uc_stack.ss_sp = malloc(STACK);
    system_there.uc_stack.ss_size = STACK;
    makecontext(&system_there, system_bounce, 0);
    uint64_t began_ns = cpu_ns();
    for (int i = 0; i < SYSTEM_SWITCHES / 2; i++)
        swapcontext(&system_here, &system_there);
    return (double)(cpu_ns() - began_ns) / SYSTEM_SWITCHES;
}

#ifdef WITH_BOOST
/* The C face of boost/context/detail/fcontext.hpp. */
struct transfer {
    void *context;
    void *data;
};
extern struct transfer jump_fcontext(void *to, void *data);
extern void *make_fcontext(void *top, size_t size, void (*function)(struct transfer));

static void boost_bounce(struct transfer from)
{
    for (;;)
        from = jump_fcontext(from.context, NULL);
}

static double boost(void)
{
    char *stack = aligned_alloc(64, STACK);
    struct transfer to = {make_fcontext(stack + STACK, STACK, boost_bounce), NULL};
    uint64_t began_ns = cpu_ns();
    for (int i = 0; i < SWITCHES / 2; i++)
        to = jump_fcontext(to.context, NULL);
    return (double)(cpu_ns() - began_ns) / SWITCHES;
}

static void boost_end(struct transfer from)
{
    jump_fcontext(from.context, NULL);
}

/* A context made on a stack that is there, run to its end and left: no scheduler, no join. */
static double boost_lives(void)
{
    char *stacks[RING];
    for (int i = 0; i < RING; i++)
        stacks[i] = aligned_alloc(64, STACK);
    uint64_t began_ns = cpu_ns();
    for (int i = 0; i < LIVES; i++)
        jump_fcontext(make_fcontext(stacks[i % RING] + STACK, STACK, boost_end), NULL);
    return (double)(cpu_ns() - began_ns) / LIVES;
}
#endif

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    report_quiet(1);
    if (strcmp(mode, "unikit") == 0)
        report_value("switch", ours());
    else if (strcmp(mode, "swapcontext") == 0)
        report_value("switch", swapping());
#ifdef WITH_BOOST
    else if (strcmp(mode, "boost") == 0)
        report_value("switch", boost());
    else if (strcmp(mode, "boost-lives") == 0)
        report_value("spawn", boost_lives());
#endif
    else
        return 2;
    return 0;
}
