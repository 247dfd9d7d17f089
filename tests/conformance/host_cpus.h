/* SPDX-License-Identifier: MIT */
/* Processors for hosted programs: a runtime environment whose processors are POSIX threads. The
 * same source runs under ThreadSanitizer, which knows these. */
#ifndef KIT_TESTS_CONFORMANCE_HOST_CPUS_H
#define KIT_TESTS_CONFORMANCE_HOST_CPUS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <unikit/alloc/alloc.h>
#include <unikit/platform/env.h>

enum { HOST_CPUS = 16 };

struct host_cpu {
    struct kit_cpu cpu;
    pthread_mutex_t lock;
    pthread_cond_t rung;
    bool wake; /* under the lock: rung since the last wait */
    uint64_t rings;
    void (*entry)(void *argument);
    void *argument;
};

static struct host_cpu host_cpus[HOST_CPUS];
static _Thread_local struct host_cpu *host_self = &host_cpus[0];

static uint64_t host_now_ns(runtime_environment_t *env)
{
    struct timespec now;
    (void)env;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * KIT_NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint32_t host_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    struct host_cpu *cpu = host_self;
    struct timespec end = {(time_t)(deadline_ns / KIT_NS_PER_S),
                           (long)(deadline_ns % KIT_NS_PER_S)};
    uint32_t woken = 0;
    int rc = 0;
    (void)env;
    pthread_mutex_lock(&cpu->lock);
    while (!cpu->wake && rc == 0)
        rc = deadline_ns == KIT_NEVER ? pthread_cond_wait(&cpu->rung, &cpu->lock)
                                      : pthread_cond_timedwait(&cpu->rung, &cpu->lock, &end);
    if (cpu->wake && (wake & KIT_WAKE_CPU) != 0) {
        woken = KIT_WAKE_CPU;
        cpu->wake = false;
    }
    pthread_mutex_unlock(&cpu->lock);
    return woken;
}

static void host_cpu_wake(runtime_environment_t *env, uint32_t number)
{
    struct host_cpu *cpu = &host_cpus[number];
    (void)env;
    pthread_mutex_lock(&cpu->lock);
    cpu->wake = true;
    cpu->rings++;
    pthread_cond_signal(&cpu->rung);
    pthread_mutex_unlock(&cpu->lock);
}

/* Not inlined: a compiler may keep the address of a thread's variable over a switch, after which
 * the function runs on another thread. */
static __attribute__((noinline)) struct kit_cpu *host_cpu_self(runtime_environment_t *env)
{
    (void)env;
    __asm__ volatile("");
    return &host_self->cpu;
}

static void *host_thread(void *argument)
{
    host_self = argument;
    host_self->entry(host_self->argument);
    return NULL;
}

static int host_cpu_start(runtime_environment_t *env, uint32_t number, void (*entry)(void *),
                          void *argument, void *stack_top)
{
    struct host_cpu *cpu = &host_cpus[number];
    pthread_t thread;
    (void)stack_top;
    if (number == 0 || number >= env->cpus)
        return KIT_EINVAL;
    cpu->entry = entry;
    cpu->argument = argument;
    if (pthread_create(&thread, NULL, host_thread, cpu) != 0)
        return KIT_ENOMEM;
    pthread_detach(thread);
    return 0;
}

static int host_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    (void)env, (void)stop_ns;
    return KIT_ENOTSUP;
}

static void host_open(runtime_environment_t *env, uint32_t cpus)
{
    *env = (runtime_environment_t){.now_ns = host_now_ns,
                                   .wait = host_wait,
                                   .cpu_start = host_cpu_start,
                                   .cpu_wake = host_cpu_wake,
                                   .cpu_self = host_cpu_self,
                                   .cpu_slice = host_cpu_slice,
                                   .cpus = cpus,
                                   .platform = "threads"};
    for (uint32_t i = 0; i < cpus; i++) {
        pthread_condattr_t clock;
        host_cpus[i].cpu.number = i;
        pthread_mutex_init(&host_cpus[i].lock, NULL);
        pthread_condattr_init(&clock);
        pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        pthread_cond_init(&host_cpus[i].rung, &clock);
    }
}

/* ---- the C library's heap ----------------------------------------------------------------------
 */

static void *host_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    size_t step = align < 16 ? 16 : align;
    (void)a;
    return aligned_alloc(step, (size + step - 1) / step * step);
}

static void host_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static void *host_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    (void)a, (void)old_size, (void)align;
    return realloc(block, new_size);
}

static const struct kit_alloc_ops host_ops = {
    .alloc = host_alloc, .free = host_free, .realloc = host_realloc};
static struct kit_alloc host_heap = {&host_ops};

#endif
