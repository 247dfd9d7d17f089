/* SPDX-License-Identifier: MIT */
/* From the entry stub to unikernel_main: fills the environment and hands it over. */
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/x86_64/cpu.h>

_Static_assert(offsetof(struct kit_kvm_boot, shared) == 56, "start.S");
_Static_assert(offsetof(struct kit_kvm_shared, canary) == 40, "start.S");

struct kvm_guest kit_kvm_guest;
const char kit_kvm_name[] = "kvm";

KVM_COLD _Noreturn void kit_kvm_start(const struct kit_kvm_boot *boot);

void kvm_bell(enum kit_kvm_bell call, uint32_t value)
{
    volatile uint32_t *word = (volatile uint32_t *)KIT_KVM_DOORBELL + call;
    /* One plain store: on hosts that emulate it, the simplest form. It is also a barrier: the
     * monitor may have written any memory when it returns. */
    __asm__ volatile("movl %1, %0" : "=m"(*word) : "r"(value) : "memory");
}

KVM_COLD void kit_kvm_panic_handler(runtime_environment_t *env, const char *message)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
    volatile struct kit_kvm_call *call = &kvm_here(guest)->call;
    call->message = (uintptr_t)message;
    call->message_length = strlen(message);
    kvm_bell(KIT_KVM_PANIC, 0);
    __builtin_trap();
}

uint64_t kit_kvm_cpu_features(runtime_environment_t *env)
{
    return KIT_CONTAINER_OF(env, struct kvm_guest, env)->boot->cpu_features;
}

KVM_COLD void kit_kvm_exit(runtime_environment_t *env, int32_t code)
{
    (void)env;
    kvm_bell(KIT_KVM_EXIT, (uint32_t)code);
    __builtin_trap();
}

static KVM_COLD int page_call(runtime_environment_t *env, uint32_t call, void *base, size_t size,
                              uint32_t access)
{
    volatile struct kit_kvm_call *words =
        &kvm_here(KIT_CONTAINER_OF(env, struct kvm_guest, env))->call;
    words->page_call = call;
    words->page_base = (uintptr_t)base;
    words->page_size = size;
    words->page_access = access;
    kvm_bell(KIT_KVM_PAGES, 0);
    return words->page_result;
}

KVM_COLD int kit_kvm_page_release(runtime_environment_t *env, void *base, size_t size)
{
    return page_call(env, KIT_KVM_PAGE_RELEASE, base, size, 0);
}

KVM_COLD int kit_kvm_page_protect(runtime_environment_t *env, void *base, size_t size,
                                  uint32_t access)
{
    return page_call(env, KIT_KVM_PAGE_PROTECT, base, size, access);
}

int kit_kvm_cpu_start(runtime_environment_t *env, uint32_t cpu, void (*entry)(void *argument),
                      void *argument, void *stack_top)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
    if (!KIT_WITH_CPUS)
        return KIT_ENOTSUP;
    if (cpu == 0 || cpu >= env->cpus)
        return KIT_EINVAL;
    /* As if it had been called from nowhere: a backtrace ends there, and so does a return. */
    uintptr_t *top = (uintptr_t *)((uintptr_t)stack_top & ~(uintptr_t)15) - 1;
    *top = 0;
    volatile struct kit_kvm_call *call = &kvm_here(guest)->call;
    call->start_entry = (uintptr_t)entry;
    call->start_argument = (uintptr_t)argument;
    call->start_stack = (uintptr_t)top;
    kvm_bell(KIT_KVM_START, cpu);
    return call->start_result;
}

