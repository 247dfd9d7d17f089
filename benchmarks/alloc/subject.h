/* SPDX-License-Identifier: MIT */
/* What is measured: malloc and free, whichever library they come from, or with KIT_SOLE_ALLOC that
 * component, bound directly, in a pool that is mapped before it is opened. */
#ifndef SUBJECT_H
#define SUBJECT_H

#include "pattern.h"

#ifdef KIT_SOLE_ALLOC
#include <sys/mman.h>

#include <unikit/alloc/alloc.h>

static struct kit_alloc *subject;

_Noreturn void kit_panic(const char *message)
{
    fail(message);
    __builtin_unreachable();
}

static inline void *subject_pool(size_t size)
{
    char *pool = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pool == MAP_FAILED)
        fail("no pool");
    madvise(pool, size, MADV_HUGEPAGE);
    memset(pool, 0, size);
    return pool;
}

/* Options are those given at build time: OPTIONS, numbers in the order of the record. */
static inline void subject_open(void *pool, size_t size)
{
    static const uint64_t options[] = {OPTIONS};
    if (KIT_SOLE_ALLOC.open(options, pool, size, &subject))
        fail("the allocator does not open");
}

static inline void *ask(size_t size)
{
    return kit_alloc_alloc(subject, size, 0);
}

static inline void give(void *block, size_t size)
{
    kit_alloc_free(subject, block, size, 0);
}
#else
static inline void *ask(size_t size)
{
    return malloc(size);
}

static inline void give(void *block, size_t size)
{
    (void)size;
    free(block);
}
#endif

#endif
