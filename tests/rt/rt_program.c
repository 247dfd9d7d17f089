/* SPDX-License-Identifier: MIT */
/* Runs rt/format.c and rt/string.c against libc as the reference, in one hosted program. The
 * functions under test are renamed (kit_memcpy ...), so that libc's stay in place. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <unikit/rt/date.h>
#include <unikit/rt/format.h>
#include <unikit/rt/x86_64/cpu.h>

void *kit_memcpy(void *to, const void *from, size_t size);
void *kit_memmove(void *to, const void *from, size_t size);
void *kit_memset(void *to, int byte, size_t size);
int kit_memcmp(const void *a, const void *b, size_t size);
size_t kit_strlen(const char *text);

static int failures;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                 \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

_Noreturn void kit_panic(const char *message)
{
    printf("panic: %s\n", message);
    exit(3);
}

static uint64_t state = 1;

static uint64_t next(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Two pages with an unmapped one behind them: a byte read or written too far is a fault. */
enum { SPACE = 8192 };

static unsigned char *guarded(void)
{
    unsigned char *base =
        mmap(NULL, SPACE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + SPACE, 4096, PROT_NONE) != 0)
        exit(4);
    return base;
}

static size_t some_size(void)
{
    static const size_t limits[] = {4, 17, 40, 300, 1100, 3000};
    return next() % limits[next() % 6];
}

static void test_moves(unsigned char *space, unsigned char *mirror)
{
    for (int round = 0; round < 60000; round++) {
        size_t size = some_size();
        /* Half of the time at the very end of the mapping. */
        size_t to = next() % 2 ? SPACE - size : next() % (SPACE - size);
        size_t from = next() % 4 == 0 ? SPACE - size
                      : next() % 2    ? (to + SPACE - next() % 64) % (SPACE - size)
                                      : next() % (SPACE - size);
        memcpy(mirror, space, SPACE);
        memmove(mirror + to, mirror + from, size);
        bool apart = to + size <= from || from + size <= to;
        void *result = apart && next() % 2 ? kit_memcpy(space + to, space + from, size)
                                           : kit_memmove(space + to, space + from, size);
        CHECK(result == space + to, "result");
        CHECK(memcmp(space, mirror, SPACE) == 0, "move %zu from %zu to %zu", size, from, to);
        space[next() % SPACE] = (unsigned char)next();
    }
}

static void test_set(unsigned char *space, unsigned char *mirror)
{
    for (int round = 0; round < 20000; round++) {
        size_t size = some_size(), at = next() % 2 ? SPACE - size : next() % (SPACE - size);
        int byte = (int)next();
        memcpy(mirror, space, SPACE);
        memset(mirror + at, byte, size);
        CHECK(kit_memset(space + at, byte, size) == space + at, "result");
        CHECK(memcmp(space, mirror, SPACE) == 0, "set %zu at %zu", size, at);
    }
}

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

static void test_compare(unsigned char *a, unsigned char *b)
{
    for (int round = 0; round < 30000; round++) {
        size_t size = some_size();
        unsigned char *x = a + SPACE - size, *y = b + SPACE - size;
        for (size_t i = 0; i < size; i++)
            x[i] = y[i] = (unsigned char)next();
        if (size != 0 && next() % 4 != 0)
            y[next() % size] ^= (unsigned char)(1u << next() % 8);
        CHECK(sign(kit_memcmp(x, y, size)) == sign(memcmp(x, y, size)), "compare %zu", size);
        if (size != 0) {
            x[size - 1] = 0;
            CHECK(kit_strlen((char *)x) == strlen((char *)x), "length %zu", size);
        }
    }
}

/* Every specifier with random flags, width and value, into buffers of every small size. */
#define BOTH(type, conversion, value)                                                              \
    do {                                                                                           \
        int wanted = snprintf(reference, sizeof reference, format, (type)(value));                 \
        char *buffer = malloc(room ? room : 1);                                                    \
        size_t got = kit_format(buffer, room, format, (type)(value));                              \
        CHECK(got == (size_t)wanted, "%s: length %zu, not %d", format, got, wanted);               \
        if (room != 0) {                                                                           \
            size_t kept = got < room ? got : room - 1;                                             \
            CHECK(memcmp(buffer, reference, kept) == 0 && buffer[kept] == '\0', "%s: [%.*s] [%s]", \
                  format, (int)kept, buffer, reference);                                           \
        }                                                                                          \
        free(buffer);                                                                              \
    } while (0)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
static void test_numbers(void)
{
    static const char *const modifiers[] = {"", "l", "ll", "z", "j"};
    static const char conversions[] = "diuxX";
    char reference[256], format[32];
    for (int round = 0; round < 60000; round++) {
        char conversion = conversions[next() % 5];
        unsigned modifier = next() % 5;
        const char *flag = next() % 3 == 0 ? "-" : next() % 2 ? "0" : "";
        char width[8] = "";
        if (next() % 2)
            snprintf(width, sizeof width, "%u", (unsigned)(1 + next() % 30));
        snprintf(format, sizeof format, "<%%%s%s%s%c>", flag, width, modifiers[modifier],
                 conversion);
        uint64_t value = next() >> next() % 64;
        value = next() % 20 == 0 ? UINT64_C(1) << 63 : next() % 4 == 0 ? 0 - value : value;
        size_t room = next() % 50;
        if (modifier == 0)
            BOTH(unsigned, conversion, value);
        else
            BOTH(uint64_t, conversion, value);
    }
}