void kit_kvm_cpu_wake(runtime_environment_t *env, uint32_t cpu)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
    if (!KIT_WITH_CPUS || cpu >= env->cpus)
        return; /* there is no other processor */
    volatile struct kit_kvm_cpu *other = &guest->shared->first;
    if (cpu != 0)
        other = (volatile struct kit_kvm_cpu *)(guest->boot->processors +
                                                (cpu - 1) * (uint64_t)KIT_KVM_CPU_STRIDE);
    /* Who was first to ask for it rings, and only if it sleeps (wait_for_processors). */
    if (__atomic_exchange_n(&other->kicked, 1, __ATOMIC_SEQ_CST) == 0 &&
        __atomic_load_n(&other->asleep, __ATOMIC_SEQ_CST) != 0)
        kvm_bell((enum kit_kvm_bell)(KIT_KVM_WAKE + cpu), 0);
}

struct kit_cpu *kit_kvm_cpu_self(runtime_environment_t *env)
{
    (void)env;
#if KIT_WITH_CPUS || KIT_WITH_PREEMPTION
    return kit_cpu_here();
#else
    return &kit_kvm_guest.cpu;
#endif
}

KVM_COLD const char *kit_kvm_boot_option(runtime_environment_t *env, const char *name)
{
    const struct kit_kvm_boot *boot = KIT_CONTAINER_OF(env, struct kvm_guest, env)->boot;
    const char *at = boot->options, *end = at + boot->options_bytes;
    size_t length = strlen(name) + 1;
    while (at < end) {
        size_t key = strlen(at) + 1;
        if (key == length && memcmp(at, name, length) == 0)
            return at + key;
        at += key;
        at += strlen(at) + 1;
    }
    return NULL;
}

static KVM_COLD void fill(runtime_environment_t *env)
{
    (void)env;
    KIT_ENV_SET(env, panic_handler, kit_kvm_panic_handler);
    KIT_ENV_SET(env, now_ns, kit_kvm_now_ns);
    KIT_ENV_SET(env, wall_ns, kit_kvm_wall_ns);
    KIT_ENV_SET(env, entropy, kit_kvm_entropy);
    KIT_ENV_SET(env, wait, kit_kvm_wait);
    KIT_ENV_SET(env, page_release, kit_kvm_page_release);
    KIT_ENV_SET(env, page_protect, kit_kvm_page_protect);
    KIT_ENV_SET(env, cpu_start, kit_kvm_cpu_start);
    KIT_ENV_SET(env, cpu_wake, kit_kvm_cpu_wake);
    KIT_ENV_SET(env, cpu_self, kit_kvm_cpu_self);
    KIT_ENV_SET(env, cpu_slice, kit_kvm_cpu_slice);
    KIT_ENV_SET(env, boot_option, kit_kvm_boot_option);
    KIT_ENV_SET(env, exit, kit_kvm_exit);
    KIT_ENV_SET(env, cpu_features, kit_kvm_cpu_features(env));
}

_Noreturn void kit_kvm_start(const struct kit_kvm_boot *boot)
{
    uint64_t entered = kit_cpu_tsc();
    struct kvm_guest *guest = &kit_kvm_guest;
    if (boot->magic != KIT_KVM_MAGIC || boot->abi != KIT_KVM_ABI)
        __builtin_trap();
    guest->boot = boot;
    guest->shared = (volatile struct kit_kvm_shared *)boot->shared;
    guest->shared->entry_tsc = entered;
    guest->env = (runtime_environment_t){
        .memory = {(void *)boot->heap_base, boot->heap_size},
        .console = &guest->console,
        .start_ns = boot->start_ns,
        .cpus = 1,
        .platform = kit_kvm_name,
    };
#if KIT_WITH_CPUS
    guest->env.cpus = boot->cpus < kit_image_cpus ? boot->cpus : kit_image_cpus;
#endif
    fill(&guest->env);
    kvm_entropy_open(guest);
    kvm_console_open(guest);
    if (KIT_WITH_NETWORK)
        kvm_network_open(guest);
    guest->shared->main_tsc = kit_cpu_tsc();
    kit_kvm_exit(&guest->env, unikernel_main(&guest->env));
    __builtin_trap();
}
