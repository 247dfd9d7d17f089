/* SPDX-License-Identifier: MIT */
/* A transfer from one stack to another over a cable with faults, in virtual time. Arguments: seed,
 * bytes, delay each way in us, drops, duplicates, reorderings per 10000, then the sender's options,
 * then the receiver's. Prints how long it took and what the sender counted, «name value» per line.
 * Time passes as fast as frames do at 1 Gb/s. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unikit/net/net.h>
#include <unikit/testing/wire.h>

extern const struct kit_net_component SENDER;
extern const struct kit_net_component RECEIVER;

enum { SLOTS = 1 << 15, TICK_NS = 12000 };

static struct kit_virtual host;
static struct kit_wire wire;
static struct kit_net *nets[2];
static uint64_t total, sent, received, wrong;
static struct kit_tcp *sending;
static int error;

static void *heap_alloc(struct kit_alloc *a, size_t size, size_t align)
{
    (void)a, (void)align;
    return malloc(size);
}

static void heap_free(struct kit_alloc *a, void *block, size_t size, size_t align)
{
    (void)a, (void)size, (void)align;
    free(block);
}

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 131 + (at >> 8) * 7 + (at >> 16));
}

static void feed(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    uint8_t block[16384];
    (void)argument;
    if ((events & KIT_NET_ERROR) != 0) {
        struct kit_tcp_info info;
        kit_net_tcp_info(tcp, &info);
        error = info.error;
        return;
    }
    int taken = 1;
    while (sent < total && taken > 0) {
        size_t length = total - sent < sizeof block ? (size_t)(total - sent) : sizeof block;
        for (size_t i = 0; i < length; i++)
            block[i] = byte_at(sent + i);
        taken = kit_net_tcp_send(tcp, block, length);
        sent += taken > 0 ? (uint64_t)taken : 0;
    }
}

static void drain(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    const uint8_t *data;
    int ready;
    (void)argument, (void)events;
    while ((ready = kit_net_tcp_peek(tcp, (const void **)&data)) > 0) {
        for (int i = 0; i < ready; i++)
            wrong += data[i] != byte_at(received + (uint64_t)i);
        received += (uint64_t)ready;
        kit_net_tcp_consume(tcp, (size_t)ready);
    }
}

static void on_accept(void *argument, struct kit_tcp *listener, uint32_t events)
{
    struct kit_tcp *tcp;
    (void)argument, (void)events;
    while ((tcp = kit_net_tcp_accept(listener)) != NULL) {
        kit_net_tcp_set_callback(tcp, drain, NULL);
        drain(NULL, tcp, 0);
    }
}

static int open_stack(unsigned which, const struct kit_net_component *component,
                      const uint64_t *options, struct kit_alloc *alloc)
{
    struct kit_address address = {.family = 4, .bytes = {10, 0, 0, (uint8_t)(which + 1)}};
    int rc = component->open(options, &host.env, &wire.ends[which].network, alloc, &nets[which]);
    return rc != 0 ? rc : kit_net_configure(nets[which], &address, 24, NULL);
}

static void step(void)
{
    uint64_t next = kit_wire_deadline_ns(&wire);
    bool busy = false;
    for (unsigned i = 0; i < 2; i++) {
        busy |= kit_net_poll(nets[i]);
        uint64_t deadline = kit_net_deadline_ns(nets[i]);
        next = deadline < next ? deadline : next;
    }
    uint64_t now = host.clock_ns;
    kit_virtual_advance(&host, busy || next <= now + TICK_NS ? TICK_NS : next - now);
}

static void report(uint64_t start)
{
    struct kit_net_stats stats;
    struct kit_tcp_info info;
    const char *name;
    uint64_t value;
    kit_net_stats(nets[0], &stats);
    kit_net_tcp_info(sending, &info);
    printf("us %llu\nreceived %llu\nwrong %llu\nerror %d\nretransmits %llu\nframes %llu\n",
           (unsigned long long)((host.clock_ns - start) / 1000), (unsigned long long)received,
           (unsigned long long)wrong, error, (unsigned long long)stats.retransmits,
           (unsigned long long)stats.frames_out);
    printf("cwnd %u\nsrtt_us %u\n", info.cwnd, info.srtt_us);
    for (uint32_t i = 0; kit_net_counter(nets[0], i, &name, &value) == 0; i++)
        printf("%s %llu\n", name, (unsigned long long)value);
}

int main(int argc, char **argv)
{
    static const struct kit_alloc_ops ops = {.alloc = heap_alloc, .free = heap_free};
    struct kit_alloc alloc = {&ops};
    struct kit_tcp *listener;
    struct kit_address to = {.family = 4, .port = 80, .bytes = {10, 0, 0, 2}};
    uint64_t options[2][16] = {{0}}, words[7] = {1, 1 << 20, 100, 0, 0, 0, 0};
    for (int i = 1; i < argc && i <= 6; i++)
        words[i - 1] = strtoull(argv[i], NULL, 0);
    for (int i = 7; i < argc && i < 7 + 32; i++)
        options[(i - 7) / 16][(i - 7) % 16] = strtoull(argv[i], NULL, 0);
    kit_virtual_open(&host, NULL, 0, words[0]);
    host.clock_ns = KIT_NS_PER_S;
    if (kit_wire_open(&wire, &host, &alloc, SLOTS, words[0]) != 0 ||
        open_stack(0, &SENDER, options[0], &alloc) != 0 ||
        open_stack(1, &RECEIVER, options[1], &alloc) != 0)
        return 2;
    wire.faults.delay_ns = words[2] * 1000;
    total = words[1];
    uint64_t start = host.clock_ns, end = start + 3600 * KIT_NS_PER_S;
    if (kit_net_tcp_listen(nets[1], 80, 4, on_accept, NULL, &listener) != 0 ||
        kit_net_tcp_connect(nets[0], &to, feed, NULL, &sending) != 0)
        return 2;
    while (received == 0 && error == 0 && host.clock_ns < end)
        step(); /* opening is not what is measured */
    wire.faults.drop = (uint32_t)words[3];
    wire.faults.duplicate = (uint32_t)words[4];
    wire.faults.reorder = (uint32_t)words[5];
    for (uint64_t i = 0; received < total && error == 0 && host.clock_ns < end; i++) {
        step();
        if (i % 64 == 0 && (kit_net_check(nets[0]) != 0 || kit_net_check(nets[1]) != 0))
            return 3;
    }
    report(start);
    for (unsigned i = 0; i < 2; i++) {
        if (kit_net_check(nets[i]) != 0)
            return 3;
        kit_net_close(nets[i]);
    }
    kit_wire_close(&wire);
    return received != total || wrong != 0;
}
