/* SPDX-License-Identifier: MIT */
/* Time and one-word hand-overs between threads. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unikit/platform/kvm/vmm/internal.h>
#include <unistd.h>

uint64_t vmm_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * KIT_NS_PER_S + (uint64_t)now.tv_nsec;
}

void vmm_futex_wait(uint32_t *word, uint32_t value)
{
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void vmm_futex_set(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}
