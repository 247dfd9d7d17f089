/* SPDX-License-Identifier: MIT */
/* An image without any component: unikernel_main does what its argument string says, straight on
 * the environment, and prints what it saw. So the platform is tested by itself. */
#include <unikit/platform/env.h>
#include <unikit/rt/format.h>

extern uintptr_t __stack_chk_guard;
char probe_zero[8192];

static runtime_environment_t *env;

void kit_panic(const char *message)
{
    env->panic_handler(env, message);
    for (;;)
        ;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    size_t length = kit_vformat(line, sizeof line, format, arguments);
    va_end(arguments);
    env->console->write(env->console, line, length);
}

static bool is(const char *command, const char *name)
{
    size_t length = strlen(name);
    return strlen(command) >= length && memcmp(command, name, length) == 0 &&
           (command[length] == 0 || command[length] == ' ');
}

static const char *option(const char *name)
{
    const char *value = env->boot_option(env, name);
    return value != NULL ? value : "-";
}

static void facts(void)
{
    uint64_t word = 0;
    char on_stack = 0;
    int rc = env->entropy(env, &word, sizeof word);
    say("heap %p %lu\n", env->memory.base_address, (unsigned long)env->memory.size);
    say("stack %p\nguard %lx\nrandom %d %lx\n", (void *)&on_stack,
        (unsigned long)__stack_chk_guard, rc, (unsigned long)word);
    say("platform %s cpus %u features %lx\n", env->platform, env->cpus,
        (unsigned long)env->cpu_features);
    say("option %s %s\n", option("net.mini.address"), option("a.b"));
    say("network %d\n", env->network != NULL);
    const unsigned char *heap = env->memory.base_address;
    unsigned long dirty = 0;
    for (uint64_t i = 0; i < env->memory.size; i += 512)
        dirty += heap[i];
    for (size_t i = 0; i < sizeof probe_zero; i++)
        dirty += (unsigned char)probe_zero[i];
    say("dirty %lu aligned %d\n", dirty, ((uintptr_t)heap & 4095) == 0);
}

static void clocks(void)
{
    uint64_t now = env->now_ns(env), wall = env->wall_ns(env);
    say("now %lu start %lu wall %lu\n", (unsigned long)now, (unsigned long)env->start_ns,
        (unsigned long)wall);
    uint64_t begin = env->now_ns(env), last = begin;
    bool forward = true;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t next = env->now_ns(env);
        forward = forward && next >= last;
        last = next;
    }
    say("forward %d each %lu\n", forward, (unsigned long)((last - begin) / 100000));
    uint64_t deadline_ns = env->now_ns(env) + 50 * KIT_NS_PER_MS;
    uint32_t woken = env->wait(env, deadline_ns, 0);
    uint64_t late = env->now_ns(env) - deadline_ns;
    say("woken %u late %lu\n", woken, (unsigned long)late);
    say("past %u\n", env->wait(env, 1, KIT_WAKE_NETWORK));
}

static void pages(void)
{
    char *heap = env->memory.base_address;
    heap[5] = 1;
    int release = env->page_release(env, heap, 4096);
    say("release %d %d\n", release, heap[5]);
    say("odd %d %d %d\n", env->page_release(env, heap + 1, 4096),
        env->page_protect(env, heap, 100, 0), env->page_protect(env, heap - 4096, 4096, 1));
    say("beyond %d %d\n", env->page_release(env, heap, env->memory.size + 4096),
        env->page_protect(env, heap, 4096, 7));
    int none = env->page_protect(env, heap, 4096, KIT_PAGE_NONE);
    int both = env->page_protect(env, heap, 4096, KIT_PAGE_READ | KIT_PAGE_WRITE);
    heap[6] = 1;
    say("protect %d %d\n", none, both);
    say("all %d\n", env->page_release(env, heap, env->memory.size));
    env->page_protect(env, heap, 4096, KIT_PAGE_READ);
    heap[5] = 1;
}

static void echo(void)
{
    char buffer[100];
    for (;;) {
        uint32_t woken = env->wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
        size_t length = env->console->read(env->console, buffer, sizeof buffer);
        if (length == 0 && (woken & KIT_WAKE_CONSOLE) != 0) {
            say("closed\n");
            env->exit(env, 4);
        }
        env->console->write(env->console, buffer, length);
    }
}

static void flood(void)
{
    static char block[10000];
    memset(block, 'x', sizeof block);
    size_t taken = 0;
    uint64_t begin = env->now_ns(env);
    for (unsigned i = 0; i < 300; i++)
        taken += env->console->write(env->console, block, sizeof block);
    uint64_t took = env->now_ns(env) - begin;
    env->wait(env, env->now_ns(env) + 300 * KIT_NS_PER_MS, 0);
    env->exit(env, taken == 300 * sizeof block ? 0 : took < KIT_NS_PER_S ? 1 : 2);
}

