/* SPDX-License-Identifier: MIT */
/* Page tables and the system page of a guest (AMD64 APM volume 2, chapters 4, 5 and 8).
 *
 * VA = PA. Upper levels allow everything, the leaf decides; accessed and dirty are preset so that
 * the processor never writes a table. 4 KiB leaves everywhere but in the middle of the heap, which
 * has 2 MiB leaves. A page is never writable and executable, and page 0, the tables and all gaps
 * are not mapped.
 *
 * The system page (supervisor, read and execute) holds what a processor wants for exceptions:
 * GDT, TSS, IDT and one stub of a few instructions per vector, which reports by a port. They are
 * the only instructions that ever run at CPL 0. Each further processor has a TSS of its own behind
 * it and its piece of the fault stack. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/bits.h>

#define P UINT64_C(1)
#define W UINT64_C(2)
#define U UINT64_C(4)
#define AD UINT64_C(0x60)
#define LARGE UINT64_C(0x80)
#define NX (UINT64_C(1) << 63)
#define ADDRESS UINT64_C(0x000ffffffffff000)

struct walk {
    struct vmm_memory *memory;
    uint64_t next; /* guest address of the next free table page */
};

static uint64_t *table_at(const struct vmm_memory *memory, uint64_t address)
{
    return (uint64_t *)(void *)(memory->host + (address - KIT_KVM_MEMORY));
}

/* The entry for `address` at `level` (0: 4 KiB); makes the tables above it. */
static uint64_t *entry_at(struct walk *walk, uint64_t address, int level)
{
    uint64_t table = walk->memory->layout.tables;
    for (int l = 3; l > level; l--) {
        uint64_t *entry = table_at(walk->memory, table) + (address >> (12 + 9 * l) & 511);
        if (*entry == 0) {
            *entry = walk->next | P | W | U | AD;
            walk->next += VMM_PAGE;
        }
        table = *entry & ADDRESS;
    }
    return table_at(walk->memory, table) + (address >> (12 + 9 * level) & 511);
}

static void map(struct walk *walk, uint64_t from, uint64_t to, uint64_t flags)
{
    while (from < to) {
        uint64_t *entry = entry_at(walk, from, 0);
        uint64_t stop = kit_align_down(from, VMM_HUGE) + VMM_HUGE;
        for (stop = stop < to ? stop : to; from < stop; from += VMM_PAGE)
            *entry++ = from | flags | P | AD;
    }
}

static void map_heap(struct walk *walk, uint64_t from, uint64_t to)
{
    uint64_t first = kit_align_up(from, VMM_HUGE), last = kit_align_down(to, VMM_HUGE);
    if (first >= last) {
        map(walk, from, to, U | W | NX);
        return;
    }
    map(walk, from, first, U | W | NX);
    for (uint64_t at = first; at < last; at += VMM_HUGE)
        *entry_at(walk, at, 1) = at | U | W | NX | P | AD | LARGE;
    map(walk, last, to, U | W | NX);
}

uint64_t vmm_tables_count(const struct kit_kvm_layout *l)
{
    uint64_t low = l->fault_stack / VMM_HUGE; /* the last 2 MiB of the fixed part; counts from 0 */
    uint64_t from = l->heap_base, to = l->heap_base + l->heap_size;
    uint64_t end = to > l->fault_stack ? to : l->fault_stack + VMM_PAGE;
    uint64_t count = 2 + ((end - 1) >> 30) + 1 + low + 1;
    uint64_t first = kit_align_up(from, VMM_HUGE), last = kit_align_down(to, VMM_HUGE);
    if (from >= to)
        return count;
    if (first >= last)
        return count + (to - 1) / VMM_HUGE - (from / VMM_HUGE > low ? from / VMM_HUGE - 1 : low);
    count += from < first && from / VMM_HUGE > low;
    count += last < to;
    return count;
}

static void set_word(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, 8);
}

