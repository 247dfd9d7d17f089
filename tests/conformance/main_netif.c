/* SPDX-License-Identifier: MIT */
/* Runs the interface suite on -DCOMPONENT=kit_netif_NAME, options from the command line. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/testing/suite_netif.h>

extern const struct kit_netif_component COMPONENT;

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test, what);
}

int main(int argc, char **argv)
{
    uint64_t options[16] = {0};
    for (int i = 1; i < argc && i <= 16; i++)
        options[i - 1] = strtoull(argv[i], NULL, 0);
    struct kit_report report = {.fail = on_fail};
    size_t size = COMPONENT.memory_size(options);
    void *memory = aligned_alloc(64, (size + 4096) & ~(size_t)63);
    int result = kit_suite_netif(&COMPONENT, options, memory, (size + 4032) & ~(size_t)63, &report);
    free(memory);
    if (result < 0) {
        fprintf(stderr, "code %d\n", result);
        return 2;
    }
    printf("%llu tests, %llu checks, %d failures\n", (unsigned long long)report.tests,
           (unsigned long long)report.checks, report.failures);
    return report.failures != 0;
}
