/* SPDX-License-Identifier: MIT */
/* The smallest layer there is: every call goes to the allocator below, and requests are counted;
 * beyond `most` of them the answer is NULL. */
#include <unikit/alloc/alloc.h>

#ifndef LAYER
#define LAYER kit_alloc_count
#define LAYER_ID "alloc.count"
#endif

struct count {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    uint64_t most, requests;
};

static struct count *count_of(const struct kit_alloc *a)
{
    return KIT_CONTAINER_OF(a, struct count, alloc);
}

static void *count_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    struct count *count = count_of(a);
    return count->requests++ < count->most ? kit_alloc_alloc(count->inner, size, align) : NULL;
}

static void count_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    kit_alloc_free(count_of(a)->inner, block, size, align);
}

static void *count_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                           size_t align)
{
    return kit_alloc_realloc(count_of(a)->inner, block, old_size, new_size, align);
}

static size_t count_usable_size(const struct kit_alloc *a, const void *block, size_t size)
{
    return kit_alloc_usable_size(count_of(a)->inner, block, size);
}

static void count_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    kit_alloc_stats(count_of(a)->inner, out);
    out->allocations = count_of(a)->requests;
}

static int count_check(const struct kit_alloc *a)
{
    return kit_alloc_check(count_of(a)->inner);
}

static const struct kit_alloc_ops count_ops = {
    .alloc = count_alloc,
    .free = count_free,
    .realloc = count_realloc,
    .usable_size = count_usable_size,
    .stats = count_stats,
    .check = count_check,
};

static int count_wrap(const uint64_t *options, const struct kit_alloc_component *below,
                      struct kit_alloc *inner, struct kit_alloc **out)
{
    (void)below;
    struct count *count = kit_alloc_alloc(inner, sizeof *count, alignof(struct count));
    if (count == NULL)
        return KIT_ENOMEM;
    *count = (struct count){.inner = inner, .most = options[0]};
    KIT_ALLOC_BIND(&count->alloc, &count_ops);
    *out = &count->alloc;
    return 0;
}

extern const struct kit_alloc_component LAYER;
const struct kit_alloc_component LAYER = {
    .id = LAYER_ID,
    .abi = KIT_ALLOC_ABI,
    .features = KIT_ALLOC_LAYER | KIT_ALLOC_REUSES | KIT_ALLOC_BOUNDED,
    .ops = &count_ops,
    .wrap = count_wrap,
};
