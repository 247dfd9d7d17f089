/* SPDX-License-Identifier: MIT */
/* The loop as a program has it that embeds a component: it knows the interface, and calls through
 * the component's table. COMPONENT is its symbol, OPTIONS its option values. */
#include <stdio.h>
#include <sys/mman.h>

#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component COMPONENT;

static struct kit_alloc *heap;

#define TAKE(size) kit_alloc_alloc(heap, size, 0)
#define GIVE(block, size) kit_alloc_free(heap, block, size, 0)
#include "loop.h"

static struct live live[LIVE];

_Noreturn void kit_panic(const char *message)
{
    puts(message);
    __builtin_trap();
}

int main(void)
{
    static const uint64_t options[] = {OPTIONS 0};
    size_t size = (size_t)64 << 20;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || COMPONENT.open(options, memory, size, &heap) != 0)
        return 2;
    return (int)(replace(live, PAIRS) & 1) - 1 > 0;
}