static void frames(void)
{
    network_interface_t *network = env->network;
    static uint8_t buffer[2000];
    say("mac %x:%x mtu %u configure %d %d %d\n", network->mac[0], network->mac[5], network->mtu,
        network->configure(network, "10.0.0.2", "255.255.255.0"),
        network->configure(network, "10.0.0.256", "255.255.255.0"),
        network->configure(network, "10.0.0", "255.255.255.0"));
    say("sizes %d %d\n", network->send_packet(network, buffer, 13),
        network->send_packet(network, buffer, network->mtu + 15u));
    say("nothing %d\n", network->receive_packet(network, buffer, sizeof buffer));
    struct kit_frame out[2] = {{.data = buffer, .length = 60},
                               {.data = buffer, .length = 60, .gso_type = 1}};
    say("batch %d\n", network->send_batch(network, out, 2));
    for (;;) {
        uint32_t woken = env->wait(env, KIT_NEVER, KIT_WAKE_NETWORK);
        uint8_t second[64];
        struct kit_frame in[2] = {{.data = buffer, .capacity = 1514},
                                  {.data = second, .capacity = sizeof second}};
        int count = network->receive_batch(network, in, 2);
        if (count < 0) {
            say("end %u %d %d\n", woken, count, network->send_packet(network, buffer, 60));
            env->exit(env, 5);
        }
        for (int i = 0; i < count; i++)
            while (network->send_packet(network, in[i].data, in[i].length) == KIT_EAGAIN)
                env->wait(env, env->now_ns(env) + KIT_NS_PER_MS, 0);
    }
}

__attribute__((noinline)) static int overflow(volatile int *depth)
{
    volatile int room[100];
    room[0] = ++*depth;
    return overflow(depth) + room[0];
}

static long system_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

static long number(const char **text)
{
    long value = 0;
    while (**text == ' ')
        ++*text;
    for (; **text >= '0' && **text <= '9'; ++*text)
        value = value * 10 + (**text - '0');
    return value;
}

static void call(const char *text)
{
    long nr = number(&text), a = number(&text), b = number(&text), c = number(&text);
    say("result %ld\n", system_call(nr, a, b, c));
}

__attribute__((noinline)) static void smash(char *at)
{
    volatile char frame[16];
    for (unsigned i = 0; i < 64; i++)
        ((volatile char *)frame)[i] = at[i];
}

static void fault(const char *kind)
{
    volatile int depth = 0;
    if (is(kind, "null"))
        *(volatile int *)8 = 1;
    if (is(kind, "text"))
        *(volatile char *)(uintptr_t)kit_panic = 1;
    if (is(kind, "constant"))
        *(volatile char *)(uintptr_t) "constant" = 1;
    if (is(kind, "heap"))
        ((void (*)(void))env->memory.base_address)();
    if (is(kind, "data"))
        ((void (*)(void))(uintptr_t)probe_zero)();
    if (is(kind, "stack"))
        overflow(&depth);
    if (is(kind, "before"))
        ((volatile char *)env->memory.base_address)[-1] = 1;
    if (is(kind, "behind"))
        ((volatile char *)env->memory.base_address)[env->memory.size] = 1;
    if (is(kind, "invalid"))
        __asm__ volatile("ud2");
    if (is(kind, "divide"))
        __asm__ volatile("xor %%edx, %%edx; xor %%eax, %%eax; div %%edx" ::: "eax", "edx");
    if (is(kind, "privileged"))
        __asm__ volatile("hlt");
    if (is(kind, "breakpoint"))
        __asm__ volatile("int3");
    if (is(kind, "smash"))
        smash(env->memory.base_address);
}

static void bad_stack(void)
{
    __asm__ volatile("xor %esp, %esp; push %rax");
}

int unikernel_main(runtime_environment_t *environment)
{
    env = environment;
    const char *command = option("");
    if (is(command, "exit")) {
        command += 4;
        return (int)number(&command);
    }
    if (is(command, "panic"))
        kit_panic("deliberate: 100 % meant");
    if (is(command, "facts"))
        facts();
    if (is(command, "clocks"))
        clocks();
    if (is(command, "pages"))
        pages();
    if (is(command, "echo"))
        echo();
    if (is(command, "flood"))
        flood();
    if (is(command, "frames"))
        frames();
    if (is(command, "fault"))
        fault(command + 6);
    if (is(command, "lost"))
        bad_stack();
    if (is(command, "call"))
        call(command + 4);
    if (is(command, "idle"))
        for (say("idle\n");;)
            env->wait(env, KIT_NEVER, KIT_WAKE_NETWORK);
    if (is(command, "spin"))
        for (say("spinning\n");;)
            ;
    say("argument %s\n", command);
    return 0;
}