static void build_system(const struct vmm_memory *memory, uint32_t cpus)
{
    const uint64_t system = memory->layout.system;
    uint8_t *page = memory->host + (system - KIT_KVM_MEMORY);
    set_word(page + VMM_GDT + 0x10, UINT64_C(0x00af9b000000ffff)); /* code, CPL 0 */
    set_word(page + VMM_GDT + 0x28, UINT64_C(0x00cff3000000ffff)); /* data, CPL 3 */
    set_word(page + VMM_GDT + 0x30, UINT64_C(0x00affb000000ffff)); /* code, CPL 3 */
    const uint64_t tss = system + VMM_TSS;                         /* busy, 64-bit, 0x68 bytes */
    set_word(page + VMM_GDT + 0x40,
             0x67 | (tss & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | (tss >> 24 & 0xff) << 56);
    set_word(page + VMM_GDT + 0x48, tss >> 32);
    for (uint32_t i = 0; i < cpus; i++) {
        uint8_t *state = page + (vmm_tss(&memory->layout, i) - system);
        set_word(state + 4, memory->layout.fault_stack + VMM_PAGE - i * VMM_FAULT_FRAME); /* RSP0 */
        state[0x66] = 0x68; /* no I/O bitmap */
    }
    /* 8 10 11 12 13 14 17 21 29 30 push an error code, the others get a zero. */
    const uint32_t with_error = 0x60227d00;
    for (unsigned v = 0; v < VMM_VECTORS; v++) {
        const uint64_t stub = system + VMM_STUBS + 16 * v;
        const uint64_t type = v == 3 ? 0xee : 0x8e; /* int3 may be used on purpose */
        set_word(page + VMM_IDT + 16 * v,
                 (stub & 0xffff) | UINT64_C(0x10) << 16 | type << 40 | (stub >> 16 & 0xffff) << 48);
        set_word(page + VMM_IDT + 16 * v + 8, stub >> 32);
        uint8_t code[] = {0x6a, 0, 0x6a, (uint8_t)v, 0xe6, VMM_FAULT_PORT, 0xeb, 0xfe};
        if (with_error >> v & 1)
            code[0] = code[1] = 0x90; /* nop instead of push $0 */
        memcpy(page + VMM_STUBS + 16 * v, code, sizeof code);
    }
}

void vmm_tables_build(struct vmm_memory *memory, const struct kit_kvm_config *config)
{
    const struct kit_kvm_layout *l = &memory->layout;
    struct walk walk = {memory, l->tables + VMM_PAGE};
    *entry_at(&walk, KIT_KVM_DOORBELL, 0) = KIT_KVM_DOORBELL | U | W | NX | P | AD;
    for (size_t i = 0; i < config->segment_count; i++) {
        const struct kit_kvm_segment *s = &config->segments[i];
        uint64_t flags =
            U | (s->access & KIT_KVM_WRITABLE ? W : 0) | (s->access & KIT_KVM_EXECUTABLE ? 0 : NX);
        map(&walk, kit_align_down(s->address, VMM_PAGE),
            kit_align_up(s->address + s->size, VMM_PAGE), flags);
    }
    map(&walk, l->stack_base, l->stack_base + l->stack_size, U | W | NX);
    map(&walk, l->system, l->system + l->system_size, 0);
    map(&walk, l->boot, l->shared, U | NX);
    map(&walk, l->shared, l->devices_end, U | W | NX);
    map(&walk, l->fault_stack, l->fault_stack + VMM_PAGE, W | NX);
    map_heap(&walk, l->heap_base, l->heap_base + l->heap_size);
    build_system(memory, config->cpus < 1 ? 1 : config->cpus);
}

void *vmm_memory_writable(const struct vmm_memory *memory, uint64_t address, uint64_t size)
{
    uint8_t *host = vmm_memory_any(memory, address, size);
    for (uint64_t at = address; host != NULL; at = address + size - 1) {
        uint64_t entry = memory->layout.tables;
        for (int level = 3; level >= 0 && (level == 3 || !(entry & LARGE)); level--) {
            entry = table_at(memory, entry & ADDRESS)[at >> (12 + 9 * level) & 511];
            if ((entry & (P | W | U)) != (P | W | U))
                return NULL;
        }
        if (at == address + size - 1)
            return host;
    }
    return NULL;
}

/* ---- at run time ------------------------------------------------------------------------------
 */

/* A range of whole pages of the heap; its host address or NULL. */
static uint8_t *heap_range(const struct vmm_memory *memory, uint64_t base, uint64_t size)
{
    const struct kit_kvm_layout *l = &memory->layout;
    if (size == 0 || (base | size) % VMM_PAGE != 0 || base < l->heap_base ||
        base - l->heap_base > l->heap_size || size > l->heap_size - (base - l->heap_base))
        return NULL;
    return memory->host + (base - KIT_KVM_MEMORY);
}

int vmm_pages_release(struct vmm_memory *memory, uint64_t base, uint64_t size)
{
    uint8_t *host = heap_range(memory, base, size);
    if (host == NULL)
        return KIT_EINVAL;
    return madvise(host, size, MADV_DONTNEED) == 0 ? 0 : KIT_ENOMEM;
}

/* Replaces a 2 MiB leaf by a table of 4 KiB leaves with the same rights, from the reserve. */
static void split(struct vmm_memory *memory, uint64_t *large, uint64_t *reserve_used)
{
    const uint64_t table = memory->layout.reserve + *reserve_used;
    *reserve_used += VMM_PAGE;
    const uint64_t base = *large & ADDRESS, flags = *large & ~(ADDRESS | LARGE);
    uint64_t *entries = table_at(memory, table);
    for (uint64_t i = 0; i < 512; i++)
        entries[i] = (base + i * VMM_PAGE) | flags;
    *large = table | P | W | U | AD;
}

/* A page-table entry that is present and changes is not looked at again by a KVM that shadows page
 * tables, and not flushed by one that does not; taking write access from the host mapping for a
 * moment makes both forget the range. Only reads happen to the heap from outside meanwhile. */
static int forget(uint8_t *host, uint64_t size)
{
    if (mprotect(host, size, PROT_READ) != 0 || mprotect(host, size, PROT_READ | PROT_WRITE) != 0)
        return KIT_ENOMEM;
    return 0;
}

int vmm_pages_protect(struct vmm_memory *memory, uint64_t base, uint64_t size, uint32_t access,
                      uint64_t *reserve_used)
{
    const bool readable = access & KIT_PAGE_READ, writable = access & KIT_PAGE_WRITE;
    if (heap_range(memory, base, size) == NULL || access > (KIT_PAGE_READ | KIT_PAGE_WRITE) ||
        (writable && !readable))
        return KIT_EINVAL;
    const uint64_t rights = U | NX | AD | (readable ? P : 0) | (writable ? W : 0);
    const uint64_t mask = U | W | P | NX | AD;
    struct walk walk = {memory, 0};
    uint64_t from = base, to = base + size;
    for (uint64_t at = base; at < base + size;) {
        uint64_t *large = entry_at(&walk, at, 1);
        if (!(*large & LARGE)) {
            uint64_t *entry = entry_at(&walk, at, 0);
            *entry = (*entry & ~mask) | rights;
            at += VMM_PAGE;
            continue;
        }
        const uint64_t start = kit_align_down(at, VMM_HUGE);
        from = start < from ? start : from;
        to = start + VMM_HUGE > to ? start + VMM_HUGE : to;
        if (at == start && base + size - at >= VMM_HUGE) {
            *large = (*large & ~mask) | rights;
            at += VMM_HUGE;
        } else {
            split(memory, large, reserve_used);
        }
    }
    return forget(memory->host + (from - KIT_KVM_MEMORY), to - from);
}
