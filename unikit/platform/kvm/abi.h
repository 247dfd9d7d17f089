/* SPDX-License-Identifier: MIT */
/* What guest and monitor of platform.kvm agree on. Included by both sides.
 *
 * The guest runs in long mode at CPL 3 with VA = PA from its first instruction: rdi = address of
 * the boot page, rsp = top of its stack, rflags = 2, no interrupts ever. The monitor built the page
 * tables, which the guest cannot see. Memory is one slot at KIT_KVM_MEMORY:
 *
 *     image | tables | stack | system | boot | shared, queues, buffers | fault stack | heap
 *      RX R RW  (-)     RW      (-)     R       RW                        (-)          RW
 *
 * (-): no access at CPL 3, so each doubles as a guard. The doorbell is one page below the slot
 * without memory behind it: a 32-bit store to word n is call n of enum kit_kvm_bell. Any other
 * access to it, and any access outside the slot, ends the guest.
 *
 * Queues are split virtqueues (platform/virtqueue.h) used in order: the device takes and returns
 * descriptors in the order in which they were made available, one descriptor per buffer.
 *
 * Each processor has a struct kit_kvm_cpu: that of the first lies in the shared page, those of the
 * others in front of the queues. The monitor has its GS base point at the `cpu` in it. */
#ifndef KIT_PLATFORM_KVM_ABI_H
#define KIT_PLATFORM_KVM_ABI_H

#include <unikit/platform/env.h>
#include <unikit/platform/virtqueue.h>
#include <unikit/rt/types.h>

#define KIT_KVM_MEMORY UINT64_C(0x100000)
#define KIT_KVM_DOORBELL UINT64_C(0xff000)
#define KIT_KVM_MAGIC UINT64_C(0x6d766b2074696b75)

enum {
    KIT_KVM_ABI = 2,
    KIT_KVM_BOOT_BYTES = 4096,
    KIT_KVM_SEED_BYTES = 40,
    KIT_KVM_CPUS_MAX = KIT_CPUS_MAX,
    KIT_KVM_CPU_STRIDE = 256 /* bytes from one struct kit_kvm_cpu to the next */
};

/* Words of the doorbell. Every call also makes the monitor look at all queues. Arguments and
 * results lie in the struct kit_kvm_call of the processor that calls. */
enum kit_kvm_bell {
    KIT_KVM_EXIT = 0,  /* value: exit code. Does not return. */
    KIT_KVM_PANIC = 1, /* message, message_length. Does not return. */
    KIT_KVM_IDLE = 2,  /* sleep: deadline_ns, wake, seen[]; result in woken */
    KIT_KVM_PAGES = 3, /* page_*; result in page_result */
    KIT_KVM_KICK = 4,  /* look at the queues */
    KIT_KVM_START = 5, /* value: the processor to start; start_*; result in start_result */
    KIT_KVM_SLICE = 6, /* a slice has an end, and nobody looks at the clock: kit_kvm_cpu.ticking */
    KIT_KVM_BELLS,
    /* Word KIT_KVM_WAKE + n ends the sleep of processor n. The value means nothing, no other queue
     * is looked at, and most of the time nobody leaves the guest (ioeventfd). */
    KIT_KVM_WAKE = 64
};

enum { KIT_KVM_PAGE_RELEASE = 1, KIT_KVM_PAGE_PROTECT = 2 };

enum kit_kvm_queue_name {
    KIT_KVM_CONSOLE_TX = 0, /* descriptors may point at any memory the guest can read; finished
                               before the kick returns; used length: bytes taken */
    KIT_KVM_CONSOLE_RX = 1,
    KIT_KVM_NET_TX = 2, /* buffers start with struct kit_virtio_net_header */
    KIT_KVM_NET_RX = 3,
    KIT_KVM_QUEUES
};

struct kit_kvm_queue {
    uint64_t desc;
    uint64_t avail;
    uint64_t used;
    uint64_t buffers; /* size buffers of buffer_size bytes; 0: the queue needs none */
    uint32_t size;    /* a power of two; 0: no such device */
    uint32_t buffer_size;
};

