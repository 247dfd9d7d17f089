/* SPDX-License-Identifier: MIT */
/* Randomness under PVH: a generator, seeded when it is first asked from a virtio-rng device
 * (virtio 1.2, 5.4) or RDSEED or RDRAND; without any of them there is none, and it is said. */
#include <unikit/platform/qemu/guest/virtio.h>
#include <unikit/platform/x86/generator.h>
#include <unikit/rt/x86_64/cpu.h>

enum { QUEUE_SIZE = 8, BUFFER = 64, PATIENCE_NS = 1000000000 };

static struct kit_generator generator;
static bool seeded;

/* The device is reset before this returns: the memory is not its any more. */
static PVH_COLD bool from_device(uint8_t *seed)
{
    static struct virtio_queue queue;
    static alignas(PVH_PAGE) uint8_t memory[3 * PVH_PAGE];
    struct virtio_device device;
    uint16_t slot;
    uint32_t length = 0, done = 0;
    if (virtio_queue_bytes(QUEUE_SIZE, BUFFER) > sizeof memory ||
        virtio_open(&device, VIRTIO_RNG, 0) != 0)
        return false;
    memset(memory, 0, sizeof memory);
    bool open = virtio_queue_open(&queue, &device, 0, QUEUE_SIZE, BUFFER, memory) == 0;
    if (open)
        virtio_start(&device);
    uint64_t end = kit_pvh_now_ns(&kit_pvh.env) + PATIENCE_NS;
    while (open && done < KIT_GENERATOR_SEED && virtio_free(&queue, &slot)) {
        virtio_give(&queue, slot, KIT_GENERATOR_SEED - done, KIT_VQ_DESC_WRITE);
        virtio_notify(&queue);
        while (!virtio_take(&queue, &slot, &length) && !device.broken &&
               kit_pvh_now_ns(&kit_pvh.env) < end)
            kit_cpu_pause();
        if (length == 0 || length > KIT_GENERATOR_SEED - done)
            break; /* it is silent, or lies */
        memcpy(seed + done, virtio_buffer(&queue, slot), length);
        done += length;
        queue.free[queue.spare++] = slot;
        length = 0;
    }
    virtio_break(&device);
    return done == KIT_GENERATOR_SEED;
}

static PVH_COLD bool from_processor(uint8_t *seed)
{
    for (unsigned i = 0; i < KIT_GENERATOR_SEED; i += 8) {
        uint64_t word = 0;
        uint8_t good = 0;
        for (unsigned tries = 0; tries < 1000 && !good; tries++)
            __asm__ volatile("rdrand %0; setc %1" : "=r"(word), "=qm"(good)::"cc");
        if (!good)
            return false;
        memcpy(seed + i, &word, 8);
    }
    return true;
}

PVH_COLD int kit_pvh_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    (void)env;
    if (!seeded) {
        bool hardware = (kit_cpu_cpuid(1, 0).ecx >> 30 & 1) != 0;
        uint8_t seed[KIT_GENERATOR_SEED];
        if (!from_device(seed) && !(hardware && from_processor(seed)))
            return KIT_EIO;
        kit_generator_open(&generator, seed, hardware);
        seeded = true;
    }
    kit_generator_fill(&generator, buffer, size);
    return 0;
}
