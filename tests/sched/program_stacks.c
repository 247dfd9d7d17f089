/* SPDX-License-Identifier: MIT */
/* What a scheduler with threads does with stacks: program_stacks MODE [guard]. */
#include "hosted.h"

#include <signal.h>
#include <string.h>
#include <unikit/rt/stack.h>
#include <unistd.h>

extern const struct kit_sched_component COMPONENT;

enum { STACK = 65536, CACHED = 2 };

static struct kit_virtual world;
static struct kit_sched *s;

/* As a platform does it: the faulting page, the tag above it, the name. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    const struct kit_stack_tag *tag =
        kit_stack_overflowed((uintptr_t)info->si_addr, UINTPTR_MAX - KIT_STACK_PAGE);
    (void)number;
    (void)context;
    dprintf(STDOUT_FILENO, "fault: stack overflow in task '%s'\n", tag ? tag->name : "?");
    _exit(139);
}

__attribute__((noinline)) static size_t sink(size_t depth)
{
    volatile char room[512];
    for (size_t i = 0; i < sizeof(room); i++)
        room[i] = (char)depth;
    return depth == 0 ? 0 : sink(depth - 1) + (size_t)room[0];
}

static void overflow(void *argument)
{
    (void)argument;
    sink(STACK / 512 + 8);
    kit_sched_yield(s);
}

/* Leaves a hole where the canary is; but it stops too deep. */
static void jump_over(void *argument)
{
    volatile char room[STACK + 256];
    (void)argument;
    room[0] = 1;
    kit_sched_yield(s);
    room[0]++;
}

static void overflow_and_end(void *argument)
{
    (void)argument;
    sink(STACK / 512 + 8);
}

static void overflow_and_block(void *argument)
{
    (void)argument;
    sink(STACK / 512 + 8);
    kit_sched_block(s, KIT_NEVER);
}

static void quarter(void *argument)
{
    (void)argument;
    sink(STACK / 512 / 4);
    kit_sched_yield(s);
}

static void turn_inside(void *argument)
{
    (void)argument;
    kit_sched_turn(s);
}

static void spawn(void (*entry)(void *), const char *name, size_t stack)
{
    struct kit_task_spec spec = {
        .entry = entry, .name = name, .stack_size = stack, .flags = KIT_TASK_DETACHED};
    if (kit_sched_spawn(s, &spec, NULL) != 0)
        kit_panic("spawn failed");
}

static size_t peak(void)
{
    struct kit_sched_stats stats;
    kit_sched_stats(s, &stats);
    return stats.stack_peak;
}

static void settle(void)
{
    while (kit_sched_turn(s)) {
    }
}

/* No more than the option's number of stacks is kept, and none of another size. */
static void keeps_few(void)
{
    size_t empty = hosted_bytes;
    for (int i = 0; i < 10; i++)
        spawn(quarter, "few", 0);
    settle();
    size_t kept = hosted_bytes - empty;
    printf("kept %d\n", kept >= CACHED * STACK && kept < (CACHED + 1) * STACK);
    for (int i = 0; i < 10; i++)
        spawn(quarter, "few", 0);
    settle();
    printf("steady %d\n", hosted_bytes - empty == kept);
    spawn(quarter, "other", 4 * STACK);
    settle();
    printf("other freed %d\n", hosted_bytes - empty == kept);
}

static void measure(void)
{
    printf("before %zu\n", peak());
    spawn(quarter, "quarter", 0);
    kit_sched_turn(s);
    printf("alive %d\n", peak() > STACK / 4 && peak() < STACK / 2);
    settle();
    printf("ended %d\n", peak() > STACK / 4 && peak() < STACK / 2);
}

int main(int argc, char **argv)
{
    static char spare[65536];
    stack_t alternative = {.ss_sp = spare, .ss_size = sizeof(spare)};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const char *mode = argc > 1 ? argv[1] : "";
    bool guard = argc > 2;
    sigaltstack(&alternative, NULL);
    sigaction(SIGSEGV, &action, NULL);
    kit_virtual_open(&world, NULL, 0, 1);
    world.env.page_protect = guard ? hosted_protect : NULL;
    const uint64_t options[16] = {STACK, 1, CACHED, strcmp(mode, "measure") == 0};
    if (COMPONENT.open(options, &world.env, &hosted_heap, &s) != 0)
        return 2;
    if (strcmp(mode, "yield") == 0)
        spawn(overflow, "deep-thought", 0);
    else if (strcmp(mode, "jump") == 0)
        spawn(jump_over, "jumper", 0);
    else if (strcmp(mode, "end") == 0)
        spawn(overflow_and_end, "a name that is longer than thirty-one bytes", 0);
    else if (strcmp(mode, "block") == 0)
        spawn(overflow_and_block, NULL, 0);
    else if (strcmp(mode, "keep") == 0)
        keeps_few();
    else if (strcmp(mode, "turn") == 0)
        spawn(turn_inside, "turns", 0);
    else if (strcmp(mode, "exit") == 0)
        kit_sched_exit(s);
    else
        measure();
    settle();
    kit_sched_close(s);
    printf("left %zu\n", hosted_blocks);
    return 0;
}
