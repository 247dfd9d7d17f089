/* SPDX-License-Identifier: MIT */
/* What the files of the monitor share. Guest memory is hostile: whatever is read from it is read
 * once, checked, and then used. */
#ifndef KIT_PLATFORM_KVM_VMM_INTERNAL_H
#define KIT_PLATFORM_KVM_VMM_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <unikit/platform/kvm/vmm/vmm.h>
#include <unikit/rt/error.h>

#define VMM_PAGE UINT64_C(4096)
#define VMM_HUGE UINT64_C(0x200000)
#define VMM_FAULT_PORT 0xf2

/* ---- memory.c: guest addresses to host pointers ------------------------------------------ */

struct vmm_memory {
    uint8_t *host; /* of guest address KIT_KVM_MEMORY */
    struct kit_kvm_layout layout;
};

/* The host address of [address, address + size) if all of it is guest memory, else NULL. */
void *vmm_memory_any(const struct vmm_memory *memory, uint64_t address, uint64_t size);
/* ... if the guest itself can read it (page protection of the heap aside), else NULL. */
void *vmm_memory_readable(const struct vmm_memory *memory, uint64_t address, uint64_t size);
/* ... if the guest itself can write it, by its page tables, else NULL. At most a page; pages_lock.
 */
void *vmm_memory_writable(const struct vmm_memory *memory, uint64_t address, uint64_t size);
/* ... if it lies in the queues' buffers: the only place a device writes to. */
void *vmm_memory_buffer(const struct vmm_memory *memory, uint64_t address, uint64_t size);

/* ---- layout.c, tables.c ------------------------------------------------------------------- */

/* Decides where everything lies; reads nothing but its arguments. `random` moves heap and stack.
 * 0, or KIT_ENOMEM, KIT_EINVAL with *refused filled. */
int vmm_layout(const struct kit_kvm_config *config, uint64_t random, struct kit_kvm_layout *layout,
               struct kit_kvm_queue queues[KIT_KVM_QUEUES], struct kit_kvm_refused *refused);
/* Writes page tables and the system page into fresh memory. */
void vmm_tables_build(struct vmm_memory *memory, const struct kit_kvm_config *config);
/* How many table pages a layout needs. */
uint64_t vmm_tables_count(const struct kit_kvm_layout *layout);
/* page_release and page_protect for a range of the heap; 0 or KIT_E... */
int vmm_pages_release(struct vmm_memory *memory, uint64_t base, uint64_t size);
int vmm_pages_protect(struct vmm_memory *memory, uint64_t base, uint64_t size, uint32_t access,
                      uint64_t *reserve_used);

/* Offsets in the system pages: the first has everything for one processor, those behind it a task
 * state for each further one. */
enum {
    VMM_GDT = 0,
    VMM_TSS = 0x80,
    VMM_IDT = 0x100,
    VMM_STUBS = 0x300,
    VMM_VECTORS = 32,
    VMM_TSS_STRIDE = 0x80,
    VMM_FAULT_FRAME = 64 /* bytes of the fault stack for each processor: one exception, no more */
};
/* Where the struct kit_kvm_cpu and the task state of a processor lie. */
uint64_t vmm_processor(const struct kit_kvm_layout *layout, uint32_t cpu);
uint64_t vmm_tss(const struct kit_kvm_layout *layout, uint32_t cpu);

/* ---- queue.c: the device's end of a virtqueue ---------------------------------------------- */

struct vmm_fault {
    char text[160]; /* empty: nothing is wrong */
};
__attribute__((format(printf, 2, 3))) int vmm_fault(struct vmm_fault *fault, const char *format,
                                                    ...);

struct vmm_queue {
    const struct vmm_memory *memory;
    const char *name;
    volatile struct kit_vq_desc *desc;
    volatile struct kit_vq_avail *avail;
    volatile struct kit_vq_used *used;
    uint32_t size;
    bool device_writes;
    uint16_t next;      /* avail entries looked at */
    uint16_t completed; /* used entries written */
};

struct vmm_buffer {
    uint8_t *data; /* host */
    uint32_t length;
    uint32_t id;
};

void vmm_queue_open(struct vmm_queue *queue, const struct vmm_memory *memory, const char *name,
                    const struct kit_kvm_queue *place, bool device_writes);
/* Takes up to `count` available buffers: how many, or KIT_EMALFORMED with *fault. */
int vmm_queue_take(struct vmm_queue *queue, struct vmm_buffer *buffers, uint32_t count,
                   struct vmm_fault *fault);
/* Whether something is available (not checked yet). */
bool vmm_queue_pending(const struct vmm_queue *queue);
/* Gives one buffer back, in the order of taking; visible at once. */
void vmm_queue_return(struct vmm_queue *queue, uint32_t id, uint32_t length);
void vmm_queue_set_notify(struct vmm_queue *queue, bool wanted);

/* ---- console.c ------------------------------------------------------------------------------ */

enum { VMM_OUTPUT = 256 << 10, VMM_INPUT = 4 << 10 };

