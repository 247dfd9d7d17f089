/* SPDX-License-Identifier: MIT */
/* One call from a description to a running guest, and back to nothing. The processor is made by its
 * own thread while this one makes the memory: the two cost about the same. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unikit/rt/bits.h>
#include <unistd.h>

struct randomness {
    uint64_t layout;
    uint64_t canary;
    uint8_t seed[KIT_KVM_SEED_BYTES];
};

static int start_thread(struct kit_kvm *vm, struct kit_kvm_refused *refused)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    vm->cpus_live = 1;
    int rc = vmm_cpu_thread(&vm->cpu[0], vmm_vcpu_main);
    if (rc == 0)
        rc = -vmm_device_start(vm);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? 0 : vmm_refuse_host(refused, rc, "cannot start a thread");
}

/* The memory: host and guest addresses agree modulo 2 MiB, so huge pages can back the heap. */
static int map_memory(struct kit_kvm *vm, struct kit_kvm_refused *refused)
{
    const uint64_t size = vm->memory.layout.memory_size;
    const uint64_t spare = vm->config->huge_pages ? VMM_HUGE : 0;
    uint8_t *base = mmap(NULL, size + spare, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return vmm_refuse_host(refused, errno, "cannot map %llu MiB of memory",
                               (unsigned long long)(size >> 20));
    vm->memory.host = base;
    if (spare == 0) {
        /* One small page must never become a huge one: an idle guest would pay for all of it. */
        if (size >= VMM_HUGE)
            madvise(base, size, MADV_NOHUGEPAGE);
        return 0;
    }
    uint64_t before = (KIT_KVM_MEMORY - (uintptr_t)base) % VMM_HUGE;
    if (before != 0)
        munmap(base, before);
    if (spare != before)
        munmap(base + before + size, spare - before);
    vm->memory.host = base + before;
    const uint64_t first = kit_align_up(vm->memory.layout.heap_base, VMM_HUGE);
    const uint64_t last = kit_align_down(vm->memory.layout.reserve, VMM_HUGE);
    if (first < last) /* a host without huge pages goes on with small ones */
        madvise(vm->memory.host + (first - KIT_KVM_MEMORY), last - first, MADV_HUGEPAGE);
    return 0;
}

static int add_memory(struct kit_kvm *vm, struct kit_kvm_refused *refused)
{
    const struct kvm_userspace_memory_region slot = {
        .guest_phys_addr = KIT_KVM_MEMORY,
        .memory_size = vm->memory.layout.memory_size,
        .userspace_addr = (uintptr_t)vm->memory.host,
    };
    if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return vmm_refuse_host(refused, errno, "KVM_SET_USER_MEMORY_REGION failed");
    return 0;
}

static void copy_image(struct kit_kvm *vm)
{
    for (size_t i = 0; i < vm->config->segment_count; i++) {
        const struct kit_kvm_segment *s = &vm->config->segments[i];
        memcpy(vm->memory.host + (s->address - KIT_KVM_MEMORY), s->data, s->stored);
    }
}

static void fill_boot(struct kit_kvm *vm, const struct randomness *random, uint64_t features)
{
    const struct kit_kvm_layout *l = &vm->memory.layout;
    struct kit_kvm_boot *boot = vm->boot;
    boot->magic = KIT_KVM_MAGIC;
    boot->abi = KIT_KVM_ABI;
    boot->bytes = (uint32_t)(sizeof *boot + vm->config->options_bytes);
    boot->memory_size = l->memory_size;
    boot->heap_base = l->heap_base;
    boot->heap_size = l->heap_size;
    boot->stack_base = l->stack_base;
    boot->stack_size = l->stack_size;
    boot->shared = l->shared;
    boot->cpu_features = features;
    boot->cpus = vm->cpu_count;
    boot->processors = l->processors;
    memcpy(boot->queue, vm->queues, sizeof boot->queue);
    if (vm->config->netif != NULL) {
        const network_interface_t *network = &vm->config->netif->network;
        memcpy(boot->mac, network->mac, sizeof boot->mac);
        boot->mtu = network->mtu;
        boot->offloads = network->offloads & 3; /* checksums; no segments yet */
    }
    boot->options_bytes = (uint32_t)vm->config->options_bytes;
    if (vm->config->options_bytes > 0)
        memcpy(boot->options, vm->config->options, vm->config->options_bytes);
    memcpy(vm->shared->seed, random->seed, sizeof random->seed);
    /* no string function can write past a canary that starts with a zero byte */
    vm->shared->canary = random->canary & ~UINT64_C(0xff);
}

static int make_memory(struct kit_kvm *vm, const struct randomness *random, uint64_t features,
                       struct kit_kvm_refused *refused)
{
    int rc = map_memory(vm, refused);
    if (rc == 0)
        rc = add_memory(vm, refused);
    if (rc != 0)
        return rc;
    copy_image(vm);
    vmm_tables_build(&vm->memory, vm->config);
    vm->boot = vmm_memory_any(&vm->memory, vm->memory.layout.boot, KIT_KVM_BOOT_BYTES);
    vm->shared = vmm_memory_any(&vm->memory, vm->memory.layout.shared, sizeof *vm->shared);
    for (uint32_t i = 0; i < vm->cpu_count; i++) {
        const uint64_t at = vmm_processor(&vm->memory.layout, i);
        struct kit_kvm_cpu *place = vmm_memory_any(&vm->memory, at, sizeof *place);
        place->cpu.number = i;
        place->cpu.self =
            (struct kit_cpu *)(at + offsetof(struct kit_kvm_cpu, cpu)); /* a guest's */
        place->stop_ns = KIT_NEVER;
        vm->cpu[i].shared = place;
    }
    fill_boot(vm, random, features);
    vmm_queue_open(&vm->console.tx, &vm->memory, "console tx", &vm->queues[KIT_KVM_CONSOLE_TX],
                   false);
    vmm_queue_open(&vm->console.rx, &vm->memory, "console rx", &vm->queues[KIT_KVM_CONSOLE_RX],
                   true);
    vmm_queue_set_notify(&vm->console.rx, false);
    vmm_net_open(&vm->net, &vm->memory, vm->config->netif, vm->queues);
    return 0;
}

static int make_machine(struct kit_kvm *vm, const struct randomness *random, uint64_t features,
                        struct kit_kvm_refused *refused)
{
    int kvm = vmm_host_open(refused);
    if (kvm < 0)
        return kvm;
    vm->net.netif = vm->config->netif;
    vm->run_bytes = (size_t)vmm_host_run_bytes();
    vm->cpu[0].start = (struct kvm_regs){.rip = vm->config->entry,
                                         .rsp = vm->memory.layout.stack_top,
                                         .rdi = vm->memory.layout.boot,
                                         .rflags = 2};
    const int most = vm->cpu_count > 1 ? ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS) : 1;
    if (most < (int)vm->cpu_count)
        return vmm_refuse_host(refused, 0, "%u processors are asked for; KVM here has at most %d",
                               vm->cpu_count, most);
    int rc = vmm_cpus_open(vm, refused);
    if (rc == 0)
        rc = start_thread(vm, refused);
    if (rc != 0)
        return rc;
    vm->vm_fd = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm->vm_fd < 0)
        return vmm_refuse_host(refused, errno, "KVM_CREATE_VM failed");
    vmm_futex_set(&vm->vm_ready, 1);
    rc = make_memory(vm, random, features, refused);
    vmm_futex_set(&vm->memory_ready, rc == 0 ? 1 : 2);
    vmm_futex_wait(&vm->vcpu_ready, 0);
    if (rc == 0 && vm->vcpu_ready != 1) {
        *refused = vm->refused;
        rc = KIT_EIO;
    }
    vm->config = NULL;
    return rc;
}

