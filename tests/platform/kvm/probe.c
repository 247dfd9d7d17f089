/* SPDX-License-Identifier: MIT */
/* An image without any component: unikernel_main does what its argument string says, straight on
 * the environment or on the bare doorbell and queues, and prints what it saw. So the platform is
 * tested by itself, by guests that behave and by guests that do not. */
#include <unikit/platform/kvm/guest/guest.h>
#include <unikit/rt/format.h>
#include <unikit/rt/x86_64/cpu.h>

extern uintptr_t __stack_chk_guard;
__attribute__((used)) uintptr_t __stack_chk_guard;
_Noreturn void __stack_chk_fail(void);

static runtime_environment_t *env;
static const char *argument; /* behind the verb */

static const uint32_t constant = 7;
static uint8_t data_code[] = {0xc3};

void kit_panic(const char *message)
{
    env->panic_handler(env, message);
    for (;;)
        ;
}

__attribute__((used)) void __stack_chk_fail(void)
{
    kit_panic("a stack frame was overwritten");
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

static uint64_t number(void)
{
    uint64_t value = 0;
    while (*argument >= '0' && *argument <= '9')
        value = value * 10 + (uint64_t)(*argument++ - '0');
    while (*argument == ' ')
        argument++;
    return value;
}

/* ---- the environment ------------------------------------------------------------------------- */

static int do_exit(void)
{
    env->exit(env, (int32_t)(uint32_t)number());
    return 1;
}

static int do_return(void)
{
    return (int)number();
}

static int do_facts(void)
{
    uint64_t words[4] = {0, 0, 0, 0};
    char here = 0;
    int rc = env->entropy(env, words, sizeof words);
    say("heap %p %lu\nstack %p\n", env->memory.base_address, (unsigned long)env->memory.size,
        (void *)&here);
    say("guard %lx\nrandom %d %lx %lx\n", (unsigned long)__stack_chk_guard, rc,
        (unsigned long)words[0], (unsigned long)words[3]);
    say("platform %s cpus %u features %lx\n", env->platform, env->cpus,
        (unsigned long)env->cpu_features);
    const char *value = env->boot_option(env, "a.b");
    say("option %s %s\n", value ? value : "-", env->boot_option(env, "a") ? "wrong" : "none");
    say("network %d\n", env->network != NULL);
    return 0;
}

static int do_clock(void)
{
    uint64_t last = env->now_ns(env), back = 0;
    for (unsigned i = 0; i < 1000000; i++) {
        uint64_t now = env->now_ns(env);
        back += now < last;
        last = now;
    }
    say("back %lu\nwall %lu\nnow %lu\n", (unsigned long)back, (unsigned long)env->wall_ns(env),
        (unsigned long)env->now_ns(env));
    return 0;
}

/* Sleeps `count` times for `us` and says how late it woke, median and worst. */
static int do_sleep(void)
{
    uint64_t us = number(), count = number(), worst = 0, sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t deadline = env->now_ns(env) + us * 1000;
        while (env->now_ns(env) < deadline)
            env->wait(env, deadline, 0);
        uint64_t late = env->now_ns(env) - deadline;
        worst = late > worst ? late : worst;
        sum += late;
    }
    say("late %lu %lu\n", (unsigned long)(sum / count), (unsigned long)worst);
    return 0;
}

static int do_output(void)
{
    static char block[5000];
    uint64_t left = number(), lost = 0;
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i % 64 == 63 ? '\n' : 'a' + i % 26);
    while (left > 0) {
        size_t part = left < sizeof block ? left : sizeof block;
        lost += part - env->console->write(env->console, block, part);
        left -= part;
    }
    return lost == 0 ? 0 : 1;
}

/* Echoes input until a line «end». */
static int do_echo(void)
{
    char buffer[100];
    uint64_t total = 0;
    for (;;) {
        size_t length = env->console->read(env->console, buffer, sizeof buffer);
        for (size_t i = 0; i < length; i++)
            if (buffer[i] == '!') {
                say("[%lu]", (unsigned long)total);
                return 0;
            }
        total += length;
        if (length == 0)
            env->wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
        else
            env->console->write(env->console, buffer, length);
    }
}

static int do_idle(void)
{
    say("idle\n");
    for (;;)
        env->wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
}

static int do_spin(void)
{
    say("spin\n");
    for (;;)
        kit_cpu_pause();
}

/* Counts out of the component as which an upcall counts, and returns from it. */
__asm__(".text\n"
        "probe_upcall:\n"
        "    movl $0, %gs:4\n"
        "    popfq\n"
        "    ret $128\n");