/* Time: ns = ns_base + (tsc - tsc_base) * multiplier / 2^KIT_KVM_CLOCK_SHIFT. The monitor renews
 * the numbers now and then: `sequence` is odd meanwhile, and a reader that saw it change reads
 * again. A new set may lie behind the old one by less than its error; readers hold time back. */
enum { KIT_KVM_CLOCK_SHIFT = 32 };
struct kit_kvm_clock {
    uint32_t sequence;
    uint32_t reserved;
    uint64_t tsc_base;
    uint64_t ns_base; /* CLOCK_MONOTONIC of the host */
    uint64_t multiplier;
    uint64_t wall_offset; /* wall clock - ns; 0: unknown */
};

/* The boot page; read-only in the guest. */
struct kit_kvm_boot {
    uint64_t magic;
    uint32_t abi;
    uint32_t bytes; /* of this structure and the options behind it */
    uint64_t memory_size;
    uint64_t heap_base;
    uint64_t heap_size;
    uint64_t stack_base;
    uint64_t stack_size;
    uint64_t shared;       /* struct kit_kvm_shared */
    uint64_t cpu_features; /* KIT_CPU_* */
    uint64_t start_ns;
    struct kit_kvm_clock clock;
    struct kit_kvm_queue queue[KIT_KVM_QUEUES];
    uint32_t cpus;
    uint32_t offloads; /* VIRTIO_NET_F_* of the network device */
    uint8_t mac[6];
    uint16_t mtu;
    uint32_t options_bytes;
    uint64_t processors; /* struct kit_kvm_cpu of 1 ... cpus - 1, KIT_KVM_CPU_STRIDE apart */
    char options[];      /* name NUL value NUL, name NUL value NUL ... */
};

/* One processor's arguments and results of doorbell calls. */
struct kit_kvm_call {
    /* KIT_KVM_IDLE */
    uint64_t deadline_ns;
    uint32_t wake;                 /* KIT_WAKE_*; console and network: processor 0 only */
    uint32_t woken;                /* answer */
    uint16_t seen[KIT_KVM_QUEUES]; /* used indices the guest has taken note of */
    /* KIT_KVM_PANIC */
    uint64_t message;
    uint64_t message_length;
    /* KIT_KVM_PAGES */
    uint64_t page_base;
    uint64_t page_size;
    uint32_t page_call;
    uint32_t page_access; /* KIT_PAGE_* */
    int32_t page_result;
    /* KIT_KVM_START */
    int32_t start_result;
    uint64_t start_entry; /* rip, rdi, rsp of the processor */
    uint64_t start_argument;
    uint64_t start_stack;
};

/* One processor; both sides write. */
struct kit_kvm_cpu {
    struct kit_kvm_call call;
    uint32_t kicked;  /* KIT_WAKE_CPU: written by the guest alone, looked at by both */
    uint32_t asleep;  /* the guest's own: it is to be rung */
    uint64_t last_ns; /* the guest's own: its time never runs backwards */
    struct kit_cpu cpu;
    /* The monitor looks at `stop_ns` once a tick while `ticking`, which it takes back when it has
     * found no end of a slice for some ticks. Whoever writes the first one looks at `ticking`
     * afterwards, and calls KIT_KVM_SLICE. */
    uint64_t stop_ns;
    uint32_t ticking;
    uint32_t reserved;
};

/* The shared page; both sides write. Nothing in it is trusted by the monitor. */
struct kit_kvm_shared {
    uint8_t seed[KIT_KVM_SEED_BYTES]; /* the guest wipes it after use */
    uint64_t canary;                  /* of the stack protector */
    uint64_t entry_tsc;               /* the guest's first instructions */
    uint64_t main_tsc;                /* handed over to the image */
    struct kit_kvm_cpu first;
    /* Written by the monitor at any time. */
    uint32_t served;  /* 1: a thread moves frames while the guest runs; 0: they move on calls */
    uint32_t poll_ns; /* how long a wait should look at the queues before it calls IDLE */
};

_Static_assert(sizeof(struct kit_kvm_boot) <= 512, "leaves most of the page to the options");
_Static_assert(sizeof(struct kit_kvm_cpu) <= KIT_KVM_CPU_STRIDE, "one processor");
_Static_assert(sizeof(struct kit_kvm_shared) <= 256, "shares its page with the console's queues");

#endif