static void set_locks(struct kit_kvm *vm, bool make)
{
    pthread_mutex_t *locks[] = {&vm->report_lock, &vm->net_lock, &vm->start_lock, &vm->pages_lock,
                                &vm->clock.lock};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(locks); i++)
        make ? pthread_mutex_init(locks[i], NULL) : pthread_mutex_destroy(locks[i]);
}

struct kit_kvm *kit_kvm_new(void)
{
    struct kit_kvm *vm = calloc(1, sizeof *vm);
    if (vm == NULL)
        return NULL;
    vm->vm_fd = vm->device_fd = -1;
    for (uint32_t i = 0; i < KIT_KVM_CPUS_MAX; i++) {
        vm->cpu[i].vm = vm;
        vm->cpu[i].number = i;
        vm->cpu[i].fd = vm->cpu[i].wake_fd = -1;
    }
    set_locks(vm, true);
    if (vmm_console_open(&vm->console) != 0) {
        free(vm);
        return NULL;
    }
    return vm;
}

int vmm_boot(struct kit_kvm *vm, const struct kit_kvm_config *config, uint64_t features,
             struct kit_kvm_refused *refused)
{
    struct randomness random;
    vm->config = config;
    vm->cpu_count = config->cpus < 1 ? 1 : config->cpus;
    vm->boot_ns = vmm_now_ns();
    int rc = getrandom(&random, sizeof random, 0) == sizeof random
                 ? 0
                 : vmm_refuse_host(refused, errno, "getrandom failed");
    if (rc == 0)
        rc = vmm_layout(config, random.layout, &vm->memory.layout, vm->queues, refused);
    if (rc == 0)
        rc = make_machine(vm, &random, features, refused);
    return rc;
}

int kit_kvm_boot(struct kit_kvm *vm, const struct kit_kvm_config *config,
                 struct kit_kvm_refused *refused)
{
    uint64_t features;
    memset(refused, 0, sizeof *refused);
    int rc = vmm_host_features(&features, refused);
    if (rc == 0)
        rc = vmm_boot(vm, config, features, refused);
    if (rc != 0)
        vmm_console_end(&vm->console);
    return rc;
}

void kit_kvm_stop(struct kit_kvm *vm)
{
    __atomic_store_n(&vm->stop, 1, __ATOMIC_RELEASE);
    vmm_interrupt(vm);
}

/* Ends the threads in whatever state of the boot they are. */
static void end_threads(struct kit_kvm *vm)
{
    if (!vm->cpu[0].started)
        return;
    if (vm->vm_ready == 0)
        vmm_futex_set(&vm->vm_ready, 2);
    else if (vm->vcpu_ready == 1 && !__atomic_load_n(&vm->ended, __ATOMIC_ACQUIRE))
        kit_kvm_stop(vm);
    /* Any processor may still have started another: until there is none left to join. */
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < vm->cpu_count; i++) {
            struct vmm_cpu *cpu = &vm->cpu[i];
            if (!cpu->started || cpu->joined)
                continue;
            pthread_join(cpu->thread, NULL);
            more = cpu->joined = true;
        }
    }
    vmm_device_stop(vm);
}

void kit_kvm_close(struct kit_kvm *vm)
{
    end_threads(vm);
    vmm_cpus_close(vm);
    const int fds[] = {vm->vm_fd, vm->device_fd};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (vm->memory.host != NULL)
        munmap(vm->memory.host, vm->memory.layout.memory_size);
    vmm_console_close(&vm->console);
    set_locks(vm, false);
    free(vm);
}