void probe_upcall(void);

/* So many upcalls, in a loop that keeps a sum in registers. */
static int do_upcalls(void)
{
    volatile struct kit_cpu *here = kit_cpu_here();
    uint64_t wanted = number(), sum = 0, rounds = 0;
    here->upcall = probe_upcall;
    here->inside = 0;
    if (env->cpu_slice(env, 1) != 0)
        return 1;
    for (; here->upcalls < wanted; rounds++) {
        for (uint64_t i = 0; i < 1000; i++) {
            sum += i;
            __asm__ volatile("" : "+r"(sum));
        }
    }
    here->inside = 1;
    env->cpu_slice(env, KIT_NEVER);
    say("upcalls %u sum %s\n", here->upcalls, sum == rounds * 499500 ? "right" : "wrong");
    return 0;
}

/* Asks for upcalls at one address, with the stack pointer at another, for 20 ms. */
static int do_upcall_wild(void)
{
    volatile struct kit_cpu *here = kit_cpu_here();
    uint64_t upcall = number(), stack = number(), end = env->now_ns(env) + 20 * KIT_NS_PER_MS;
    here->upcall = upcall == 1 ? probe_upcall : (void (*)(void))upcall;
    here->inside = 0;
    env->cpu_slice(env, 1);
    while (env->now_ns(env) < end) {
        uint64_t turns = 1 << 20, saved;
        __asm__ volatile("mov %%rsp, %1\n\t"
                         "test %2, %2\n\t"
                         "jz 1f\n\t"
                         "mov %2, %%rsp\n"
                         "1: dec %0\n\t"
                         "jnz 1b\n\t"
                         "mov %1, %%rsp"
                         : "+r"(turns), "=&r"(saved)
                         : "r"(stack));
    }
    here->inside = 1;
    say("upcalls %u due %u\n", here->upcalls, here->due);
    return 0;
}

static int do_fill(void)
{
    volatile uint8_t *heap = env->memory.base_address;
    for (uint64_t i = 0; i < env->memory.size; i += 4096) {
        if (heap[i] != 0)
            return 1;
        heap[i] = 1;
    }
    heap[env->memory.size - 1] = 1;
    say("filled\n");
    return 0;
}

static int do_release(void)
{
    uint8_t *heap = env->memory.base_address;
    size_t size = env->memory.size / 2 / 4096 * 4096;
    memset(heap, 0xaa, size + 4096);
    say("full\n");
    env->wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
    env->console->read(env->console, (char *)heap, 1);
    if (env->page_release(env, heap, size) != 0 || heap[0] != 0 || heap[size - 1] != 0 ||
        heap[size] != 0xaa)
        return 1;
    int odd = env->page_release(env, heap + 1, 4096);
    int far = env->page_release(env, heap, env->memory.size + 4096);
    int low = env->page_release(env, (void *)0x100000, 4096);
    say("refused %d %d %d\n", odd, far, low);
    while (env->console->read(env->console, (char *)heap, 1) == 0)
        env->wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
    return 0;
}

/* protect ACCESS OFFSET SIZE VERB: changes the access, then 1 reads, 2 writes, 3 restores and
 * writes. */
static int do_protect(void)
{
    uint32_t access = (uint32_t)number();
    uint64_t offset = number(), size = number(), verb = number();
    volatile uint8_t *at = (uint8_t *)env->memory.base_address + offset;
    at[-1] = 1;
    at[0] = 5;
    at[size] = 1;
    int rc = env->page_protect(env, (void *)(uintptr_t)at, size, access);
    say("protect %d\n", rc);
    if (rc != 0)
        return 1;
    at[-1] = 2; /* the neighbours stay as they were */
    at[size] = 2;
    if (verb == 1)
        return at[0] == 5 ? 0 : 2;
    if (verb == 3 && env->page_protect(env, (void *)(uintptr_t)at, size, 3) != 0)
        return 3;
    at[0] = 6;
    return at[0] == 6 ? 0 : 2;
}

static int do_panic(void)
{
    kit_panic(*argument ? argument : "on purpose");
}

static __attribute__((noinline)) void overrun(volatile char *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        from[i] = 'x';
}

static __attribute__((noinline)) int do_smash(void)
{
    char small[16];
    overrun(small, 64);
    return small[3];
}

/* ---- against the seal ---------------------------------------------------------------------------
 */

