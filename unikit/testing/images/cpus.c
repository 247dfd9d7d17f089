/* SPDX-License-Identifier: MIT */
/* The image of check_platform() for several processors: does what the first word of its argument
 * string says, on processors that it starts itself, without a scheduler. Lines are «name value
 * ...»; the judging is done outside (unikit/testing/platform.py). */
#include <unikit/app.h>
#include <unikit/image/runtime/runtime.h>

enum { STACK = 16384, LINES = 50 };

static char stacks[KIT_CPUS_MAX][STACK] __attribute__((aligned(4096)));
static struct kit_cpu *blocks[KIT_CPUS_MAX];
static uint32_t arrived, ball;
static uint64_t sum;
static const char *command;

static runtime_environment_t *environment(void)
{
    return kit_runtime.state.runtime;
}

static bool is(const char *name)
{
    size_t length = strlen(name);
    return strlen(command) >= length && memcmp(command, name, length) == 0;
}

static uint32_t number(void)
{
    uint32_t value = 0;
    for (const char *at = command; *at != 0; at++)
        value = *at >= '0' && *at <= '9' ? value * 10 + (uint32_t)(*at - '0') : 0;
    return value;
}

static uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void arrive(void)
{
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    kit_env_cpu_wake(environment(), 0);
}

/* On processor 0, until `count` others have arrived. */
static void gather(uint32_t count)
{
    while (load(&arrived) < count)
        kit_env_wait(environment(), KIT_NEVER, KIT_WAKE_CPU);
}

/* The ball goes round: each processor waits until it has it, adds it up and rings the next one. */
static void play(uint32_t me, uint32_t rounds)
{
    runtime_environment_t *env = environment();
    uint32_t count = env->cpus;
    for (uint32_t turn = me; turn < rounds * count; turn += count) {
        while (load(&ball) != turn)
            kit_env_wait(env, KIT_NEVER, KIT_WAKE_CPU);
        sum += turn;
        __atomic_store_n(&ball, turn + 1, __ATOMIC_SEQ_CST);
        kit_env_cpu_wake(env, (me + 1) % count);
    }
}

/* Sleeps for a time of its own, though others are woken meanwhile. */
static void sleep(uint32_t me)
{
    runtime_environment_t *env = environment();
    uint64_t deadline_ns = kit_env_now_ns(env) + (10 + 5 * me) * KIT_NS_PER_MS;
    uint32_t woken = 0;
    while (kit_env_now_ns(env) < deadline_ns)
        woken |= kit_env_wait(env, deadline_ns, KIT_WAKE_CPU);
    kit_log("late %lld %u", (long long)(kit_env_now_ns(env) - deadline_ns), woken);
}

static void text(uint32_t me)
{
    for (unsigned i = 0; i < LINES; i++)
        kit_log("line %u %u abcdefghijklmnopqrstuvwxyz", me, i);
}

static __attribute__((noinline)) void end(const char *how)
{
    if (is("panic"))
        kit_panic(how);
    if (is("exit"))
        kit_exit(77);
    if (is("null"))
        *(volatile char *)(uintptr_t)(8 + (how == NULL)) = 1;
}

static void on_processor(void *argument)
{
    uint32_t me = (uint32_t)(uintptr_t)argument;
    blocks[me] = kit_env_cpu_self(environment());
    if (is("ring"))
        play(me, number());
    if (is("sleep"))
        sleep(me);
    if (is("text"))
        text(me);
    if (is("overflow"))
        ((volatile char *)__builtin_frame_address(0))[-4 * STACK] = 1;
    bool last = me + 1 == environment()->cpus;
    if (last)
        end("a panic on another processor");
    arrive();
    for (;;)
        if (!is("spin"))
            kit_env_wait(environment(), KIT_NEVER, KIT_WAKE_CPU);
}

static int start(uint32_t cpu)
{
    return kit_env_cpu_start(environment(), cpu, on_processor, (void *)(uintptr_t)cpu,
                             stacks[cpu] + STACK);
}

/* How many processors have a block that says their number, and lies at a place of its own. */
static unsigned good_blocks(uint32_t count)
{
    unsigned good = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool own = blocks[i] != NULL && blocks[i]->number == i && blocks[i]->self == blocks[i];
        for (uint32_t j = 0; j < i; j++)
            own = own && blocks[j] != blocks[i];
        good += own;
    }
    return good;
}

int init_application(void)
{
    runtime_environment_t *env = environment();
    command = kit_boot_option("");
    command = command != NULL ? command : "";
    blocks[0] = kit_env_cpu_self(env);
    int refused = 0;
    for (uint32_t i = 1; i < env->cpus; i++)
        refused |= start(i);
    if (is("ring"))
        play(0, number());
    if (is("sleep"))
        sleep(0);
    if (is("text"))
        text(0);
    if (is("spin"))
        kit_log("ready");
    gather(env->cpus - 1);
    while (is("stay") || is("spin"))
        kit_env_wait(env, KIT_NEVER, KIT_WAKE_CPU);
    kit_log("cpus %u %u", env->cpus, kit_cpu_count());
    kit_log("refused %d", refused);
    kit_log("good %u", good_blocks(env->cpus));
    kit_log("again %d %d %d", start(0), env->cpus > 1 ? start(1) : KIT_EINVAL, start(env->cpus));
    kit_log("sum %llu", (unsigned long long)sum);
    return 0;
}
