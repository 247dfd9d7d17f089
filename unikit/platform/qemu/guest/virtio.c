/* SPDX-License-Identifier: MIT */
#include <unikit/platform/qemu/guest/virtio.h>

/* Registers, in words (virtio 1.2, 4.2.2; legacy 4.2.4). */
enum {
    MAGIC = 0x000 / 4,
    VERSION = 0x004 / 4,
    DEVICE_KIND = 0x008 / 4,
    DEVICE_FEATURES = 0x010 / 4,
    DEVICE_FEATURES_SELECT = 0x014 / 4,
    DRIVER_FEATURES = 0x020 / 4,
    DRIVER_FEATURES_SELECT = 0x024 / 4,
    LEGACY_PAGE_SIZE = 0x028 / 4,
    QUEUE_SELECT = 0x030 / 4,
    QUEUE_SIZE_MAX = 0x034 / 4,
    QUEUE_SIZE = 0x038 / 4,
    LEGACY_QUEUE_ALIGN = 0x03c / 4,
    LEGACY_QUEUE_PAGE = 0x040 / 4,
    QUEUE_READY = 0x044 / 4,
    QUEUE_NOTIFY = 0x050 / 4,
    INTERRUPT_STATUS = 0x060 / 4,
    INTERRUPT_ACKNOWLEDGE = 0x064 / 4,
    STATUS = 0x070 / 4,
    QUEUE_DESC = 0x080 / 4,
    QUEUE_DRIVER = 0x090 / 4,
    QUEUE_DEVICE = 0x0a0 / 4,
    CONFIG = 0x100
};

enum {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_FAILED = 128
};

#define MAGIC_VALUE UINT32_C(0x74726976) /* «virt» */

static PVH_COLD uint64_t offered(volatile uint32_t *registers)
{
    registers[DEVICE_FEATURES_SELECT] = 1;
    uint64_t high = registers[DEVICE_FEATURES];
    registers[DEVICE_FEATURES_SELECT] = 0;
    return high << 32 | registers[DEVICE_FEATURES];
}