struct vmm_console {
    struct vmm_queue tx, rx;
    pthread_mutex_t queue; /* of tx */
    pthread_mutex_t lock;
    pthread_cond_t readable, writable;
    char *output; /* a ring of VMM_OUTPUT bytes; mapped, so untouched pages cost nothing */
    uint64_t written, read;
    char input[VMM_INPUT];
    uint64_t input_written, input_read;
    uint64_t bytes, dropped, first_ns, first_tsc;
    bool closed, hurry;
};

int vmm_console_open(struct vmm_console *console);
void vmm_console_close(struct vmm_console *console);
/* Takes what the guest wrote. May wait a little for a slow reader. 0 or KIT_EMALFORMED. From any
 * processor's thread. */
int vmm_console_drain(struct vmm_console *console, struct vmm_fault *fault);
/* Moves input into the guest's buffers. 0 or KIT_EMALFORMED. */
int vmm_console_feed(struct vmm_console *console, struct vmm_fault *fault);
/* From now on nobody waits for a slow reader. */
void vmm_console_hurry(struct vmm_console *console);
/* No more output will come. */
void vmm_console_end(struct vmm_console *console);

/* ---- net.c: frames between queues and host interface; device.c: who does it when --------------
 */

enum { VMM_NET_BATCH = 32 };

struct vmm_net {
    struct kit_host_netif *netif; /* NULL: no device */
    struct vmm_queue tx, rx;
    uint32_t frame_limit;
    uint32_t tx_count, tx_done; /* taken but not yet accepted by the interface */
    uint32_t rx_count, rx_done; /* taken and empty */
    struct vmm_buffer tx_buffers[VMM_NET_BATCH], rx_buffers[VMM_NET_BATCH];
    struct kit_frame tx_frames[VMM_NET_BATCH], rx_frames[VMM_NET_BATCH];
    bool dead;    /* the interface reported an error that will not go away */
    bool blocked; /* the interface did not take everything */
    uint64_t sent, received, sent_bytes, received_bytes, dropped;
};

void vmm_net_open(struct vmm_net *net, const struct vmm_memory *memory,
                  struct kit_host_netif *netif, const struct kit_kvm_queue queues[KIT_KVM_QUEUES]);
/* Moves what can be moved, boundedly: frames moved, or KIT_EMALFORMED with *fault. */
int vmm_net_service(struct vmm_net *net, struct vmm_fault *fault);
/* Whether a frame from outside could be delivered now. */
bool vmm_net_has_room(const struct vmm_net *net);

/* ---- the machine ------------------------------------------------------------------------------
 */

struct vmm_clock {
    uint64_t tsc_offset; /* guest = host + offset */
    uint64_t renewed_ns;
    pthread_mutex_t lock; /* of who renews */
};

/* A processor's slice (slice.c), as far as the monitor knows it. */
struct vmm_slice {
    timer_t timer;
    uint32_t empty;      /* ticks in a row without an end */
    bool asked;          /* there is a timer */
    bool sync_registers; /* KVM_RUN itself hands registers over */
    uint64_t pressed_ns; /* since when `due` is set; 0: it is not */
};

/* One processor and its thread. */
struct vmm_cpu {
    struct kit_kvm *vm;
    uint32_t number;
    bool taken;   /* the guest has asked for it; under start_lock, as ... */
    bool started; /* ... there is a thread */
    bool joined;
    uint32_t ended;  /* ... that has left the guest for ever */
    int fd, wake_fd; /* the eventfd that ends its sleep */
    struct kvm_run *run;
    pthread_t thread;
    volatile struct kit_kvm_cpu *shared; /* in guest memory */
    struct kvm_regs start;               /* what it starts with */
    struct vmm_fault fault;
    struct vmm_slice slice;
    uint64_t exits_idle, exits_kick, exits_pages, exits_interrupted, exits_slice, upcalls;
    uint64_t final_ns; /* processor time, once ended */
};

struct kit_kvm {
    struct vmm_memory memory;
    struct kit_kvm_boot *boot;
    struct kit_kvm_shared *shared;
    struct vmm_console console;
    struct vmm_net net;
    struct vmm_clock clock;
    struct kit_kvm_queue queues[KIT_KVM_QUEUES];
    const struct kit_kvm_config *config; /* only during kit_kvm_boot */
    struct kit_kvm_refused refused;      /* of the first processor, during kit_kvm_boot */
    int vm_fd;
    size_t run_bytes;
    pthread_mutex_t pages_lock; /* of the page tables */
    uint64_t reserve_used;
    struct vmm_cpu cpu[KIT_KVM_CPUS_MAX];
    uint32_t cpu_count; /* that there may be */
    uint32_t cpus_live; /* threads that may still be in the guest */
    pthread_mutex_t start_lock;
    uint32_t cpus_bound; /* the first processor's doorbell word is bound, too */
    uint32_t vm_ready;   /* futexes: 0, 1 or 2 (given up) */
    uint32_t vcpu_ready;
    uint32_t memory_ready;
    uint32_t stop; /* end as soon as possible */
    uint32_t
        broken;     /* ... because another thread found the guest breaking a device; device_fault */
    uint32_t over;  /* one processor has ended the guest: the report stands */
    uint32_t ended; /* ... and all have left it */
    pthread_mutex_t report_lock;
    struct kit_kvm_report report;
    /* device.c */
    pthread_t device_thread;
    bool device_started;
    pthread_mutex_t net_lock;
    int device_fd;    /* eventfd that ends a device thread's sleep */
    uint32_t engaged; /* futex: 1: the device thread moves frames */
    uint32_t device_quit;
    bool dozing; /* the device thread sleeps in poll() */
    struct vmm_fault device_fault;
    cpu_set_t allowed;   /* processors that the starter of the machine may use */
    int kept_off;        /* 1 + the processor that the device thread may not use; 0: none */
    uint32_t hot;        /* idles in a row that ended at once with frames */
    uint32_t hot_turns;  /* how many it takes */
    uint64_t engaged_at; /* frames moved before */
    uint32_t kicks;      /* since the last idle */
    uint64_t engagements, served_turns;
    uint64_t boot_ns;
};

