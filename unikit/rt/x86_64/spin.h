/* SPDX-License-Identifier: MIT */
/* A spin lock for the few words that several processors share: a ticket lock, so that waiters are
 * served in order and none starves. Held for some tens of instructions, never over a wait, a yield
 * or a call out of the component. Zero is unlocked.
 *
 * Compiled to nothing where the composition has one processor (KIT_WITH_CPUS 0). */
#ifndef KIT_RT_X86_64_SPIN_H
#define KIT_RT_X86_64_SPIN_H

#include <unikit/rt/types.h>

#ifndef KIT_WITH_CPUS
#define KIT_WITH_CPUS 1
#endif

/* cdef: begin */
struct kit_spin {
    uint16_t next;    /* ticket of who comes next */
    uint16_t serving; /* ticket of who holds it */
};
/* cdef: end */

KIT_INLINE void kit_spin_lock(struct kit_spin *spin)
{
#if KIT_WITH_CPUS
    uint16_t ticket = __atomic_fetch_add(&spin->next, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&spin->serving, __ATOMIC_ACQUIRE) != ticket)
        __builtin_ia32_pause();
#else
    (void)spin;
#endif
}

KIT_INLINE void kit_spin_unlock(struct kit_spin *spin)
{
#if KIT_WITH_CPUS
    __atomic_store_n(&spin->serving, (uint16_t)(spin->serving + 1), __ATOMIC_RELEASE);
#else
    (void)spin;
#endif
}

#endif