/* virtio 1.2, 3.1.1. */
static PVH_COLD int negotiate(struct virtio_device *device, uint64_t wanted)
{
    volatile uint32_t *registers = device->registers;
    registers[STATUS] = 0;
    for (unsigned i = 0; registers[STATUS] != 0; i++)
        if (i == 100000)
            return KIT_EIO; /* it does not even reset */
    registers[STATUS] = STATUS_ACKNOWLEDGE;
    registers[STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    uint64_t features = offered(registers) & (wanted | VIRTIO_VERSION_1);
    if (device->legacy)
        features &= UINT32_MAX;
    else if ((features & VIRTIO_VERSION_1) == 0)
        return KIT_EIO;
    registers[DRIVER_FEATURES_SELECT] = 0;
    registers[DRIVER_FEATURES] = (uint32_t)features;
    if (device->legacy) {
        registers[LEGACY_PAGE_SIZE] = PVH_PAGE;
    } else {
        registers[DRIVER_FEATURES_SELECT] = 1;
        registers[DRIVER_FEATURES] = (uint32_t)(features >> 32);
        registers[STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
        if ((registers[STATUS] & STATUS_FEATURES_OK) == 0)
            return KIT_EIO;
    }
    device->features = features;
    return 0;
}

int virtio_open(struct virtio_device *device, uint32_t kind, uint64_t wanted)
{
    for (uint32_t i = 0; i < kit_pvh.device_count; i++) {
        volatile uint32_t *registers = (volatile uint32_t *)kit_pvh.devices[i].base;
        if (registers[MAGIC] != MAGIC_VALUE || registers[DEVICE_KIND] != kind)
            continue;
        uint32_t version = registers[VERSION];
        if (version != 1 && version != 2)
            continue;
        *device = (struct virtio_device){.registers = registers, .legacy = version == 1};
        int rc = negotiate(device, wanted);
        if (rc != 0)
            virtio_break(device);
        return rc;
    }
    return KIT_ENOENT;
}

/* One layout for both versions: legacy fixes it (2.7.2), with the used ring on a page of its own.
 */
static size_t used_offset(uint32_t size)
{
    return ((size_t)16 * size + 6 + (size_t)2 * size + PVH_PAGE - 1) & ~(size_t)(PVH_PAGE - 1);
}

static size_t rings_bytes(uint32_t size)
{
    return used_offset(size) + ((6 + (size_t)8 * size + PVH_PAGE - 1) & ~(size_t)(PVH_PAGE - 1));
}

size_t virtio_queue_bytes(uint32_t size, uint32_t buffer_size)
{
    size_t buffers = (size_t)size * buffer_size;
    return rings_bytes(size) + ((buffers + PVH_PAGE - 1) & ~(size_t)(PVH_PAGE - 1));
}

static void set_address(volatile uint32_t *pair, const volatile void *address)
{
    pair[0] = (uint32_t)(uintptr_t)address;
    pair[1] = (uint32_t)((uintptr_t)address >> 32);
}

int virtio_queue_open(struct virtio_queue *queue, struct virtio_device *device, uint16_t number,
                      uint32_t size, uint32_t buffer_size, uint8_t *memory)
{
    volatile uint32_t *registers = device->registers;
    registers[QUEUE_SELECT] = number;
    uint32_t most = registers[QUEUE_SIZE_MAX];
    while (size > most)
        size /= 2;
    if (size == 0)
        return KIT_EIO;
    *queue = (struct virtio_queue){
        .device = device,
        .desc = (volatile struct kit_vq_desc *)memory,
        .avail = (volatile struct kit_vq_avail *)(memory + (size_t)16 * size),
        .used = (volatile struct kit_vq_used *)(memory + used_offset(size)),
        .buffers = memory + rings_bytes(size),
        .buffer_size = buffer_size,
        .number = number,
        .size = (uint16_t)size,
    };
    for (uint32_t slot = size; slot-- > 0;)
        queue->free[queue->spare++] = (uint16_t)slot;
    virtio_interrupts(queue, false);
    registers[QUEUE_SIZE] = size;
    if (device->legacy) {
        registers[LEGACY_QUEUE_ALIGN] = PVH_PAGE;
        registers[LEGACY_QUEUE_PAGE] = (uint32_t)((uintptr_t)memory / PVH_PAGE);
    } else {
        set_address(&registers[QUEUE_DESC], queue->desc);
        set_address(&registers[QUEUE_DRIVER], queue->avail);
        set_address(&registers[QUEUE_DEVICE], queue->used);
        registers[QUEUE_READY] = 1;
    }
    return 0;
}

void virtio_start(struct virtio_device *device)
{
    device->registers[STATUS] = device->registers[STATUS] | STATUS_DRIVER_OK;
}

void virtio_break(struct virtio_device *device)
{
    device->registers[STATUS] = 0;
    device->registers[STATUS] = STATUS_FAILED;
    device->broken = true;
}

uint8_t virtio_config(const struct virtio_device *device, uint32_t offset)
{
    return ((const volatile uint8_t *)device->registers)[CONFIG + offset];
}

uint8_t *virtio_buffer(const struct virtio_queue *queue, uint16_t slot)
{
    return queue->buffers + (size_t)slot * queue->buffer_size;
}

bool virtio_free(struct virtio_queue *queue, uint16_t *slot)
{
    if (queue->spare == 0 || queue->device->broken)
        return false;
    *slot = queue->free[--queue->spare];
    return true;
}

void virtio_give(struct virtio_queue *queue, uint16_t slot, uint32_t length, uint16_t flags)
{
    volatile struct kit_vq_desc *desc = &queue->desc[slot];
    desc->address = (uintptr_t)virtio_buffer(queue, slot);
    desc->length = length;
    desc->flags = flags;
    queue->given[slot] = true;
    queue->avail->ring[queue->next & (queue->size - 1)] = slot;
    queue->next++;
    __atomic_store_n(&queue->avail->index, queue->next, __ATOMIC_RELEASE);
}

bool virtio_pending(const struct virtio_queue *queue)
{
    return !queue->device->broken &&
           __atomic_load_n(&queue->used->index, __ATOMIC_ACQUIRE) != queue->taken;
}

bool virtio_take(struct virtio_queue *queue, uint16_t *slot, uint32_t *length)
{
    if (!virtio_pending(queue))
        return false;
    const volatile struct kit_vq_used_element *element =
        &queue->used->ring[queue->taken & (queue->size - 1)];
    uint32_t id = element->id, bytes = element->length; /* read once: it may change */
    if (id >= queue->size || !queue->given[id] || bytes > queue->buffer_size) {
        virtio_break(queue->device);
        return false;
    }
    queue->taken++;
    queue->given[id] = false;
    *slot = (uint16_t)id;
    *length = bytes;
    return true;
}

void virtio_notify(struct virtio_queue *queue)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!(queue->used->flags & KIT_VQ_USED_NO_NOTIFY) && !queue->device->broken)
        queue->device->registers[QUEUE_NOTIFY] = queue->number;
}

void virtio_interrupts(struct virtio_queue *queue, bool wanted)
{
    queue->avail->flags = wanted ? 0 : KIT_VQ_AVAIL_NO_INTERRUPT;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void virtio_acknowledge(struct virtio_device *device)
{
    uint32_t status = device->registers[INTERRUPT_STATUS];
    if (status != 0)
        device->registers[INTERRUPT_ACKNOWLEDGE] = status;
}
