/* SPDX-License-Identifier: MIT */
/* Drives the monitor's device code with hostile queues, under AddressSanitizer and UBSan.
 *
 *     ring SEED ROUNDS
 *
 * Each round spoils the queues of a guest (indices, ids, lengths, addresses, flags: mostly values
 * near what is valid, sometimes anything) and lets the console and the network device work on
 * them; a third of the rounds another thread scribbles over them meanwhile, so that a value read
 * twice is found out. Guest memory is one heap block, so any access outside it is caught, and all
 * of it that is no device buffer is compared afterwards: a device that writes page tables, code or
 * heap of the guest has lost. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unikit/platform/kvm/vmm/internal.h>

static uint64_t state;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t limit)
{
    return next() % limit;
}

void kit_panic(const char *message)
{
    fprintf(stderr, "panic: %s\n", message);
    abort();
}

/* ---- an interface that touches every byte it is given ---------------------------------------- */

static volatile uint8_t sink;

static int fake_send(network_interface_t *network, const struct kit_frame *frames, size_t count)
{
    (void)network;
    size_t taken = below(count + 1);
    for (size_t i = 0; i < taken; i++)
        for (uint32_t k = 0; k < frames[i].length; k++)
            sink = (uint8_t)(sink ^ frames[i].data[k]);
    switch (below(8)) {
    case 0:
        return KIT_EAGAIN;
    case 1:
        return KIT_EMSGSIZE;
    default:
        return (int)taken;
    }
}

static int fake_receive(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    (void)network;
    size_t filled = below(4) == 0 ? 0 : below(count + 1);
    for (size_t i = 0; i < filled; i++) {
        frames[i].length = (uint32_t)(14 + below(frames[i].capacity - 13));
        memset(frames[i].data, 0xee, frames[i].length);
    }
    return (int)filled;
}

static struct kit_host_netif netif = {
    .network = {.send_batch = fake_send, .receive_batch = fake_receive, .mtu = 1500},
    .fd = -1,
};

/* ---- the guest
 * ------------------------------------------------------------------------------------ */

static struct vmm_memory memory;
static struct kit_kvm_queue queues[KIT_KVM_QUEUES];
static struct vmm_console console;
static struct vmm_net net;
static uint64_t moved;
static uint64_t evil; /* one thing in so many is wrong this round */

/* A number near something that means something to the device. */
static uint64_t address(void)
{
    const struct kit_kvm_layout *l = &memory.layout;
    const uint64_t places[] = {0,
                               KIT_KVM_DOORBELL,
                               KIT_KVM_MEMORY,
                               l->image_end,
                               l->tables,
                               l->stack_base,
                               l->system,
                               l->boot,
                               l->shared,
                               l->devices_end,
                               l->heap_base,
                               KIT_KVM_MEMORY + l->memory_size,
                               UINT64_MAX,
                               queues[KIT_KVM_NET_RX].buffers,
                               queues[KIT_KVM_NET_TX].buffers};
    uint64_t place = places[below(KIT_ARRAY_SIZE(places))];
    return below(16) == 0 ? next() : place + below(8192) - 4096;
}

static uint32_t length(void)
{
    const uint32_t lengths[] = {0, 11, 12, 25, 26, 64, 1526, 1536, 1537, 4096, UINT32_MAX};
    return below(8) == 0 ? (uint32_t)next() : lengths[below(KIT_ARRAY_SIZE(lengths))];
}

static void spoil_descriptor(const struct kit_kvm_queue *place, uint32_t slot, bool writes)
{
    struct kit_vq_desc *desc = vmm_memory_any(&memory, place->desc, 16 * place->size);
    desc += slot;
    desc->address = place->buffers + (uint64_t)slot * place->buffer_size;
    desc->length = place->buffer_size;
    desc->flags = writes ? KIT_VQ_DESC_WRITE : 0;
    if (place->buffers == 0) {
        desc->address = memory.layout.heap_base;
        desc->length = (uint32_t)below(5000);
    } else if (!writes) {
        struct kit_virtio_net_header *header =
            vmm_memory_any(&memory, desc->address, place->buffer_size);
        memset(header, 0, sizeof *header);
        if (below(evil) == 0)
            header->flags = (uint8_t)next();
        header->checksum_start = (uint16_t)next();
        header->checksum_offset = (uint16_t)next();
    }
    switch (below(evil)) {
    case 0:
        desc->address = address();
        break;
    case 1:
        desc->length = length();
        break;
    case 2:
        desc->flags = (uint16_t)next();
        break;
    case 3:
        desc->address = address();
        desc->length = length();
        break;
    default:
        break;
    }
}

static void spoil(const struct vmm_queue *queue, const struct kit_kvm_queue *place, bool writes)
{
    struct kit_vq_avail *avail = vmm_memory_any(&memory, place->avail, 6 + 2 * place->size);
    uint16_t fill = (uint16_t)below(place->size + 1);
    for (uint16_t i = 0; i < fill; i++) {
        uint16_t at = (uint16_t)(queue->completed + i);
        uint16_t slot = (uint16_t)(at & (place->size - 1));
        spoil_descriptor(place, slot, writes);
        avail->ring[slot] = below(evil) == 0 ? (uint16_t)next() : slot;
    }
    uint16_t ahead = (uint16_t)(queue->next - queue->completed);
    avail->index = (uint16_t)(queue->completed + (fill > ahead ? fill : ahead));
    if (below(evil) == 0)
        avail->index = (uint16_t)next();
}