static int do_write_text(void)
{
    *(volatile uint8_t *)(uintptr_t)do_write_text = 0xc3;
    return 0;
}

static int do_write_constant(void)
{
    *(volatile uint32_t *)(uintptr_t)&constant = 8;
    return 0;
}

static int run_at(const void *code)
{
    void (*call)(void);
    memcpy(&call, &code, sizeof call);
    call();
    return 0;
}

static int do_run_data(void)
{
    return run_at(data_code);
}

static int do_run_stack(void)
{
    volatile uint8_t code[8] = {0xc3};
    return run_at((const void *)(uintptr_t)code);
}

static int do_run_heap(void)
{
    *(uint8_t *)env->memory.base_address = 0xc3;
    return run_at(env->memory.base_address);
}

static int do_null(void)
{
    return *(volatile int *)(uintptr_t)kit_cpu_opaque(16);
}

static int do_jump_null(void)
{
    return run_at((const void *)kit_cpu_opaque(0));
}

static __attribute__((noinline)) uint64_t deeper(volatile uint64_t *outer)
{
    volatile uint64_t here[64];
    here[0] = *outer + 1;
    return deeper(here) + here[0];
}

static int do_overflow(void)
{
    volatile uint64_t start = 0;
    return (int)deeper(&start);
}

static int do_peek_tables(void)
{
    const struct kit_kvm_boot *boot = kit_kvm_guest.boot;
    return *(volatile int *)(uintptr_t)(boot->stack_base - 8);
}

static int do_write_boot(void)
{
    ((volatile struct kit_kvm_boot *)(uintptr_t)kit_kvm_guest.boot)->cpus = 2;
    return 0;
}

static int do_behind_queues(void)
{
    const struct kit_kvm_queue *last = &kit_kvm_guest.boot->queue[KIT_KVM_CONSOLE_RX];
    uintptr_t end = (last->buffers + (uint64_t)last->size * last->buffer_size + 4095) & ~4095ul;
    return *(volatile int *)end;
}

static int do_beyond(void)
{
    return *(volatile int *)(uintptr_t)(KIT_KVM_MEMORY + kit_kvm_guest.boot->memory_size + 4096);
}

static int do_divide(void)
{
    volatile int zero = 0;
    int result;
    __asm__ volatile("cltd; idivl %1" : "=a"(result) : "m"(zero), "a"(1) : "edx");
    return result;
}

static int do_undefined(void)
{
    __builtin_trap();
}

static int do_privileged(void)
{
    __asm__ volatile("cli");
    return 0;
}

static int do_syscall(void)
{
    uint64_t result = 39;
    __asm__ volatile("syscall" : "+a"(result)::"rcx", "r11", "memory");
    return 0;
}

static int do_port(void)
{
    __asm__ volatile("outb %%al, $0xf2" ::"a"(0));
    return 0;
}

static int do_halt(void)
{
    __asm__ volatile("hlt");
    return 0;
}

static int do_interrupt(void)
{
    __asm__ volatile("int $0x40");
    return 0;
}

static int do_canonical(void)
{
    return *(volatile int *)(uintptr_t)kit_cpu_opaque(UINT64_C(0x8000000000000000));
}

/* ---- against the monitor ------------------------------------------------------------------------
 */

static int do_bell(void)
{
    kvm_bell((enum kit_kvm_bell)number(), 0);
    return 0;
}

static int do_bell_load(void)
{
    return *(volatile int *)KIT_KVM_DOORBELL;
}

static int do_bell_byte(void)
{
    *(volatile uint8_t *)(KIT_KVM_DOORBELL + 16) = 0;
    return 0;
}

static int do_bell_odd(void)
{
    *(volatile uint32_t *)(KIT_KVM_DOORBELL + 18) = 0;
    return 0;
}

static int do_bell_wide(void)
{
    *(volatile uint64_t *)(KIT_KVM_DOORBELL + 16) = 0;
    return 0;
}

static int do_bad_page_call(void)
{
    kit_kvm_guest.shared->first.call.page_call = 9;
    kvm_bell(KIT_KVM_PAGES, 0);
    return 0;
}

