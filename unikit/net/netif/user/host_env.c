/* SPDX-License-Identifier: MIT */
/* What the outer stack gets from this process: a clock, entropy, and memory up to a limit. */
#include <unikit/net/netif/user/host.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * KIT_NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t user_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t env_now_ns(runtime_environment_t *env)
{
    (void)env;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t env_wall_ns(runtime_environment_t *env)
{
    (void)env;
    return clock_ns(CLOCK_REALTIME);
}

static int env_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    (void)env;
    for (size_t done = 0; done < size;) {
        ssize_t got = getrandom((uint8_t *)buffer + done, size - done, 0);
        if (got < 0 && errno != EINTR)
            return KIT_EIO;
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

static void env_panic(runtime_environment_t *env, const char *message)
{
    (void)env;
    kit_panic(message);
}

static const char *env_boot_option(runtime_environment_t *env, const char *name)
{
    (void)env;
    (void)name;
    return NULL;
}

static size_t console_write(console_interface_t *console, const char *data, size_t length)
{
    (void)console;
    (void)data;
    return length;
}

static size_t console_read(console_interface_t *console, char *buffer, size_t max_length)
{
    (void)console;
    (void)buffer;
    (void)max_length;
    return 0;
}

static struct user_heap *heap_of(const struct kit_alloc *a)
{
    return (struct user_heap *)(uintptr_t)a;
}

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct kit_alloc_stats *stats = &heap_of(a)->stats;
    void *block = NULL;
    if (align < sizeof(void *))
        align = KIT_ALLOC_ALIGN_MIN;
    if (size > stats->capacity - stats->used || posix_memalign(&block, align, size ? size : 1)) {
        stats->failures++;
        return NULL;
    }
    stats->allocations++;
    stats->blocks++;
    stats->used += size;
    if (stats->used > stats->peak)
        stats->peak = stats->used;
    return block;
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)align;
    if (!block)
        return;
    struct kit_alloc_stats *stats = &heap_of(a)->stats;
    stats->frees++;
    stats->blocks--;
    stats->used -= size;
    free(block);
}

static void *heap_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    void *moved = heap_alloc(a, new_size, align);
    if (moved && block) {
        memcpy(moved, block, old_size < new_size ? old_size : new_size);
        heap_free(a, block, old_size, align);
    }
    return moved;
}

static size_t heap_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)a;
    (void)block;
    return size;
}

static void heap_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    *out = heap_of(a)->stats;
    out->largest_free = out->capacity - out->used;
}

static int heap_check(const struct kit_alloc *a)
{
    const struct kit_alloc_stats *stats = &heap_of(a)->stats;
    return stats->used <= stats->capacity && stats->allocations - stats->frees == stats->blocks
               ? 0
               : KIT_ECORRUPT;
}

static const struct kit_alloc_ops heap_ops = {
    .alloc = heap_alloc,
    .free = heap_free,
    .realloc = heap_realloc,
    .usable_size = heap_usable_size,
    .stats = heap_stats,
    .check = heap_check,
};

static struct kit_cpu *env_cpu_self(runtime_environment_t *env)
{
    return &KIT_CONTAINER_OF(env, struct user, env)->cpu;
}

static int env_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    (void)env, (void)stop_ns;
    return KIT_ENOTSUP;
}

void user_env_open(struct user *user)
{
    KIT_ALLOC_BIND(&user->heap.alloc, &heap_ops);
    user->heap.stats.capacity = user->config.memory;
    user->console = (console_interface_t){.write = console_write, .read = console_read};
    user->env = (runtime_environment_t){
        .console = &user->console,
        .network = &user->wire.end,
        .panic_handler = env_panic,
        .now_ns = env_now_ns,
        .wall_ns = env_wall_ns,
        .entropy = env_entropy,
        .boot_option = env_boot_option,
        .cpu_self = env_cpu_self,
        .cpu_slice = env_cpu_slice,
        .start_ns = user_now_ns(),
        .cpus = 1,
        .platform = "host",
    };
}
