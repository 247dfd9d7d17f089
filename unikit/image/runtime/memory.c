/* SPDX-License-Identifier: MIT */
/* The image's allocator as an application calls it. A file of its own, compiled for speed: so the
 * calls are inlined into the application, and are those of the component itself. */
#include <unikit/image/runtime/runtime.h>

void *kit_memory_alloc(size_t size, size_t align)
{
    KIT_INSIDE;
    return kit_alloc_alloc(kit_runtime_memory(), size, align);
}

void kit_memory_free(void *block, size_t size, size_t align)
{
    KIT_INSIDE;
    kit_alloc_free(kit_runtime_memory(), block, size, align);
}

void *kit_memory_realloc(void *block, size_t old_size, size_t new_size, size_t align)
{
    KIT_INSIDE;
    return kit_alloc_realloc(kit_runtime_memory(), block, old_size, new_size, align);
}
