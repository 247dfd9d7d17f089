/* SPDX-License-Identifier: MIT */
/* Ring 0, once: finds memory and devices, makes the tables final, and says where the image's stack
 * is. Everything here is physical memory mapped one to one. */
#include <unikit/platform/qemu/guest/pvh.h>
#include <unikit/platform/qemu/guest/tables.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/x86_64/cpu.h>

enum { START_MAGIC = 0x336ec578, MEMORY_RAM = 1, VECTORS = 48 };
enum {
    STACK_MINIMUM = 16 << 10,
    STACK_MAXIMUM = 256 << 10,
    EARLY_PAGES = 8,
    TABLES = 6,
    TABLES_SPARE = 24
};
enum { GATE_INTERRUPT = 0x8e, GATE_OPEN = 0xee, IO_BYTES = 0x80 };

/* docs/misc/pvh.pandoc; version 1 has the memory map. */
struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t modules;
    uint64_t module_list;
    uint64_t command_line;
    uint64_t rsdp;
    uint64_t memory_map;
    uint32_t memory_entries;
    uint32_t reserved;
};

struct memory_entry {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

struct gate_descriptor {
    uint16_t offset_low;
    uint16_t selector;
    uint8_t stack;
    uint8_t type;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};

/* One page, mapped for ring 0 alone. The ports of the I/O bitmap are all that CPL 3 may touch. */
struct pvh_system {
    uint64_t gdt[7];
    struct gate_descriptor idt[VECTORS];
    uint32_t tss[26]; /* rsp0 at bytes 4 to 11; the bitmap's offset in the upper half of the last */
    uint8_t ports[IO_BYTES + 1];
};
_Static_assert(sizeof(struct pvh_system) <= PVH_PAGE, "start.S gives it one page");

struct table_register {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct pvh_state kit_pvh;

static PVH_RING0 void allow(struct pvh_system *system, unsigned first, unsigned count)
{
    for (unsigned port = first; port < first + count; port++)
        system->ports[port / 8] &= (uint8_t) ~(1u << port % 8);
}

static PVH_RING0 void describe(struct pvh_system *system, uint64_t stack_top)
{
    uint64_t tss = (uint64_t)system->tss;
    uint64_t limit = sizeof system->tss + sizeof system->ports - 1;
    system->gdt[PVH_CODE0 / 8] = UINT64_C(0x00af9b000000ffff);
    system->gdt[PVH_DATA0 / 8] = UINT64_C(0x00cf93000000ffff);
    system->gdt[PVH_DATA3 / 8] = UINT64_C(0x00cff3000000ffff);
    system->gdt[PVH_CODE3 / 8] = UINT64_C(0x00affb000000ffff);
    system->gdt[PVH_TSS / 8] =
        limit | (tss & 0xffffff) << 16 | UINT64_C(0x89) << 40 | (tss >> 24 & 0xff) << 56;
    system->gdt[PVH_TSS / 8 + 1] = tss >> 32;
    system->tss[1] = (uint32_t)stack_top;
    system->tss[2] = (uint32_t)(stack_top >> 32);
    system->tss[25] = (uint32_t)sizeof system->tss << 16;
    memset(system->ports, 0xff, sizeof system->ports);
    allow(system, PVH_PORT_SERIAL, 8);
    allow(system, PVH_PORT_REPORT, 1);
    allow(system, PVH_PORT_EXIT, 4);
    for (unsigned vector = 0; vector < VECTORS; vector++) {
        uint64_t to = (uint64_t)kit_pvh_vectors + (uint64_t)vector * 16;
        system->idt[vector] = (struct gate_descriptor){
            .offset_low = (uint16_t)to,
            .selector = PVH_CODE0,
            .type = vector == 3 ? GATE_OPEN : GATE_INTERRUPT,
            .offset_middle = (uint16_t)(to >> 16),
            .offset_high = (uint32_t)(to >> 32),
        };
    }
    const struct table_register gdt = {sizeof system->gdt - 1, (uint64_t)system->gdt};
    const struct table_register idt = {sizeof system->idt - 1, (uint64_t)system->idt};
    __asm__ volatile("lgdt %0\n\tlidt %1\n\tltr %w2" ::"m"(gdt), "m"(idt), "r"(PVH_TSS) : "memory");
}

/* The only processor there is; images of several find theirs by the GS base. */
static PVH_RING0 void name_processor(void)
{
    const uint64_t base = (uint64_t)&kit_pvh.cpu;
    kit_pvh.cpu.self = &kit_pvh.cpu;
    __asm__ volatile("wrmsr" ::"c"(0xc0000101), "a"((uint32_t)base), "d"((uint32_t)(base >> 32)));
}

/* FSGSBASE and the extended state, where the processor has them: at CPL 3 they cannot be turned
 * on. AVX and AVX-512 belong to the application. */
static PVH_RING0 void enable_features(void)
{
    if (KIT_WITH_CPUS)
        name_processor();
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    struct kit_cpuid leaf1 = kit_cpu_cpuid(1, 0);
    if (kit_cpu_cpuid(0, 0).eax >= 7 && (kit_cpu_cpuid(7, 0).ebx & 1) != 0)
        cr4 |= UINT64_C(1) << 16;
    if ((leaf1.ecx >> 26 & 1) != 0)
        cr4 |= UINT64_C(1) << 18;
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4));
    if ((leaf1.ecx >> 26 & 1) == 0)
        return;
    struct kit_cpuid state = kit_cpu_cpuid(13, 0);
    uint32_t wanted = state.eax & 0x7; /* x87, SSE, AVX ... */
    if ((state.eax & 0xe7) == 0xe7)
        wanted = 0xe7; /* ... and AVX-512 as a whole */
    __asm__ volatile("xsetbv" ::"c"(0), "a"(wanted), "d"(0));
}

