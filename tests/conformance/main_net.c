/* SPDX-License-Identifier: MIT */
/* Runs the suite of stacks on -DCOMPONENT=kit_net_NAME. Arguments: connections one after another,
 * then the component's options. Memory comes from the host's allocator, which guards it. */
#include <stdio.h>
#include <stdlib.h>

#include <unikit/testing/suite_net.h>

extern const struct kit_net_component COMPONENT;

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a, (void)align;
    return malloc(size);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static void on_begin(void *context, const char *test)
{
    if (context != NULL)
        fprintf(stderr, "%s\n", test);
}

static void on_fail(void *context, const char *test, const char *file, int line, const char *what)
{
    (void)context;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test, what);
}

int main(int argc, char **argv)
{
    static const struct kit_alloc_ops ops = {.alloc = heap_alloc, .free = heap_free};
    static struct kit_virtual clock;
    struct kit_alloc alloc = {&ops};
    uint64_t options[16] = {0};
    for (int i = 2; i < argc && i <= 17; i++)
        options[i - 2] = strtoull(argv[i], NULL, 0);
    struct kit_report report = {.fail = on_fail, .begin = on_begin, .context = getenv("VERBOSE")};
    kit_virtual_open(&clock, NULL, 0, 1);
    int result = kit_suite_net(&COMPONENT, options, &alloc, &clock,
                               argc > 1 ? strtoull(argv[1], NULL, 0) : 100, &report);
    if (result < 0) {
        fprintf(stderr, "code %d\n", result);
        return 2;
    }
    printf("%llu tests, %llu checks, %d failures\n", (unsigned long long)report.tests,
           (unsigned long long)report.checks, report.failures);
    return report.failures != 0;
}
