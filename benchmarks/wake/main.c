/* SPDX-License-Identifier: MIT */
/* The image of bench_wake.py: processor 0 wakes processor 1, which has been asleep for a while, and
 * says how many ns passed from the call to the first instruction behind the other's wait: the
 * median of as many wake-ups as the argument says. */
#include <unikit/app.h>
#include <unikit/image/runtime/runtime.h>

enum { MOST = 4096, STACK = 16384 };
#define PAUSE_NS KIT_NS_PER_MS

static char stack[STACK] __attribute__((aligned(4096)));
static uint64_t asked, answered, woken_ns, times[MOST];

static void sleeper(void *argument)
{
    runtime_environment_t *env = argument;
    for (;;) {
        kit_env_wait(env, KIT_NEVER, KIT_WAKE_CPU);
        uint64_t now_ns = kit_env_now_ns(env);
        if (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) == answered)
            continue; /* nobody rang */
        woken_ns = now_ns;
        __atomic_store_n(&answered, answered + 1, __ATOMIC_RELEASE);
    }
}

static uint64_t wake(runtime_environment_t *env)
{
    uint64_t begin_ns = kit_env_now_ns(env) + PAUSE_NS;
    while (kit_env_now_ns(env) < begin_ns)
        __builtin_ia32_pause();
    uint64_t number = asked + 1, start_ns = kit_env_now_ns(env);
    __atomic_store_n(&asked, number, __ATOMIC_RELEASE);
    kit_env_cpu_wake(env, 1);
    while (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) != number)
        __builtin_ia32_pause();
    return woken_ns - start_ns;
}

int init_application(void)
{
    runtime_environment_t *env = kit_runtime.state.runtime;
    size_t count = 0;
    for (const char *at = kit_boot_option(""); at != NULL && *at != 0; at++)
        count = count * 10 + (size_t)(*at - '0');
    count = count == 0 || count > MOST ? MOST : count;
    if (kit_env_cpu_start(env, 1, sleeper, env, stack + STACK) != 0)
        return 1;
    for (size_t i = 0; i < count; i++) {
        uint64_t time = wake(env);
        size_t at = i;
        for (; at > 0 && times[at - 1] > time; at--)
            times[at] = times[at - 1];
        times[at] = time;
    }
    kit_log("median %llu", (unsigned long long)times[count / 2]);
    kit_exit(0);
}
