/* SPDX-License-Identifier: MIT */
/* Randomness of the sealed guest: a generator on the monitor's seed. */
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/x86_64/cpu.h>

KVM_COLD void kvm_entropy_open(struct kvm_guest *guest)
{
    kit_generator_open(&guest->entropy, guest->shared->seed,
                       (guest->boot->cpu_features & KIT_CPU_RDRAND) != 0);
}

KVM_COLD int kit_kvm_entropy(runtime_environment_t *env, void *buffer, size_t size)
{
    struct kvm_guest *guest = KIT_CONTAINER_OF(env, struct kvm_guest, env);
#if KIT_WITH_CPUS
    kit_spin_lock(&guest->entropy_lock);
#endif
    kit_generator_fill(&guest->entropy, buffer, size);
#if KIT_WITH_CPUS
    kit_spin_unlock(&guest->entropy_lock);
#endif
    return 0;
}
