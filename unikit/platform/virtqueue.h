/* SPDX-License-Identifier: MIT */
/* The split virtqueue in memory: virtio 1.2, section 2.7. One layout serves our own monitor, QEMU
 * and Firecracker. Little endian throughout; the three parts of a queue have addresses of their
 * own. */
#ifndef KIT_PLATFORM_VIRTQUEUE_H
#define KIT_PLATFORM_VIRTQUEUE_H

#include <unikit/rt/types.h>

enum {
    KIT_VQ_DESC_NEXT = 1,
    KIT_VQ_DESC_WRITE = 2, /* the device writes, else reads */
    KIT_VQ_AVAIL_NO_INTERRUPT = 1,
    KIT_VQ_USED_NO_NOTIFY = 1 /* the device looks by itself: the driver need not kick */
};

struct kit_vq_desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct kit_vq_avail {
    uint16_t flags;
    uint16_t index; /* of the next entry to be filled, modulo 65536 */
    uint16_t ring[];
};

struct kit_vq_used_element {
    uint32_t id;
    uint32_t length; /* bytes that the device wrote */
};

struct kit_vq_used {
    uint16_t flags;
    uint16_t index;
    struct kit_vq_used_element ring[];
};

_Static_assert(sizeof(struct kit_vq_desc) == 16, "virtio 1.2, 2.7.5");
_Static_assert(sizeof(struct kit_vq_avail) == 4, "virtio 1.2, 2.7.6");
_Static_assert(sizeof(struct kit_vq_used_element) == 8, "virtio 1.2, 2.7.8");

/* Where the parts of a queue of `size` entries lie when they are stored one behind the other: the
 * driver's part and the device's part on cache lines of their own. */
KIT_INLINE uint32_t kit_vq_avail_offset(uint32_t size)
{
    return 16 * size;
}

KIT_INLINE uint32_t kit_vq_used_offset(uint32_t size)
{
    return (kit_vq_avail_offset(size) + 6 + 2 * size + 63) & ~63u;
}

KIT_INLINE uint32_t kit_vq_bytes(uint32_t size)
{
    return (kit_vq_used_offset(size) + 6 + 8 * size + 63) & ~63u;
}

/* Goes before every frame: virtio 1.2, section 5.1.6. */
struct kit_virtio_net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t checksum_start;
    uint16_t checksum_offset;
    uint16_t buffers; /* 1: no merging */
};
_Static_assert(sizeof(struct kit_virtio_net_header) == 12, "virtio 1.2, 5.1.6");

#endif
