/* SPDX-License-Identifier: MIT */
/* Goes wrong as its argument string says. */
#include <unikit/app.h>

extern char kit_image_end[];
static const char constant[] = "constant";

static __attribute__((noinline)) int descend(int depth)
{
    volatile char room[1024];
    room[0] = (char)depth;
    return room[0] + (depth == 0 ? 0 : descend(depth - 1)) + room[0];
}

static void overrun(void *argument)
{
    (void)argument;
    kit_log("%d", descend(1 << 20));
}

static bool is(const char *word)
{
    const char *command = kit_boot_option("");
    return command != NULL && strlen(command) == strlen(word) &&
           memcmp(command, word, strlen(word)) == 0;
}

int init_application(void)
{
    if (is("panic"))
        kit_panic("as asked for");
    if (is("null"))
        *(volatile int *)8 = 1;
    if (is("text"))
        *(volatile char *)(uintptr_t)init_application = 1;
    if (is("constant"))
        *(volatile char *)(uintptr_t)constant = 1;
    if (is("heap"))
        ((void (*)(void))(uintptr_t)kit_memory_alloc(64, 16))();
    if (is("tables"))
        return *(volatile int *)(((uintptr_t)kit_image_end + 8191) & ~(uintptr_t)4095);
    if (is("stack"))
        overrun(NULL);
    if (is("cli"))
        __asm__ volatile("cli");
    if (is("port"))
        __asm__ volatile("outb %%al, $0x70" ::"a"(0));
    if (is("task")) {
        const struct kit_task_spec spec = {.entry = overrun, .name = "digger", .flags = 1};
        return kit_task_spawn(&spec, NULL);
    }
    if (is("code"))
        return 200;
    if (is("large"))
        kit_exit(123456);
    kit_log("nothing to do");
    return 0;
}
