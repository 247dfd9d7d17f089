/* SPDX-License-Identifier: MIT */
/* The driver's end of a split virtqueue whose device works in order (virtio 1.2, 2.7). Descriptor
 * i belongs to buffer i and both are used in turn. O(1) per call, no state but two indices. */
#include <unikit/platform/kvm/guest/guest.h>

void kvm_queue_open(struct kvm_queue *queue, const struct kit_kvm_queue *place)
{
    queue->desc = (volatile struct kit_vq_desc *)place->desc;
    queue->avail = (volatile struct kit_vq_avail *)place->avail;
    queue->used = (volatile struct kit_vq_used *)place->used;
    queue->buffers = (uint8_t *)place->buffers;
    queue->size = place->size;
    queue->buffer_size = place->buffer_size;
}

uint8_t *kvm_queue_buffer(const struct kvm_queue *queue, uint16_t index)
{
    return queue->buffers + (size_t)(index & (queue->size - 1)) * queue->buffer_size;
}

void kvm_queue_add(struct kvm_queue *queue, const void *data, uint32_t length, uint16_t flags)
{
    uint16_t slot = (uint16_t)(queue->next & (queue->size - 1));
    volatile struct kit_vq_desc *desc = &queue->desc[slot];
    desc->address = (uintptr_t)data;
    desc->length = length;
    desc->flags = flags;
    queue->avail->ring[slot] = slot;
    queue->next++;
    __atomic_store_n(&queue->avail->index, queue->next, __ATOMIC_RELEASE);
}

uint16_t kvm_queue_used(const struct kvm_queue *queue)
{
    return (uint16_t)(__atomic_load_n(&queue->used->index, __ATOMIC_ACQUIRE) - queue->taken);
}

uint16_t kvm_queue_room(const struct kvm_queue *queue)
{
    uint16_t used = __atomic_load_n(&queue->used->index, __ATOMIC_ACQUIRE);
    return (uint16_t)(queue->size - (uint16_t)(queue->next - used));
}
