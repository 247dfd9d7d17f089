/* SPDX-License-Identifier: MIT */
/* The monitor of platform.kvm as Python sees it: boot a guest in one call, carry its console, wait
 * for its end, ask what happened. Hosted C.
 *
 * One kit_kvm is one virtual machine with one thread for each processor that was started and, with
 * a network device, one for that. No call but kit_kvm_read blocks. kit_kvm_read, _input, _stop and
 * _stats may be used from any thread until kit_kvm_close, which frees everything and MUST be the
 * last call. */
#ifndef KIT_PLATFORM_KVM_VMM_H
#define KIT_PLATFORM_KVM_VMM_H

#include <unikit/net/netif/host.h>
#include <unikit/platform/kvm/abi.h>

/* cdef: begin */
enum { KIT_KVM_WRITABLE = 1, KIT_KVM_EXECUTABLE = 2 };

/* One piece of the image: `stored` bytes at `data`, zeros up to `size`. */
struct kit_kvm_segment {
    uint64_t address;
    const uint8_t *data;
    uint64_t stored;
    uint64_t size;
    uint32_t access;
};

struct kit_kvm_config {
    const struct kit_kvm_segment *segments; /* by rising address, no two on one page */
    size_t segment_count;
    uint64_t entry;
    uint64_t memory;     /* bytes in all: image, tables, stack, queues, heap */
    const char *options; /* name NUL value NUL ... */
    size_t options_bytes;
    struct kit_host_netif *netif; /* NULL: no network; stays the caller's, outlives the guest */
    uint32_t huge_pages;          /* 1: back the heap with huge pages where it can be */
    uint32_t cpus;                /* processors that the guest may start, its first included */
};

/* Why kit_kvm_boot refused. */
enum kit_kvm_refusal {
    KIT_KVM_REFUSED_HOST = 1,  /* the host: error number in `number` */
    KIT_KVM_REFUSED_IMAGE = 2, /* the image, its options or its memory */
};

struct kit_kvm_refused {
    uint32_t kind;
    int32_t number;
    uint64_t needed; /* bytes of memory, where that is what is missing */
    char text[200];
};

/* How a guest ended. */
enum kit_kvm_end {
    KIT_KVM_RUNS = 0,
    KIT_KVM_EXITED = 1,
    KIT_KVM_STOPPED = 2,
    KIT_KVM_PANICKED = 3,
    KIT_KVM_FAULTED = 4,
    KIT_KVM_BROKE_DEVICE = 5,
    KIT_KVM_FAILED = 6 /* the host could not run it any further */
};

enum { KIT_KVM_REGISTERS = 18, KIT_KVM_FRAMES = 32 };

struct kit_kvm_report {
    uint32_t end;           /* enum kit_kvm_end */
    int32_t code;           /* exit code; the host's error number if it failed */
    uint32_t vector;        /* of the exception, if it faulted */
    uint32_t error;         /* its error code */
    uint64_t cr2;           /* the address of a page fault */
    uint64_t registers[18]; /* rax rbx rcx rdx rsi rdi rbp rsp r8 ... r15 rip rflags */
    uint64_t frames[32];    /* return addresses, innermost first; the first is rip */
    uint32_t frame_count;
    uint32_t cpu;   /* the processor that ended it */
    char text[256]; /* panic message; what was broken */
};

/* Where things lie in the guest; all bytes. */
struct kit_kvm_layout {
    uint64_t memory_size;
    uint64_t image_end;
    uint64_t tables;
    uint64_t tables_size;
    uint64_t stack_base;
    uint64_t stack_size;
    uint64_t system;
    uint64_t boot;
    uint64_t shared;
    uint64_t devices_end; /* of the queues and buffers that follow the shared page */
    uint64_t fault_stack;
    uint64_t heap_base;
    uint64_t heap_size;
    uint64_t reserve; /* pages for tables that page_protect may need */
    uint64_t reserve_size;
    uint64_t stack_top; /* where rsp starts */
    uint64_t system_size;
    uint64_t processors; /* of the struct kit_kvm_cpu behind the first; 0: there is one */
};

struct kit_kvm_stats {
    uint64_t exits_idle;
    uint64_t exits_kick;
    uint64_t exits_pages;
    uint64_t exits_interrupted;
    uint64_t frames_sent;
    uint64_t frames_received;
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t frames_dropped;
    uint64_t console_bytes;
    uint64_t console_dropped;
    uint64_t served_turns; /* turns of the device thread */
    uint64_t engagements;  /* how often it took over from the processor's thread */
    uint64_t cpu_ns;       /* of the processors' threads */
    uint64_t device_cpu_ns;
    uint64_t resident;        /* bytes of guest memory the host holds */
    uint64_t boot_ns;         /* CLOCK_MONOTONIC when kit_kvm_boot was called */
    uint64_t first_output_ns; /* when the first console byte came out; 0: none yet */
    uint64_t entry_to_main_tsc;
    uint64_t entry_to_output_tsc;
    uint64_t tsc_hz;
    uint64_t exits_slice; /* slices began to be wanted */
    uint64_t upcalls;     /* the guest was redirected */
    uint32_t cpus;        /* processors that were started */
};

struct kit_kvm;

/* A machine without a guest: kit_kvm_read may wait for output of the guest to come. NULL: no
 * memory. */
struct kit_kvm *kit_kvm_new(void);
/* Boots a guest in it, once; *config is not kept. 0, or KIT_E... and *refused: then all that is
 * left is kit_kvm_read, which says KIT_ECLOSED, and kit_kvm_close. */
int kit_kvm_boot(struct kit_kvm *vm, const struct kit_kvm_config *config,
                 struct kit_kvm_refused *refused);
/* Takes console output: bytes copied, 0 after `timeout_ms` (-1: none) without any, KIT_ECLOSED when
 * the guest has ended and everything was taken. */
int kit_kvm_read(struct kit_kvm *vm, char *buffer, size_t size, int timeout_ms);
/* Gives console input; how many bytes were taken. */
size_t kit_kvm_input(struct kit_kvm *vm, const char *data, size_t size);
/* Asks the guest's thread to end; returns at once. */
void kit_kvm_stop(struct kit_kvm *vm);
/* report->end is KIT_KVM_RUNS before the end. */
void kit_kvm_report(struct kit_kvm *vm, struct kit_kvm_report *report);
void kit_kvm_layout(const struct kit_kvm *vm, struct kit_kvm_layout *layout);
void kit_kvm_stats(struct kit_kvm *vm, struct kit_kvm_stats *stats);
/* Copies guest memory out, page tables included: bytes copied, 0 if the range is not all memory. */
size_t kit_kvm_peek(struct kit_kvm *vm, uint64_t address, void *buffer, size_t size);
/* The same for ranges that the guest has made inaccessible in part; slower. */
size_t kit_kvm_dump(struct kit_kvm *vm, uint64_t address, void *buffer, size_t size);
void kit_kvm_close(struct kit_kvm *vm);
/* Opens /dev/kvm and runs a tiny guest: 0, or why not in *refused. */
int kit_kvm_probe(struct kit_kvm_refused *refused);
/* cdef: end */

#endif