static void open_queues(void)
{
    uint8_t *shared = vmm_memory_any(&memory, memory.layout.shared, VMM_PAGE);
    memset(shared, 0, memory.layout.devices_end - memory.layout.shared);
    vmm_queue_open(&console.tx, &memory, "console tx", &queues[KIT_KVM_CONSOLE_TX], false);
    vmm_queue_open(&console.rx, &memory, "console rx", &queues[KIT_KVM_CONSOLE_RX], true);
    memset(&net, 0, sizeof net);
    vmm_net_open(&net, &memory, &netif, queues);
}

static uint32_t scribbling;

static void *scribble(void *argument)
{
    uint64_t local = *(uint64_t *)argument | 1;
    volatile uint16_t *words = vmm_memory_any(&memory, memory.layout.shared,
                                              memory.layout.devices_end - memory.layout.shared);
    const uint64_t count = (queues[KIT_KVM_NET_TX].buffers - memory.layout.shared) / 2;
    while (__atomic_load_n(&scribbling, __ATOMIC_ACQUIRE)) {
        local = local * 6364136223846793005u + 1442695040888963407u;
        words[(local >> 33) % count] = (uint16_t)(local >> 17 & (local >> 60 ? 0x1f : 0xffff));
    }
    return NULL;
}

/* Lets the devices work; whether the guest broke a contract. */
static bool work(void)
{
    struct vmm_fault fault = {""};
    console.input_written += below(100);
    if (console.input_written - console.input_read > VMM_INPUT)
        console.input_written = console.input_read + VMM_INPUT;
    bool broke = vmm_console_drain(&console, &fault) < 0;
    broke |= vmm_console_feed(&console, &fault) < 0;
    for (unsigned i = 0; i < 3; i++)
        broke |= vmm_net_service(&net, &fault) < 0;
    console.read = console.written;
    moved += net.sent + net.received;
    net.sent = net.received = 0;
    if (broke && fault.text[0] == '\0')
        kit_panic("a fault without words");
    return broke;
}

static void set_up(void)
{
    static const uint8_t code[4096] = {0xc3};
    static const struct kit_kvm_segment segments[] = {
        {KIT_KVM_MEMORY, code, sizeof code, 4096, KIT_KVM_EXECUTABLE},
        {KIT_KVM_MEMORY + 4096, code, sizeof code, 8192, KIT_KVM_WRITABLE}};
    const struct kit_kvm_config config = {.segments = segments,
                                          .segment_count = 2,
                                          .entry = KIT_KVM_MEMORY,
                                          .memory = 1 << 20,
                                          .netif = &netif};
    struct kit_kvm_refused refused;
    if (vmm_layout(&config, next(), &memory.layout, queues, &refused) != 0)
        kit_panic(refused.text);
    memory.host = calloc(1, memory.layout.memory_size);
    if (memory.host == NULL || vmm_console_open(&console) != 0)
        kit_panic("no memory");
    vmm_tables_build(&memory, &config);
    console.hurry = true;
    open_queues();
}

/* Everything but the shared page, queues and buffers. */
static bool same(const uint8_t *copy)
{
    const uint64_t from = memory.layout.shared - KIT_KVM_MEMORY;
    const uint64_t to = memory.layout.devices_end - KIT_KVM_MEMORY;
    return memcmp(memory.host, copy, from) == 0 &&
           memcmp(memory.host + to, copy + to, memory.layout.memory_size - to) == 0;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "usage: ring SEED ROUNDS\n"), 2;
    state = strtoull(argv[1], NULL, 0) * 2654435761u + 88172645463325252u;
    uint64_t rounds = strtoull(argv[2], NULL, 0), broken = 0;
    set_up();
    uint8_t *copy = malloc(memory.layout.memory_size);
    if (copy == NULL)
        kit_panic("no memory");
    memcpy(copy, memory.host, memory.layout.memory_size);
    for (uint64_t i = 0; i < rounds; i++) {
        pthread_t thread;
        uint64_t seed = next();
        const bool race = i % 3 == 0 && i % 30 < 9;
        evil = below(2) == 0 ? 1000000 : 4 + below(200);
        spoil(&console.tx, &queues[KIT_KVM_CONSOLE_TX], false);
        spoil(&console.rx, &queues[KIT_KVM_CONSOLE_RX], true);
        spoil(&net.tx, &queues[KIT_KVM_NET_TX], false);
        spoil(&net.rx, &queues[KIT_KVM_NET_RX], true);
        if (race) {
            __atomic_store_n(&scribbling, 1, __ATOMIC_RELEASE);
            if (pthread_create(&thread, NULL, scribble, &seed) != 0)
                kit_panic("no thread");
        }
        bool broke = false;
        for (unsigned k = 0; k < (race ? 50u : 1u) && !broke; k++)
            broke = work();
        if (race) {
            __atomic_store_n(&scribbling, 0, __ATOMIC_RELEASE);
            pthread_join(thread, NULL);
        }
        broken += broke;
        if (broke || race)
            open_queues();
        if ((i % 64 == 0 || i + 1 == rounds) && !same(copy))
            kit_panic("a device wrote memory that is no device buffer");
    }
    printf("%llu rounds, %llu broken contracts, %llu frames moved\n", (unsigned long long)rounds,
           (unsigned long long)broken, (unsigned long long)moved);
    vmm_console_close(&console);
    free(memory.host);
    free(copy);
    return 0;
}
