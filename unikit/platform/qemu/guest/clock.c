/* SPDX-License-Identifier: MIT */
/* Time and sleep. Where the monitor tells what its time stamp counter is worth (boot.c), that is
 * it. Elsewhere the counter is measured against the timer of the local APIC, which monitors count
 * at 1 GHz / 16 (apic.c): not at boot, but when time is first asked for, over what has passed
 * since. Ring 0 reads both with as little in between as there is, and a reading is good when the
 * doubt in between is a thousandth of what is measured; so the wait for it is short. Later readings
 * replace it by ever better ones, as long as the timer has not wrapped. */
#include <unikit/platform/qemu/guest/virtio.h>
#include <unikit/rt/x86_64/cpu.h>

enum { TICK_NS = 16, SHIFT = PVH_CLOCK_SHIFT, DOUBT = 1000, BETTER = 8 };
#define REFINE_MAX_NS (UINT64_C(30) * KIT_NS_PER_S) /* the timer wraps after 68 s */

/* ns * 2^SHIFT / ticks; the result MUST fit into 64 bits. */
static PVH_COLD uint64_t ratio(uint64_t ns, uint64_t ticks)
{
    uint64_t low = ns << SHIFT, high = ns >> (64 - SHIFT), quotient;
    __asm__("divq %3" : "=a"(quotient), "+d"(high) : "a"(low), "rm"(ticks) : "cc");
    return quotient;
}

/* Whether the reading is good enough to be used: then it is. */
static PVH_COLD bool measure(struct pvh_clock *clock)
{
    struct pvh_reading now;
    pvh_gate(PVH_GATE_TIMER, (uint64_t)&now, 0, 0);
    uint64_t passed = now.tsc - clock->start.tsc, doubt = now.doubt + clock->start.doubt;
    uint64_t ns = (uint64_t)(uint32_t)(now.ticks - clock->start.ticks) * TICK_NS;
    if (ns == 0 || passed < ns >> 8 || passed / DOUBT < doubt)
        return false;
    clock->multiplier = ratio(ns, passed);
    clock->next = passed * BETTER;
    if (kit_cpu_scale(clock->next, clock->multiplier, SHIFT) > REFINE_MAX_NS)
        clock->next = UINT64_MAX;
    return true;
}

static PVH_COLD void calibrate(struct pvh_clock *clock)
{
    if (clock->multiplier != 0)
        (void)measure(clock); /* a bad reading: the next one, a moment later */
    else
        while (!measure(clock))
            kit_cpu_pause();
}

uint64_t kit_pvh_now_ns(runtime_environment_t *env)
{
    (void)env;
    struct pvh_clock *clock = &kit_pvh.clock;
    uint64_t passed = kit_cpu_tsc() - clock->start.tsc;
    if (passed >= clock->next) {
        calibrate(clock);
        passed = kit_cpu_tsc() - clock->start.tsc;
    }
    uint64_t now = kit_cpu_scale(passed, clock->multiplier, SHIFT);
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
