/* SPDX-License-Identifier: MIT */
/* Several processors: those behind the first have a stack each, from the image's allocator, and run
 * tasks and nothing else. Only in images that may get several.
 *
 * An allocator that has a face for each thread gives one to each processor: `kit_runtime.alloc` is
 * then a wrapper that calls the face of the processor it is called on, so that components which
 * know nothing of faces (a scheduler that serves all processors) may use it anywhere.
 *
 * The end: an image has nothing left to do when every processor waits for nothing but another one,
 * and no task is ready. Each counts itself before such a wait and out again behind it; the last one
 * to be counted looks whether a task is ready, which a processor that was woken is about to run. If
 * nobody was counted out meanwhile, nothing can ever happen again. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/stack.h>
#include <unikit/rt/x86_64/tls.h>

enum { STACK = 64 << 10, PAGE = KIT_STACK_PAGE };

static struct {
    uint32_t asleep; /* processors that wait for nothing but each other */
    uint32_t awoken; /* how often one of them went on */
    uint32_t console_busy;
} cpus;

uint32_t kit_cpu_count(void)
{
    return kit_runtime.state.runtime->cpus;
}

uint32_t kit_cpu_number(void)
{
    return kit_env_cpu_self(kit_runtime.state.runtime)->number;
}

/* ---- the allocator's faces ---------------------------------------------------------------- */

#if KIT_WITH_FACES
static struct kit_alloc *face(void)
{
    return kit_runtime.faces[kit_cpu_number()];
}

static void *face_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a;
    return kit_alloc_alloc(face(), size, align);
}

static void face_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a;
    kit_alloc_free(face(), block, size, align);
}

static void *face_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                          size_t align)
{
    (void)a;
    return kit_alloc_realloc(face(), block, old_size, new_size, align);
}

static size_t face_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    (void)a;
    return kit_alloc_usable_size(face(), block, size);
}

static void face_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    (void)a;
    kit_alloc_stats(face(), out);
}

static int face_check(const struct kit_alloc *a)
{
    (void)a;
    return kit_alloc_check(face());
}

static int face_live(const struct kit_alloc *a,
                     int (*visit)(void *argument, const struct kit_alloc_live *block),
                     void *argument)
{
    (void)a;
    return kit_alloc_live(face(), visit, argument);
}

static const struct kit_alloc_ops face_ops = {
    .alloc = face_alloc,
    .free = face_free,
    .realloc = face_realloc,
    .usable_size = face_usable_size,
    .stats = face_stats,
    .check = face_check,
    .live = face_live,
};

int kit_runtime_make_faces(runtime_environment_t *env)
{
    static struct kit_alloc wrapper;
    kit_runtime.faces[0] = kit_runtime.alloc;
    for (uint32_t i = 1; i < env->cpus; i++) {
        int rc = kit_alloc_attach(kit_runtime.alloc, &kit_runtime.faces[i]);
        if (rc != 0)
            return rc;
    }
    wrapper.ops = &face_ops;
    kit_runtime.alloc = &wrapper;
    return 0;
}
#endif

/* ---- the other processors ----------------------------------------------------------------- */

/* The guard below is taken away as those of tasks are, so that an overflow is named. */
static void *make_stack(runtime_environment_t *env, uint32_t number)
{
    char *base = kit_memory_alloc(PAGE + STACK, PAGE);
    if (base == NULL)
        return NULL;
    bool guarded = kit_env_page_protect(env, base, PAGE, KIT_PAGE_NONE) == 0;
    struct kit_stack_tag *tag = (struct kit_stack_tag *)(void *)(base + PAGE + STACK) - 1;
    *tag = (struct kit_stack_tag){
        .magic = KIT_STACK_MAGIC, .guard = guarded ? (uintptr_t)base : 0, .size = PAGE + STACK};
    kit_format(tag->name, sizeof tag->name, "processor %u", number);
    return tag;
}

static void run(void *argument)
{
    runtime_environment_t *env = argument;
    if (KIT_WITH_TLS)
        kit_runtime_begin_tls(kit_cpu_number());
    for (;;) {
        if (kit_sched_turn(kit_runtime.sched))
            continue;
        uint64_t deadline_ns = kit_sched_deadline_ns(kit_runtime.sched);
        if (deadline_ns != 0)
            kit_runtime_sleep(env, deadline_ns, KIT_WAKE_CPU);
    }
}

int kit_runtime_start_processors(runtime_environment_t *env)
{
    for (uint32_t i = 1; i < env->cpus; i++) {
        void *stack = make_stack(env, i);
        int rc = stack != NULL ? kit_env_cpu_start(env, i, run, env, stack) : KIT_ENOMEM;
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* ---- sleeping, and the end ---------------------------------------------------------------- */

/* Whether no task is ready on any processor, all of which sleep. */
static bool nothing_left(runtime_environment_t *env)
{
    uint32_t before = __atomic_load_n(&cpus.awoken, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&cpus.asleep, __ATOMIC_SEQ_CST) != env->cpus)
        return false;
    struct kit_sched_stats stats;
    kit_sched_stats(kit_runtime.sched, &stats);
    return stats.runnable == 0 && before == __atomic_load_n(&cpus.awoken, __ATOMIC_SEQ_CST);
}

uint32_t kit_runtime_sleep(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    if (deadline_ns != KIT_NEVER || wake != KIT_WAKE_CPU)
        return kit_env_wait(env, deadline_ns, wake);
    if (__atomic_add_fetch(&cpus.asleep, 1, __ATOMIC_SEQ_CST) == env->cpus && nothing_left(env))
        kit_runtime_finish();
    uint32_t woken = kit_env_wait(env, deadline_ns, wake);
    __atomic_add_fetch(&cpus.awoken, 1, __ATOMIC_SEQ_CST);
    __atomic_sub_fetch(&cpus.asleep, 1, __ATOMIC_SEQ_CST);
    return woken;
}

/* ---- what one processor at a time may use ------------------------------------------------- */

/* Output may take its time: who comes second sleeps rather than spins. */
void kit_runtime_lock_console(void)
{
    runtime_environment_t *env = kit_runtime.state.runtime;
    while (__atomic_exchange_n(&cpus.console_busy, 1, __ATOMIC_ACQUIRE) != 0)
        kit_env_wait(env, kit_env_now_ns(env) + 50 * KIT_NS_PER_US, 0);
}

void kit_runtime_unlock_console(void)
{
    __atomic_store_n(&cpus.console_busy, 0, __ATOMIC_RELEASE);
}
