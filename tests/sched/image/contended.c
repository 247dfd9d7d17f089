/* SPDX-License-Identifier: MIT */
/* Tasks that are stopped anywhere while they share things: a counter under a mutex, which they hold
 * most of the time, and the image's allocator. Ends after a number of upcalls. */
#include <unikit/image/runtime/runtime.h>

enum { TASKS = 3, UPCALLS = 60, BLOCKS = 16 };

static struct kit_mutex mutex;
static volatile uint64_t counter;
static uint64_t rounds[TASKS];
static uint32_t broken;

static void compute(uint32_t turns)
{
    for (volatile uint32_t i = 0; i < turns; i++) {
    }
}

static void count(void)
{
    kit_mutex_lock(kit_task_scheduler(), &mutex, KIT_NEVER);
    uint64_t before = counter;
    compute(1 << 20); /* longer than a tick and a slice */
    counter = before + 1;
    kit_mutex_unlock(kit_task_scheduler(), &mutex);
}

/* Blocks of changing sizes, each full of a byte of its own. */
static void allocate(uint8_t *blocks[BLOCKS], size_t sizes[BLOCKS], uint64_t *random)
{
    for (int i = 0; i < 64; i++) {
        *random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        size_t at = *random >> 60, size = 1 + (*random >> 32) % 2000;
        for (size_t j = 0; blocks[at] != NULL && j < sizes[at]; j++)
            broken += blocks[at][j] != (uint8_t)sizes[at];
        kit_memory_free(blocks[at], sizes[at], 0);
        blocks[at] = kit_memory_alloc(size, 0);
        sizes[at] = size;
        if (blocks[at] == NULL)
            kit_exit(3);
        memset(blocks[at], (uint8_t)size, size);
    }
}

static void work(void *argument)
{
    uint64_t *done = argument, random = (uintptr_t)argument;
    uint8_t *blocks[BLOCKS] = {NULL};
    size_t sizes[BLOCKS] = {0};
    while (kit_env_cpu_self(kit_runtime.state.runtime)->upcalls < UPCALLS) {
        count();
        *done += 1;
        allocate(blocks, sizes, &random);
        compute(1 << 12);
    }
    for (int i = 0; i < BLOCKS; i++)
        kit_memory_free(blocks[i], sizes[i], 0);
}

/* Somebody to stop the owner of the mutex for, while the others wait for it. */
static void interfere(void *argument)
{
    (void)argument;
    for (;;)
        compute(1 << 20);
}

static void referee(void *argument)
{
    struct kit_task **tasks = argument;
    uint64_t sum = 0;
    for (int i = 0; i < TASKS; i++) {
        kit_task_join(tasks[i], KIT_NEVER);
        sum += rounds[i];
    }
    bool good = sum == counter && broken == 0 && kit_alloc_check(kit_runtime.alloc) == 0 &&
                kit_sched_check(kit_task_scheduler()) == 0;
    kit_log("%llu rounds, counted %llu, %u broken", (unsigned long long)sum,
            (unsigned long long)counter, broken);
    kit_exit(good ? 0 : 1);
}

int init_application(void)
{
    static struct kit_task *tasks[TASKS];
    int rc = 0;
    for (int i = 0; i < TASKS && rc == 0; i++) {
        const struct kit_task_spec spec = {.entry = work, .argument = &rounds[i], .name = "worker"};
        rc = kit_task_spawn(&spec, &tasks[i]);
    }
    const struct kit_task_spec last = {
        .entry = referee, .argument = tasks, .name = "referee", .flags = KIT_TASK_DETACHED};
    const struct kit_task_spec noise = {
        .entry = interfere, .name = "interferer", .flags = KIT_TASK_DETACHED};
    if (rc == 0)
        rc = kit_task_spawn(&noise, NULL);
    return rc != 0 ? rc : kit_task_spawn(&last, NULL);
}