/* ring FIELD VALUE [rx]: spoils one field of the console's queue and kicks. */
static int do_ring(void)
{
    uint64_t field = number(), value = number();
    struct kvm_queue *queue =
        *argument == 'r' ? &kit_kvm_guest.console_rx : &kit_kvm_guest.console_tx;
    uint16_t slot = (uint16_t)(queue->next & (queue->size - 1));
    queue->desc[slot].address = (uintptr_t) "fine\n";
    queue->desc[slot].length = 5;
    queue->desc[slot].flags = queue == &kit_kvm_guest.console_rx ? KIT_VQ_DESC_WRITE : 0;
    queue->avail->ring[slot] = slot;
    uint16_t index = (uint16_t)(queue->next + 1);
    switch (field) {
    case 0:
        index = (uint16_t)value;
        break;
    case 1:
        queue->avail->ring[slot] = (uint16_t)value;
        break;
    case 2:
        queue->desc[slot].address = value;
        break;
    case 3:
        queue->desc[slot].length = (uint32_t)value;
        break;
    case 4:
        queue->desc[slot].flags = (uint16_t)value;
        break;
    case 5: /* the page tables are no memory of the image */
        queue->desc[slot].address = kit_kvm_guest.boot->stack_base - 4096;
        break;
    default: /* input must go to a device buffer, not over the code */
        for (unsigned i = 0; i < queue->size; i++)
            queue->desc[i].address = KIT_KVM_MEMORY;
        say("ready\n");
        env->wait(env, KIT_NEVER, KIT_WAKE_CONSOLE);
        return 0;
    }
    queue->avail->index = index;
    kvm_bell(KIT_KVM_KICK, 0);
    return 0;
}

static int do_bad_panic(void)
{
    kit_kvm_guest.shared->first.call.message = number();
    kit_kvm_guest.shared->first.call.message_length = UINT64_MAX;
    kvm_bell(KIT_KVM_PANIC, 0);
    return 0;
}

/* ---- network
 * ------------------------------------------------------------------------------------- */

/* Sends every received frame back with its addresses swapped; a frame that starts its payload with
 * «end» ends it. */
static int do_reflect(void)
{
    uint8_t(*memory)[2048] = env->memory.base_address;
    struct kit_frame frames[32];
    network_interface_t *network = env->network;
    say("mac %02x mtu %u\n", network->mac[5], network->mtu);
    for (;;) {
        for (unsigned i = 0; i < 32; i++)
            frames[i] = (struct kit_frame){.data = memory[i], .capacity = sizeof *memory};
        int count = network->receive_batch(network, frames, 32);
        for (int i = 0; i < count; i++) {
            uint8_t *frame = frames[i].data;
            if (memcmp(frame + 14, "end", 3) == 0)
                return 0;
            memcpy(frame, frame + 6, 6);
            memcpy(frame + 6, network->mac, 6);
        }
        for (int sent = 0; sent < count;) {
            int rc = network->send_batch(network, frames + sent, (size_t)(count - sent));
            sent += rc > 0 ? rc : 0;
        }
        if (count == 0)
            env->wait(env, KIT_NEVER, KIT_WAKE_NETWORK);
    }
}

/* Answers ARP and ICMP echo requests for any address, for real pings. */
static int do_ping(void)
{
    uint8_t(*memory)[2048] = env->memory.base_address;
    struct kit_frame frames[32];
    network_interface_t *network = env->network;
    say("ready\n");
    for (;;) {
        for (unsigned i = 0; i < 32; i++)
            frames[i] = (struct kit_frame){.data = memory[i], .capacity = sizeof *memory};
        int count = network->receive_batch(network, frames, 32);
        for (int i = 0; i < count; i++) {
            uint8_t *f = frames[i].data, swap[4];
            const bool arp = f[12] == 8 && f[13] == 6 && f[21] == 1;
            const bool echo = f[12] == 8 && f[13] == 0 && f[23] == 1 && f[34] == 8;
            if (!arp && !echo)
                continue;
            memcpy(f, f + 6, 6);
            memcpy(f + 6, network->mac, 6);
            if (arp) {
                f[21] = 2;
                memcpy(swap, f + 38, 4);
                memcpy(f + 32, f + 22, 10);
                memcpy(f + 22, network->mac, 6);
                memcpy(f + 28, swap, 4);
            } else {
                memcpy(swap, f + 26, 4);
                memcpy(f + 26, f + 30, 4);
                memcpy(f + 30, swap, 4);
                f[34] = 0; /* type 8 to 0 adds 0x0800 to the checksum */
                unsigned sum = (unsigned)(f[36] << 8 | f[37]) + 0x800;
                sum = (sum & 0xffff) + (sum >> 16);
                f[36] = (uint8_t)(sum >> 8);
                f[37] = (uint8_t)sum;
            }
            network->send_batch(network, &frames[i], 1);
        }
        if (count == 0)
            env->wait(env, KIT_NEVER, KIT_WAKE_NETWORK);
    }
}

