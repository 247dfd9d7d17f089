/* SPDX-License-Identifier: MIT */
/* Runs the suite for several processors on -DCOMPONENT=kit_sched_NAME: processors, rounds, then the
 * options from the command line. */
#include "host_cpus.h"

#include <unikit/testing/suite_sched_cpus.h>

extern const struct kit_sched_component COMPONENT;

static void on_begin(void *context, const char *test)
{
    (void)context;
    if (getenv("VERBOSE"))
        fprintf(stderr, "%s\n", test);
}

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test, what);
}

int main(int argc, char **argv)
{
    static runtime_environment_t env;
    uint64_t options[16] = {0};
    struct kit_report report = {.begin = on_begin, .fail = on_fail};
    uint32_t cpus = argc > 1 ? (uint32_t)atoi(argv[1]) : 2;
    uint32_t rounds = argc > 2 ? (uint32_t)atoi(argv[2]) : 1;
    for (int i = 3; i < argc && i < 19; i++)
        options[i - 3] = strtoull(argv[i], NULL, 0);
    host_open(&env, cpus < HOST_CPUS ? cpus : HOST_CPUS);
    int result = kit_suite_sched_cpus(&COMPONENT, options, &host_heap, &env, rounds, &report);
    printf("%llu tests, %llu checks, result %d\n", (unsigned long long)report.tests,
           (unsigned long long)report.checks, result);
    fflush(stdout);
    quick_exit(result != 0); /* the other processors sleep for ever */
}
