/* SPDX-License-Identifier: MIT */
/* What C cannot say about the processor: feature bits, time stamp, pauses and barriers. Everything
 * here works at CPL 3. The feature word is computed once, by the platform, and travels in
 * env->cpu_features; a bit is set only if the instructions may be used at the image's privilege
 * (AVX: the state is enabled in XCR0 as well).
 * Source: Intel SDM volume 2A, CPUID; volume 1, section 13.3 for XCR0. */
#ifndef KIT_RT_X86_64_CPU_H
#define KIT_RT_X86_64_CPU_H

#include <unikit/rt/types.h>

#define KIT_CPU_SSE3 (UINT64_C(1) << 0)
#define KIT_CPU_SSSE3 (UINT64_C(1) << 1)
#define KIT_CPU_SSE4_1 (UINT64_C(1) << 2)
#define KIT_CPU_SSE4_2 (UINT64_C(1) << 3)
#define KIT_CPU_POPCNT (UINT64_C(1) << 4)
#define KIT_CPU_PCLMUL (UINT64_C(1) << 5)
#define KIT_CPU_AES (UINT64_C(1) << 6)
#define KIT_CPU_CX16 (UINT64_C(1) << 7)
#define KIT_CPU_MOVBE (UINT64_C(1) << 8)
#define KIT_CPU_AVX (UINT64_C(1) << 9)
#define KIT_CPU_FMA (UINT64_C(1) << 10)
#define KIT_CPU_F16C (UINT64_C(1) << 11)
#define KIT_CPU_AVX2 (UINT64_C(1) << 12)
#define KIT_CPU_AVX512 (UINT64_C(1) << 13) /* F, BW, DQ and VL together */
#define KIT_CPU_BMI1 (UINT64_C(1) << 14)
#define KIT_CPU_BMI2 (UINT64_C(1) << 15)
#define KIT_CPU_LZCNT (UINT64_C(1) << 16)
#define KIT_CPU_ADX (UINT64_C(1) << 17)
#define KIT_CPU_SHA (UINT64_C(1) << 18)
#define KIT_CPU_ERMS (UINT64_C(1) << 19) /* rep movsb/stosb are fast */
#define KIT_CPU_FSRM (UINT64_C(1) << 20) /* short ones too */
#define KIT_CPU_RDRAND (UINT64_C(1) << 21)
#define KIT_CPU_RDSEED (UINT64_C(1) << 22)
#define KIT_CPU_RDTSCP (UINT64_C(1) << 23)
#define KIT_CPU_INVARIANT_TSC (UINT64_C(1) << 24)
#define KIT_CPU_FSGSBASE (UINT64_C(1) << 25)
#define KIT_CPU_XSAVE (UINT64_C(1) << 26)
#define KIT_CPU_WAITPKG (UINT64_C(1) << 27)
#define KIT_CPU_CLFLUSHOPT (UINT64_C(1) << 28)

struct kit_cpuid {
    uint32_t eax, ebx, ecx, edx;
};

KIT_INLINE struct kit_cpuid kit_cpu_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct kit_cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

/* XCR0; only where CPUID.1:ECX.OSXSAVE is set. */
KIT_INLINE uint64_t kit_cpu_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* The feature word of CPUID's answers; pure, so that a VMM can compute a guest's word from the
 * CPUID table it gives the guest. xcr0: 0 without OSXSAVE. */
