/* SPDX-License-Identifier: MIT */
/* The five memory functions for images. General registers only, so that a call from an image needs
 * no vector state; sizes up to a few cache lines go by overlapping words, larger ones by rep movsb
 * and rep stosb, which processors with ERMS (2012 and later) run at up to a line per cycle after a
 * start of some 30 cycles. The thresholds are where the two met when measured on an EPYC: 16 bytes
 * a turn against movsb at about 1 KiB (22 ns), 8 against stosb at 512 (11 ns); at 6 KiB the string
 * instructions are 3 to 5 times faster (tests/rt/bench_string.c).
 *
 * Compile without LTO (the compiler emits calls to these after it has looked at definitions) and
 * with -fno-tree-loop-distribute-patterns (which would turn the loops into calls to themselves).
 * The names stand in parentheses because types.h makes macros of them. */
#include <unikit/rt/types.h>

enum { WORD = 8, PAIR = 2 * WORD, COPY_THRESHOLD = 1024, SET_THRESHOLD = 512 };

typedef uint64_t __attribute__((may_alias, aligned(1))) word64;
typedef uint32_t __attribute__((may_alias, aligned(1))) word32;
typedef uint16_t __attribute__((may_alias, aligned(1))) word16;

#define W64(p) (*(word64 *)(void *)(p))
#define W32(p) (*(word32 *)(void *)(p))
#define W16(p) (*(word16 *)(void *)(p))
#define R64(p) (*(const word64 *)(const void *)(p))
#define R32(p) (*(const word32 *)(const void *)(p))
#define R16(p) (*(const word16 *)(const void *)(p))

/* Below 16 bytes: everything is read before anything is written, so overlap does not matter. */
static inline void copy_short(unsigned char *to, const unsigned char *from, size_t size)
{
    if (size >= 8) {
        uint64_t head = R64(from), tail = R64(from + size - 8);
        W64(to) = head;
        W64(to + size - 8) = tail;
    } else if (size >= 4) {
        uint32_t head = R32(from), tail = R32(from + size - 4);
        W32(to) = head;
        W32(to + size - 4) = tail;
    } else if (size >= 2) {
        uint16_t head = R16(from), tail = R16(from + size - 2);
        W16(to) = head;
        W16(to + size - 2) = tail;
    } else if (size == 1) {
        *to = *from;
    }
}

/* From low to high addresses; right if `to` lies below `from` or the two do not overlap. */
static inline void copy_up(unsigned char *to, const unsigned char *from, size_t size)
{
    if (size < PAIR) {
        copy_short(to, from, size);
        return;
    }
    if (size >= COPY_THRESHOLD) {
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
        return;
    }
    /* The last pair is read first: an overlapping loop may write over it. */
    uint64_t tail0 = R64(from + size - PAIR), tail1 = R64(from + size - WORD);
    unsigned char *end = to + size;
    for (size_t left = size; left > PAIR; left -= PAIR, to += PAIR, from += PAIR) {
        uint64_t a = R64(from), b = R64(from + WORD);
        W64(to) = a;
        W64(to + WORD) = b;
    }
    W64(end - PAIR) = tail0;
    W64(end - WORD) = tail1;
}

static inline void copy_down(unsigned char *to, const unsigned char *from, size_t size)
{
    if (size < PAIR) {
        copy_short(to, from, size);
        return;
    }
    uint64_t head0 = R64(from), head1 = R64(from + WORD);
    for (size_t left = size; left > PAIR; left -= PAIR) {
        uint64_t a = R64(from + left - WORD), b = R64(from + left - PAIR);
        W64(to + left - WORD) = a;
        W64(to + left - PAIR) = b;
    }
    W64(to) = head0;
    W64(to + WORD) = head1;
}

void *(memcpy)(void *restrict to, const void *restrict from, size_t size)
{
    copy_up(to, from, size);
    return to;
}

void *(memmove)(void *to, const void *from, size_t size)
{
    if ((uintptr_t)to - (uintptr_t)from >= size)
        copy_up(to, from, size);
    else
        copy_down(to, from, size);
    return to;
}

void *(memset)(void *to, int byte, size_t size)
{
    unsigned char *at = to;
    uint64_t word = (unsigned char)byte * UINT64_C(0x0101010101010101);
    if (size >= SET_THRESHOLD) {
        __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
    } else if (size >= 8) {
        unsigned char *last = at + size - WORD;
        for (; at < last; at += WORD)
            W64(at) = word;
        W64(last) = word;
    } else if (size >= 4) {
        W32(at) = (uint32_t)word;
        W32(at + size - 4) = (uint32_t)word;
    } else if (size != 0) {
        at[0] = at[size - 1] = at[size / 2] = (unsigned char)byte;
    }
    return to;
}

int (memcmp)(const void *a, const void *b, size_t size)
{
    const unsigned char *x = a, *y = b;
    for (; size >= WORD; x += WORD, y += WORD, size -= WORD) {
        uint64_t p = R64(x), q = R64(y);
        if (p != q) {
            p = __builtin_bswap64(p);
            q = __builtin_bswap64(q);
            return p < q ? -1 : 1;
        }
    }
    for (; size != 0; x++, y++, size--)
        if (*x != *y)
            return *x < *y ? -1 : 1;
    return 0;
}

size_t (strlen)(const char *text)
{
    const char *end = text;
    while (*end != '\0')
        end++;
    return (size_t)(end - text);
}
