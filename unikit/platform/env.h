/* SPDX-License-Identifier: MIT */
/* The runtime environment: everything a platform gives an image, and nothing else gets in or out.
 *
 * The types and the life cycle are those of the basic unikernel framework; members are appended,
 * never reordered. 22 calls in all (docs/design/environment.rst argues any further one):
 * console write, read; network send, receive, configure, send_batch, receive_batch; block submit,
 * complete; panic_handler; now_ns, wall_ns; entropy; wait; page_release, page_protect; cpu_start,
 * cpu_wake, cpu_self, cpu_slice; boot_option; exit.
 *
 * Rules for every call: the object comes first; no call allocates; no call blocks except `wait`;
 * pointers handed in are read or written only during the call unless stated otherwise. A member
 * may be NULL only where it says «optional»; an optional device object may be NULL as a whole. */
#ifndef KIT_PLATFORM_ENV_H
#define KIT_PLATFORM_ENV_H

#include <unikit/rt/error.h>
#include <unikit/rt/types.h>
#include <unikit/rt/x86_64/inside.h>

/* Facts of the composition, from the composer: a platform's guest side leaves out what nobody in
 * the image can use. */
#ifndef KIT_WITH_NETWORK
#define KIT_WITH_NETWORK 1
#endif
#ifndef KIT_WITH_CPUS
#define KIT_WITH_CPUS 1
#endif

/* cdef: begin */
typedef struct {
    void *base_address;
    uint64_t size; /* bytes */
} memory_region_t;

typedef struct console_interface console_interface_t;
struct console_interface {
    /* Takes up to `length` bytes; returns how many were taken (fewer when the other side is
     * slow; callers MAY drop the rest, they MUST NOT spin on it). */
    size_t (*write)(console_interface_t *console, const char *data, size_t length);
    /* Copies up to `max_length` bytes of input; 0 if there is none. */
    size_t (*read)(console_interface_t *console, char *buffer, size_t max_length);
};

/* One Ethernet frame, without FCS. The offload words are those of struct virtio_net_hdr (virtio
 * 1.2, section 5.1.6): all zero means a complete frame with valid checksums. */
struct kit_frame {
    uint8_t *data;
    uint32_t length;   /* bytes in use */
    uint32_t capacity; /* bytes at data; receive only */
    uint8_t flags;     /* VIRTIO_NET_HDR_F_* */
    uint8_t gso_type;  /* VIRTIO_NET_HDR_GSO_* */
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t checksum_start;
    uint16_t checksum_offset;
};

enum {
    /* why a stack did not take a frame */
    KIT_DROP_NONE = 0,
    KIT_DROP_MALFORMED, /* broken header or length */
    KIT_DROP_CHECKSUM,
    KIT_DROP_UNWANTED,  /* for nobody here: address, protocol, port */
    KIT_DROP_FULL,      /* a table, queue or buffer was full */
    KIT_DROP_FORBIDDEN, /* a state or a rule says no: out of the window, a forged reset */
    KIT_DROP_DUPLICATE  /* all of it was here before */
};

/* What a stack says of one frame, for those who watch the wire (netif.pcap). Zero: not said. */
struct kit_packet_note {
    const uint8_t *frame; /* where the stack got it from receive_batch, or will give it to send */
    uint32_t cwnd;        /* bytes */
    uint32_t ssthresh;
    uint32_t flight; /* bytes sent and not acknowledged */
    uint32_t srtt_us;
    uint32_t rto_us;
    uint8_t state; /* of the TCP connection: KIT_TCP_* (net.h) */
    uint8_t drop;  /* KIT_DROP_* */
    uint8_t outbound;
    uint8_t reserved;
};

