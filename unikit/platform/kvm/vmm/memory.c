/* SPDX-License-Identifier: MIT */
/* Guest addresses to host pointers, with every check in one place. */
#include <unikit/platform/kvm/vmm/internal.h>

static bool within(uint64_t address, uint64_t size, uint64_t base, uint64_t length)
{
    return address >= base && address - base <= length && size <= length - (address - base);
}

void *vmm_memory_any(const struct vmm_memory *memory, uint64_t address, uint64_t size)
{
    if (!within(address, size, KIT_KVM_MEMORY, memory->layout.memory_size))
        return NULL;
    return memory->host + (address - KIT_KVM_MEMORY);
}

void *vmm_memory_readable(const struct vmm_memory *memory, uint64_t address, uint64_t size)
{
    const struct kit_kvm_layout *at = &memory->layout;
    const uint64_t ranges[][2] = {
        {KIT_KVM_MEMORY, at->image_end - KIT_KVM_MEMORY},
        {at->stack_base, at->stack_size},
        {at->boot, at->devices_end - at->boot},
        {at->heap_base, at->heap_size},
    };
    for (size_t i = 0; i < KIT_ARRAY_SIZE(ranges); i++)
        if (within(address, size, ranges[i][0], ranges[i][1]))
            return memory->host + (address - KIT_KVM_MEMORY);
    return NULL;
}

void *vmm_memory_buffer(const struct vmm_memory *memory, uint64_t address, uint64_t size)
{
    const struct kit_kvm_layout *at = &memory->layout;
    if (!within(address, size, at->shared, at->devices_end - at->shared))
        return NULL;
    return memory->host + (address - KIT_KVM_MEMORY);
}
