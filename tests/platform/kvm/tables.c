/* SPDX-License-Identifier: MIT */
/* Layouts and page tables of many guests, looked at the way a processor does.
 *
 *     tables SEED ROUNDS
 *
 * For random images and memory sizes: every address translates to itself or not at all, no page is
 * writable and executable, tables, system page and fault stack cannot be reached at CPL 3, what
 * must be mapped is. Then pages are protected at random and compared with a plain array. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unikit/platform/kvm/vmm/internal.h>

enum { NONE = 0, READ = 1, WRITE = 2, EXECUTE = 4, KERNEL = 8 };

static uint64_t state;

static uint64_t below(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

static void fail(const char *what, uint64_t address)
{
    fprintf(stderr, "%s at %#llx\n", what, (unsigned long long)address);
    abort();
}

void kit_panic(const char *message)
{
    fail(message, 0);
    abort();
}

static uint64_t entry(const struct vmm_memory *m, uint64_t table, uint64_t index)
{
    const void *at = vmm_memory_any(m, table, 4096);
    const struct kit_kvm_layout *l = &m->layout;
    const bool fixed = table >= l->tables && table < l->tables + l->tables_size;
    const bool late = table >= l->reserve && table < l->reserve + l->reserve_size;
    if (at == NULL || !(fixed || late))
        fail("a table outside the tables", table);
    uint64_t word;
    memcpy(&word, (const uint8_t *)at + 8 * index, 8);
    return word;
}

/* What CPL 3 may do at an address, by walking the tables (AMD64 APM volume 2, 5.3). */
static unsigned access_at(const struct vmm_memory *m, uint64_t address)
{
    uint64_t table = m->layout.tables, all = ~UINT64_C(0), any = 0;
    for (int level = 3;; level--) {
        uint64_t e = entry(m, table, address >> (12 + 9 * level) & 511);
        if (!(e & 1))
            return NONE;
        all &= e;
        any |= e;
        const bool leaf = level == 0 || (e & 0x80);
        uint64_t base = e & UINT64_C(0x000ffffffffff000);
        if (!leaf) {
            table = base;
            continue;
        }
        const uint64_t mask = (UINT64_C(4096) << (9 * level)) - 1;
        if (base + (address & mask) != address)
            fail("a page is not where it should be", address);
        const bool no_execute = any >> 63;
        return (all & 4 ? READ : KERNEL) | (all & 2 ? WRITE : 0) | (no_execute ? 0 : EXECUTE);
    }
}

static void expect(const struct vmm_memory *m, uint64_t from, uint64_t to, unsigned access)
{
    uint64_t step = to - from > (UINT64_C(64) << 20) ? 61 * VMM_PAGE : VMM_PAGE;
    for (uint64_t at = from; at < to; at += step)
        if (access_at(m, at) != access)
            fail("wrong access", at);
    if (to > from && access_at(m, to - 1) != access)
        fail("wrong access", to - 1);
}

static void check(const struct vmm_memory *m, const struct kit_kvm_config *config)
{
    const struct kit_kvm_layout *l = &m->layout;
    expect(m, 0, KIT_KVM_DOORBELL, NONE);
    expect(m, KIT_KVM_DOORBELL, KIT_KVM_MEMORY, READ | WRITE);
    uint64_t end = KIT_KVM_MEMORY;
    for (size_t i = 0; i < config->segment_count; i++) {
        const struct kit_kvm_segment *s = &config->segments[i];
        expect(m, end, s->address / VMM_PAGE * VMM_PAGE, NONE);
        end = (s->address + s->size + VMM_PAGE - 1) / VMM_PAGE * VMM_PAGE;
        expect(m, s->address / VMM_PAGE * VMM_PAGE, end,
               READ | (s->access & KIT_KVM_WRITABLE ? WRITE : 0) |
                   (s->access & KIT_KVM_EXECUTABLE ? EXECUTE : 0));
    }
    expect(m, l->tables, l->stack_base, NONE);
    expect(m, l->stack_base, l->system, READ | WRITE);
    expect(m, l->system, l->boot, KERNEL | EXECUTE);
    expect(m, l->boot, l->shared, READ);
    expect(m, l->shared, l->devices_end, READ | WRITE);
    expect(m, l->fault_stack, l->fault_stack + VMM_PAGE, KERNEL | WRITE);
    expect(m, l->fault_stack + VMM_PAGE, l->heap_base, NONE);
    expect(m, l->heap_base, l->heap_base + l->heap_size, READ | WRITE);
    expect(m, l->heap_base + l->heap_size, KIT_KVM_MEMORY + l->memory_size + 4 * VMM_HUGE, NONE);
    for (uint32_t i = 0; i < (config->cpus < 1 ? 1 : config->cpus); i++) {
        const uint64_t tss = vmm_tss(l, i), cpu = vmm_processor(l, i);
        if (tss < l->system || tss + 0x68 > l->boot || tss / VMM_PAGE != (tss + 0x67) / VMM_PAGE)
            fail("a bad task state", tss);
        if (cpu < l->shared || cpu + sizeof(struct kit_kvm_cpu) > l->devices_end || cpu % 8 != 0)
            fail("a bad place of a processor", cpu);
    }
    if (l->stack_top > l->system || l->stack_top < l->system - l->stack_size / 4 ||
        l->stack_top % 16 != 0)
        fail("a bad stack", l->stack_top);
}

