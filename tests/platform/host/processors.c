/* SPDX-License-Identifier: MIT */
/* Processors of a process: a ball goes round, each waits until it has it and rings the next one; a
 * wake-up that is lost stops it. In the end those that still wait are closed. */
#include <stdio.h>
#include <stdlib.h>
#include <unikit/platform/host/env.h>

enum { CPUS = 3 };

static runtime_environment_t *env;
static uint32_t ball, rounds;
static uint64_t sum;

static void play(uint32_t me)
{
    struct kit_cpu *self = kit_env_cpu_self(env);
    if (self->number != me || self->self != self)
        exit(3);
    for (uint32_t turn = me; turn < rounds * CPUS; turn += CPUS) {
        while (__atomic_load_n(&ball, __ATOMIC_ACQUIRE) != turn)
            kit_env_wait(env, KIT_NEVER, KIT_WAKE_CPU);
        sum += turn;
        __atomic_store_n(&ball, turn + 1, __ATOMIC_RELEASE);
        kit_env_cpu_wake(env, (me + 1) % CPUS);
    }
}

static void other(void *argument)
{
    play((uint32_t)(uintptr_t)argument);
    uint64_t deadline_ns = kit_env_now_ns(env) + KIT_NS_PER_MS;
    kit_env_wait(env, deadline_ns, 0);
    if (kit_env_now_ns(env) < deadline_ns)
        exit(4);
    kit_env_cpu_wake(env, 0);
    for (;;)
        kit_env_wait(env, KIT_NEVER, KIT_WAKE_CPU);
}

int main(int argc, char **argv)
{
    const struct kit_host_settings settings = {
        .output = -1, .input = -1, .options = "", .cpus = CPUS};
    struct kit_host_environment *host;
    rounds = argc > 1 ? (uint32_t)atoi(argv[1]) : 1000;
    if (kit_host_environment_open(&settings, &host) != 0)
        return 1;
    env = kit_host_environment_env(host);
    for (uintptr_t i = 1; i < CPUS; i++)
        if (kit_env_cpu_start(env, (uint32_t)i, other, (void *)i, NULL) != 0)
            return 2;
    if (kit_env_cpu_start(env, 1, other, NULL, NULL) != KIT_EINVAL ||
        kit_env_cpu_start(env, CPUS, other, NULL, NULL) != KIT_EINVAL)
        return 5;
    play(0);
    while (__atomic_load_n(&ball, __ATOMIC_ACQUIRE) != rounds * CPUS)
        kit_env_wait(env, KIT_NEVER, KIT_WAKE_CPU);
    uint64_t last = rounds * CPUS;
    kit_host_environment_close(host);
    printf("sum %llu\n", (unsigned long long)sum);
    return sum == last * (last - 1) / 2 ? 0 : 6;
}
