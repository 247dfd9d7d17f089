/* SPDX-License-Identifier: MIT */
/* Runs the scheduler suite on -DCOMPONENT=kit_sched_NAME, options from the command line, with guard
 * pages and without. */
#include "../sched/hosted.h"

#include <unikit/testing/suite_sched.h>

extern const struct kit_sched_component COMPONENT;

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test, what);
}

int main(int argc, char **argv)
{
    static struct kit_virtual clock;
    uint64_t options[16] = {0};
    struct kit_report report = {.fail = on_fail};
    for (int i = 1; i < argc && i <= 16; i++)
        options[i - 1] = strtoull(argv[i], NULL, 0);
    for (int guard = 0; guard < 2; guard++) {
        kit_virtual_open(&clock, NULL, 0, 1);
        clock.env.page_protect = guard ? hosted_protect : NULL;
        if (kit_suite_sched(&COMPONENT, options, &hosted_heap, &clock, &report) < 0)
            return 2;
    }
    printf("%llu tests, %llu checks, %d failures\n", (unsigned long long)report.tests,
           (unsigned long long)report.checks, report.failures);
    return report.failures != 0 || hosted_blocks != 0;
}
