/* SPDX-License-Identifier: MIT */
/* The driver's side of virtio 1.2 over MMIO (section 4.2), version 2 and legacy, with split queues
 * (2.7). Nothing that the device writes is trusted: identifiers and lengths are checked against
 * what it was given, and a device that lies is reset and is not spoken to again. */
#ifndef KIT_PLATFORM_QEMU_VIRTIO_H
#define KIT_PLATFORM_QEMU_VIRTIO_H

#include <unikit/platform/qemu/guest/pvh.h>
#include <unikit/platform/virtqueue.h>

enum { VIRTIO_NET = 1, VIRTIO_RNG = 4 };
enum { VIRTIO_QUEUE_MAX = 256, VIRTIO_QUEUES_MAX = 2 };
#define VIRTIO_VERSION_1 (UINT64_C(1) << 32)

struct virtio_device {
    volatile uint32_t *registers; /* NULL: there is none */
    uint64_t features;            /* that both sides have */
    bool legacy;
    bool broken;
};

/* One buffer per descriptor, each at its place for ever. */
struct virtio_queue {
    struct virtio_device *device;
    volatile struct kit_vq_desc *desc;
    volatile struct kit_vq_avail *avail;
    volatile struct kit_vq_used *used;
    uint8_t *buffers;
    uint32_t buffer_size;
    uint16_t number;
    uint16_t size;  /* a power of two; 0: not open */
    uint16_t next;  /* avail index */
    uint16_t taken; /* used index */
    uint16_t spare; /* how many of free[] */
    uint16_t free[VIRTIO_QUEUE_MAX];
    bool given[VIRTIO_QUEUE_MAX]; /* the device has it */
};

/* Finds the n-th device of a kind and makes it ready for features: 0 or KIT_ENOENT, KIT_EIO. */
PVH_COLD int virtio_open(struct virtio_device *device, uint32_t kind, uint64_t wanted);
/* Memory of a queue of `size` entries with its buffers, page aligned. */
PVH_COLD size_t virtio_queue_bytes(uint32_t size, uint32_t buffer_size);
/* `memory` of that many bytes is zeroed and the queue's for ever. 0 or KIT_EIO. */
PVH_COLD int virtio_queue_open(struct virtio_queue *queue, struct virtio_device *device,
                               uint16_t number, uint32_t size, uint32_t buffer_size,
                               uint8_t *memory);
/* The device may begin. */
PVH_COLD void virtio_start(struct virtio_device *device);
/* Resets it; from now on every queue of it is empty and full at once. */
PVH_COLD void virtio_break(struct virtio_device *device);
/* A byte of its configuration space. */
PVH_COLD uint8_t virtio_config(const struct virtio_device *device, uint32_t offset);

uint8_t *virtio_buffer(const struct virtio_queue *queue, uint16_t slot);
/* A slot that the device does not have; false if it has all. */
bool virtio_free(struct virtio_queue *queue, uint16_t *slot);
/* Gives a slot's buffer to the device. */
void virtio_give(struct virtio_queue *queue, uint16_t slot, uint32_t length, uint16_t flags);
/* The next slot that came back, and how much the device wrote; false if there is none. */
bool virtio_take(struct virtio_queue *queue, uint16_t *slot, uint32_t *length);
bool virtio_pending(const struct virtio_queue *queue);
/* Tells the device of new buffers, unless it looks by itself. */
void virtio_notify(struct virtio_queue *queue);
/* Interrupts are asked for only while the image sleeps. */
void virtio_interrupts(struct virtio_queue *queue, bool wanted);
/* The device may raise the next one. */
void virtio_acknowledge(struct virtio_device *device);

/* network.c */
PVH_COLD void pvh_network_open(void);
bool pvh_network_ready(void);
/* Around a sleep. */
void pvh_network_arm(bool sleeping);

#endif
