/* SPDX-License-Identifier: MIT */
/* Batches; see host_batch.h. */
#include <unikit/alloc/host_batch.h>

static void *batch_block(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

uint64_t kit_word_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    return (uintptr_t)kit_alloc_alloc(a, size, align);
}

void kit_word_free(struct kit_alloc *a, uint64_t block, size_t size, size_t align)
{
    kit_alloc_free(a, batch_block(block), size, align);
}

size_t kit_batch_alloc(struct kit_alloc *a, const uint64_t *sizes, size_t count, size_t align,
                       uint64_t *blocks)
{
    for (size_t i = 0; i < count; i++) {
        void *block = kit_alloc_alloc(a, (size_t)sizes[i], align);
        if (!block) {
            kit_batch_free(a, sizes, i, align, blocks);
            return i;
        }
        blocks[i] = (uintptr_t)block;
    }
    return count;
}

void kit_batch_free(struct kit_alloc *a, const uint64_t *sizes, size_t count, size_t align,
                    const uint64_t *blocks)
{
    for (size_t i = count; i-- > 0;)
        kit_alloc_free(a, batch_block(blocks[i]), (size_t)sizes[i], align);
}

struct walk {
    struct kit_extent *out;
    size_t room, count;
};

static int batch_visit(void *argument, void *block, size_t size, bool used)
{
    struct walk *walk = argument;
    if (walk->count < walk->room)
        walk->out[walk->count] = (struct kit_extent){(uintptr_t)block, size, used};
    walk->count++;
    return 0;
}

int kit_batch_walk(const struct kit_alloc *a, struct kit_extent *out, size_t room, size_t *count)
{
    struct walk walk = {out, room, 0};
    int rc = kit_alloc_walk(a, batch_visit, &walk);
    *count = walk.count;
    return rc;
}

void kit_batch_cycle(struct kit_alloc *a, size_t size, size_t count)
{
    for (size_t i = 0; i < count; i++)
        kit_alloc_free(a, kit_alloc_alloc(a, size, 0), size, 0);
}
