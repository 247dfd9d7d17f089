/* SPDX-License-Identifier: MIT */
/* The atomic operations of sched.steal, under names that a test may replace: with
 * -DKIT_STEAL_ATOMICS='"file"' every access to a word that processors share goes through functions
 * of that file, which is how all interleavings are explored. Orders are those of C11.
 *
 * Compiled to plain accesses where the composition has one processor (KIT_WITH_CPUS 0). */
#ifndef KIT_SCHED_STEAL_ATOMIC_H
#define KIT_SCHED_STEAL_ATOMIC_H

#include <unikit/rt/x86_64/spin.h>

#if defined KIT_STEAL_ATOMICS
#include KIT_STEAL_ATOMICS
#elif KIT_WITH_CPUS
#define STEAL_LOAD(at, order) __atomic_load_n(at, __ATOMIC_##order)
#define STEAL_STORE(at, value, order) __atomic_store_n(at, value, __ATOMIC_##order)
#define STEAL_SWAP(at, value, order) __atomic_exchange_n(at, value, __ATOMIC_##order)
#define STEAL_AND(at, value, order) __atomic_fetch_and(at, value, __ATOMIC_##order)
/* Also where it fails it acquires. */
#define STEAL_CAS(at, expected, value, order)                                                      \
    __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_##order, __ATOMIC_ACQUIRE)
/* Between a store and a load of one processor that another makes the other way round. */
#define STEAL_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define STEAL_PAUSE() __builtin_ia32_pause()
#else
#define STEAL_LOAD(at, order) (*(at))
#define STEAL_STORE(at, value, order) ((void)(*(at) = (value)))
#define STEAL_SWAP(at, value, order)                                                               \
    __extension__({                                                                                \
        __typeof__(*(at)) steal_old = *(at);                                                       \
        *(at) = (value);                                                                           \
        steal_old;                                                                                 \
    })
#define STEAL_AND(at, value, order)                                                                \
    __extension__({                                                                                \
        __typeof__(*(at)) steal_old = *(at);                                                       \
        *(at) &= (value);                                                                          \
        steal_old;                                                                                 \
    })
#define STEAL_CAS(at, expected, value, order)                                                      \
    (*(at) == *(expected) ? (*(at) = (value), true) : (*(expected) = *(at), false))
#define STEAL_FENCE() ((void)0)
#define STEAL_PAUSE() ((void)0)
#endif

#endif
