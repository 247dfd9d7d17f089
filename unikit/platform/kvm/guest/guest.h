/* SPDX-License-Identifier: MIT */
/* The guest side of platform.kvm: the environment over a doorbell and four queues. Platform code
 * runs once per image, so its state is one object of file scope. */
#ifndef KIT_PLATFORM_KVM_GUEST_H
#define KIT_PLATFORM_KVM_GUEST_H

#include <unikit/platform/console/console.h>
#include <unikit/platform/env.h>
#include <unikit/platform/kvm/abi.h>
#include <unikit/platform/x86/generator.h>
#include <unikit/rt/x86_64/spin.h>

/* Small rather than fast: used once, or rarely. */
#define KVM_COLD __attribute__((cold))

/* The driver's end of a queue: buffers are used in turn, so an index is all the state. */
struct kvm_queue {
    volatile struct kit_vq_desc *desc;
    volatile struct kit_vq_avail *avail;
    volatile struct kit_vq_used *used;
    uint8_t *buffers;
    uint32_t size;
    uint32_t buffer_size;
    uint16_t next;  /* avail index: how many were made available */
    uint16_t taken; /* used index: how many answers were looked at */
};

struct kvm_guest {
    runtime_environment_t env;
    struct kit_cpu cpu;
    console_interface_t console;
    network_interface_t network;
    const struct kit_kvm_boot *boot;
    volatile struct kit_kvm_shared *shared;
    struct kvm_queue console_tx, console_rx, net_tx, net_rx;
    uint32_t console_rx_offset; /* bytes already read of the buffer at its head */
    uint64_t last_ns;           /* time never runs backwards */
    uint64_t last_call_tsc;     /* of the last doorbell call that looked at the queues */
    uint64_t unsent_tsc;        /* when the first frame that nobody was told of was queued; 0 */
    uint64_t patience_tsc;      /* how long a frame may wait for that */
    struct kit_generator entropy;
#if KIT_WITH_CPUS
    struct kit_spin entropy_lock;
#endif
};

extern struct kvm_guest kit_kvm_guest;

KIT_ENV_DECLARE(kvm);

void kvm_bell(enum kit_kvm_bell call, uint32_t value);

/* The words of the processor that runs this. */
KIT_INLINE volatile struct kit_kvm_cpu *kvm_here(struct kvm_guest *guest)
{
#if KIT_WITH_CPUS
    (void)guest;
    return KIT_CONTAINER_OF(kit_cpu_here(), struct kit_kvm_cpu, cpu);
#else
    return &guest->shared->first;
#endif
}

/* Whether the devices are this processor's. */
KIT_INLINE bool kvm_has_devices(void)
{
    return !KIT_WITH_CPUS || kit_cpu_here()->number == 0;
}

void kvm_queue_open(struct kvm_queue *queue, const struct kit_kvm_queue *place);
uint8_t *kvm_queue_buffer(const struct kvm_queue *queue, uint16_t index);
/* Makes one descriptor available. Room MUST be there. */
void kvm_queue_add(struct kvm_queue *queue, const void *data, uint32_t length, uint16_t flags);
/* How many descriptors came back that were not taken note of; how many may be added. */
uint16_t kvm_queue_used(const struct kvm_queue *queue);
uint16_t kvm_queue_room(const struct kvm_queue *queue);

void kvm_console_open(struct kvm_guest *guest);
void kvm_network_open(struct kvm_guest *guest);
/* Tells the monitor of frames that it does not see by itself, if they have waited long enough. */
void kvm_network_tick(struct kvm_guest *guest);
/* ... at once. */
void kvm_network_flush(struct kvm_guest *guest);

void kvm_entropy_open(struct kvm_guest *guest);

#endif