/* Sends `count` frames of `length` bytes without being asked. */
static int do_flood(void)
{
    static uint8_t frame[1514];
    network_interface_t *network = env->network;
    uint64_t count = number(), length = number(), waits = 0;
    memset(frame, 0xff, 6);
    memcpy(frame + 6, network->mac, 6);
    frame[12] = 0x88, frame[13] = 0xb5;
    for (uint64_t i = 0; i < count;) {
        memcpy(frame + 14, &i, 8);
        int rc = network->send_packet(network, frame, length);
        if (rc == 0)
            i++;
        else if (rc == KIT_EAGAIN && ++waits)
            env->wait(env, env->now_ns(env) + 100000, 0);
        else
            return -rc;
    }
    say("too long %d too short %d\n", network->send_packet(network, frame, 1600),
        network->send_packet(network, frame, 13));
    say("configure %d %d\n", network->configure(network, "10.0.0.2", "255.255.255.0"),
        network->configure(network, "10.0.0.256", "255.255.255.0"));
    return 0;
}

/* One frame, then computing without any call for a while, then time asked: the frame must go. */
static int do_busy(void)
{
    static uint8_t frame[64];
    network_interface_t *network = env->network;
    memcpy(frame + 6, network->mac, 6);
    network->send_packet(network, frame, sizeof frame);
    for (;;)
        env->now_ns(env);
}

/* Never sleeps: frames must still come in. */
static int do_poll(void)
{
    static uint8_t frame[2048];
    network_interface_t *network = env->network;
    say("polling\n");
    while (network->receive_packet(network, frame, sizeof frame) <= 0)
        kit_cpu_pause();
    say("got it\n");
    return 0;
}

static int do_net_ring(void)
{
    struct kvm_queue *queue = &kit_kvm_guest.net_tx;
    queue->desc[0].address = number();
    queue->desc[0].length = (uint32_t)number();
    queue->desc[0].flags = 0;
    queue->avail->ring[0] = 0;
    queue->avail->index = 1;
    kvm_bell(KIT_KVM_KICK, 0);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} verbs[] = {
    {"exit", do_exit},
    {"return", do_return},
    {"facts", do_facts},
    {"clock", do_clock},
    {"sleep", do_sleep},
    {"output", do_output},
    {"echo", do_echo},
    {"idle", do_idle},
    {"spin", do_spin},
    {"upcalls", do_upcalls},
    {"upcall-wild", do_upcall_wild},
    {"fill", do_fill},
    {"release", do_release},
    {"protect", do_protect},
    {"panic", do_panic},
    {"smash", do_smash},
    {"write-text", do_write_text},
    {"write-constant", do_write_constant},
    {"run-data", do_run_data},
    {"run-stack", do_run_stack},
    {"run-heap", do_run_heap},
    {"null", do_null},
    {"jump-null", do_jump_null},
    {"overflow", do_overflow},
    {"peek-tables", do_peek_tables},
    {"write-boot", do_write_boot},
    {"behind-queues", do_behind_queues},
    {"beyond", do_beyond},
    {"divide", do_divide},
    {"undefined", do_undefined},
    {"privileged", do_privileged},
    {"syscall", do_syscall},
    {"port", do_port},
    {"halt", do_halt},
    {"interrupt", do_interrupt},
    {"canonical", do_canonical},
    {"bell", do_bell},
    {"bell-load", do_bell_load},
    {"bell-byte", do_bell_byte},
    {"bell-odd", do_bell_odd},
    {"bell-wide", do_bell_wide},
    {"bad-page-call", do_bad_page_call},
    {"bad-panic", do_bad_panic},
    {"ring", do_ring},
    {"reflect", do_reflect},
    {"ping", do_ping},
    {"flood", do_flood},
    {"busy", do_busy},
    {"poll", do_poll},
    {"net-ring", do_net_ring},
};

int unikernel_main(runtime_environment_t *environment)
{
    env = environment;
    argument = env->boot_option(env, "");
    if (argument == NULL)
        argument = "";
    size_t length = 0;
    while (argument[length] != '\0' && argument[length] != ' ')
        length++;
    const char *verb = argument;
    argument += length + (argument[length] == ' ');
    for (size_t i = 0; i < KIT_ARRAY_SIZE(verbs); i++)
        if (strlen(verbs[i].name) == length && memcmp(verbs[i].name, verb, length) == 0)
            return verbs[i].run();
    say("hello\n");
    return 0;
}