KIT_INLINE uint64_t kit_cpu_features_of(struct kit_cpuid leaf1, struct kit_cpuid leaf7,
                                        struct kit_cpuid extended1, struct kit_cpuid extended7,
                                        uint64_t xcr0)
{
    const uint32_t words[] = {leaf1.ecx,     leaf7.ebx,     leaf7.ecx,    leaf7.edx,
                              extended1.ecx, extended1.edx, extended7.edx};
    static const struct {
        uint8_t word;
        uint8_t bit;
        uint8_t feature; /* the bit number of KIT_CPU_... */
    } table[] = {
        {0, 0, 0},   /* SSE3 */
        {0, 1, 5},   /* PCLMUL */
        {0, 9, 1},   /* SSSE3 */
        {0, 13, 7},  /* CX16 */
        {0, 19, 2},  /* SSE4_1 */
        {0, 20, 3},  /* SSE4_2 */
        {0, 22, 8},  /* MOVBE */
        {0, 23, 4},  /* POPCNT */
        {0, 25, 6},  /* AES */
        {0, 27, 26}, /* XSAVE */
        {0, 30, 21}, /* RDRAND */
        {1, 0, 25},  /* FSGSBASE */
        {1, 3, 14},  /* BMI1 */
        {1, 8, 15},  /* BMI2 */
        {1, 9, 19},  /* ERMS */
        {1, 18, 22}, /* RDSEED */
        {1, 19, 17}, /* ADX */
        {1, 23, 28}, /* CLFLUSHOPT */
        {1, 29, 18}, /* SHA */
        {2, 5, 27},  /* WAITPKG */
        {3, 4, 20},  /* FSRM */
        {4, 5, 16},  /* LZCNT */
        {5, 27, 23}, /* RDTSCP */
        {6, 8, 24},  /* INVARIANT_TSC */
    };
    uint64_t features = 0;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(table); i++)
        features |= (uint64_t)(words[table[i].word] >> table[i].bit & 1) << table[i].feature;
    const uint64_t ymm = 0x6, zmm = 0xe6; /* XCR0: SSE and AVX; opmask and the ZMM halves too */
    if ((xcr0 & ymm) == ymm && (leaf1.ecx >> 28 & 1)) {
        features |= KIT_CPU_AVX;
        features |= leaf1.ecx >> 12 & 1 ? KIT_CPU_FMA : 0;
        features |= leaf1.ecx >> 29 & 1 ? KIT_CPU_F16C : 0;
        features |= leaf7.ebx >> 5 & 1 ? KIT_CPU_AVX2 : 0;
        const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F DQ BW VL */
        if ((xcr0 & zmm) == zmm && (leaf7.ebx & avx512) == avx512)
            features |= KIT_CPU_AVX512;
    }
    return features;
}

/* The feature word of the processor this runs on. Where CPUID traps (a guest, ring 3 of some
 * hypervisors) each question costs microseconds: ask once, on the host side if there is one. */
KIT_INLINE uint64_t kit_cpu_detect(void)
{
    const struct kit_cpuid none = {0, 0, 0, 0};
    uint32_t leaves = kit_cpu_cpuid(0, 0).eax;
    uint32_t extended = kit_cpu_cpuid(UINT32_C(0x80000000), 0).eax;
    struct kit_cpuid leaf1 = kit_cpu_cpuid(1, 0);
    return kit_cpu_features_of(
        leaf1, leaves >= 7 ? kit_cpu_cpuid(7, 0) : none,
        extended >= UINT32_C(0x80000001) ? kit_cpu_cpuid(UINT32_C(0x80000001), 0) : none,
        extended >= UINT32_C(0x80000007) ? kit_cpu_cpuid(UINT32_C(0x80000007), 0) : none,
        leaf1.ecx >> 27 & 1 ? kit_cpu_xcr0() : 0);
}

/* The time stamp counter. Not ordered with other instructions. */
KIT_INLINE uint64_t kit_cpu_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* As kit_cpu_tsc, but reads after every earlier load has completed. */
KIT_INLINE uint64_t kit_cpu_tsc_ordered(void)
{
    __asm__ volatile("lfence" ::: "memory");
    return kit_cpu_tsc();
}

/* Inside a spin loop. */
KIT_INLINE void kit_cpu_pause(void)
{
    __builtin_ia32_pause();
}

/* Keeps the compiler, not the processor, from moving memory accesses across. */
KIT_INLINE void kit_cpu_barrier(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Makes the value of `word` unknown to the optimiser and used: for benchmarks and tests. */
KIT_INLINE uintptr_t kit_cpu_opaque(uintptr_t word)
{
    __asm__ volatile("" : "+r"(word)::"memory");
    return word;
}

/* ticks * multiplier / 2^shift in 128 bits without a library call: how a platform turns TSC ticks
 * into ns. shift <= 63. */
KIT_INLINE uint64_t kit_cpu_scale(uint64_t ticks, uint64_t multiplier, unsigned shift)
{
    return (uint64_t)((unsigned __int128)ticks * multiplier >> shift);
}

#endif
