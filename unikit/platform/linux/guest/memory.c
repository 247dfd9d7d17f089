/* SPDX-License-Identifier: MIT */
/* Where stacks and heap lie: each at a random place chosen from the kernel's random bytes (so also
 * where the kernel's own randomisation is off), an inaccessible page before and behind each:
 *
 *     [guard][ signal stack ][guard][ stack ][guard]      [guard][ heap ][guard]
 *
 * Everything is reserved first and made accessible then, so that under strict overcommit only what
 * is used is charged. memory=SIZE counts image, stack and heap; the signal stack is the platform's.
 */
#include <unikit/platform/linux/guest/linux.h>
#include <unikit/rt/bits.h>

enum {
    MEMORY_DEFAULT = 16 << 20,
    MEMORY_MINIMUM = 48 << 10,
    STACK_MINIMUM = 16 << 10,
    STACK_MAXIMUM = 256 << 10,
    SIGNAL_HANDLER = 8192 /* what the fault handler needs besides the kernel's frame */
};

static uintptr_t pages(uintptr_t size)
{
    return kit_align_up(size, LINUX_PAGE);
}

/* A place for `size` bytes in the lower half; only a hint, the kernel moves it if taken. */
static uintptr_t random_place(void)
{
    uint64_t random = kit_linux.process.random * UINT64_C(0x9e3779b97f4a7c15);
    kit_linux.process.random = random ^ random >> 32;
    return UINT64_C(0x100000000000) | (random >> 24 & UINT64_C(0x3ffffffff000));
}

static uintptr_t reserve(size_t size)
{
    long base = kit_syscall(SYS_MMAP, random_place(), size, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, (uintptr_t)-1, 0);
    if (base < 0)
        kit_linux_refuse("the host has no room for ", "memory");
    return (uintptr_t)base;
}

static void open_pages(uintptr_t start, uintptr_t end)
{
    if (kit_syscall3(SYS_MPROTECT, start, end - start, PROT_READ | PROT_WRITE) < 0)
        kit_linux_refuse("the host does not give that much ", "memory");
}

static void open_stacks(size_t size, size_t signal_size)
{
    uintptr_t base = reserve(size + signal_size + 3 * LINUX_PAGE);
    kit_linux.signal_stack.start = base + LINUX_PAGE;
    kit_linux.signal_stack.end = base + LINUX_PAGE + signal_size;
    kit_linux.stack.start = kit_linux.signal_stack.end + LINUX_PAGE;
    uintptr_t end = kit_linux.stack.start + size;
    open_pages(kit_linux.signal_stack.start, kit_linux.signal_stack.end);
    open_pages(kit_linux.stack.start, end);
    kit_linux.stack.end = end - (kit_linux.process.random & 0x7f0); /* 16-byte steps */
}

void kit_linux_memory_open(void)
{
    uint64_t image = pages((uintptr_t)kit_image_end) - (uintptr_t)kit_image_start;
    uint64_t size = kit_linux_number("memory", MEMORY_DEFAULT, MEMORY_MINIMUM, UINT64_C(1) << 44);
    uint64_t stack = kit_align_down(size / 16, LINUX_PAGE);
    if (stack < STACK_MINIMUM)
        stack = STACK_MINIMUM;
    if (stack > STACK_MAXIMUM)
        stack = STACK_MAXIMUM;
    size = kit_align_down(size, LINUX_PAGE);
    if (size < image + stack + LINUX_PAGE)
        kit_linux_refuse("too small for this image and its stack: ", "memory");
    size_t frame = kit_linux.process.signal_frame;
    open_stacks(stack, pages(frame + SIGNAL_HANDLER));
    uint64_t heap = size - image - stack;
    uintptr_t base = reserve(heap + 2 * LINUX_PAGE) + LINUX_PAGE;
    open_pages(base, base + heap);
    kit_linux.env.memory = (memory_region_t){(void *)base, heap};
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
    long result = kit_syscall3(SYS_MADVISE, (uintptr_t)base, size, MADV_DONTNEED);
    return result < 0 ? KIT_ENOTSUP : KIT_OK;
}

int kit_linux_page_protect(runtime_environment_t *env, void *base, size_t size, uint32_t access)
{
    (void)env;
    if (!is_heap(base, size) || access > (KIT_PAGE_READ | KIT_PAGE_WRITE))
        return KIT_EINVAL;
    long result = kit_syscall3(SYS_MPROTECT, (uintptr_t)base, size, access);
    return result < 0 ? KIT_ENOTSUP : KIT_OK;
}