/* Start info may lie where start.S did not map: makes 2 MiB around it readable. */
static PVH_RING0 const void *reach(uint64_t address, uint64_t pml4)
{
    const uint64_t *pdpt = (const uint64_t *)(*(const uint64_t *)pml4 & PVH_ADDRESS);
    if (address >= UINT64_C(1) << 32)
        pvh_refuse("start information above 4 GiB");
    uint64_t *directory = (uint64_t *)(pdpt[address >> 30] & PVH_ADDRESS);
    for (unsigned i = 0; i < 2; i++) { /* it may go on in the next one */
        uint64_t page = (address >> 21) + i, *entry = &directory[page & 511];
        if ((*entry & PVH_PRESENT) == 0)
            *entry = page << 21 | PVH_PRESENT | PVH_WRITE | PVH_LARGE_PAGE;
    }
    return (const void *)address;
}

/* The end of the memory that the image lies in. */
static PVH_RING0 uint64_t memory_end(const struct start_info *info, uint64_t pml4)
{
    const struct memory_entry *map = reach(info->memory_map, pml4);
    for (uint32_t i = 0; i < info->memory_entries && i < 128; i++) {
        uint64_t start = map[i].address, end = start + map[i].size;
        if (map[i].type == MEMORY_RAM && start <= (uint64_t)kit_image_start &&
            end > (uint64_t)kit_image_end)
            return end < UINT64_C(0xc0000000) ? end : UINT64_C(0xc0000000);
    }
    pvh_refuse("the memory map has no memory at the image");
}

static PVH_RING0 uint64_t random_word(void)
{
    uint64_t word = kit_cpu_tsc() * UINT64_C(0x9e3779b97f4a7c15);
    if ((kit_cpu_cpuid(1, 0).ecx >> 30 & 1) != 0) {
        uint64_t more;
        __asm__ volatile("rdrand %0" : "=r"(more)::"cc"); /* 0 if it fails: an addition only */
        word ^= more;
    }
    return word;
}

/* Stack and heap behind the tables, with a page of nothing on each side of the stack. */
static PVH_RING0 void lay_out(uint64_t end)
{
    struct pvh_state *state = &kit_pvh;
    end = kit_align_down(end, PVH_PAGE);
    uint64_t start = state->tables.end + PVH_PAGE;
    uint64_t size = kit_align_down((end > start ? end - start : 0) / 16, PVH_PAGE);
    size = size < STACK_MINIMUM ? STACK_MINIMUM : size > STACK_MAXIMUM ? STACK_MAXIMUM : size;
    uint64_t heap = start + size + PVH_PAGE;
    if (heap + PVH_PAGE > end)
        pvh_refuse("too little memory for this image");
    state->stack = (struct pvh_range){start, start + size};
    state->heap = (struct pvh_range){heap, end};
}

