/* SPDX-License-Identifier: MIT */
/* Who moves frames, and when.
 *
 * Quiet: the processor's thread does it itself whenever the guest calls, above all when the guest
 * idles: it sends what is queued, sleeps in poll() on the interface, delivers, and goes back in.
 * One call per burst, no second thread, no wake-ups between threads.
 *
 * Busy (`engaged`): after several idles in a row that ended almost at once, or when the guest
 * computes without idling, a device thread takes over; the guest then looks at its queues for a
 * bounded time before it idles, and nobody leaves the guest at all. The device thread sleeps in
 * poll() too: it looks by itself only for a moment after it has delivered something, for the
 * answer. So one thread per guest spins, and engaged guests are fewer than the host's processors.
 * (Yielding between looks does harm: since Linux 6.18 a yield forfeits the rest of the slice, and
 * the thread is late when it is woken next.) The guest's next idle ends it. Both threads run with a
 * short time slice, so that whoever else wants the processor gets it soon, and they soon again.
 *
 * A queue is touched under net_lock only. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/x86_64/cpu.h>
#include <unistd.h>

enum {
    GUEST_POLL_NS = 100000,  /* how long the guest looks before it idles */
    THREAD_LOOK_NS = 30000,  /* how long the device thread looks for the answer */
    AFTER_SENDING_NS = 5000, /* ... and for more of it, once some was sent */
    HOT_GAP_NS = 60000,      /* an idle shorter than this was not worth it */
    HOT_TURNS = 8,           /* so many in a row engage */
    HOT_TURNS_AGAIN = 2,     /* ... after an engagement that was worth it */
    HOT_TURNS_MOST = 64,
    WORTH_FRAMES = 32,   /* an engagement should carry so many */
    RETRY_NS = 200000,   /* the interface was full: try again */
    SILENT_NS = 1000000, /* an interface that cannot say when it has something */
    SLICE_NS = 100000,
    FLUSH_NS = 1000000000 /* how long an exit waits for an interface that is full */
};

static uint32_t spinners; /* guests of this process that are engaged */

/* Asks for short turns on the processor: the EEVDF scheduler takes the slice of a normal thread
 * from sched_runtime (Linux 6.12); older kernels ignore it. */
void vmm_short_slice(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes};
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 ||
        attributes.policy != SCHED_OTHER)
        return; /* a person who chose another policy knows better */
    attributes.runtime = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/* The guest is about to spin on this processor: a device thread that waits for it here would only
 * get its turn when the guest gives up. */
static void move_aside(struct kit_kvm *vm)
{
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE || vm->kept_off == here + 1)
        return;
    cpu_set_t others = vm->allowed;
    CPU_CLR((size_t)here, &others);
    if (CPU_COUNT(&others) > 0 &&
        pthread_setaffinity_np(vm->device_thread, sizeof others, &others) == 0)
        vm->kept_off = here + 1;
}

static bool engage(struct kit_kvm *vm)
{
    if (vm->engaged)
        return true;
    if (__atomic_add_fetch(&spinners, 1, __ATOMIC_ACQ_REL) >= vmm_host_cpus()) {
        __atomic_sub_fetch(&spinners, 1, __ATOMIC_ACQ_REL);
        return false;
    }
    vm->engagements++;
    move_aside(vm);
    pthread_mutex_lock(&vm->net_lock);
    vm->engaged_at = vm->net.sent + vm->net.received;
    __atomic_store_n(&vm->shared->poll_ns, GUEST_POLL_NS, __ATOMIC_RELAXED);
    __atomic_store_n(&vm->shared->served, 1, __ATOMIC_RELEASE);
    const bool dozing = vm->dozing; /* since an earlier engagement */
    vmm_futex_set(&vm->engaged, 1);
    pthread_mutex_unlock(&vm->net_lock);
    const uint64_t one = 1;
    if (dozing && write(vm->device_fd, &one, sizeof one) < 0)
        return true; /* the counter is full: it is awake already */
    return true;
}

/* The lock is held, so the device thread is not in the middle of anything. An engagement that
 * carried little was a mistake: the next one has to be earned by more idles. */
static void disengage(struct kit_kvm *vm)
{
    if (!vm->engaged)
        return;
    if (vm->net.sent + vm->net.received - vm->engaged_at >= WORTH_FRAMES)
        vm->hot_turns = HOT_TURNS_AGAIN;
    else if (vm->hot_turns < HOT_TURNS_MOST)
        vm->hot_turns *= 2;
    vm->hot = 0;
    __atomic_store_n(&vm->engaged, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&vm->shared->served, 0, __ATOMIC_RELEASE);
    vmm_queue_set_notify(&vm->net.tx, true);
    __atomic_sub_fetch(&spinners, 1, __ATOMIC_ACQ_REL);
}

static uint64_t interface_deadline(struct kit_kvm *vm)
{
    struct kit_host_netif *netif = vm->net.netif;
    uint64_t deadline = netif->deadline_ns ? netif->deadline_ns(netif) : KIT_NEVER;
    if (vm->net.blocked || (netif->fd < 0 && netif->deadline_ns == NULL)) {
        uint64_t soon = vmm_now_ns() + (vm->net.blocked ? RETRY_NS : SILENT_NS);
        deadline = soon < deadline ? soon : deadline;
    }
    return deadline;
}

