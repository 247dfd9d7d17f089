/* SPDX-License-Identifier: MIT */
/* Page tables, in ring 0. Leaves have A and D set, so that the processor never writes them; the
 * tables are not mapped for CPL 3. Four-level paging, 4 KiB and 2 MiB (Intel SDM volume 3A, 4.5).
 */
#include <unikit/platform/qemu/guest/pvh.h>
#include <unikit/platform/qemu/guest/tables.h>
#include <unikit/rt/bits.h>

static PVH_RING0 uint64_t *next_table(void)
{
    struct pvh_range *unused = &kit_pvh.unused;
    if (unused->start == unused->end) {
        *unused = kit_pvh.early;
        kit_pvh.early.start = kit_pvh.early.end;
    }
    if (unused->start == unused->end)
        return NULL;
    uint64_t *table = (uint64_t *)unused->start;
    unused->start += PVH_PAGE;
    memset(table, 0, PVH_PAGE);
    return table;
}

/* The entry of the page directory that maps `address`, which lies below 4 GiB: all four directories
 * are made at once. */
static PVH_RING0 uint64_t *directory_entry(uint64_t address)
{
    const uint64_t *pdpt = (const uint64_t *)(*(const uint64_t *)kit_pvh.pml4 & PVH_ADDRESS);
    uint64_t *directory = (uint64_t *)(pdpt[address >> 30 & 511] & PVH_ADDRESS);
    return &directory[address >> 21 & 511];
}

uint64_t pvh_new_tables(void)
{
    uint64_t *pml4 = next_table(), *pdpt = next_table();
    if (pml4 == NULL || pdpt == NULL)
        pvh_refuse("too little memory for page tables");
    const uint64_t flags = PVH_PRESENT | PVH_WRITE | PVH_USER | PVH_ACCESSED; /* leaves decide */
    pml4[0] = (uint64_t)pdpt | flags;
    for (unsigned i = 0; i < 4; i++)
        pdpt[i] = (uint64_t)next_table() | flags;
    return (uint64_t)pml4;
}

/* The entry of a page table; a large page is split. NULL: no table is left. */
static PVH_RING0 uint64_t *page_entry(uint64_t address)
{
    uint64_t *entry = directory_entry(address);
    if ((*entry & PVH_PRESENT) == 0 || (*entry & PVH_LARGE_PAGE) != 0) {
        uint64_t *table = next_table();
        if (table == NULL)
            return NULL;
        if ((*entry & PVH_PRESENT) != 0) {
            uint64_t first = *entry & ~(uint64_t)PVH_LARGE_PAGE;
            for (unsigned i = 0; i < 512; i++)
                table[i] = first + (uint64_t)i * PVH_PAGE;
        }
        *entry = (uint64_t)table | PVH_PRESENT | PVH_WRITE | PVH_USER | PVH_ACCESSED;
    }
    uint64_t *table = (uint64_t *)(*entry & PVH_ADDRESS);
    return &table[address >> 12 & 511];
}

void pvh_map(uint64_t start, uint64_t end, uint64_t flags)
{
    flags |= PVH_PRESENT | PVH_ACCESSED | PVH_DIRTY;
    for (uint64_t at = start; at < end;) {
        if ((at & (PVH_LARGE - 1)) == 0 && end - at >= PVH_LARGE) {
            *directory_entry(at) = at | flags | PVH_LARGE_PAGE;
            at += PVH_LARGE;
            continue;
        }
        uint64_t *entry = page_entry(at);
        if (entry == NULL)
            pvh_refuse("too little memory for page tables");
        *entry = at | flags;
        at += PVH_PAGE;
    }
}

int64_t pvh_protect(uint64_t base, uint64_t size, uint64_t access)
{
    const struct pvh_range *heap = &kit_pvh.heap;
    if (((base | size) & (PVH_PAGE - 1)) != 0 || base < heap->start || base > heap->end ||
        size > heap->end - base || access > (KIT_PAGE_READ | KIT_PAGE_WRITE))
        return KIT_EINVAL;
    /* All tables first: either everything changes or nothing. */
    for (uint64_t at = base; at < base + size;) {
        bool whole = (at & (PVH_LARGE - 1)) == 0 && base + size - at >= PVH_LARGE;
        if (!whole && page_entry(at) == NULL)
            return KIT_ENOMEM;
        at = whole                                      ? at + PVH_LARGE
             : (at | (PVH_LARGE - 1)) + 1 < base + size ? (at | (PVH_LARGE - 1)) + 1
                                                        : base + size;
    }
    uint64_t flags = PVH_NO_EXECUTE | PVH_ACCESSED | PVH_DIRTY;
    flags |= access != KIT_PAGE_NONE ? PVH_PRESENT | PVH_USER : 0;
    flags |= (access & KIT_PAGE_WRITE) != 0 ? PVH_WRITE : 0;
    for (uint64_t at = base; at < base + size;) {
        uint64_t *entry = directory_entry(at);
        if ((at & (PVH_LARGE - 1)) == 0 && base + size - at >= PVH_LARGE &&
            (*entry & PVH_LARGE_PAGE) != 0) {
            *entry = at | flags | PVH_LARGE_PAGE;
            at += PVH_LARGE;
        } else {
            *page_entry(at) = at | flags;
            at += PVH_PAGE;
        }
    }
    __asm__ volatile("mov %0, %%cr3" ::"r"(kit_pvh.pml4) : "memory");
    return KIT_OK;
}
