/* SPDX-License-Identifier: MIT */
/* Threads and processes: the lock of the shared face, faces of threads, fork, the end of a thread.
 *
 * A thread gets its face at its first call and gives it back as late as can be: destructors of
 * thread-specific data run in up to four rounds, ours asks for the next one until the last. What
 * still comes after that, libc's own cleaning up for example, goes to the shared face.
 *
 * Around fork() the forking thread holds the lock and whatever locks the component has, so that the
 * child finds them in its own hands. Our handlers are registered before anybody else's: they run
 * last before the fork and first after it, when those of other libraries may allocate. Faces of
 * threads that the child does not have stay as they are: their blocks are good, the free memory
 * they kept is lost to the child. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <unikit/alloc/preload/host.h>

/* Calls from one tick to the next: a fraction of a millisecond of a program that does nothing but
 * allocate. Any clock would make runs differ. */
#ifndef KIT_PRELOAD_TICK
#define KIT_PRELOAD_TICK 16384
#endif
enum { SPINS = 100, ROUNDS_MAX = 4 /* PTHREAD_DESTRUCTOR_ITERATIONS of glibc */ };
enum { OPEN, HELD, AWAITED }; /* states of the lock */

extern char __libc_single_threaded;

static _Atomic uint32_t lock_state;
static pthread_key_t thread_key;
static bool has_key;

static void wait_for_lock(void)
{
    int error = errno;
    for (unsigned spin = 0; spin < SPINS; spin++) {
        uint32_t seen = OPEN;
        if (atomic_load_explicit(&lock_state, memory_order_relaxed) == OPEN &&
            atomic_compare_exchange_strong_explicit(&lock_state, &seen, HELD, memory_order_acquire,
                                                    memory_order_relaxed))
            return;
        __builtin_ia32_pause();
    }
    while (atomic_exchange_explicit(&lock_state, AWAITED, memory_order_acquire) != OPEN)
        syscall(SYS_futex, &lock_state, FUTEX_WAIT_PRIVATE, AWAITED, NULL, NULL, 0);
    errno = error;
}

void kit_preload_lock(void)
{
    uint32_t seen = OPEN;
    if (!atomic_compare_exchange_strong_explicit(&lock_state, &seen, HELD, memory_order_acquire,
                                                 memory_order_relaxed))
        wait_for_lock();
}

void kit_preload_unlock(void)
{
    if (atomic_exchange_explicit(&lock_state, OPEN, memory_order_release) == AWAITED) {
        int error = errno;
        syscall(SYS_futex, &lock_state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        errno = error;
    }
}

#if KIT_PRELOAD_PAGES
static void tick(struct kit_alloc *a, int32_t *budget)
{
    if (*budget < 0) {
        kit_alloc_tick(a);
        *budget = KIT_PRELOAD_TICK;
    }
}
#endif

#if KIT_PRELOAD_THREADS

/* Gives this thread a face; without memory for one it uses the shared one. */
static void attach(struct kit_preload_thread *thread)
{
    thread->state = KIT_PRELOAD_ATTACHED; /* first: setspecific may come back to us */
    kit_preload_lock();
    if (kit_alloc_attach(kit_preload_heap, &thread->face) != 0)
        thread->face = NULL;
    kit_preload_unlock();
    thread->budget = thread->face ? KIT_PRELOAD_TICK : 0;
    if (thread->face && has_key)
        pthread_setspecific(thread_key, thread);
}

/* The destructor of our thread-specific data. */
static void leave_thread(void *argument)
{
    struct kit_preload_thread *thread = argument;
    if (++thread->rounds < ROUNDS_MAX) {
        pthread_setspecific(thread_key, thread);
        return;
    }
    struct kit_alloc *face = thread->face;
    thread->state = KIT_PRELOAD_GONE;
    thread->face = NULL;
    thread->budget = 0;
    kit_alloc_detach(face);
}

struct kit_alloc *kit_preload_enter(bool *locked)
{
    struct kit_preload_thread *thread = &kit_preload_thread;
    if (KIT_UNLIKELY(!kit_preload_heap))
        kit_preload_open();
    if (thread->state == KIT_PRELOAD_NEW)
        attach(thread);
    *locked = !thread->face && !thread->forking;
    if (*locked)
        kit_preload_lock();
    if (!thread->face) {
        thread->budget = 0;
        return kit_preload_heap;
    }
#if KIT_PRELOAD_PAGES
    if (!thread->forking)
        tick(thread->face, &thread->budget);
#endif
    return thread->face;
}

#else

static void leave_thread(void *argument)
{
    (void)argument;
}

struct kit_alloc *kit_preload_enter(bool *locked)
{
    if (KIT_UNLIKELY(!kit_preload_heap))
        kit_preload_open();
    *locked = !__libc_single_threaded && !kit_preload_thread.forking;
    if (*locked)
        kit_preload_lock();
#if KIT_PRELOAD_PAGES
    if (--kit_preload_budget < 0)
        tick(kit_preload_heap, &kit_preload_budget);
#endif
    return kit_preload_heap;
}

#endif

void kit_preload_leave(bool locked)
{
    if (locked)
        kit_preload_unlock();
}

static void hold(bool on)
{
#if KIT_PRELOAD_THREADS
    if (KIT_ALLOC_OPS(kit_preload_heap)->hold)
        kit_alloc_hold(kit_preload_heap, on);
#endif
    (void)on;
}

static void before_fork(void)
{
    kit_preload_lock();
    hold(true);
    kit_preload_thread.forking = true;
}

static void after_fork(void)
{
    kit_preload_thread.forking = false;
    hold(false);
    kit_preload_unlock();
}

void kit_preload_watch(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
    has_key = KIT_PRELOAD_THREADS && pthread_key_create(&thread_key, leave_thread) == 0;
}