typedef struct network_interface network_interface_t;
struct network_interface {
    /* Sends one frame of `length` bytes (14 ... mtu + 14), copying it.
     * 0; KIT_EAGAIN: queue full; KIT_EMSGSIZE; KIT_ECLOSED; KIT_EIO. */
    int (*send_packet)(network_interface_t *network, const void *data, size_t length);
    /* Copies one received frame; its length, or 0 if there is none. A frame longer than
     * `max_length` is dropped and KIT_EMSGSIZE returned. */
    int (*receive_packet)(network_interface_t *network, void *buffer, size_t max_length);
    /* Tells the platform which address the image uses («10.0.0.2», «255.255.255.0»): platforms
     * that route by address need it, the others check the syntax. 0 or KIT_EINVAL. */
    int (*configure)(network_interface_t *network, const char *ip, const char *netmask);
    /* As send_packet for `count` frames; the number taken (the first ones), or an error if the
     * first was refused. Frames with offload words are taken only where `offloads` says so. */
    int (*send_batch)(network_interface_t *network, const struct kit_frame *frames, size_t count);
    /* Fills up to `count` frames (data and capacity given by the caller); the number filled. */
    int (*receive_batch)(network_interface_t *network, struct kit_frame *frames, size_t count);
    uint8_t mac[6];    /* the address of the image's end */
    uint16_t mtu;      /* largest payload of a frame, bytes; 1500 unless said otherwise */
    uint32_t offloads; /* VIRTIO_NET_F_* bits 0..31 that both directions may use; 0: none */
    /* optional: takes a stack's note on a frame: before the send call that carries it, and before
     * the next call after the receive call that gave it. Stacks call it only where it is set. */
    void (*note)(network_interface_t *network, const struct kit_packet_note *note);
};

enum { KIT_BLOCK_READ = 0, KIT_BLOCK_WRITE = 1, KIT_BLOCK_FLUSH = 2 };

struct kit_block_request {
    uint64_t sector; /* of 512 bytes */
    void *data;      /* stays owned by the device until completed */
    uint32_t length; /* bytes, a multiple of 512 */
    uint16_t kind;   /* KIT_BLOCK_* */
    int16_t status;  /* set on completion: 0 or KIT_E... */
};

typedef struct block_interface block_interface_t;
struct block_interface {
    /* Queues one request; 0 or KIT_EAGAIN, KIT_EINVAL. The request stays the caller's. */
    int (*submit)(block_interface_t *block, struct kit_block_request *request);
    /* Up to `count` finished requests; their number. */
    int (*complete)(block_interface_t *block, struct kit_block_request **done, size_t count);
    uint64_t sectors;
    bool read_only;
};

/* What may end a wait, as bits; `wait` returns those that did (0: the deadline). */
enum { KIT_WAKE_CONSOLE = 1, KIT_WAKE_NETWORK = 2, KIT_WAKE_BLOCK = 4, KIT_WAKE_CPU = 8 };

enum { KIT_PAGE_NONE = 0, KIT_PAGE_READ = 1, KIT_PAGE_WRITE = 2 };

/* One processor. The platform owns the memory; it lies at a fixed place for the image's life. The
 * words are shared with whoever ends slices (a monitor, a signal handler of the same processor):
 * read and write them with relaxed atomics. */
struct kit_cpu {
    uint32_t number; /* 0 ... cpus - 1; the processor that booted is 0 */
    /* Depth of calls into components on this processor; written by the image. While it is nonzero
     * the platform takes no upcall. */
    uint32_t inside;
    /* Set by the platform: the slice is over. Safe points look at it, clear it and yield. */
    uint32_t due;
    uint32_t upcalls; /* taken so far, counted by the platform */
    /* Where an upcall continues (x86_64): the platform lowers rsp by 144, over the red zone, stores
     * rflags (without RF and TF) at rsp and the interrupted rip at rsp + 8, clears `due`, sets
     * `inside` to 1 and goes on here with all other registers as they were; `popfq; ret $128`
     * returns. NULL: the image takes none, `due` is all it gets. */
    void (*upcall)(void);
    struct kit_cpu *self; /* this block: what a processor of an image finds at its GS base */
};

