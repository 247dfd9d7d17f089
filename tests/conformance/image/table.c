/* SPDX-License-Identifier: MIT */
/* alloc.table: an image's sole allocator that calls each object's own table, so that a suite may
 * hand allocators of its own (that refuse, that count) to components which call directly. The
 * image's memory is kept by alloc.tlsf. */
#include <unikit/alloc/alloc.h>

extern const struct kit_alloc_component kit_alloc_tlsf;

static void *table_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    return a->ops->alloc(a, size, align);
}

static void table_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    a->ops->free(a, block, size, align);
}

static void *table_realloc(struct kit_alloc *a, void *block, size_t old_size, size_t new_size,
                           size_t align)
{
    return a->ops->realloc(a, block, old_size, new_size, align);
}

static void table_stats(const struct kit_alloc *a, struct kit_alloc_stats *out)
{
    a->ops->stats(a, out);
}

static int table_open(const uint64_t *options, void *memory, size_t size, struct kit_alloc **out)
{
    static const uint64_t tlsf_options[8] = {0};
    (void)options;
    int rc = kit_alloc_tlsf.open(tlsf_options, memory, size, out);
    if (rc == 0)
        (*out)->ops = kit_alloc_tlsf.ops;
    return rc;
}

static const struct kit_alloc_ops table_ops = {
    .alloc = table_alloc, .free = table_free, .realloc = table_realloc, .stats = table_stats};

extern const struct kit_alloc_component kit_alloc_table;
const struct kit_alloc_component kit_alloc_table = {
    .id = "alloc.table", .abi = KIT_ALLOC_ABI, .ops = &table_ops, .open = table_open};
