/* SPDX-License-Identifier: MIT */
/* What layers of the allocator get from an image, and tell it at the end (alloc.guard). An image
 * without layers has nothing of this in it. */
#include <unikit/image/runtime/runtime.h>

enum { LEAKS_SHOWN = 20, PAGE = 4096 };

static void decommit(void *context, void *start, size_t size)
{
    if (kit_env_page_release(context, start, size) != 0)
        memset(start, 0, size);
}

static int protect(void *context, void *start, size_t size, bool accessible)
{
    uint32_t access = accessible ? KIT_PAGE_READ | KIT_PAGE_WRITE : KIT_PAGE_NONE;
    return kit_env_page_protect(context, start, size, access);
}

void kit_runtime_give_pages(runtime_environment_t *env)
{
    static struct kit_alloc_pages pages;
    pages = (struct kit_alloc_pages){
        .context = env, .decommit = decommit, .page = PAGE, .protect = protect};
    /* One that stands on an allocator without pages refuses, and uses what it can. */
    (void)kit_alloc_source(kit_runtime.alloc, &pages);
}

struct leaks {
    uint64_t blocks, bytes;
};

static int leaked(void *argument, const struct kit_alloc_live *block)
{
    struct leaks *leaks = argument;
    if (block->serial < kit_runtime.system_requests)
        return 0;
    if (leaks->blocks++ < LEAKS_SHOWN)
        kit_log("not freed: %zu bytes at 0x%lx, allocated by 0x%lx", block->size,
                (unsigned long)(uintptr_t)block->block, (unsigned long)block->site);
    leaks->bytes += block->size;
    return 0;
}

void kit_runtime_report_leaks(void)
{
    struct leaks leaks = {0};
    if (kit_runtime.alloc == NULL || !kit_runtime.state.initialized)
        return;
    kit_alloc_live(kit_runtime.alloc, leaked, &leaks);
    if (leaks.blocks != 0)
        kit_log("%llu blocks with %llu bytes were never freed", (unsigned long long)leaks.blocks,
                (unsigned long long)leaks.bytes);
}