static PVH_RING0 void make_tables(uint64_t base)
{
    struct pvh_state *state = &kit_pvh;
    state->pml4 = pvh_new_tables();
    const uint64_t rx = PVH_USER, ro = PVH_USER | PVH_NO_EXECUTE, rw = ro | PVH_WRITE;
    const uint64_t ring0 = PVH_WRITE | PVH_NO_EXECUTE;
    uint64_t rodata = kit_align_down((uint64_t)kit_rodata_start, PVH_PAGE);
    uint64_t data = kit_align_down((uint64_t)kit_data_start, PVH_PAGE);
    pvh_map((uint64_t)kit_image_start, kit_align_up((uint64_t)kit_text_end, PVH_PAGE), rx);
    pvh_map(rodata, kit_align_up((uint64_t)kit_rodata_end, PVH_PAGE), ro);
    pvh_map(data, kit_align_up((uint64_t)kit_image_end, PVH_PAGE), rw);
    pvh_map(base, state->tables.end, ring0);
    pvh_map(state->stack.start, state->stack.end, rw);
    pvh_map(state->heap.start, state->heap.end, rw);
    for (uint32_t i = 0; i < state->device_count; i++) {
        uint64_t first = kit_align_down(state->devices[i].base, PVH_PAGE);
        pvh_map(first, kit_align_up(state->devices[i].base + state->devices[i].size, PVH_PAGE),
                rw | PVH_UNCACHED);
    }
    pvh_map(UINT64_C(0xfec00000), UINT64_C(0xfec01000), ring0 | PVH_UNCACHED); /* I/O APIC */
    pvh_map(UINT64_C(0xfee00000), UINT64_C(0xfee01000), ring0 | PVH_UNCACHED); /* local APIC */
    __asm__ volatile("mov %0, %%cr3" ::"r"(state->pml4) : "memory");
    state->early = (struct pvh_range){base + 2 * PVH_PAGE, base + (uint64_t)EARLY_PAGES * PVH_PAGE};
}

/* What KVM writes for a guest that asks (Linux, Documentation/virt/kvm/x86/msr.rst). */
struct kvm_time {
    uint32_t version;
    uint32_t reserved;
    uint64_t tsc;
    uint64_t ns;
    uint32_t multiplier; /* of (ticks << shift), 2^32 to the ns */
    int8_t shift;
};

static PVH_RING0 void write_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

/* What a tick of the TSC is worth, where KVM says so; it writes to `page` for a moment. */
static PVH_RING0 void read_rate(struct pvh_clock *clock, uint64_t page)
{
    enum { LEAF = 0x40000000, CLOCK_2 = 1 << 3, MSR_TIME = 0x4b564d01 };
    struct kit_cpuid who = kit_cpu_cpuid(LEAF, 0);
    if (who.ebx != 0x4b4d564b || who.ecx != 0x564b4d56 || who.edx != 0x4d || /* «KVMKVMKVM» */
        (kit_cpu_cpuid(LEAF + 1, 0).eax & CLOCK_2) == 0)
        return;
    volatile struct kvm_time *time = (volatile struct kvm_time *)page;
    time->multiplier = 0;
    write_msr(MSR_TIME, page | 1);
    (void)kit_cpu_cpuid(LEAF, 0); /* an exit: it is written before the guest is entered again */
    uint64_t multiplier = time->multiplier;
    int shift = time->shift;
    write_msr(MSR_TIME, 0);
    if (multiplier == 0 || shift > 16 || shift < -31)
        return;
    clock->multiplier = shift >= 0 ? multiplier << shift : multiplier >> -shift;
    clock->next = UINT64_MAX;
}

__attribute__((used)) uint64_t kit_pvh_boot(const void *start_info, uint64_t base)
{
    struct pvh_state *state = &kit_pvh;
    state->reports = pvh_in8(PVH_PORT_REPORT) == PVH_PORT_REPORT;
    uint64_t early = base + 2 * PVH_PAGE;
    const struct start_info *info = reach((uint64_t)start_info, early);
    if (info->magic != START_MAGIC || info->version < 1 || info->memory_entries == 0)
        pvh_refuse("the loader gave no memory map (PVH start information version 1)");
    uint64_t end = memory_end(info, early);
    if (info->command_line != 0)
        pvh_read_options(reach(info->command_line, early));
    /* One table for each 2 MiB up to the heap's first large page; some for devices and for pages
     * whose access changes. */
    uint64_t count = TABLES + (base >> 21) + 2 + TABLES_SPARE;
    state->unused.start = base + (uint64_t)EARLY_PAGES * PVH_PAGE;
    state->unused.end = state->unused.start + count * PVH_PAGE;
    state->tables = (struct pvh_range){base, state->unused.end};
    if (state->tables.end > end)
        pvh_refuse("too little memory for this image");
    lay_out(end);
    enable_features();
    make_tables(base);
    describe((struct pvh_system *)base, base + 2 * PVH_PAGE);
    if (KIT_WITH_PREEMPTION) { /* safe points find the processor's words there; no upcalls */
        enum { MSR_GS_BASE = (int)0xc0000101 };
        state->cpu.self = &state->cpu;
        write_msr((uint32_t)MSR_GS_BASE, (uint64_t)&state->cpu);
    }
    pvh_apic_open();
    pvh_apic_timer(&state->clock.start);
    read_rate(&state->clock, early); /* the page of a table that is not in use any more */
    state->random = random_word();
    extern uint64_t __stack_chk_guard;
    __stack_chk_guard = state->random << 8; /* a zero byte, which no string function passes */
    return state->stack.end - (state->random >> 52 & 0x7f0);
}
