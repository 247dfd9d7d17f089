/* SPDX-License-Identifier: MIT */
/* The local APIC and the I/O APIC, in ring 0: one timer, and a vector for all devices. Virtual
 * machine monitors count the timer in nanoseconds (a bus of 1 GHz: QEMU and KVM alike), here
 * divided by 16. Intel SDM volume 3A, chapter 11; 82093AA data sheet. */
#include <unikit/platform/qemu/guest/pvh.h>
#include <unikit/rt/x86_64/cpu.h>

#define LAPIC(offset) (*(volatile uint32_t *)(UINT64_C(0xfee00000) + (offset)))
#define IOAPIC(offset) (*(volatile uint32_t *)(UINT64_C(0xfec00000) + (offset)))

enum {
    LAPIC_EOI = 0xb0,
    LAPIC_SPURIOUS = 0xf0,
    LAPIC_TIMER = 0x320,
    LAPIC_LINT0 = 0x350,
    LAPIC_LINT1 = 0x360,
    LAPIC_TIMER_INITIAL = 0x380,
    LAPIC_TIMER_CURRENT = 0x390,
    LAPIC_TIMER_DIVIDE = 0x3e0,
    LAPIC_MASKED = 1 << 16,
    LAPIC_ENABLE = 0x100,
    DIVIDE_BY_16 = 3,
    READINGS = 4 /* the one with the least doubt counts */
};

static PVH_RING0 void route(uint32_t line)
{
    IOAPIC(0) = 0x10 + 2 * line + 1;
    IOAPIC(0x10) = 0; /* to processor 0 */
    IOAPIC(0) = 0x10 + 2 * line;
    IOAPIC(0x10) = PVH_VECTOR_DEVICE; /* fixed, edge, active high */
}

void pvh_apic_open(void)
{
    LAPIC(LAPIC_SPURIOUS) = LAPIC_ENABLE | PVH_VECTOR_SPURIOUS;
    LAPIC(LAPIC_LINT0) = LAPIC_MASKED;
    LAPIC(LAPIC_LINT1) = LAPIC_MASKED;
    LAPIC(LAPIC_TIMER_DIVIDE) = DIVIDE_BY_16;
    LAPIC(LAPIC_TIMER) = LAPIC_MASKED | PVH_VECTOR_TIMER;
    LAPIC(LAPIC_TIMER_INITIAL) = UINT32_MAX;
    for (uint32_t i = 0; i < kit_pvh.device_count; i++)
        route(kit_pvh.devices[i].interrupt);
    route(4); /* the serial line */
}

void pvh_apic_timer(struct pvh_reading *reading)
{
    reading->doubt = UINT64_MAX;
    for (unsigned i = 0; i < READINGS; i++) {
        uint64_t before = kit_cpu_tsc();
        uint32_t left = LAPIC(LAPIC_TIMER_CURRENT);
        uint64_t doubt = kit_cpu_tsc() - before;
        if (doubt < reading->doubt)
            *reading = (struct pvh_reading){before + doubt / 2, doubt, UINT32_MAX - left};
    }
}

void pvh_apic_wait(uint32_t ticks)
{
    if (ticks != 0) {
        LAPIC(LAPIC_TIMER) = PVH_VECTOR_TIMER;
        LAPIC(LAPIC_TIMER_INITIAL) = ticks;
    }
    /* The shadow of sti: an interrupt that is pending ends the hlt, it cannot come before. */
    __asm__ volatile("sti\n\thlt\n\tcli" ::: "memory");
    if (ticks != 0)
        LAPIC(LAPIC_TIMER) = LAPIC_MASKED | PVH_VECTOR_TIMER;
}

void pvh_apic_acknowledge(void)
{
    LAPIC(LAPIC_EOI) = 0;
}
