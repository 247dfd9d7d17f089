/* SPDX-License-Identifier: MIT */
/* The image of bench_alloc_start.py: ticks that opening -DSUBJECT over 1 GiB takes. The first time
 * the code is cold, and the pages at both ends of the memory were touched before; later the code is
 * warm and the memory was never touched, so that the host must find a page for it. */
#include <unikit/alloc/alloc.h>
#include <unikit/app.h>
#include <unikit/rt/x86_64/cpu.h>

extern const struct kit_alloc_component SUBJECT;

enum { TIMES = 16 };

int init_application(void)
{
    static const uint64_t options[] = {OPTIONS};
    size_t size = (size_t)1 << 30;
    char *memory = kit_memory_alloc(size, 4096);
    if (memory == NULL)
        return 3;
    for (size_t i = 0; i < 4096; i += 64)
        memory[i] = memory[size - 1 - i] = 1;
    for (size_t i = 0; i < TIMES; i++) {
        struct kit_alloc *a;
        uint64_t before = kit_cpu_tsc();
        int result = SUBJECT.open(options, memory + i * 4096, size - i * 8192, &a);
        uint64_t ticks = kit_cpu_tsc() - before;
        if (result != 0)
            return 4;
        kit_log("open %u: %llu", (unsigned)i, (unsigned long long)ticks);
    }
    kit_exit(0);
}
