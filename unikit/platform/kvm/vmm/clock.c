/* SPDX-License-Identifier: MIT */
/* The clock of guests: TSC numbers such that their time is the host's CLOCK_MONOTONIC.
 *
 * The rate comes from KVM at first (it knows the TSC to a kHz) and from this process's own two
 * points once they lie far enough apart. The guest's base is renewed when it idles, so what is left
 * of the rate's error does not add up. */
#include <sys/ioctl.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/x86_64/cpu.h>

#define RENEW_NS (UINT64_C(100) * KIT_NS_PER_MS)
#define BASELINE_NS (UINT64_C(500) * KIT_NS_PER_MS)

struct point {
    uint64_t tsc, ns;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct point origin; /* when this process first asked */
static uint64_t kvm_hz;     /* what KVM says */

/* Both clocks at one moment: of some tries the one with the least between the two readings. */
static struct point read_both(void)
{
    struct point best = {0, 0};
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t before = kit_cpu_tsc_ordered(), ns = vmm_now_ns(), after = kit_cpu_tsc_ordered();
        if (after - before < least) {
            least = after - before;
            best = (struct point){before + (after - before) / 2, ns};
        }
    }
    return best;
}

static uint64_t wall_offset(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (uint64_t)wall.tv_sec * KIT_NS_PER_S + (uint64_t)wall.tv_nsec - vmm_now_ns();
}

/* ns per tick, scaled; the lock is held. */
static uint64_t multiplier(struct point now)
{
    if (now.ns - origin.ns >= BASELINE_NS && now.tsc > origin.tsc)
        return (uint64_t)(((unsigned __int128)(now.ns - origin.ns) << KIT_KVM_CLOCK_SHIFT) /
                          (now.tsc - origin.tsc));
    return (uint64_t)(((unsigned __int128)KIT_NS_PER_S << KIT_KVM_CLOCK_SHIFT) / kvm_hz);
}

static void publish(struct kit_kvm *vm, struct point now, uint64_t rate)
{
    volatile struct kit_kvm_clock *clock = &vm->boot->clock;
    uint32_t sequence = clock->sequence;
    __atomic_store_n(&clock->sequence, sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    clock->tsc_base = now.tsc + vm->clock.tsc_offset;
    clock->ns_base = now.ns;
    clock->multiplier = rate;
    clock->wall_offset = wall_offset();
    __atomic_store_n(&clock->sequence, (sequence + 2) & ~1u, __ATOMIC_RELEASE);
    __atomic_store_n(&vm->clock.renewed_ns, now.ns, __ATOMIC_RELAXED);
}

void vmm_clock_renew(struct kit_kvm *vm)
{
    /* One at a time; whoever comes second finds it renewed. */
    if (vmm_now_ns() - __atomic_load_n(&vm->clock.renewed_ns, __ATOMIC_RELAXED) < RENEW_NS ||
        pthread_mutex_trylock(&vm->clock.lock) != 0)
        return;
    struct point now = read_both();
    pthread_mutex_lock(&lock);
    uint64_t rate = multiplier(now);
    pthread_mutex_unlock(&lock);
    publish(vm, now, rate);
    pthread_mutex_unlock(&vm->clock.lock);
}

/* The guest's counter minus the host's. An offset of zero is asked for; a KVM that does not know
 * the attribute is asked for the counter itself. */
static uint64_t find_offset(int vcpu_fd)
{
    uint64_t zero = 0;
    const struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&zero};
    if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute) == 0)
        return 0;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry tsc;
    } msrs = {.head = {.nmsrs = 1}, .tsc = {.index = 0x10}};
    uint64_t host = kit_cpu_tsc_ordered();
    if (ioctl(vcpu_fd, KVM_GET_MSRS, &msrs) != 1)
        return 0;
    uint64_t offset = msrs.tsc.data - host;
    /* Closer than the ioctl takes: it is the host's own counter. */
    return offset < kvm_hz / 1000 ? 0 : offset;
}

void vmm_clock_open(struct kit_kvm *vm)
{
    pthread_mutex_lock(&lock);
    if (kvm_hz == 0) {
        int khz = ioctl(vm->cpu[0].fd, KVM_GET_TSC_KHZ, 0);
        if (khz > 0) {
            kvm_hz = (uint64_t)khz * 1000;
            origin = read_both();
        } else { /* not told: measure for some milliseconds, once */
            struct point from = read_both(), to;
            do
                to = read_both();
            while (to.ns - from.ns < 5 * KIT_NS_PER_MS);
            kvm_hz = (to.tsc - from.tsc) * KIT_NS_PER_S / (to.ns - from.ns);
            origin = from;
        }
    }
    struct point now = read_both();
    uint64_t rate = multiplier(now);
    pthread_mutex_unlock(&lock);
    vm->clock.tsc_offset = find_offset(vm->cpu[0].fd);
    publish(vm, now, rate);
    vm->boot->start_ns = now.ns;
}

void vmm_clock_follow(const struct vmm_cpu *cpu)
{
    (void)find_offset(cpu->fd); /* asks for the same; a KVM that cannot keeps them in step itself */
}

uint64_t vmm_clock_hz(void)
{
    pthread_mutex_lock(&lock);
    uint64_t hz = kvm_hz;
    pthread_mutex_unlock(&lock);
    return hz;
}