static void test_texts(void)
{
    static const char *const formats[] = {"%s",       "%.3s", "%10s|", "%-10s|",
                                          "%-10.2s|", "%3s",  "%.0s"};
    static const char *const texts[] = {"", "a", "hello", "a longer text than any width"};
    char reference[256];
    for (size_t f = 0; f < KIT_ARRAY_SIZE(formats); f++)
        for (size_t t = 0; t < KIT_ARRAY_SIZE(texts); t++)
            for (size_t room = 0; room < 40; room++) {
                const char *format = formats[f];
                BOTH(const char *, s, texts[t]);
            }
    char open_end[3] = {'a', 'b', 'c'}, buffer[8];
    CHECK(kit_format(buffer, sizeof buffer, "%.3s", open_end) == 3, "no NUL behind a precision");
    CHECK(memcmp(buffer, "abc", 4) == 0, "%s", buffer);
    const char *absent = buffer[0] ? NULL : "x";
    CHECK(kit_format(buffer, sizeof buffer, "%s", absent) == 6, "NULL is (null)");
    CHECK(kit_format(buffer, sizeof buffer, "%c%%%3c%-3c|", 'x', 'y', 'z') == 9, "characters");
    CHECK(memcmp(buffer, "x%  yz ", 8) == 0, "%s", buffer);
    CHECK(kit_format(buffer, sizeof buffer, "%p", (void *)0x12ab) == 6, "pointer");
    CHECK(memcmp(buffer, "0x12ab", 7) == 0, "%s", buffer);
}
#pragma GCC diagnostic pop

static void test_dates(void)
{
    for (uint64_t day = 0; day < 200000; day++) {
        time_t at = (time_t)(day * 86400 + next() % 86400);
        struct tm reference;
        gmtime_r(&at, &reference);
        struct kit_date date = kit_date_of((uint64_t)at);
        CHECK(date.year == (uint32_t)reference.tm_year + 1900 &&
                  date.month == reference.tm_mon + 1 && date.day == reference.tm_mday &&
                  date.hour == reference.tm_hour && date.minute == reference.tm_min &&
                  date.second == reference.tm_sec && date.weekday == reference.tm_wday,
              "%" PRIu64, day);
    }
}

static void test_features(void)
{
    uint64_t have = kit_cpu_detect();
    CHECK(!(have & KIT_CPU_SSE4_2) == !__builtin_cpu_supports("sse4.2"), "sse4.2");
    CHECK(!(have & KIT_CPU_POPCNT) == !__builtin_cpu_supports("popcnt"), "popcnt");
    CHECK(!(have & KIT_CPU_AVX) == !__builtin_cpu_supports("avx"), "avx");
    CHECK(!(have & KIT_CPU_AVX2) == !__builtin_cpu_supports("avx2"), "avx2");
    CHECK(!(have & KIT_CPU_BMI2) == !__builtin_cpu_supports("bmi2"), "bmi2");
    CHECK(!(have & KIT_CPU_AES) == !__builtin_cpu_supports("aes"), "aes");
    CHECK(!(have & KIT_CPU_PCLMUL) == !__builtin_cpu_supports("pclmul"), "pclmul");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    CHECK(!(have & KIT_CPU_AVX512) == !avx512, "avx512");
    const struct kit_cpuid all = {~0u, ~0u, ~0u, ~0u}, none = {0, 0, 0, 0};
    CHECK(kit_cpu_features_of(none, none, none, none, ~UINT64_C(0)) == 0, "none");
    uint64_t vector = KIT_CPU_AVX | KIT_CPU_AVX2 | KIT_CPU_FMA | KIT_CPU_F16C | KIT_CPU_AVX512;
    uint64_t every = kit_cpu_features_of(all, all, all, all, 0xe7);
    CHECK(every == (UINT64_C(1) << 29) - 1, "%" PRIx64, every);
    CHECK(kit_cpu_features_of(all, all, all, all, 7) == (every & ~KIT_CPU_AVX512), "no ZMM");
    CHECK(kit_cpu_features_of(all, all, all, all, 3) == (every & ~vector), "no YMM");
}

int main(int argc, char **argv)
{
    unsigned char *a = guarded(), *b = guarded();
    if (argc > 1) {
        char buffer[8];
        kit_format(buffer, sizeof buffer, argv[1], 1);
        return 1;
    }
    for (size_t i = 0; i < SPACE; i++)
        a[i] = (unsigned char)next();
    test_moves(a, b);
    test_set(a, b);
    test_compare(a, b);
    test_numbers();
    test_texts();
    test_dates();
    test_features();
    return failures != 0;
}