typedef struct runtime_environment runtime_environment_t;
struct runtime_environment {
    memory_region_t memory;       /* free memory, zeroed, page aligned; the image owns it */
    console_interface_t *console; /* never NULL */
    network_interface_t *network; /* optional */
    /* Stops the image as failed: message, registers and backtrace go to whoever started it.
     * MUST NOT return. */
    void (*panic_handler)(runtime_environment_t *env, const char *message);
    block_interface_t *block; /* optional */
    /* Monotonic time since an arbitrary start, ns. */
    uint64_t (*now_ns)(runtime_environment_t *env);
    /* Time since 1970-01-01T00:00:00Z without leap seconds, ns; 0 if the platform has none. */
    uint64_t (*wall_ns)(runtime_environment_t *env);
    /* Fills `buffer` with random bytes fit for keys. 0 or KIT_EIO. */
    int (*entropy)(runtime_environment_t *env, void *buffer, size_t size);
    /* Sleeps until `deadline_ns` (by now_ns; KIT_NEVER: none) or one of `wake` (KIT_WAKE_*) has
     * something. Returns at once if something is there. MAY return early with 0. */
    uint32_t (*wait)(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake);
    /* Gives whole pages back; they read as zero afterwards and come back when touched.
     * 0, KIT_EINVAL, KIT_ENOTSUP. */
    int (*page_release)(runtime_environment_t *env, void *base, size_t size);
    /* Changes the access to whole pages of `memory`; never executable.
     * 0, KIT_EINVAL, KIT_ENOTSUP. */
    int (*page_protect)(runtime_environment_t *env, void *base, size_t size, uint32_t access);
    /* Starts processor `cpu` (1 ... cpus - 1) at entry(argument) on the stack that ends at
     * `stack_top`. 0, KIT_EINVAL, KIT_ENOTSUP. */
    int (*cpu_start)(runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument),
                     void *argument, void *stack_top);
    /* Ends the `wait` of another processor with KIT_WAKE_CPU. */
    void (*cpu_wake)(runtime_environment_t *env, uint32_t cpu);
    /* The value given at boot for `name` («net.mini.address»), NUL terminated and valid for
     * ever; NULL if none was given. "" is the application's own argument string. */
    const char *(*boot_option)(runtime_environment_t *env, const char *name);
    /* Ends the image. Platforms pass on what they can: 32 bits on kvm, 8 on Linux. MUST NOT
     * return. */
    void (*exit)(runtime_environment_t *env, int32_t code);
    uint64_t cpu_features; /* KIT_CPU_* of rt/x86_64/cpu.h, usable at the image's privilege */
    uint64_t start_ns;     /* now_ns at the image's first instruction */
    uint32_t cpus;         /* processors that cpu_start may use, this one included */
    const char *platform;  /* «kvm», «linux», «host» ... */
    /* The processor that runs this; never NULL. O(1), no exit. */
    struct kit_cpu *(*cpu_self)(runtime_environment_t *env);
    /* This processor's slice ends at `stop_ns` (by now_ns; KIT_NEVER: it does not): the platform
     * then sets cpu_self()->due, at most KIT_TICK_NS late, and if that was not seen after another
     * KIT_TICK_NS, and nothing is `inside`, takes the upcall. Costs a store, except when slices
     * begin and end to be wanted at all. 0 or KIT_ENOTSUP. */
    int (*cpu_slice)(runtime_environment_t *env, uint64_t stop_ns);
};

enum { KIT_TICK_NS = 1000000, KIT_CPUS_MAX = 64 };

/* What a platform entry calls; does not return before the image ends. Returns the exit code. */
typedef struct {
    runtime_environment_t *runtime;
    void *application_data;
    bool initialized;
} unikernel_state_t;
/* cdef: end */

/* Most processors that an image is composed for; in images of several only. */
extern const uint32_t kit_image_cpus;

/* cpu_self() of images: by the GS base, so it is right after a move to another processor, too. */
KIT_INLINE struct kit_cpu *kit_cpu_here(void)
{
    struct kit_cpu *here;
    __asm__ volatile("movq %%gs:%c1, %0" : "=r"(here) : "i"(offsetof(struct kit_cpu, self)));
    return here;
}

/* Calls of the environment go through the dispatchers below, as those of any interface do. A
 * platform's guest side implements the calls as functions kit_PLATFORM_CALL and enters them by
 * KIT_ENV_SET; with -DKIT_ENV_DIRECT the composer picks among the image's platforms by functions
 * kit_image_CALL (composition.c), the table stays empty, and calls that nobody makes are not
 * linked in. `platform` then MUST be kit_PLATFORM_name. */
