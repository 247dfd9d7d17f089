/* SPDX-License-Identifier: MIT */
/* Finds the size at which rep movsb/stosb overtake words: prints ns per call for both. Build:
 *   gcc -O2 -mgeneral-regs-only -fno-tree-loop-distribute-patterns -fno-builtin -o bench
 * bench_string.c */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef uint64_t __attribute__((may_alias, aligned(1))) word64;

static void words(unsigned char *to, const unsigned char *from, size_t size)
{
    for (size_t i = 0; i + 16 <= size; i += 16) {
        uint64_t a = *(const word64 *)(from + i), b = *(const word64 *)(from + i + 8);
        *(word64 *)(to + i) = a;
        *(word64 *)(to + i + 8) = b;
    }
}

static void string(unsigned char *to, const unsigned char *from, size_t size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
}

static void set_words(unsigned char *to, const unsigned char *from, size_t size)
{
    uint64_t word = from[0] * UINT64_C(0x0101010101010101);
    for (size_t i = 0; i + 8 <= size; i += 8)
        *(word64 *)(to + i) = word;
}

static void set_string(unsigned char *to, const unsigned char *from, size_t size)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(from[0]) : "memory");
}

static double measure(void (*copy)(unsigned char *, const unsigned char *, size_t),
                      unsigned char *to, unsigned char *from, size_t size)
{
    double best = 1e9;
    const int rounds = size > 4096 ? 2000 : 50000;
    for (int run = 0; run < 7; run++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int i = 0; i < rounds; i++)
            copy(to + (i & 7), from, size);
        clock_gettime(CLOCK_MONOTONIC, &b);
        double ns =
            ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / rounds;
        best = ns < best ? ns : best;
    }
    return best;
}

int main(void)
{
    static unsigned char a[1 << 17] __attribute__((aligned(64)));
    static unsigned char b[1 << 17] __attribute__((aligned(64)));
    memset(a, 1, sizeof a);
    memset(b, 2, sizeof b);
    printf("%8s %10s %10s %10s %10s\n", "bytes", "copy words", "movsb", "set words", "stosb");
    for (size_t size = 32; size <= 65536; size = size < 1024 ? size + size / 2 / 16 * 16 : size * 2)
        printf("%8zu %10.1f %10.1f %10.1f %10.1f\n", size, measure(words, a, b, size),
               measure(string, a, b, size), measure(set_words, a, b, size),
               measure(set_string, a, b, size));
    return 0;
}
