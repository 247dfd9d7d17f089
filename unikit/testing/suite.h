/* SPDX-License-Identifier: MIT */
/* The report interface of the conformance suites.
 *
 * A suite is portable freestanding C (`suite_<domain>.c`, its entry in `suite_<domain>.h`): the
 * same file runs in a sanitizer executable, in the extension unikit.testing._suites, and in an
 * image. It gets the component as pointers, keeps its own state on the stack or in memory that the
 * caller passes, and tells what it finds through a kit_report. An entry looks like
 *
 *     int kit_suite_alloc(const struct kit_alloc_component *component, const uint64_t *options,
 *                         void *memory, size_t size, struct kit_report *report);
 *
 * and returns the number of checks that failed during this call, 0 if the component conforms; or a
 * KIT_E... code if the suite itself could not run (KIT_ENOMEM: `size` is too small for it).
 * A component that panics ends the suite: in a process the guarded entry returns KIT_EPANIC. */
#ifndef KIT_TESTING_SUITE_H
#define KIT_TESTING_SUITE_H

#include <unikit/rt/types.h>

/* cdef: begin */
struct kit_report {
    void *context; /* handed to the two calls */
    /* optional: the test of that name begins. */
    void (*begin)(void *context, const char *test);
    /* optional: a check failed. The texts are valid during the call only. */
    void (*fail)(void *context, const char *test, const char *file, int line, const char *what);
    const char *test; /* the test that runs, never NULL once one has begun */
    uint64_t tests;   /* begun so far */
    uint64_t checks;  /* made so far */
    int failures;     /* so far */
};
/* cdef: end */

KIT_INLINE void kit_report_begin(struct kit_report *report, const char *test)
{
    report->test = test;
    report->tests++;
    if (report->begin)
        report->begin(report->context, test);
}

/* Counts a check; a failed one is passed on. Returns `passed`. */
KIT_INLINE bool kit_report_check(struct kit_report *report, bool passed, const char *file, int line,
                                 const char *what)
{
    report->checks++;
    if (KIT_LIKELY(passed))
        return true;
    report->failures++;
    if (report->fail)
        report->fail(report->context, report->test ? report->test : "", file, line, what);
    return false;
}

/* Appends text to a buffer of `size` bytes that holds `used`; cuts, keeps a NUL. */
KIT_INLINE size_t kit_report_append(char *buffer, size_t size, size_t used, const char *text)
{
    while (*text && used + 1 < size)
        buffer[used++] = *text++;
    buffer[used] = '\0';
    return used;
}

KIT_INLINE size_t kit_report_number(char *buffer, size_t size, size_t used, int64_t value)
{
    char digits[24];
    size_t at = sizeof digits - 1;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        digits[--at] = '-';
    return kit_report_append(buffer, size, used, digits + at);
}

/* As kit_report_check for two numbers; a failure shows both. */
KIT_INLINE bool kit_report_equal(struct kit_report *report, int64_t got, int64_t wanted,
                                 const char *file, int line, const char *what)
{
    if (KIT_LIKELY(got == wanted))
        return kit_report_check(report, true, file, line, what);
    char text[200];
    size_t used = kit_report_append(text, sizeof text, 0, what);
    used = kit_report_append(text, sizeof text, used, ": ");
    used = kit_report_number(text, sizeof text, used, got);
    used = kit_report_append(text, sizeof text, used, ", not ");
    kit_report_number(text, sizeof text, used, wanted);
    return kit_report_check(report, false, file, line, text);
}

/* Names the test that the following checks belong to; say the behaviour. */
#define KIT_TEST(report, name) kit_report_begin((report), (name))
/* Checks a condition and goes on; its value is the condition. */
#define KIT_CHECK(report, condition)                                                               \
    kit_report_check((report), (condition), __FILE__, __LINE__, #condition)
/* The same with a text of one's own instead of the condition's. */
#define KIT_CHECK_SAYS(report, condition, text)                                                    \
    kit_report_check((report), (condition), __FILE__, __LINE__, (text))
/* Checks that two integers are equal; a failure shows both. */
#define KIT_CHECK_EQUAL(report, got, wanted)                                                       \
    kit_report_equal((report), (int64_t)(got), (int64_t)(wanted), __FILE__, __LINE__,              \
                     #got " == " #wanted)
/* Checks a condition and leaves the (void) function if it does not hold. */
#define KIT_REQUIRE(report, condition)                                                             \
    do {                                                                                           \
        if (!KIT_CHECK((report), (condition)))                                                     \
            return;                                                                                \
    } while (0)

/* The next number of a reproducible sequence; any seed will do, 0 too.
 * Source: SplitMix64; Steele, Lea, Flood, OOPSLA 2014. */
KIT_INLINE uint64_t kit_suite_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
