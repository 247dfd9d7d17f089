/* SPDX-License-Identifier: MIT */
/* Time and sleep. The TSC is measured against the timer of the local APIC, which monitors count at
 * 1 GHz / 16 (apic.c): not at boot, but when time is first asked for, over what has passed since;
 * only if that is too little is there a wait of CALIBRATE_NS. The longer the image runs, the
 * longer the time it is measured over, up to REFINE_MAX. */
#include <unikit/platform/qemu/guest/virtio.h>
#include <unikit/rt/x86_64/cpu.h>

enum { TICK_NS = 16, SHIFT = 32, CALIBRATE_NS = 100000 };
#define REFINE_MAX (UINT64_C(8) * KIT_NS_PER_S / TICK_NS) /* the timer wraps after 68 s */

/* ns * 2^SHIFT / ticks; the result MUST fit into 64 bits. */
static PVH_COLD uint64_t ratio(uint64_t ns, uint64_t ticks)
{
    uint64_t low = ns << SHIFT, high = ns >> (64 - SHIFT), quotient;
    __asm__("divq %3" : "=a"(quotient), "+d"(high) : "a"(low), "rm"(ticks) : "cc");
    return quotient;
}

/* A pair of readings: the timer between two of the TSC. */
static PVH_COLD uint64_t measure(struct pvh_clock *clock)
{
    uint64_t before = kit_cpu_tsc();
    uint64_t ticks = (uint32_t)pvh_gate(PVH_GATE_TIMER, 0, 0, 0);
    uint64_t after = kit_cpu_tsc();
    uint64_t passed = before / 2 + after / 2 - clock->tsc_base;
    clock->measured = passed;
    uint64_t ns = ticks * TICK_NS;
    if (ns != 0 && passed >= ns >> 8) /* a TSC of at least 4 MHz */
        clock->multiplier = ratio(ns, passed);
    return ns;
}

PVH_COLD static void calibrate(struct pvh_clock *clock)
{
    while (measure(clock) < CALIBRATE_NS)
        kit_cpu_pause();
}

uint64_t kit_pvh_now_ns(runtime_environment_t *env)
{
    (void)env;
    struct pvh_clock *clock = &kit_pvh.clock;
    if (clock->measured == 0)
        calibrate(clock);
    uint64_t now = kit_cpu_scale(kit_cpu_tsc() - clock->tsc_base, clock->multiplier, SHIFT);
    if (now > clock->last_ns)
        clock->last_ns = now;
    return clock->last_ns;
}

PVH_COLD uint64_t kit_pvh_wall_ns(runtime_environment_t *env)
{
    (void)env;
    return 0; /* no clock device is in PVH's contract */
}

static uint32_t ready(uint32_t wake)
{
    uint32_t found = (wake & KIT_WAKE_CONSOLE) != 0 && pvh_serial_ready() ? KIT_WAKE_CONSOLE : 0;
    if (KIT_WITH_NETWORK && (wake & KIT_WAKE_NETWORK) != 0 && pvh_network_ready())
        found |= KIT_WAKE_NETWORK;
    return found;
}

uint32_t kit_pvh_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    uint32_t found = ready(wake);
    if (found != 0)
        return found;
    uint64_t ticks = 0;
    if (deadline_ns != KIT_NEVER) {
        uint64_t now = kit_pvh_now_ns(env);
        if (deadline_ns <= now)
            return 0;
        ticks = (deadline_ns - now) / TICK_NS + 1;
        if (ticks > UINT32_MAX)
            ticks = UINT32_MAX; /* wakes early, and waits again */
    }
    if (KIT_WITH_NETWORK && (wake & KIT_WAKE_NETWORK) != 0)
        pvh_network_arm(true);
    found = ready(wake); /* what came before interrupts were asked for raises none */
    if (found == 0) {
        pvh_gate(PVH_GATE_WAIT, ticks, 0, 0);
        found = ready(wake);
    }
    if (KIT_WITH_NETWORK && (wake & KIT_WAKE_NETWORK) != 0)
        pvh_network_arm(false);
    return found;
}
