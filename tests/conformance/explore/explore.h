/* SPDX-License-Identifier: MIT */
/* Every interleaving of a few short threads, on the memory of x86: total store order (Owens,
 * Sarkar, Sewell, «A better x86 memory model: x86-TSO», TPHOLs 2009). This header takes the place
 * of the atomic operations of sched.steal (KIT_STEAL_ATOMICS), so that the component's own code
 * runs here: at each access to a shared word the thread stops, and the explorer decides who goes
 * on.
 *
 * A plain store goes into the thread's store buffer and reaches memory when the explorer says so; a
 * load sees the own buffer first; exchanges, fences and sequentially consistent stores wait until
 * the buffer is empty. */
#ifndef KIT_TESTS_EXPLORE_H
#define KIT_TESTS_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPLORE_RELAXED, EXPLORE_ACQUIRE, EXPLORE_RELEASE, EXPLORE_ACQ_REL, EXPLORE_SEQ_CST };

uint64_t explore_load(const void *at, size_t size);
void explore_store(void *at, size_t size, uint64_t value, int order);
uint64_t explore_swap(void *at, size_t size, uint64_t value);
uint64_t explore_and(void *at, size_t size, uint64_t value);
bool explore_cas(void *at, size_t size, void *expected, uint64_t value);
void explore_fence(void);

#define STEAL_LOAD(at, order) ((__typeof__(*(at)))explore_load(at, sizeof(*(at))))
#define STEAL_STORE(at, value, order)                                                              \
    explore_store(at, sizeof(*(at)), (uint64_t)(value), EXPLORE_##order)
#define STEAL_SWAP(at, value, order)                                                               \
    ((__typeof__(*(at)))explore_swap(at, sizeof(*(at)), (uint64_t)(value)))
#define STEAL_AND(at, value, order)                                                                \
    ((__typeof__(*(at)))explore_and(at, sizeof(*(at)), (uint64_t)(value)))
#define STEAL_CAS(at, expected, value, order)                                                      \
    explore_cas(at, sizeof(*(at)), expected, (uint64_t)(value))
#define STEAL_FENCE() explore_fence()
#define STEAL_PAUSE() ((void)0)

/* ---- for scenarios ----------------------------------------------------------------------------
 */

enum { EXPLORE_THREADS = 4 };

struct explore_scenario {
    const char *name;
    void *memory; /* everything that threads change but their stacks */
    size_t size;
    void (*reset)(void);                   /* makes it as it is at the beginning */
    void (*thread[EXPLORE_THREADS])(void); /* NULL behind the last */
    void (*finish)(void);                  /* when nobody can go on: explore_check() */
};

/* Runs it in every way there is. Returns the number of distinct states; prints the way to a failed
 * check and exits. */
uint64_t explore_run(const struct explore_scenario *scenario);
/* Stops the thread until the word is not 0, then clears it; it may be for ever. */
void explore_wait(uint32_t *word);
/* Whether that thread of the present way has come to its end. */
bool explore_ended(unsigned thread);
void explore_check(bool good, const char *what);

#endif
