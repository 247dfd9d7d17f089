/* SPDX-License-Identifier: MIT */
/* Runs the allocator suite on the very choice that this image is composed of. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/testing/suite_alloc.h>

enum { SIZE = 200000 };

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    kit_log("FAILED %s:%d: %s: %s", file, line, test, what);
}

int init_application(void)
{
    struct kit_report report = {.fail = on_fail};
    char *memory = kit_memory_alloc(SIZE, 0);
    if (memory == NULL)
        return 3;
    int result = kit_suite_alloc_layers(kit_composition.alloc, kit_composition.alloc_count,
                                        FEATURES, memory, SIZE, &report);
    kit_log("%llu checks, result %d", (unsigned long long)report.checks, result);
    return result != 0;
}
