/* SPDX-License-Identifier: MIT */
/* The PVH entry (Xen's docs/misc/pvh.pandoc, «x86/HVM direct boot ABI»): QEMU, Firecracker, Cloud
 * Hypervisor. 32-bit protected mode without paging, ebx = start info.
 *
 * Ring 0 is left within a few hundred instructions and holds four things from then on: tables,
 * a handler that ends the image after an exception, an interrupt handler that only acknowledges,
 * and one gate (int3) by which the image sleeps or changes the access to its heap. All else runs at
 * CPL 3 with interrupts off. Physical memory, virtual = physical:
 *
 *     image | system, ring 0 stack, tables | guard | stack | guard | heap ... end
 *     RX R RW            (-)                  (-)     RW      (-)     RW
 *
 * The command line is «name=value ... -- argument ...» as of a Linux process (platform/linux);
 * virtio_mmio.device=SIZE@BASE:IRQ names a device.
 *
 * Reports (panic, fault, exit code) are lines that start with «unikit: », as of a Linux process,
 * on QEMU's debug console (port 0xe9) where there is one, else on the serial line. */
#ifndef KIT_PLATFORM_QEMU_PVH_H
#define KIT_PLATFORM_QEMU_PVH_H

/* Selectors: code and data of ring 0, data and code of CPL 3. */
#define PVH_CODE0 0x08
#define PVH_DATA0 0x10
#define PVH_DATA3 0x1b
#define PVH_CODE3 0x23
#define PVH_TSS 0x28

#ifndef __ASSEMBLER__

#include <unikit/platform/console/console.h>
#include <unikit/platform/env.h>

/* Small rather than fast: used once, or rarely. */
#define PVH_COLD __attribute__((cold))
/* Before there is a stack protector, or in ring 0, where there is no other stack to go to. */
#define PVH_RING0 __attribute__((cold, no_stack_protector))

enum {
    PVH_PAGE = 4096,
    PVH_LARGE = 1 << 21,
    PVH_DEVICES_MAX = 32,
    PVH_OPTIONS_BYTES = 4096,
    PVH_CODE_PANIC = 134,
    PVH_CODE_FAULT = 139
};

enum { PVH_PORT_SERIAL = 0x3f8, PVH_PORT_REPORT = 0xe9, PVH_PORT_EXIT = 0xf4 };

/* Interrupt vectors: anything a device raises, the timer, and the processor's own. */
enum { PVH_VECTOR_DEVICE = 0x20, PVH_VECTOR_TIMER = 0x21, PVH_VECTOR_SPURIOUS = 0x2f };

/* What int3 does: rdi says which; further arguments in rsi, rdx, rcx; result in rax. */
enum pvh_gate {
    PVH_GATE_WAIT,    /* sleeps until an interrupt, at most rsi timer ticks; 0: without end */
    PVH_GATE_TIMER,   /* fills the struct pvh_reading at rsi, which lies in the image's memory */
    PVH_GATE_PROTECT, /* pages [rsi, rsi + rdx) of the heap get access rcx (KIT_PAGE_*) */
    PVH_GATE_END      /* resets the machine */
};

/* A virtio device on MMIO, from the command line. */
struct pvh_device {
    uint64_t base;
    uint32_t size;
    uint32_t interrupt; /* global system interrupt */
};

struct pvh_range {
    uint64_t start;
    uint64_t end;
};

enum { PVH_CLOCK_SHIFT = 32 };

/* The TSC and the timer of the local APIC at one moment, give or take `doubt` of TSC ticks. */
struct pvh_reading {
    uint64_t tsc;
    uint64_t doubt;
    uint32_t ticks; /* modulo 2^32 */
};

/* ns = (TSC - start) * multiplier / 2^PVH_CLOCK_SHIFT (clock.c). */
struct pvh_clock {
    struct pvh_reading start;
    uint64_t multiplier; /* 0: not measured yet */
    uint64_t next;       /* TSC ticks since the start from which it is measured again */
    uint64_t last_ns;
};

/* The one object of the platform. */
struct pvh_state {
    runtime_environment_t env;
    struct kit_cpu cpu;
    console_interface_t console;
    struct pvh_clock clock;
    struct pvh_range tables; /* supervisor only */
    struct pvh_range stack;
    struct pvh_range heap;
    uint64_t pml4;
    uint64_t random; /* for the layout of memory; not for keys */
    const char *panic;
    struct pvh_range unused; /* of `tables` */
    struct pvh_range early;  /* ... the tables of start.S, once they are not in use any more */
    uint32_t device_count;
    uint32_t options_bytes;
    bool reports; /* there is a debug console */
    bool input_closed;
    struct pvh_device devices[PVH_DEVICES_MAX];
    char options[PVH_OPTIONS_BYTES]; /* name NUL value NUL ... */
};

extern struct pvh_state kit_pvh;

KIT_ENV_DECLARE(pvh);

/* The image's bounds, of platform/x86/image.ld. */
extern char kit_image_start[], kit_image_end[], kit_text_start[], kit_text_end[];
extern char kit_rodata_start[], kit_rodata_end[], kit_data_start[];

/* What the processor and the stubs of gate.S leave on the ring 0 stack. */
struct pvh_frame {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* boot.c, in ring 0 */
/* Fills kit_pvh and the tables; returns the top of the image's stack. */
PVH_RING0 uint64_t kit_pvh_boot(const void *start_info, uint64_t base);
/* tables.c, in ring 0 */
/* Makes empty tables for 4 GiB, and returns the PML4. */
PVH_RING0 uint64_t pvh_new_tables(void);
/* Maps [start, end) at `start` with page-table bits `flags`, in the tables at kit_pvh.pml4. */
PVH_RING0 void pvh_map(uint64_t start, uint64_t end, uint64_t flags);
PVH_RING0 int64_t pvh_protect(uint64_t base, uint64_t size, uint64_t access);
/* report.c, in ring 0 */
PVH_RING0 _Noreturn void pvh_refuse(const char *why);
PVH_RING0 void kit_pvh_interrupt(struct pvh_frame *frame);
/* gate.S */
extern const char kit_pvh_vectors[];
int64_t pvh_gate(enum pvh_gate gate, uint64_t a, uint64_t b, uint64_t c);

/* options.c */
PVH_RING0 void pvh_read_options(const char *line);

/* serial.c */
PVH_COLD void pvh_serial_open(void);
bool pvh_serial_ready(void);

/* apic.c, in ring 0 */
PVH_RING0 void pvh_apic_open(void);
PVH_RING0 void pvh_apic_timer(struct pvh_reading *reading);
PVH_RING0 void pvh_apic_wait(uint32_t ticks);
PVH_RING0 void pvh_apic_acknowledge(void);

/* end.c: ends the machine, at any privilege. */
_Noreturn void pvh_leave(int32_t code);

KIT_INLINE void pvh_out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

KIT_INLINE void pvh_out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

KIT_INLINE uint8_t pvh_in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

#endif
#endif
