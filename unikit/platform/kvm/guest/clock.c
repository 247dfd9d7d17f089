/* SPDX-License-Identifier: MIT */
/* Time and sleep of the sealed guest. Time is the TSC scaled by the numbers of the boot page, which
 * the monitor renews; sleep looks at the queues for a bounded time, then is one call. */
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/x86_64/cpu.h>

/* A consistent copy of the clock's numbers: the sequence is even and unchanged. The monitor never
 * stops in the middle of renewing, so the loop ends. */
static struct kit_kvm_clock clock_read(const struct kit_kvm_boot *boot)
{
    const volatile struct kit_kvm_clock *shared = &boot->clock;
    struct kit_kvm_clock copy;
    do {
        copy.sequence = __atomic_load_n(&shared->sequence, __ATOMIC_ACQUIRE);
        copy.tsc_base = shared->tsc_base;
        copy.ns_base = shared->ns_base;
        copy.multiplier = shared->multiplier;
        copy.wall_offset = shared->wall_offset;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while ((copy.sequence & 1) != 0 || copy.sequence != shared->sequence);
    return copy;
}

uint64_t kit_kvm_now_ns(runtime_environment_t *env)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
    struct kit_kvm_clock clock = clock_read(guest->boot);
    /* A base may be a moment ahead of this processor's counter: count from it, not below. */
    uint64_t tsc = kit_cpu_tsc();
    uint64_t ticks = tsc > clock.tsc_base ? tsc - clock.tsc_base : 0;
    uint64_t now = clock.ns_base + kit_cpu_scale(ticks, clock.multiplier, KIT_KVM_CLOCK_SHIFT);
    uint64_t *last = &guest->last_ns;
    if (KIT_WITH_CPUS)
        last = (uint64_t *)(uintptr_t)&kvm_here(guest)->last_ns;
    if (now > *last)
        *last = now;
    if (KIT_WITH_NETWORK && kvm_has_devices())
        kvm_network_tick(guest);
    return *last;
}

uint64_t kit_kvm_wall_ns(runtime_environment_t *env)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
    uint64_t offset = clock_read(guest->boot).wall_offset;
    return offset == 0 ? 0 : kit_kvm_now_ns(env) + offset;
}

static uint32_t ready(struct kvm_guest *guest, uint32_t wake)
{
    uint32_t found = 0;
    if (KIT_WITH_CPUS && (wake & KIT_WAKE_CPU) &&
        __atomic_load_n(&kvm_here(guest)->kicked, __ATOMIC_SEQ_CST) != 0)
        found |= KIT_WAKE_CPU;
    if ((wake & KIT_WAKE_CONSOLE) && kvm_queue_used(&guest->console_rx) != 0)
        found |= KIT_WAKE_CONSOLE;
    if (KIT_WITH_NETWORK && (wake & KIT_WAKE_NETWORK) && guest->net_rx.size != 0 &&
        kvm_queue_used(&guest->net_rx) != 0)
        found |= KIT_WAKE_NETWORK;
    return found;
}

/* Looks for work while a thread of the monitor moves frames; nothing to gain otherwise. */
static uint32_t poll(struct kvm_guest *guest, uint64_t deadline_ns, uint32_t wake)
{
    kvm_network_flush(guest);
    uint64_t start = kit_kvm_now_ns(&guest->env);
    uint64_t limit = start + guest->shared->poll_ns;
    uint64_t end = limit < deadline_ns ? limit : deadline_ns;
    while (guest->shared->served) {
        for (unsigned i = 0; i < 32; i++) {
            uint32_t found = ready(guest, wake);
            if (found != 0)
                return found;
            kit_cpu_pause();
        }
        if (kit_kvm_now_ns(&guest->env) >= end)
            break;
    }
    return 0;
}

static uint32_t sleep_until(struct kvm_guest *guest, uint64_t deadline_ns, uint32_t wake)
{
    volatile struct kit_kvm_call *call = &kvm_here(guest)->call;
    call->deadline_ns = deadline_ns;
    call->wake = wake;
    if (!kvm_has_devices()) {
        kvm_bell(KIT_KVM_IDLE, 0);
        return 0;
    }
    call->seen[KIT_KVM_CONSOLE_RX] = guest->console_rx.taken;
    call->seen[KIT_KVM_NET_RX] = guest->net_rx.taken;
    guest->unsent_tsc = 0;
    kvm_bell(KIT_KVM_IDLE, 0);
    guest->last_call_tsc = kit_cpu_tsc();
    return call->woken & wake;
}

static uint32_t wait_for(struct kvm_guest *guest, uint64_t deadline_ns, uint32_t wake)
{
    uint32_t found = ready(guest, wake);
    if (KIT_WITH_NETWORK && found == 0 && guest->shared->served && kvm_has_devices())
        found = poll(guest, deadline_ns, wake);
    if (found != 0 || (deadline_ns != KIT_NEVER && kit_kvm_now_ns(&guest->env) >= deadline_ns))
        return found;
    return sleep_until(guest, deadline_ns, wake);
}

/* A processor says that it sleeps before it looks a last time whether it was asked for; who asks
 * for it says so first and looks whether it sleeps afterwards. So one of the two sees the other. */
static uint32_t wait_for_processors(struct kvm_guest *guest, uint64_t deadline_ns, uint32_t wake)
{
    volatile struct kit_kvm_cpu *here = kvm_here(guest);
    if (here->cpu.number != 0)
        wake &= KIT_WAKE_CPU;
    __atomic_store_n(&here->asleep, (wake & KIT_WAKE_CPU) != 0, __ATOMIC_SEQ_CST);
    uint32_t found = wait_for(guest, deadline_ns, wake) & ~(uint32_t)KIT_WAKE_CPU;
    __atomic_store_n(&here->asleep, 0, __ATOMIC_RELAXED);
    if ((wake & KIT_WAKE_CPU) && __atomic_exchange_n(&here->kicked, 0, __ATOMIC_ACQ_REL) != 0)
        found |= KIT_WAKE_CPU;
    return found;
}

uint32_t kit_kvm_wait(runtime_environment_t *env, uint64_t deadline_ns, uint32_t wake)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
    return KIT_WITH_CPUS ? wait_for_processors(guest, deadline_ns, wake)
                         : wait_for(guest, deadline_ns, wake);
}
