/* SPDX-License-Identifier: MIT */
/* A spin lock for the few words that several processors share: one word, taken by an exchange when
 * it looks free, with pauses that grow up to KIT_SPIN_PAUSES while it does not. Held for some tens
 * of instructions, never over a wait, a yield or a call out of the component. Zero is unlocked.
 *
 * No tickets: a processor of an image is a thread of the host, which may lose its core at any
 * moment. Where there are more of them than cores, a lock that is handed over in order waits for
 * whoever does not run (a million locked pairs by each of four threads on two cores: 1.6 s, and not
 * done after 30 s by tickets). The price is that nobody is promised a turn.
 * Source: Anderson, «The performance of spin lock alternatives», IEEE TPDS 1(1), 1990.
 * Compiled to nothing where the composition has one processor
 * (KIT_WITH_CPUS 0). */
#ifndef KIT_RT_X86_64_SPIN_H
#define KIT_RT_X86_64_SPIN_H

#include <unikit/rt/types.h>

#ifndef KIT_WITH_CPUS
#define KIT_WITH_CPUS 1
#endif

/* cdef: begin */
struct kit_spin {
    uint32_t held; /* 1: somebody has it */
};
/* cdef: end */

enum { KIT_SPIN_PAUSES = 64 };

KIT_INLINE void kit_spin_lock(struct kit_spin *spin)
{
#if KIT_WITH_CPUS
    unsigned pauses = 1;
    while (__atomic_exchange_n(&spin->held, 1, __ATOMIC_ACQUIRE) != 0)
        while (__atomic_load_n(&spin->held, __ATOMIC_RELAXED) != 0) {
            for (unsigned i = 0; i < pauses; i++)
                __builtin_ia32_pause();
            pauses = pauses < KIT_SPIN_PAUSES ? 2 * pauses : KIT_SPIN_PAUSES;
        }
#else
    (void)spin;
#endif
}

KIT_INLINE void kit_spin_unlock(struct kit_spin *spin)
{
#if KIT_WITH_CPUS
    __atomic_store_n(&spin->held, 0, __ATOMIC_RELEASE);
#else
    (void)spin;
#endif
}

#endif
