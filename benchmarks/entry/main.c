/* SPDX-License-Identifier: MIT */
/* The image of bench_entry.py: how many ticks after its first instruction the application began. */
#include <unikit/app.h>
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/x86_64/cpu.h>

int init_application(void)
{
    uint64_t now = kit_cpu_tsc();
    kit_log("ticks %llu", (unsigned long long)(now - kit_kvm_guest.shared->entry_tsc));
    kit_exit(0);
}