static void protect(struct vmm_memory *m)
{
    const struct kit_kvm_layout *l = &m->layout;
    const uint64_t pages = l->heap_size / VMM_PAGE;
    uint8_t *model = malloc(pages);
    uint64_t used = 0;
    if (model == NULL)
        fail("no memory", 0);
    memset(model, READ | WRITE, pages);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t from = below(pages), count = 1 + below(below(2) ? 8 : pages - from);
        if (below(3) == 0) /* whole large pages too */
            from = from / 512 * 512, count = (count + 511) / 512 * 512;
        count = count > pages - from ? pages - from : count;
        const unsigned rights[] = {NONE, READ, READ | WRITE};
        const unsigned right = rights[below(3)];
        const int rc =
            vmm_pages_protect(m, l->heap_base + from * VMM_PAGE, count * VMM_PAGE, right, &used);
        if (rc != 0)
            fail("protect refused", from);
        memset(model + from, (int)right, count);
    }
    if (used > l->reserve_size)
        fail("the reserve is used up", used);
    for (uint64_t i = 0; i < pages; i++)
        if (access_at(m, l->heap_base + i * VMM_PAGE) != model[i])
            fail("wrong access after protect", l->heap_base + i * VMM_PAGE);
    free(model);
    const uint64_t bad[][2] = {{l->heap_base, 0},
                               {l->heap_base + 1, VMM_PAGE},
                               {l->heap_base - VMM_PAGE, VMM_PAGE},
                               {l->heap_base, l->heap_size + VMM_PAGE},
                               {l->heap_base + l->heap_size, VMM_PAGE},
                               {l->tables, VMM_PAGE},
                               {UINT64_MAX - 4095, VMM_PAGE},
                               {l->heap_base, UINT64_MAX - 4095}};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(bad); i++)
        if (vmm_pages_protect(m, bad[i][0], bad[i][1], KIT_PAGE_READ, &used) != KIT_EINVAL ||
            vmm_pages_release(m, bad[i][0], bad[i][1]) != KIT_EINVAL)
            fail("a range outside the heap was taken", bad[i][0]);
    if (vmm_pages_protect(m, l->heap_base, VMM_PAGE, KIT_PAGE_WRITE, &used) != KIT_EINVAL ||
        vmm_pages_protect(m, l->heap_base, VMM_PAGE, 4, &used) != KIT_EINVAL)
        fail("an access that is none was taken", l->heap_base);
}

static uint64_t random_memory(void)
{
    const uint64_t sizes[] = {128 << 10, 1 << 20, 2 << 20, 3 << 20, 4 << 20, 16 << 20, 64 << 20};
    uint64_t size = sizes[below(KIT_ARRAY_SIZE(sizes))] + below(3) * VMM_PAGE + below(4096);
    if (below(4) == 0)
        size = below(96 << 20);
    if (below(40) == 0)
        size = (UINT64_C(1) << 30) + below(UINT64_C(6) << 30);
    return size;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "usage: tables SEED ROUNDS\n"), 2;
    state = strtoull(argv[1], NULL, 0) * 2654435761u + 88172645463325252u;
    uint64_t rounds = strtoull(argv[2], NULL, 0), refused_count = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        const uint64_t scale = below(5) == 0 ? 4 << 20 : 40000;
        const uint64_t text = KIT_KVM_MEMORY + below(2) * 0x120, text_size = 1 + below(scale);
        const uint64_t data = (text + text_size + 2 * VMM_PAGE) / VMM_PAGE * VMM_PAGE + below(4096);
        const struct kit_kvm_segment segments[] = {
            {text, NULL, text_size, text_size, KIT_KVM_EXECUTABLE},
            {data, NULL, 0, 1 + below(scale), KIT_KVM_WRITABLE}};
        struct kit_host_netif netif = {.network.mtu = (uint16_t)(68 + below(9000))};
        const struct kit_kvm_config config = {.segments = segments,
                                              .segment_count = 2,
                                              .entry = text,
                                              .memory = random_memory(),
                                              .netif = below(2) ? &netif : NULL,
                                              .cpus = (uint32_t)(below(2) * below(65))};
        struct vmm_memory memory = {0};
        struct kit_kvm_queue queues[KIT_KVM_QUEUES];
        struct kit_kvm_refused refused = {0};
        if (vmm_layout(&config, below(UINT64_MAX), &memory.layout, queues, &refused) != 0) {
            if (refused.needed == 0 || refused.needed < config.memory / VMM_PAGE * VMM_PAGE)
                fail("refused although there is enough", config.memory);
            refused_count++;
            continue;
        }
        memory.host = mmap(NULL, memory.layout.memory_size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory.host == MAP_FAILED)
            fail("no memory", config.memory);
        vmm_tables_build(&memory, &config);
        check(&memory, &config);
        if (memory.layout.memory_size < UINT64_C(200) << 20)
            protect(&memory);
        munmap(memory.host, memory.layout.memory_size);
    }
    printf("%llu layouts, %llu refused\n", (unsigned long long)rounds,
           (unsigned long long)refused_count);
    return 0;
}
