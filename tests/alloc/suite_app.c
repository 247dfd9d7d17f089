/* SPDX-License-Identifier: MIT */
/* An application that runs the allocator suite on the image's own allocator, with direct dispatch:
 * here no operation goes through a table, and open() stores none. */
#include <unikit/app.h>
#include <unikit/testing/suite_alloc.h>

enum { SIZE = 200000 };

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    kit_log("FAILED %s:%d: %s: %s", file, line, test, what);
}

int init_application(void)
{
    static const uint64_t options[] = {OPTIONS};
    struct kit_report report = {.fail = on_fail};
    char *memory = kit_memory_alloc(SIZE, 0);
    if (memory == NULL)
        return 3;
    int result = kit_suite_alloc(&KIT_SOLE_ALLOC, options, memory + 8, SIZE - 8, &report);
    kit_log("%llu checks, result %d", (unsigned long long)report.checks, result);
    return result != 0;
}
