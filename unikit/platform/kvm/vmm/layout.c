/* SPDX-License-Identifier: MIT */
/* Decides where everything lies in the guest (picture in ../abi.h). Pure: the same arguments give
 * the same layout.
 *
 * The pieces without access at CPL 3 stand where guards are wanted: the tables below the stack, the
 * system page above it, the fault stack behind the queues. Stack and heap move by some random
 * pages where there is memory to spare (a page that is skipped is never touched, so it costs
 * address space only). */
#include <stdio.h>
#include <string.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/bits.h>

enum {
    HEAP_LEAST = 16 << 10,
    STACK_LEAST = 8 << 10,
    STACK_MOST = 128 << 10,
    CONSOLE_TX = 4,
    CONSOLE_RX = 8,
    CONSOLE_RX_BYTES = 64,
    SHARED_BYTES = 256,
};

/* No guest is larger: one table of the third level covers it. */
#define MEMORY_MOST (UINT64_C(256) << 30)

static int refuse(struct kit_kvm_refused *refused, uint64_t needed, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    refused->kind = KIT_KVM_REFUSED_IMAGE;
    refused->needed = needed;
    vsnprintf(refused->text, sizeof refused->text, format, arguments);
    va_end(arguments);
    return needed ? KIT_ENOMEM : KIT_EINVAL;
}

static int check_segments(const struct kit_kvm_config *config, uint64_t *end,
                          struct kit_kvm_refused *refused)
{
    uint64_t least = KIT_KVM_MEMORY;
    bool entry = false;
    for (size_t i = 0; i < config->segment_count; i++) {
        const struct kit_kvm_segment *s = &config->segments[i];
        if (s->address < least || s->size > MEMORY_MOST || s->address > MEMORY_MOST ||
            s->stored > s->size)
            return refuse(refused, 0,
                          "segment %zu of the image (%#llx, %llu bytes) overlaps or "
                          "lies outside 0x100000...256 GiB",
                          i, (unsigned long long)s->address, (unsigned long long)s->size);
        if ((s->access & KIT_KVM_WRITABLE) && (s->access & KIT_KVM_EXECUTABLE))
            return refuse(refused, 0, "segment %zu of the image is writable and executable", i);
        if ((s->access & KIT_KVM_EXECUTABLE) && config->entry >= s->address &&
            config->entry - s->address < s->stored)
            entry = true;
        least = kit_align_up(s->address + s->size, VMM_PAGE);
    }
    if (!entry)
        return refuse(refused, 0, "the entry %#llx does not lie in the image's code",
                      (unsigned long long)config->entry);
    *end = least;
    return 0;
}

/* Frames in flight each way: a small part of the memory. */
static uint32_t net_size(uint64_t memory)
{
    return memory < UINT64_C(1) << 20    ? 8
           : memory < UINT64_C(4) << 20  ? 16
           : memory < UINT64_C(16) << 20 ? 64
           : memory < UINT64_C(64) << 20 ? 128
                                         : 256;
}

static uint64_t place_queue(struct kit_kvm_queue *queue, uint64_t at, uint32_t size,
                            uint32_t buffer_size)
{
    at = kit_align_up(at, 64);
    queue->size = size;
    queue->buffer_size = buffer_size;
    queue->desc = at;
    queue->avail = at + kit_vq_avail_offset(size);
    queue->used = at + kit_vq_used_offset(size);
    at += kit_vq_bytes(size);
    queue->buffers = buffer_size ? at : 0;
    return at + (uint64_t)size * buffer_size;
}

static uint64_t cpus(const struct kit_kvm_config *config)
{
    return config->cpus < 1 ? 1 : config->cpus;
}

uint64_t vmm_processor(const struct kit_kvm_layout *layout, uint32_t cpu)
{
    return cpu == 0 ? layout->shared + offsetof(struct kit_kvm_shared, first)
                    : layout->processors + (cpu - 1) * (uint64_t)KIT_KVM_CPU_STRIDE;
}

uint64_t vmm_tss(const struct kit_kvm_layout *layout, uint32_t cpu)
{
    return cpu == 0 ? layout->system + VMM_TSS
                    : layout->system + VMM_PAGE + (cpu - 1) * (uint64_t)VMM_TSS_STRIDE;
}

