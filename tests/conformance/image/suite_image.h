/* SPDX-License-Identifier: MIT */
/* What the applications of this folder share: they run a conformance suite inside an image, say
 * what it found on the console, and end the image with 0 if the component conforms. */
#ifndef KIT_TESTS_SUITE_IMAGE_H
#define KIT_TESTS_SUITE_IMAGE_H

#include <unikit/app.h>
#include <unikit/image/runtime/runtime.h>
#include <unikit/testing/suite.h>

#ifndef OPTIONS
#define OPTIONS 0
#endif
/* The component's options, as words; one more, so that there is always one. */
static const uint64_t suite_options[] = {OPTIONS, 0};

static void suite_fail(void *context, const char *test, const char *file, int line,
                       const char *what)
{
    (void)context;
    kit_log("FAILED %s:%d: %s: %s", file, line, test, what);
}

static _Noreturn void suite_end(const struct kit_report *report, int result)
{
    kit_log("%llu tests, %llu checks, result %d", (unsigned long long)report->tests,
            (unsigned long long)report->checks, result);
    kit_exit(result != 0);
}

#endif
