/* SPDX-License-Identifier: MIT */
/* Memory of one stack: everything it takes from the allocator goes through here, is counted, and
 * stops at a limit. A request beyond the limit fails as one that the allocator refuses: callers
 * drop, wait or say KIT_ENOMEM, they never grow by other means. */
#ifndef KIT_NET_INET_MEMORY_H
#define KIT_NET_INET_MEMORY_H

#include <unikit/alloc/alloc.h>

struct inet_memory {
    struct kit_alloc *alloc;
    uint64_t used;  /* bytes, as asked for */
    uint64_t limit; /* 0: as much as the allocator gives */
};

KIT_INLINE void *inet_take(struct inet_memory *memory, size_t size)
{
    if (memory->limit != 0 && size > memory->limit - memory->used)
        return NULL;
    void *block = kit_alloc_alloc(memory->alloc, size, 0);
    if (block != NULL)
        memory->used += size;
    return block;
}

KIT_INLINE void inet_give(struct inet_memory *memory, void *block, size_t size)
{
    if (block == NULL)
        return;
    memory->used -= size;
    kit_alloc_free(memory->alloc, block, size, 0);
}

/* Less than an eighth is left: what is optional is not kept any more. */
KIT_INLINE bool inet_memory_is_short(const struct inet_memory *memory)
{
    return memory->limit != 0 && memory->used > memory->limit - memory->limit / 8;
}

#endif