/* sync.c */
uint64_t vmm_now_ns(void);
void vmm_futex_wait(uint32_t *word, uint32_t value);
void vmm_futex_set(uint32_t *word, uint32_t value);

/* clock.c */
void vmm_clock_open(struct kit_kvm *vm);
void vmm_clock_renew(struct kit_kvm *vm);
/* Gives a further processor the counter of the first. */
void vmm_clock_follow(const struct vmm_cpu *cpu);
uint64_t vmm_clock_hz(void);

/* host.c: what is asked once per process */
int vmm_host_open(struct kit_kvm_refused *refused); /* the fd of /dev/kvm, or < 0 */
int vmm_host_run_bytes(void);
const struct kvm_cpuid2 *vmm_host_cpuid(void);
int vmm_host_features(uint64_t *features, struct kit_kvm_refused *refused);
int vmm_refuse_host(struct kit_kvm_refused *refused, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
unsigned vmm_host_cpus(void);

/* slice.c, on the processor's thread: KIT_KVM_SLICE, 0 or an errno; ... */
int vmm_slice_wanted(struct vmm_cpu *cpu);
/* ... and after an interrupted KVM_RUN: on into the guest's upcall, if the ticks say so. 0 or an
 * errno. */
int vmm_slice_interrupted(struct vmm_cpu *cpu);
/* ... and when it leaves the guest for ever. */
void vmm_slice_end(struct vmm_cpu *cpu);

/* vcpu.c, cpus.c, report.c, device.c */
int vmm_vcpu_open(struct vmm_cpu *cpu, struct kit_kvm_refused *refused);
/* Whether the ones opened so far have the instructions for FS and GS base. */
bool vmm_vcpu_sets_bases(void);
/* The threads of the first and of the other processors. */
void *vmm_vcpu_main(void *argument);
void *vmm_vcpu_further(void *argument);
int vmm_kick_signal(void);
/* Makes the eventfds and places of all processors; nothing runs yet. */
int vmm_cpus_open(struct kit_kvm *vm, struct kit_kvm_refused *refused);
void vmm_cpus_close(struct kit_kvm *vm);
int vmm_cpu_thread(struct vmm_cpu *cpu, void *(*run)(void *argument));
/* KIT_KVM_START on a processor's thread: the answer for the guest. */
int32_t vmm_cpu_start(struct vmm_cpu *cpu, uint32_t number);
/* A word from KIT_KVM_WAKE on, where no ioeventfd took it. Whether there is such a processor. */
bool vmm_cpu_wake(struct kit_kvm *vm, uint32_t number);
/* This processor ended the guest, or found that it is to end; the first report stands. */
void vmm_report(struct vmm_cpu *cpu, enum kit_kvm_end end, int32_t code);
/* Makes the processors' threads look at `stop`, `broken` and `over`. From any thread. */
void vmm_interrupt(struct kit_kvm *vm);
/* Whether a thread should leave the guest. */
bool vmm_interrupted(const struct kit_kvm *vm);
/* Another thread than the processor's found `fault`. */
void vmm_break(struct kit_kvm *vm, const struct vmm_fault *fault);
/* Asks for short turns of the calling thread on its processor. */
void vmm_short_slice(void);
int vmm_device_start(struct kit_kvm *vm);
void vmm_device_stop(struct kit_kvm *vm);
/* KIT_KVM_IDLE and KIT_KVM_KICK on a processor's thread: 0, or KIT_EMALFORMED with its fault. */
int vmm_device_idle(struct vmm_cpu *cpu);
int vmm_device_kick(struct vmm_cpu *cpu);
/* The guest exits: what it sent still goes out. */
int vmm_device_flush(struct vmm_cpu *cpu);
/* kit_kvm_boot for a known feature word. */
int vmm_boot(struct kit_kvm *vm, const struct kit_kvm_config *config, uint64_t features,
             struct kit_kvm_refused *refused);

#endif
