/* SPDX-License-Identifier: MIT */
/* The end of a slice is a word that the monitor looks at while it ticks. */
#include <unikit/platform/kvm/guest/guest.h>

int kit_kvm_cpu_slice(runtime_environment_t *env, uint64_t stop_ns)
{
    volatile struct kit_kvm_cpu *cpu = kvm_here(KIT_CONTAINER_OF(env, struct kvm_guest, env));
    const bool first = cpu->stop_ns == KIT_NEVER && stop_ns != KIT_NEVER;
    cpu->stop_ns = stop_ns;
    if (first && !cpu->ticking)
        kvm_bell(KIT_KVM_SLICE, 0);
    return 0;
}
