/* SPDX-License-Identifier: MIT */
/* Bit operations that compile to instructions, never to compiler helpers (a generic popcount or a
 * 128-bit division would call into libgcc, which an image does not have), and overflow checks. */
#ifndef KIT_RT_BITS_H
#define KIT_RT_BITS_H

#include <unikit/rt/types.h>

#define kit_add_overflow(a, b, result) __builtin_add_overflow((a), (b), (result))
#define kit_mul_overflow(a, b, result) __builtin_mul_overflow((a), (b), (result))

/* Index of the lowest / highest set bit; word != 0. */
KIT_INLINE unsigned kit_ctz64(uint64_t word)
{
    return (unsigned)__builtin_ctzll(word);
}

KIT_INLINE unsigned kit_fls64(uint64_t word)
{
    return 63u - (unsigned)__builtin_clzll(word);
}

KIT_INLINE unsigned kit_popcount64(uint64_t word)
{
    word -= (word >> 1) & UINT64_C(0x5555555555555555);
    word = (word & UINT64_C(0x3333333333333333)) + ((word >> 2) & UINT64_C(0x3333333333333333));
    word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)((word * UINT64_C(0x0101010101010101)) >> 56);
}

KIT_INLINE bool kit_is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Rounding to a power of two `align`; the caller made sure that up does not overflow. */
KIT_INLINE uintptr_t kit_align_up(uintptr_t value, size_t align)
{
    return (value + align - 1) & ~(uintptr_t)(align - 1);
}

KIT_INLINE uintptr_t kit_align_down(uintptr_t value, size_t align)
{
    return value & ~(uintptr_t)(align - 1);
}

#endif
