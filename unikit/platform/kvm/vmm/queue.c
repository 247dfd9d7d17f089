/* SPDX-License-Identifier: MIT */
/* The device's end of a split virtqueue (virtio 1.2, section 2.7), over memory that a hostile guest
 * changes at any time: indices, ids, lengths and addresses are read once and checked before use.
 * What may be pointed at: memory the guest can read for its output, its device buffers for input
 * (never its page tables). */
#include <stdio.h>
#include <unikit/platform/kvm/vmm/internal.h>

int vmm_fault(struct vmm_fault *fault, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
    return KIT_EMALFORMED;
}

void vmm_queue_open(struct vmm_queue *queue, const struct vmm_memory *memory, const char *name,
                    const struct kit_kvm_queue *place, bool device_writes)
{
    uint8_t *base = memory->host - KIT_KVM_MEMORY;
    *queue = (struct vmm_queue){
        .memory = memory,
        .name = name,
        .desc = (void *)(base + place->desc),
        .avail = (void *)(base + place->avail),
        .used = (void *)(base + place->used),
        .size = place->size,
        .device_writes = device_writes,
    };
}

bool vmm_queue_pending(const struct vmm_queue *queue)
{
    return __atomic_load_n(&queue->avail->index, __ATOMIC_ACQUIRE) != queue->next;
}

static int take_one(struct vmm_queue *queue, struct vmm_buffer *out, struct vmm_fault *fault)
{
    const uint16_t id =
        __atomic_load_n(&queue->avail->ring[queue->next & (queue->size - 1)], __ATOMIC_RELAXED);
    if (id >= queue->size)
        return vmm_fault(fault, "%s queue: descriptor %u does not exist (the queue has %u)",
                         queue->name, id, queue->size);
    const volatile struct kit_vq_desc *desc = &queue->desc[id];
    const uint64_t address = __atomic_load_n(&desc->address, __ATOMIC_RELAXED);
    const uint32_t length = __atomic_load_n(&desc->length, __ATOMIC_RELAXED);
    const uint16_t flags = __atomic_load_n(&desc->flags, __ATOMIC_RELAXED);
    const uint16_t wanted = queue->device_writes ? KIT_VQ_DESC_WRITE : 0;
    if (flags != wanted)
        return vmm_fault(fault, "%s queue: descriptor %u has flags %#x, not %#x", queue->name, id,
                         flags, wanted);
    out->data = queue->device_writes ? vmm_memory_buffer(queue->memory, address, length)
                                     : vmm_memory_readable(queue->memory, address, length);
    if (out->data == NULL)
        return vmm_fault(fault, "%s queue: descriptor %u points at %#llx, %u bytes, which is %s",
                         queue->name, id, (unsigned long long)address, length,
                         queue->device_writes ? "no device buffer" : "no memory of the image");
    out->length = length;
    out->id = id;
    return 0;
}

int vmm_queue_take(struct vmm_queue *queue, struct vmm_buffer *buffers, uint32_t count,
                   struct vmm_fault *fault)
{
    const uint16_t index = __atomic_load_n(&queue->avail->index, __ATOMIC_ACQUIRE);
    const uint16_t pending = (uint16_t)(index - queue->next);
    const uint16_t held = (uint16_t)(queue->next - queue->completed);
    if (pending > queue->size - held)
        return vmm_fault(fault, "%s queue: index %u is more than %u ahead of %u", queue->name,
                         index, queue->size, queue->completed);
    uint32_t done = 0;
    for (; done < count && done < pending; done++) {
        int rc = take_one(queue, &buffers[done], fault);
        if (rc != 0)
            return rc;
        queue->next++;
    }
    return (int)done;
}

void vmm_queue_return(struct vmm_queue *queue, uint32_t id, uint32_t length)
{
    volatile struct kit_vq_used_element *element =
        &queue->used->ring[queue->completed & (queue->size - 1)];
    element->id = id;
    element->length = length;
    queue->completed++;
    __atomic_store_n(&queue->used->index, queue->completed, __ATOMIC_RELEASE);
}

void vmm_queue_set_notify(struct vmm_queue *queue, bool wanted)
{
    __atomic_store_n(&queue->used->flags, wanted ? 0 : KIT_VQ_USED_NO_NOTIFY, __ATOMIC_SEQ_CST);
}
