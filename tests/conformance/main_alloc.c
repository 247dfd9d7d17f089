/* SPDX-License-Identifier: MIT */
/* Runs the allocator suite on -DCOMPONENT=kit_alloc_NAME, options from the command line, in memory
 * of several sizes and alignments that the host's allocator guards at both ends. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/testing/suite_alloc.h>

extern const struct kit_alloc_component COMPONENT;

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test, what);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {16384, 20000, 65536, 262144, 1048576 + 24};
    uint64_t options[16] = {0};
    for (int i = 1; i < argc && i <= 16; i++)
        options[i - 1] = strtoull(argv[i], NULL, 0);
    struct kit_report report = {.fail = on_fail};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t offset = 0; offset < 16; offset += 5) {
            char *memory = malloc(sizes[i] + offset);
            int result = kit_suite_alloc(&COMPONENT, options, memory + offset, sizes[i], &report);
            free(memory);
            if (result < 0) {
                fprintf(stderr, "%zu bytes: code %d\n", sizes[i], result);
                return 2;
            }
        }
    printf("%llu tests, %llu checks, %d failures\n", (unsigned long long)report.tests,
           (unsigned long long)report.checks, report.failures);
    return report.failures != 0;
}