static uint64_t place_queues(const struct kit_kvm_config *config, uint64_t memory, uint64_t shared,
                             struct kit_kvm_queue queues[KIT_KVM_QUEUES])
{
    memset(queues, 0, sizeof *queues * KIT_KVM_QUEUES);
    uint64_t at = shared + SHARED_BYTES + (cpus(config) - 1) * KIT_KVM_CPU_STRIDE;
    at = place_queue(&queues[KIT_KVM_CONSOLE_TX], at, CONSOLE_TX, 0);
    at = place_queue(&queues[KIT_KVM_CONSOLE_RX], at, CONSOLE_RX, CONSOLE_RX_BYTES);
    if (config->netif != NULL) {
        uint32_t size = net_size(memory);
        /* header, Ethernet with one VLAN tag, payload; whole cache lines */
        uint32_t bytes = (12u + 18u + config->netif->network.mtu + 63u) & ~63u;
        at = place_queue(&queues[KIT_KVM_NET_TX], at, size, bytes);
        at = place_queue(&queues[KIT_KVM_NET_RX], at, size, bytes);
    }
    return kit_align_up(at, VMM_PAGE);
}

/* Places everything for a number of table pages. */
static void place(const struct kit_kvm_config *config, uint64_t random, uint64_t tables,
                  struct kit_kvm_layout *l, struct kit_kvm_queue queues[KIT_KVM_QUEUES])
{
    l->tables = l->image_end;
    l->tables_size = tables * VMM_PAGE;
    uint64_t stack = kit_align_down(l->memory_size / 16, VMM_PAGE);
    l->stack_size = stack < STACK_LEAST ? STACK_LEAST : stack > STACK_MOST ? STACK_MOST : stack;
    l->stack_base = l->tables + l->tables_size;
    /* within the last page always, and up to an eighth of a large stack */
    uint64_t spread = l->stack_size / 8 < 1024 ? 1024 : l->stack_size / 8;
    l->stack_top = l->stack_base + l->stack_size - (random & 0xffff) % spread / 16 * 16;
    l->system = l->stack_base + l->stack_size;
    l->system_size = VMM_PAGE + kit_align_up((cpus(config) - 1) * VMM_TSS_STRIDE, VMM_PAGE);
    l->boot = l->system + l->system_size;
    l->shared = l->boot + KIT_KVM_BOOT_BYTES;
    l->processors = cpus(config) > 1 ? l->shared + SHARED_BYTES : 0;
    l->devices_end = place_queues(config, l->memory_size, l->shared, queues);
    l->fault_stack = l->devices_end;
    l->heap_base = l->fault_stack + VMM_PAGE;
    /* one table for each large page there may be; the first 2 MiB of addresses never are one */
    const uint64_t chunks = (KIT_KVM_MEMORY + l->memory_size) / VMM_HUGE;
    l->reserve_size = chunks > 1 ? (chunks - 1) * VMM_PAGE : 0;
    l->reserve = KIT_KVM_MEMORY + l->memory_size - l->reserve_size;
    l->heap_size = l->heap_base < l->reserve ? l->reserve - l->heap_base : 0;
    uint64_t skip = (random >> 16) % (l->heap_size / VMM_PAGE / 32 + 1) * VMM_PAGE;
    l->heap_base += skip;
    l->heap_size -= skip;
}

int vmm_layout(const struct kit_kvm_config *config, uint64_t random, struct kit_kvm_layout *layout,
               struct kit_kvm_queue queues[KIT_KVM_QUEUES], struct kit_kvm_refused *refused)
{
    memset(layout, 0, sizeof *layout);
    layout->memory_size = kit_align_down(config->memory, VMM_PAGE);
    if (layout->memory_size > MEMORY_MOST)
        return refuse(refused, 0, "%llu bytes of memory are too much; at most 256 GiB",
                      (unsigned long long)config->memory);
    if (sizeof(struct kit_kvm_boot) + config->options_bytes > KIT_KVM_BOOT_BYTES)
        return refuse(refused, 0, "the boot options take %zu bytes; at most %zu fit",
                      config->options_bytes, KIT_KVM_BOOT_BYTES - sizeof(struct kit_kvm_boot));
    if (config->cpus > KIT_KVM_CPUS_MAX)
        return refuse(refused, 0, "%u processors are asked for; at most %d are there", config->cpus,
                      KIT_KVM_CPUS_MAX);
    int rc = check_segments(config, &layout->image_end, refused);
    if (rc != 0)
        return rc;
    /* More tables move the heap, which may need more tables: grows until it fits. */
    uint64_t tables = 4;
    for (;;) {
        place(config, random, tables, layout, queues);
        uint64_t need = vmm_tables_count(layout);
        if (need <= tables)
            break;
        tables = need;
    }
    uint64_t used = layout->fault_stack + VMM_PAGE + layout->reserve_size - KIT_KVM_MEMORY;
    if (layout->heap_size < HEAP_LEAST)
        return refuse(refused, used + HEAP_LEAST,
                      "%llu KiB of memory are too little: this image needs at least %llu KiB",
                      (unsigned long long)(config->memory >> 10),
                      (unsigned long long)((used + HEAP_LEAST) >> 10));
    return 0;
}