/* Sleeps until one of two descriptors (-1: none) is readable or the deadline; drains `bell`. */
static void sleep_until(int bell, int fd, uint64_t deadline)
{
    struct pollfd fds[2] = {{.fd = bell, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    struct timespec timeout = {0, 0}, *wait = &timeout;
    if (deadline == KIT_NEVER) {
        wait = NULL;
    } else {
        uint64_t now = vmm_now_ns(), left = deadline > now ? deadline - now : 0;
        timeout.tv_sec = (time_t)(left / KIT_NS_PER_S);
        timeout.tv_nsec = (long)(left % KIT_NS_PER_S);
    }
    uint64_t count;
    if (ppoll(fds, 2, wait, NULL) > 0 && fds[0].revents && read(bell, &count, sizeof count) < 0)
        return; /* somebody else drained it */
}

/* ---- the processor's thread -------------------------------------------------------------------
 */

static int service(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    if (vm->net.netif == NULL)
        return 0;
    pthread_mutex_lock(&vm->net_lock);
    int rc = vmm_net_service(&vm->net, &cpu->fault);
    pthread_mutex_unlock(&vm->net_lock);
    return rc;
}

int vmm_device_kick(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    if (cpu->number != 0)
        return 0; /* the network is the first processor's */
    int rc = service(cpu);
    /* The guest works without idling: let the other thread deliver what comes. */
    if (rc >= 0 && vm->net.netif != NULL && ++vm->kicks >= 2)
        engage(vm);
    return rc < 0 ? rc : 0;
}

int vmm_device_flush(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    const uint64_t end = vmm_now_ns() + FLUSH_NS;
    int rc = service(cpu);
    while (rc >= 0 && vm->net.blocked && vmm_now_ns() < end && !vmm_interrupted(vm)) {
        sleep_until(cpu->wake_fd, -1, vmm_now_ns() + RETRY_NS);
        rc = service(cpu);
    }
    return rc < 0 ? rc : 0;
}

struct idle {
    uint64_t deadline;
    uint32_t wake;
    uint16_t console_seen, net_seen;
};

/* Whether another processor asks for this one. */
static int rung(const struct vmm_cpu *cpu, const struct idle *idle)
{
    const bool kicked = __atomic_load_n(&cpu->shared->kicked, __ATOMIC_ACQUIRE) != 0;
    return kicked && (idle->wake & KIT_WAKE_CPU) ? KIT_WAKE_CPU : 0;
}

/* What of the guest's wishes is there; KIT_E... */
static int look(struct vmm_cpu *cpu, const struct idle *idle)
{
    struct kit_kvm *vm = cpu->vm;
    int found = rung(cpu, idle), rc = vmm_console_feed(&vm->console, &cpu->fault);
    if (rc == 0)
        rc = service(cpu);
    if (rc < 0)
        return rc;
    if ((idle->wake & KIT_WAKE_CONSOLE) && vm->console.rx.completed != idle->console_seen)
        found |= KIT_WAKE_CONSOLE;
    if ((idle->wake & KIT_WAKE_NETWORK) && vm->net.rx.completed != idle->net_seen)
        found |= KIT_WAKE_NETWORK;
    return found;
}

/* Decides whether this idle was worth it. */
static void judge(struct kit_kvm *vm, int found, uint64_t slept_ns)
{
    if (vm->net.netif == NULL)
        return;
    if (!(found & KIT_WAKE_NETWORK) || slept_ns > HOT_GAP_NS)
        vm->hot = 0;
    else if (++vm->hot >= vm->hot_turns)
        engage(vm);
}

/* A processor without devices: it sleeps until it is rung or its time has come. */
static void idle_further(struct vmm_cpu *cpu, const struct idle *idle)
{
    while (!rung(cpu, idle) && !vmm_interrupted(cpu->vm) && vmm_now_ns() < idle->deadline)
        sleep_until(cpu->wake_fd, -1, idle->deadline);
    vmm_clock_renew(cpu->vm);
}

int vmm_device_idle(struct vmm_cpu *cpu)
{
    struct kit_kvm *vm = cpu->vm;
    volatile struct kit_kvm_call *call = &cpu->shared->call;
    const struct idle idle = {
        .deadline = call->deadline_ns,
        .wake = call->wake,
        .console_seen = call->seen[KIT_KVM_CONSOLE_RX],
        .net_seen = call->seen[KIT_KVM_NET_RX],
    };
    if (cpu->number != 0)
        return idle_further(cpu, &idle), 0;
    vm->kicks = 0;
    if (vm->net.netif != NULL) {
        pthread_mutex_lock(&vm->net_lock);
        disengage(vm);
        pthread_mutex_unlock(&vm->net_lock);
    }
    const uint64_t start = vmm_now_ns();
    int found;
    while ((found = look(cpu, &idle)) == 0 && !vmm_interrupted(vm) &&
           vmm_now_ns() < idle.deadline) {
        uint64_t deadline = idle.deadline;
        int fd = -1;
        if (vm->net.netif != NULL) {
            uint64_t due = interface_deadline(vm);
            deadline = due < deadline ? due : deadline;
            fd = vmm_net_has_room(&vm->net) ? vm->net.netif->fd : -1;
        }
        sleep_until(cpu->wake_fd, fd, deadline);
    }
    if (found < 0)
        return found;
    call->woken = (uint32_t)found;
    judge(vm, found, vmm_now_ns() - start);
    vmm_clock_renew(vm);
    return 0;
}

/* ---- the device thread
 * ---------------------------------------------------------------------------- */

/* One look; frames moved, or KIT_E..., or -1000 when it is no longer its turn. */
enum { NOT_MY_TURN = -1000 };

static int turn(struct kit_kvm *vm, struct vmm_fault *fault)
{
    pthread_mutex_lock(&vm->net_lock);
    int rc = NOT_MY_TURN;
    if (__atomic_load_n(&vm->engaged, __ATOMIC_ACQUIRE)) {
        vm->served_turns++;
        rc = vmm_net_service(&vm->net, fault);
    }
    pthread_mutex_unlock(&vm->net_lock);
    return rc;
}

/* Whether the device thread looks at the queues: only then does the guest send without a call. */
static void attend(struct kit_kvm *vm, bool attentive)
{
    if (vm->engaged)
        vmm_queue_set_notify(&vm->net.tx, !attentive);
}

/* From now on the guest must call to have frames sent. Whether there is something to do instead. */
static bool doze(struct kit_kvm *vm)
{
    pthread_mutex_lock(&vm->net_lock);
    attend(vm, false);
    const bool late = !vm->engaged || vmm_queue_pending(&vm->net.tx);
    if (late)
        attend(vm, true);
    vm->dozing = !late;
    pthread_mutex_unlock(&vm->net_lock);
    return late;
}

static void wake_up(struct kit_kvm *vm)
{
    pthread_mutex_lock(&vm->net_lock);
    vm->dozing = false;
    attend(vm, true);
    pthread_mutex_unlock(&vm->net_lock);
}

static void *device_main(void *argument)
{
    struct kit_kvm *vm = argument;
    struct vmm_fault fault = {""};
    uint64_t last = 0, patience = THREAD_LOOK_NS, sent = 0;
    vmm_short_slice();
    while (!__atomic_load_n(&vm->device_quit, __ATOMIC_ACQUIRE)) {
        if (!__atomic_load_n(&vm->engaged, __ATOMIC_ACQUIRE)) {
            vmm_futex_wait(&vm->engaged, 0);
            wake_up(vm);
            last = vmm_now_ns(); /* the guest is about to send */
            patience = THREAD_LOOK_NS;
        }
        int rc = turn(vm, &fault);
        if (rc == NOT_MY_TURN)
            continue;
        if (rc < 0) {
            vmm_break(vm, &fault);
            vmm_futex_wait(&vm->device_quit, 0);
            break;
        }
        uint64_t now = vmm_now_ns();
        const uint64_t sent_now = vm->net.sent;
        if (rc > 0) {
            last = now;
            patience = sent_now != sent ? AFTER_SENDING_NS : THREAD_LOOK_NS;
            sent = sent_now;
        } else if (now - last < patience)
            kit_cpu_pause();
        else if (!doze(vm)) {
            int fd = vmm_net_has_room(&vm->net) ? vm->net.netif->fd : -1;
            uint64_t deadline = interface_deadline(vm);
            /* without buffers for frames to come, look again soon */
            if (fd < 0 && deadline > now + RETRY_NS)
                deadline = now + RETRY_NS;
            sleep_until(vm->device_fd, fd, deadline);
            wake_up(vm);
            last = vmm_now_ns();
        }
    }
    return NULL;
}

int vmm_device_start(struct kit_kvm *vm)
{
    if (vm->net.netif == NULL)
        return 0;
    vm->hot_turns = HOT_TURNS;
    vm->device_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->device_fd < 0)
        return -errno;
    if (sched_getaffinity(0, sizeof vm->allowed, &vm->allowed) != 0)
        CPU_ZERO(&vm->allowed); /* too many processors for the type: leave it to the scheduler */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    int rc = pthread_create(&vm->device_thread, &attributes, device_main, vm);
    pthread_attr_destroy(&attributes);
    vm->device_started = rc == 0;
    return -rc;
}

/* The processor's thread has ended. */
void vmm_device_stop(struct kit_kvm *vm)
{
    if (!vm->device_started)
        return;
    const uint64_t one = 1;
    vmm_futex_set(&vm->device_quit, 1);
    pthread_mutex_lock(&vm->net_lock);
    disengage(vm);
    pthread_mutex_unlock(&vm->net_lock);
    vmm_futex_set(&vm->engaged, 1); /* out of the futex; it sees device_quit */
    if (write(vm->device_fd, &one, sizeof one) < 0)
        vmm_futex_set(&vm->device_quit, 1); /* the counter is full: it is awake already */
    pthread_join(vm->device_thread, NULL);
    vm->device_started = false;
}
