/* SPDX-License-Identifier: MIT */
/* Runs the allocator suite on one component over another: -DOUTER=kit_alloc_NAME
 * -DINNER=kit_alloc_NAME -DFEATURES=bits, options of the outer one from the command line. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/testing/suite_alloc.h>

extern const struct kit_alloc_component OUTER, INNER;

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test, what);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {24000, 65536, 262144};
    static const uint64_t inner[4] = {INNER_OPTION};
    uint64_t outer[16] = {0};
    for (int i = 1; i < argc && i <= 16; i++)
        outer[i - 1] = strtoull(argv[i], NULL, 0);
    const struct kit_alloc_choice choices[] = {{&OUTER, outer}, {&INNER, inner}};
    struct kit_report report = {.fail = on_fail};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t offset = 0; offset < 16; offset += 5) {
            char *memory = malloc(sizes[i] + offset);
            int result =
                kit_suite_alloc_layers(choices, 2, FEATURES, memory + offset, sizes[i], &report);
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
