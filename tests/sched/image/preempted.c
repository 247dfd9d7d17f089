/* SPDX-License-Identifier: MIT */
/* Tasks in loops that call nothing, stopped by upcalls alone, and all they had in registers, flags
 * and red zone is there again afterwards: as many as the argument string says, then «N upcalls, M
 * broken». */
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/x86_64/cpu.h>

enum { VALUES = 2184, ROUNDS = 1 << 21, X87 = 2048, CONTROL = 2112, MXCSR = 2116 };

int keeps_general(uint64_t seed, uint64_t rounds);
int keeps_vectors(const void *values, uint64_t rounds, void *out, uint32_t width);

static uint32_t broken, loops[4];
static uint32_t wanted;

static uint32_t upcalls(void)
{
    return kit_env_cpu_self(kit_runtime.state.runtime)->upcalls;
}

static void general(void *argument)
{
    uint32_t number = *(uint32_t *)argument;
    for (uint64_t seed = UINT64_C(0x9e3779b97f4a7c15) * (number + 1);; seed = seed * 5 + 1) {
        broken += keeps_general(seed, ROUNDS) != 0;
        loops[number]++;
    }
}

static uint32_t width(void)
{
    uint64_t features = kit_env_cpu_features(kit_runtime.state.runtime);
    return features & KIT_CPU_AVX512 ? 2 : features & KIT_CPU_AVX ? 1 : 0;
}

static void vectors(void *argument)
{
    static uint8_t values[2][VALUES], out[2][VALUES];
    uint32_t number = *(uint32_t *)argument, which = number & 1;
    uint8_t *value = values[which];
    for (size_t i = 0; i < VALUES; i++)
        value[i] = (uint8_t)(i * 7 + number * 31 + 1);
    for (uint64_t i = 0; i < 8; i++)
        *(uint64_t *)(void *)(value + X87 + 8 * i) = UINT64_C(0x1234567890abcd) * (i + number);
    *(uint16_t *)(void *)(value + CONTROL) = which ? 0x0f7f : 0x077f; /* rounds to 0, or down */
    *(uint32_t *)(void *)(value + MXCSR) = which ? 0x7f80 : 0x3f80;
    for (;;) {
        memcpy(out[which], value, VALUES);
        memset(out[which], 0, 16); /* stored anew, as are x87's values */
        memset(out[which] + X87, 0, 64);
        keeps_vectors(value, ROUNDS, out[which], width());
        broken += memcmp(out[which], value, VALUES) != 0;
        loops[number]++;
    }
}

static void referee(void *argument)
{
    (void)argument;
    while (upcalls() < wanted)
        kit_task_sleep_until(kit_clock_now() + 10 * KIT_NS_PER_MS);
    struct kit_sched_stats stats;
    kit_statistics(NULL, &stats, NULL);
    kit_log("%u upcalls, %u broken, loops %u %u %u %u, stack %zu", upcalls(), broken, loops[0],
            loops[1], loops[2], loops[3], stats.stack_peak);
    kit_exit(broken != 0 || kit_sched_check(kit_task_scheduler()) != 0);
}

int init_application(void)
{
    static const uint32_t numbers[] = {0, 1, 2, 3};
    for (const char *at = kit_boot_option(""); *at != 0; at++)
        wanted = wanted * 10 + (uint32_t)(*at - '0');
    const struct kit_task_spec last = {
        .entry = referee, .name = "referee", .priority = 1, .flags = KIT_TASK_DETACHED};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(numbers); i++) {
        const struct kit_task_spec spec = {.entry = i < 2 ? general : vectors,
                                           .argument = (void *)(uintptr_t)&numbers[i],
                                           .name = "spinner",
                                           .stack_size = 1024,
                                           .flags = KIT_TASK_DETACHED};
        int rc = kit_task_spawn(&spec, NULL);
        if (rc != 0)
            return rc;
    }
    return kit_task_spawn(&last, NULL);
}