#define KIT_ENV_DECLARE(who)                                                                       \
    void kit_##who##_panic_handler(runtime_environment_t *env, const char *message);               \
    uint64_t kit_##who##_now_ns(runtime_environment_t *env);                                       \
    uint64_t kit_##who##_wall_ns(runtime_environment_t *env);                                      \
    int kit_##who##_entropy(runtime_environment_t *env, void *buffer, size_t size);                \
    uint32_t kit_##who##_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake);    \
    int kit_##who##_page_release(runtime_environment_t *env, void *base, size_t size);             \
    int kit_##who##_page_protect(runtime_environment_t *env, void *base, size_t size,              \
                                 uint32_t access);                                                 \
    int kit_##who##_cpu_start(runtime_environment_t *env, uint32_t cpu,                            \
                              void (*entry)(void *argument), void *argument, void *stack_top);     \
    void kit_##who##_cpu_wake(runtime_environment_t *env, uint32_t cpu);                           \
    struct kit_cpu *kit_##who##_cpu_self(runtime_environment_t *env);                              \
    int kit_##who##_cpu_slice(runtime_environment_t *env, uint64_t stop_ns);                       \
    const char *kit_##who##_boot_option(runtime_environment_t *env, const char *name);             \
    void kit_##who##_exit(runtime_environment_t *env, int32_t code);                               \
    uint64_t kit_##who##_cpu_features(runtime_environment_t *env);                                 \
    size_t kit_##who##_console_write(console_interface_t *console, const char *data,               \
                                     size_t length);                                               \
    size_t kit_##who##_console_read(console_interface_t *console, char *buffer,                    \
                                    size_t max_length);                                            \
    int kit_##who##_send_packet(network_interface_t *network, const void *data, size_t length);    \
    int kit_##who##_receive_packet(network_interface_t *network, void *buffer, size_t max_length); \
    int kit_##who##_configure(network_interface_t *network, const char *ip, const char *netmask);  \
    int kit_##who##_send_batch(network_interface_t *network, const struct kit_frame *frames,       \
                               size_t count);                                                      \
    int kit_##who##_receive_batch(network_interface_t *network, struct kit_frame *frames,          \
                                  size_t count);                                                   \
    extern const char kit_##who##_name[]

#ifdef KIT_ENV_DIRECT
#define KIT_ENV_CALL(env, name) kit_image_##name
#define KIT_ENV_HAS(env, name) ((void)(env), true)
#define KIT_ENV_SET(env, name, function) ((void)0)
KIT_ENV_DECLARE(image);
#else
#define KIT_ENV_CALL(env, name) ((env)->name)
#define KIT_ENV_HAS(env, name) ((env)->name != NULL)
#define KIT_ENV_SET(env, name, function) ((void)((env)->name = (function)))
#endif

KIT_INLINE void kit_env_panic_handler(runtime_environment_t *env, const char *message)
{
    KIT_ENV_CALL(env, panic_handler)(env, message);
}

KIT_INLINE uint64_t kit_env_now_ns(runtime_environment_t *env)
{
    return KIT_ENV_CALL(env, now_ns)(env);
}

KIT_INLINE uint64_t kit_env_wall_ns(runtime_environment_t *env)
{
    return KIT_ENV_CALL(env, wall_ns)(env);
}

KIT_INLINE int kit_env_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    return KIT_ENV_CALL(env, entropy)(env, buffer, size);
}

KIT_INLINE uint32_t kit_env_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    return KIT_ENV_CALL(env, wait)(env, deadline_ns, wake);
}

KIT_INLINE int kit_env_page_release(runtime_environment_t *env, void *base, size_t size)
{
    return KIT_ENV_CALL(env, page_release)(env, base, size);
}

KIT_INLINE int kit_env_page_protect(runtime_environment_t *env, void *base, size_t size,
                                    uint32_t access)
{
    return KIT_ENV_CALL(env, page_protect)(env, base, size, access);
}

KIT_INLINE int kit_env_cpu_start(runtime_environment_t *env, uint32_t cpu,
                                 void (*entry)(void *argument), void *argument, void *stack_top)
{
    return KIT_ENV_CALL(env, cpu_start)(env, cpu, entry, argument, stack_top);
}

KIT_INLINE void kit_env_cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    KIT_ENV_CALL(env, cpu_wake)(env, cpu);
}

KIT_INLINE struct kit_cpu *kit_env_cpu_self(runtime_environment_t *env)
{
    return KIT_ENV_CALL(env, cpu_self)(env);
}

KIT_INLINE int kit_env_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    return KIT_ENV_CALL(env, cpu_slice)(env, stop_ns);
}

KIT_INLINE const char *kit_env_boot_option(runtime_environment_t *env, const char *name)
{
    return KIT_ENV_CALL(env, boot_option)(env, name);
}

KIT_INLINE void kit_env_exit(runtime_environment_t *env, int32_t code)
{
    KIT_ENV_CALL(env, exit)(env, code);
}

/* The member cpu_features; asking the processor costs code that most images do not need. */
KIT_INLINE uint64_t kit_env_cpu_features(runtime_environment_t *env)
{
#ifdef KIT_ENV_DIRECT
    return kit_image_cpu_features(env);
#else
    return env->cpu_features;
#endif
}

/* The life cycle of the basic framework, implemented by image/runtime/main.c. */
int init_unikernel(runtime_environment_t *env);
int unikernel_main(runtime_environment_t *env);

#endif
