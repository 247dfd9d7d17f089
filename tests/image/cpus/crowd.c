/* SPDX-License-Identifier: MIT */
/* Tasks that may run on any processor, allocate and free there, and are joined by the first one;
 * what each of them added up is known beforehand. «net»: one calls the network from wherever it
 * is, until that is not processor 0. */
#include <unikit/app.h>

enum { TASKS = 48, ROUNDS = 60, BLOCKS = 8 };

static uint64_t sums[TASKS];
static uint32_t ran[KIT_CPUS_MAX];

static void work(void *argument)
{
    size_t me = (size_t)argument, size = 64 + me * 8;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t *blocks[BLOCKS];
        for (size_t k = 0; k < BLOCKS; k++) {
            blocks[k] = kit_memory_alloc(size, 0);
            *blocks[k] = i;
        }
        for (size_t k = 0; k < BLOCKS; k++) {
            sums[me] += *blocks[k];
            kit_memory_free(blocks[k], size, 0);
        }
        for (volatile int k = 0; k < 20000; k++)
            ;
        __atomic_add_fetch(&ran[kit_cpu_number()], 1, __ATOMIC_RELAXED);
        if (i % 8 == 0)
            kit_task_yield();
    }
}

#ifdef WITH_NET
static void stray(void *argument)
{
    struct kit_udp *udp;
    (void)argument;
    while (kit_cpu_number() == 0)
        kit_task_yield();
    kit_udp_open(9, NULL, NULL, &udp);
}
#endif

static void first(void *argument)
{
    struct kit_task *tasks[TASKS];
    (void)argument;
    for (size_t i = 0; i < TASKS; i++) {
        struct kit_task_spec spec = {
            .entry = work, .argument = (void *)i, .name = "work", .flags = KIT_TASK_ANYWHERE};
        if (kit_task_spawn(&spec, &tasks[i]) != 0)
            kit_exit(3);
    }
    uint64_t total = 0;
    for (size_t i = 0; i < TASKS; i++) {
        kit_task_join(tasks[i], KIT_NEVER);
        total += sums[i];
    }
    uint32_t all = 0;
    for (uint32_t i = 0; i < kit_cpu_count(); i++)
        all += ran[i];
    kit_log("total %llu rounds %u cpus %u", (unsigned long long)total, all, kit_cpu_count());
}

int init_application(void)
{
    struct kit_task_spec spec = {.entry = first, .name = "first", .flags = KIT_TASK_DETACHED};
#ifdef WITH_NET
    spec.entry = stray;
    spec.flags |= KIT_TASK_ANYWHERE;
    for (int i = 0; i < 8; i++) /* enough for each processor */
        kit_task_spawn(&spec, NULL);
#endif
    return kit_task_spawn(&spec, NULL);
}
