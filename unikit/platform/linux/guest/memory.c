/* SPDX-License-Identifier: MIT */
/* Where stacks and heap lie: in one reserved range at a random place, chosen from the kernel's
 * random bytes (so also where the kernel's own randomisation is off), with inaccessible pages
 * between them, a random number of them before the heap:
 *
 *     [guard][ signal stack ][guard][ stack ][guard ... ][ heap ][guard]
 *
 * All of it is reserved first and made accessible piece by piece, so that under strict overcommit
 * only what is used is charged. memory=SIZE counts image, stack and heap; the signal stack is the
 * platform's. */
#include <unikit/platform/linux/guest/linux.h>
#include <unikit/rt/bits.h>

enum {
    MEMORY_DEFAULT = 16 << 20,
    MEMORY_MINIMUM = 48 << 10,
    STACK_MINIMUM = 16 << 10,
    STACK_MAXIMUM = 256 << 10,
    SIGNAL_STACK = 32 << 10, /* a frame with all vector registers takes 11 KiB */
    GAP_MASK = 0x0ffff000    /* up to 256 MiB, whole pages */
};

/* Makes a piece accessible, and returns its end. */
static LINUX_COLD uintptr_t give(uintptr_t start, size_t size)
{
    if (kit_syscall3(SYS_MPROTECT, start, size, PROT_READ | PROT_WRITE) < 0)
        kit_linux_refuse("the host does not give that much: ", "memory");
    return start + size;
}

/* Makes the heap accessible: memory of the process, or the file that memory.fd names. */
static LINUX_COLD void give_heap(uintptr_t start, size_t size)
{
    uint64_t fd = kit_linux_number("memory.fd", UINT64_MAX, 3, INT32_MAX);
    if (fd == UINT64_MAX) {
        give(start, size);
        return;
    }
    if (kit_syscall(SYS_MMAP, start, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) <
        0)
        kit_linux_refuse("not an open file of that size: ", "memory.fd");
    kit_linux.heap_shared = true;
}

static LINUX_COLD size_t stack_size(uint64_t memory)
{
    uint64_t size = kit_align_down(memory / 16, LINUX_PAGE);
    size = size < STACK_MINIMUM ? STACK_MINIMUM : size;
    return size > STACK_MAXIMUM ? STACK_MAXIMUM : size;
}

void kit_linux_memory_open(void)
{
    uint64_t size = kit_linux_number("memory", MEMORY_DEFAULT, MEMORY_MINIMUM, UINT64_C(1) << 44);
    size = kit_align_down(size, LINUX_PAGE);
    size_t stack = stack_size(size);
    size_t taken =
        kit_align_up((uintptr_t)kit_image_end, LINUX_PAGE) - (uintptr_t)kit_image_start + stack;
    if (size <= taken)
        kit_linux_refuse("too small for this image and its stack: ", "memory");
    uint64_t heap = size - taken, random = kit_linux.random;
    size_t gap = random & GAP_MASK;
    /* Only a hint, in the lower half: the kernel moves it if something is there. */
    uintptr_t place = UINT64_C(0x100000000000) | (random >> 24 & UINT64_C(0x3ffffffff000));
    long base =
        kit_syscall(SYS_MMAP, place, SIGNAL_STACK + stack + gap + heap + 4 * LINUX_PAGE, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, (uintptr_t)-1, 0);
    if (base < 0)
        kit_linux_refuse("the host has no room for that much: ", "memory");
    struct linux_state *state = &kit_linux;
    state->signal_stack.start = (uintptr_t)base + LINUX_PAGE;
    state->signal_stack.end = give(state->signal_stack.start, SIGNAL_STACK);
    state->stack.start = state->signal_stack.end + LINUX_PAGE;
    uintptr_t end = give(state->stack.start, stack);
    state->stack.end = end - (random >> 52 & 0x7f0); /* in 16-byte steps */
    uintptr_t start = end + LINUX_PAGE + gap;
    give_heap(start, heap);
    kit_linux.env.memory = (memory_region_t){(void *)start, heap};
}

static bool is_heap(const void *base, size_t size)
{
    uintptr_t offset = (uintptr_t)base - (uintptr_t)kit_linux.env.memory.base_address;
    uint64_t heap = kit_linux.env.memory.size;
    return (((uintptr_t)base | size) & (LINUX_PAGE - 1)) == 0 && offset <= heap &&
           size <= heap - offset;
}

int kit_linux_page_release(runtime_environment_t *env, void *base, size_t size)
{
    (void)env;
    if (!is_heap(base, size))
        return KIT_EINVAL;
    if (kit_linux.heap_shared) { /* the file would give its old contents back */
        memset(base, 0, size);
        return KIT_OK;
    }
    long result = kit_syscall3(SYS_MADVISE, (uintptr_t)base, size, MADV_DONTNEED);
    return result < 0 ? KIT_ENOTSUP : KIT_OK;
}

int kit_linux_page_protect(runtime_environment_t *env, void *base, size_t size, uint32_t access)
{
    (void)env;
    if (!is_heap(base, size) || access > (KIT_PAGE_READ | KIT_PAGE_WRITE))
        return KIT_EINVAL;
    if (access == KIT_PAGE_NONE)
        kit_linux.report_task = kit_linux_report_task;
    long result = kit_syscall3(SYS_MPROTECT, (uintptr_t)base, size, access);
    return result < 0 ? KIT_ENOTSUP : KIT_OK;
}
