/* SPDX-License-Identifier: MIT */
/* The image of check_platform(): does what the first word of its argument string says, straight on
 * the runtime environment, and prints what it saw. Lines are «name value ...»; the judging is done
 * outside (unikit/testing/platform.py). */
#include <unikit/app.h>
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/x86_64/cpu.h>

enum { PAGE = 4096, FLOOD = 100000 };

static const char zeros[PAGE] = {0};
static char unset[2 * PAGE];

static runtime_environment_t *environment(void)
{
    return kit_runtime.state.runtime;
}

static bool is(const char *command, const char *name)
{
    size_t length = strlen(name);
    return strlen(command) >= length && memcmp(command, name, length) == 0 &&
           (command[length] == 0 || command[length] == ' ');
}

static long number(const char *text)
{
    long value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    return value;
}

static const char *option(const char *name)
{
    const char *value = kit_env_boot_option(environment(), name);
    return value != NULL ? value : "-";
}

static void facts(void)
{
    runtime_environment_t *env = environment();
    uint64_t words[2] = {0, 0};
    int rc = kit_env_entropy(env, words, sizeof words);
    kit_log("entropy %d %llx%llx", rc, (unsigned long long)words[0], (unsigned long long)words[1]);
    kit_log("platform %s", env->platform);
    kit_log("cpus %u", env->cpus);
    kit_log("option %s %s", option("net.mini.address"), option("test.missing"));
    kit_log("empty [%s]", option("test.empty"));
    kit_log("network %d", env->network != NULL);
    unsigned long dirty = 0;
    for (size_t i = 0; i < sizeof unset; i++)
        dirty += (unsigned char)unset[i];
    kit_log("bss %lu", dirty);
    kit_log("start %d", env->start_ns <= kit_env_now_ns(env));
    kit_log("cpu_start %d", kit_env_cpu_start(env, env->cpus, NULL, NULL, NULL));
}

/* The allocator has taken the front of the heap; everything behind its first pages is untouched. */
static void memory(void)
{
    const memory_region_t *heap = &environment()->memory;
    const char *base = heap->base_address;
    uint64_t dirty = 0;
    for (uint64_t at = heap->size / 2 / PAGE * PAGE; at + PAGE <= heap->size - PAGE; at += PAGE)
        dirty += memcmp(base + at, zeros, PAGE) != 0;
    kit_log("heap %llu", (unsigned long long)heap->size);
    kit_log("aligned %d %d", ((uintptr_t)base & (PAGE - 1)) == 0, (heap->size & (PAGE - 1)) == 0);
    kit_log("dirty %llu", (unsigned long long)dirty);
    char *last = (char *)heap->base_address + heap->size - PAGE;
    last[PAGE - 1] = 1;
    kit_log("end %d", last[PAGE - 1]);
}

static void clocks(void)
{
    runtime_environment_t *env = environment();
    kit_log("wall %llu", (unsigned long long)kit_env_wall_ns(env));
    uint64_t begin = kit_env_now_ns(env), last = begin, backward = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t next = kit_env_now_ns(env);
        backward += next < last;
        last = next;
    }
    kit_log("backward %llu", (unsigned long long)backward);
    uint64_t deadline_ns = kit_env_now_ns(env) + 30 * KIT_NS_PER_MS;
    uint32_t woken = 0;
    while (kit_env_now_ns(env) < deadline_ns && woken == 0)
        woken = kit_env_wait(env, deadline_ns, 0);
    uint64_t now = kit_env_now_ns(env);
    kit_log("woken %u", woken);
    kit_log("late %lld", (long long)(now - deadline_ns));
    begin = kit_env_now_ns(env);
    kit_env_wait(env, 1, KIT_WAKE_CONSOLE);
    kit_log("past %llu", (unsigned long long)(kit_env_now_ns(env) - begin));
}

/* Two pages of the heap that the allocator does not hold. */
static char *spare(void)
{
    const memory_region_t *heap = &environment()->memory;
    return (char *)heap->base_address + heap->size / 2 / PAGE * PAGE;
}

static void pages(const char *what)
{
    runtime_environment_t *env = environment();
    char *page = spare();
    page[5] = 1;
    page[PAGE] = 2;
    int rc = kit_env_page_release(env, page, PAGE);
    kit_log("release %d %d %d", rc, page[5], page[PAGE]);
    kit_log("odd %d %d", kit_env_page_release(env, page + 1, PAGE),
            kit_env_page_protect(env, page, PAGE - 1, KIT_PAGE_READ));
    kit_log("outside %d %d", kit_env_page_release(env, page, env->memory.size),
            kit_env_page_protect(env, (char *)env->memory.base_address - PAGE, PAGE, 0));
    kit_log("executable %d", kit_env_page_protect(env, page, PAGE, 4));
    kit_log("protect %d", kit_env_page_protect(env, page, PAGE, KIT_PAGE_READ));
    kit_log("read %d", page[5]);
    if (is(what, "write"))
        page[5] = 1;
    if (is(what, "none")) {
        kit_env_page_protect(env, page, PAGE, KIT_PAGE_NONE);
        kit_log("read %d", page[5]);
    }
    int again = kit_env_page_protect(env, page, PAGE, KIT_PAGE_READ | KIT_PAGE_WRITE);
    page[5] = 7;
    kit_log("writable %d %d", again, page[5]);
}

static void fault(const char *what)
{
    if (is(what, "null"))
        *(volatile char *)kit_cpu_opaque(8) = 1;
    if (is(what, "code"))
        *(volatile char *)kit_cpu_opaque((uintptr_t)kit_exit) = 1;
    if (is(what, "constants"))
        *(volatile char *)kit_cpu_opaque((uintptr_t)zeros) = 1;
    if (is(what, "data"))
        ((void (*)(void))(uintptr_t)unset)();
    if (is(what, "heap"))
        ((void (*)(void))(uintptr_t)spare())();
    if (is(what, "invalid"))
        __asm__ volatile("ud2");
    if (is(what, "privileged"))
        __asm__ volatile("hlt");
}

static void say(const char *text)
{
    kit_print(text, strlen(text));
}

static void flood(void)
{
    char line[16];
    for (unsigned i = 0; i < FLOOD / 8; i++) {
        size_t length = kit_format(line, sizeof line, "%07u\n", i);
        kit_print(line, length);
    }
}

static _Noreturn void echo(void)
{
    runtime_environment_t *env = environment();
    char buffer[64];
    say("ready\n");
    for (;;) {
        kit_env_wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
        size_t length = kit_console_input(env->console, buffer, sizeof buffer);
        if (length != 0 && buffer[0] == '.')
            kit_exit(0);
        kit_print(buffer, length);
    }
}

static _Noreturn void frames(void)
{
    runtime_environment_t *env = environment();
    network_interface_t *network = env->network;
    static uint8_t buffer[2048];
    kit_log("mac %02x%02x%02x%02x%02x%02x mtu %u", network->mac[0], network->mac[1],
            network->mac[2], network->mac[3], network->mac[4], network->mac[5], network->mtu);
    kit_log("configure %d %d", kit_netif_configure(network, "10.0.0.2", "255.255.255.0"),
            kit_netif_configure(network, "10.0.0.256", "255.255.255.0"));
    kit_log("sizes %d %d", kit_netif_send(network, buffer, 13),
            kit_netif_send(network, buffer, network->mtu + 15u));
    kit_log("none %d", kit_netif_receive(network, buffer, sizeof buffer));
    say("ready\n");
    for (;;) {
        kit_env_wait(env, KIT_NEVER, KIT_WAKE_NETWORK);
        int length = kit_netif_receive(network, buffer, sizeof buffer);
        if (length < 0)
            kit_exit(9);
        while (length > 0 && kit_netif_send(network, buffer, (size_t)length) == KIT_EAGAIN)
            kit_env_wait(env, kit_env_now_ns(env) + KIT_NS_PER_MS, KIT_WAKE_NETWORK);
    }
}

static _Noreturn void stay(bool spin)
{
    runtime_environment_t *env = environment();
    say("ready\n");
    for (;;)
        if (!spin)
            kit_env_wait(env, KIT_NEVER, KIT_WAKE_NETWORK);
}

int init_application(void)
{
    const char *command = option("");
    if (is(command, "exit"))
        kit_exit((int32_t)number(command + 5));
    if (is(command, "panic"))
        kit_panic("the panic that was asked for");
    if (is(command, "facts"))
        facts();
    if (is(command, "memory"))
        memory();
    if (is(command, "clocks"))
        clocks();
    if (is(command, "pages"))
        pages(command + 6);
    if (is(command, "fault"))
        fault(command + 6);
    if (is(command, "flood"))
        flood();
    if (is(command, "echo"))
        echo();
    if (is(command, "frames"))
        frames();
    if (is(command, "idle") || is(command, "spin"))
        stay(is(command, "spin"));
    kit_log("argument %s", command);
    kit_exit(0);
}
